"""The papers' tables of networks, beside the counts of this library: `polyattn tables`."""

from .compare import Compared, compare
from .count import Count, count
from .rows import Row, Table, paper_tables
from .show import print_tables

__all__ = ["Compared", "Count", "Row", "Table", "compare", "count", "paper_tables", "print_tables"]
