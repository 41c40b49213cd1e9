"""Kinds of models that can read an item, one file each; `find.py` picks the one for a model."""
