"""A report on a reconstruction: one HTML file that needs nothing else, to look at, to send, and to keep."""

from ddf_tomo.report.write import write_report

__all__ = ["write_report"]
