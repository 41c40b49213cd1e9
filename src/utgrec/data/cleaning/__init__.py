"""What is wrong with a domain's data, counted; and a cleaned domain, if one is asked for."""

from utgrec.data.cleaning.clean import CleanOptions, clean_domain
from utgrec.data.cleaning.findings import Findings, find

__all__ = ["CleanOptions", "Findings", "clean_domain", "find"]
