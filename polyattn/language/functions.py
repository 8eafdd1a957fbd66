"""The table of functions: one row for each. Adding a function is adding a row.

A row is text only, so that the language needs neither torch nor numpy: `value` and `derivative` are expressions in the
language itself, of the argument `s`; stages that evaluate, differentiate or prove read them there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from polyattn.errors import SpecError

ENTRYWISE, KEEPING, REDUCING = "entrywise", "keeping", "reducing"
Kind = Literal["entrywise", "keeping", "reducing"]
ARGUMENT, RESULT = "argument", "result"


@dataclass(frozen=True)
class Function:
    """One function of the language.

    Attributes:
        name: its name in a text.
        kind: entry by entry; along indices that it keeps; along indices that it uses up.
        torch: the dotted name of torch's function; its axes follow the tensor. "" for a function without one.
        derivative: of a function entry by entry, in the language, with `s` for the argument.
        reads: the tensor that its vector-Jacobian product reads besides the gradient: the result where that is enough,
            since it is mostly kept as an operand of the next product.
        domain: where it is defined, of the argument `s`; "" everywhere.
        law: the same function in terms of others, wherever it is defined; "" for a function that the proofs take
            as it is.
        latex, mathml: the sign in mathematics where it is not the name.
        legacy: known before functions were factors: as a whole right-hand side it sums indices of one factor inside,
            and its name is reserved.
        internal: comes from derivatives and quotients; a text may use it as well.
    """

    name: str
    kind: Kind
    torch: str
    derivative: str = ""
    reads: str = ARGUMENT
    domain: str = ""
    law: str = ""
    latex: str = ""
    mathml: str = ""
    legacy: bool = False
    internal: bool = False


_ROWS = (
    Function("softmax", KEEPING, "torch.softmax", reads=RESULT, law="exp(s)/sum(exp(s))", legacy=True),
    Function("normalize", KEEPING, "", legacy=True),
    Function("max", REDUCING, "torch.amax", legacy=True),
    Function("min", REDUCING, "torch.amin", law="-max(-s)"),
    Function("mean", REDUCING, "", legacy=True),
    Function("sum", REDUCING, ""),
    Function("logsumexp", REDUCING, "torch.logsumexp", law="log(sum(exp(s)))"),
    Function(
        "relu", ENTRYWISE, "torch.relu", "step(s)", RESULT, latex=r"\operatorname{ReLU}", mathml="ReLU", legacy=True
    ),
    Function(
        "sigmoid",
        ENTRYWISE,
        "torch.sigmoid",
        "sigmoid(s) - sigmoid(s)*sigmoid(s)",
        RESULT,
        law="1/(1 + exp(-s))",
        latex=r"\sigma",
        mathml="σ",
        legacy=True,
    ),
    Function("exp", ENTRYWISE, "torch.exp", "exp(s)", RESULT, latex=r"\exp"),
    Function("log", ENTRYWISE, "torch.log", "1/(s)", domain="s > 0", latex=r"\log"),
    Function("sqrt", ENTRYWISE, "torch.sqrt", "1/2/sqrt(s)", RESULT, domain="s >= 0"),
    Function("abs", ENTRYWISE, "torch.abs", "step(s) - step(-s)", law="relu(s) + relu(-s)"),
    Function(
        "tanh", ENTRYWISE, "torch.tanh", "1 - tanh(s)*tanh(s)", RESULT, law="2/(1 + exp(-2*s)) - 1", latex=r"\tanh"
    ),
    Function(
        "silu",
        ENTRYWISE,
        "torch.nn.functional.silu",
        "sigmoid(s) + s*sigmoid(s) - s*sigmoid(s)*sigmoid(s)",
        law="s/(1 + exp(-s))",
        latex=r"\operatorname{SiLU}",
        mathml="SiLU",
    ),
    Function(
        "gelu",
        ENTRYWISE,
        "torch.nn.functional.gelu",
        "normal_cdf(s) + s*normal_pdf(s)",
        law="s*normal_cdf(s)",
        latex=r"\operatorname{GELU}",
        mathml="GELU",
    ),
    Function(
        "gelu_tanh",
        ENTRYWISE,
        "",
        "gelu_gate(s) + 4*normal_pdf(0)*(s + 0.134145*s*s*s)*(gelu_gate(s) - gelu_gate(s)*gelu_gate(s))",
        law="s*gelu_gate(s)",
    ),
    Function("softplus", ENTRYWISE, "torch.nn.functional.softplus", "sigmoid(s)", law="log(1 + exp(s))"),
    Function("elu", ENTRYWISE, "torch.nn.functional.elu", "exp(-relu(-s))", law="relu(s) + exp(-relu(-s)) - 1"),
    Function("sin", ENTRYWISE, "torch.sin", "cos(s)", latex=r"\sin"),
    Function("cos", ENTRYWISE, "torch.cos", "-sin(s)", latex=r"\cos"),
    # What derivatives and quotients are made of.
    Function("reciprocal", ENTRYWISE, "torch.reciprocal", "-1/(s)/(s)", RESULT, domain="s != 0", internal=True),
    Function("step", ENTRYWISE, "", "0*s", internal=True),
    Function("normal_cdf", ENTRYWISE, "torch.special.ndtr", "normal_pdf(s)", internal=True),
    Function("normal_pdf", ENTRYWISE, "", "-s*normal_pdf(s)", internal=True),
    Function(
        "gelu_gate",
        ENTRYWISE,
        "",
        "4*normal_pdf(0)*(1 + 0.134145*s*s)*(gelu_gate(s) - gelu_gate(s)*gelu_gate(s))",
        law="1/(1 + exp(-4*normal_pdf(0)*(s + 0.044715*s*s*s)))",
        internal=True,
    ),
    Function("largest", KEEPING, "", internal=True),
)

TABLE: Mapping[str, Function] = {row.name: row for row in _ROWS}
"""Every function by its name."""

SUMS = ("sum", "mean")
"""The functions that are sums: the algebra expands them."""

RESERVED = tuple(row.name for row in _ROWS if row.legacy)
"""Names that no tensor may have; names of the other functions may, as in texts older than these functions."""

RECIPROCAL = "reciprocal"


def kind(name: str) -> Kind:
    """Return a function's kind; functions outside the table are the user's own, entry by entry."""
    return TABLE[name].kind if name in TABLE else ENTRYWISE


def reads(name: str) -> str:
    """Return the tensor that a function's vector-Jacobian product reads, besides the gradient."""
    return TABLE[name].reads if name in TABLE else ARGUMENT


def nearest(name: str, more: tuple[str, ...] = ()) -> str:
    """Return the names of functions like this one, or else all of them, as text."""
    known = [row.name for row in _ROWS if not row.internal] + list(more)
    found = get_close_matches(name, known, 3, 0.6)
    return f"did you mean {' or '.join(found)}?" if found else f"there are {', '.join(known)}"


def check_given(declared: tuple[str, ...], given: Mapping[str, object]) -> None:
    """Raise a SpecError unless there is a callable for each declared function, and for no other."""
    for name in declared:
        if name not in given:
            raise SpecError(f"`functions` lacks '{name}': give functions={{{name!r}: f}}, f a function of a tensor")
    for name, function in given.items():
        if name not in declared:
            have = ", ".join(declared) or "none"
            raise SpecError(f"`functions` has {name!r}, but the specification declares {have}: leave it out")
        if not callable(function):
            raise SpecError(f"`functions[{name!r}]` is {function!r}, not callable: give a function of a tensor")
