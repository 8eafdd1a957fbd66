"""Stage 8, optimising: a model's own code replaced by what is proved equal and costs less.

Input: a model and an example of its arguments, or a graph of `torch.compile`. Output: the model with regions of its
forward passes on their plans, and an `Optimised` with a price before and after and a certificate for each. Guarantees:
a region is replaced only where the planned code's own equation was proved equal to that of the code as it was and the
calibrated roofline prices it lower; parameters, buffers, names and hooks stay; `undo` restores the model.
"""

from typing import TYPE_CHECKING

from polyattn.lazy import attach

__all__ = ["Optimised", "Price", "Replacement", "optimise"]

if TYPE_CHECKING:
    from polyattn.optimising.models import optimise
    from polyattn.optimising.pricing import Price
    from polyattn.optimising.report import Optimised, Replacement

__getattr__, __dir__ = attach(
    __name__,
    {"Optimised": "report", "Price": "pricing", "Replacement": "report", "optimise": "models"},
)
