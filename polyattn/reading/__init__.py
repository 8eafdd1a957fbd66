"""Stage 7, reading: code in torch to its equation.

Input: a module, or a function of tensors, and an example of its arguments. Output: a `Reading`, with a `Spec`, the
sizes and the parameters behind its names. Guarantees: the equation has the code's values at the example (it is
evaluated and compared); operations without a meaning in the language are cut, and named with their line; the module is
left as it was. `prove` and `plan` take an equation or code; no torch is imported for equations.
"""

from typing import TYPE_CHECKING

from polyattn.lazy import attach

__all__ = ["Cut", "Reading", "plan", "prove", "read"]

if TYPE_CHECKING:
    from polyattn.reading.asking import plan
    from polyattn.reading.deciding import prove
    from polyattn.reading.reader import Cut
    from polyattn.reading.reading import Reading, read

__getattr__, __dir__ = attach(
    __name__,
    {
        "Cut": "reader",
        "Reading": "reading",
        "plan": "asking",
        "prove": "deciding",
        "read": "reading",
    },
)
