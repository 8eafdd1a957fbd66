"""Stage 2, algebra: `Spec` to `Polynomial` in canonical form, and the explicit interaction tensor.

Input: a checked specification. Output: a sum of monomials in its inputs, parameters and functions, each up to
renaming of summed indices, equal ones collected; and from it derivatives, substitutions, and W. Guarantees:
two polynomials compare equal exactly if they are equal at every size, functions being opaque. Exact arithmetic
throughout; imports numpy and sympy, not torch.
"""

from typing import TYPE_CHECKING

from polyattn.algebra.monomial import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.algebra.polynomial import Polynomial, Signature
from polyattn.algebra.spec import Spec
from polyattn.lazy import attach

if TYPE_CHECKING:
    from polyattn.algebra.action import TensorStructure, apply_interaction, structure, symmetrise
    from polyattn.algebra.core import NL_PATTERN, ChannelCore

_ORIGINS = {
    "NL_PATTERN": "core",
    "ChannelCore": "core",
    "TensorStructure": "action",
    "apply_interaction": "action",
    "structure": "action",
    "symmetrise": "action",
}
"""The modules of explicit tensors need numpy, which a specification does not."""

__all__ = [
    "NL_PATTERN",
    "ChannelCore",
    "FunctionFactor",
    "Index",
    "Monomial",
    "Polynomial",
    "Signature",
    "Spec",
    "TensorFactor",
    "TensorStructure",
    "apply_interaction",
    "structure",
    "symmetrise",
]

__getattr__, __dir__ = attach(__name__, _ORIGINS)
