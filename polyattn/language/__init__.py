"""Stage 1, language: equation text to `Specification`.

Input: text. Output: an immutable syntax tree that prints back to its text, with the size of every index and
the shape of every tensor resolved, in terms of atomic sizes. What holds afterwards: names, sizes and brackets
are consistent; nothing in the text was ever evaluated as code. Knows no torch, no numpy, no algebra.
"""

from polyattn.language.sizes import Atoms, SizeTable, value_of
from polyattn.language.spec import Specification

__all__ = ["Atoms", "SizeTable", "Specification", "value_of"]
