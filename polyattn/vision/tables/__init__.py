"""The papers' tables of networks, beside the counts of this library: `polyattn tables`."""

from polyattn.vision.tables.compare import Compared, compare
from polyattn.vision.tables.count import Count, count
from polyattn.vision.tables.rows import Row, Table, paper_tables
from polyattn.vision.tables.show import print_tables

__all__ = ["Compared", "Count", "Row", "Table", "compare", "count", "paper_tables", "print_tables"]
