"""report: one self-contained page about some specifications.

Input: specifications and sizes. Output: HTML with its style and script inside, without requests over the network.
Guarantees: every text in it is escaped, its numbers at the given sizes are the plans' own, and at other sizes the page
evaluates the same symbolic formulas in whole numbers of any length.
"""

from polyattn.study.report.comparison import Comparison, compare
from polyattn.study.report.measurements import Measurements, read_measurements
from polyattn.study.report.page import report, write_report
from polyattn.study.report.section import Section, section

__all__ = ["Comparison", "Measurements", "Section", "compare", "read_measurements", "report", "section", "write_report"]
