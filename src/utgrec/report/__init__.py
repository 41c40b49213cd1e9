"""One HTML file that tells everything about a run, to keep, print or send."""

from utgrec.report.write import write_report

__all__ = ["write_report"]
