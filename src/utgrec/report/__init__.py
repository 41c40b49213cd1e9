"""One HTML file that tells everything about a run, a comparison or a domain, to keep or send."""

from utgrec.report.card import write_card
from utgrec.report.comparison import write_comparison
from utgrec.report.write import write_report

__all__ = ["write_card", "write_comparison", "write_report"]
