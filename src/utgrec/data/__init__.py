"""Sources → domain folders, and what everything after reads of a domain.

Nothing is imported here: preparing a domain needs polars, training and inference do without it.
"""
