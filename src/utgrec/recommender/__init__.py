"""Codes of a history → codes of the next item: vocabulary, samples, model, training.

Nothing is imported here, so that the command line starts without torch. `utgrec.load` is the public
way in.
"""
