"""One HTML file that tells everything about a run or a comparison, to keep, print or send."""

from utgrec.report.comparison import write_comparison
from utgrec.report.write import write_report

__all__ = ["write_comparison", "write_report"]
