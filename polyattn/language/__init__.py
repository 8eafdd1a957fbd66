"""Stage 1, language: equation text to `Specification`.

Input: text. Output: an immutable syntax tree with a text form, the size of every index and the shape of every
tensor, in terms of atomic sizes. Guarantees: names, sizes and brackets are consistent; the text was never
evaluated as code. Imports neither torch nor numpy nor the algebra.
"""

from polyattn.language.sizes import Atoms, SizeTable, value_of
from polyattn.language.spec import Specification

__all__ = ["Atoms", "SizeTable", "Specification", "value_of"]
