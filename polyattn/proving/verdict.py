"""`Verdict`: the answer of the prover, printed as a readable proof or counterexample."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args

from polyattn import display
from polyattn.errors import ProofError

Status = Literal["equal", "different", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """Answer to the question whether two specifications are the same function at every size.

    True only if they were proved equal, be it up to the names of parameters (`renaming`): a difference and an open
    question are both false.

    Attributes:
        status: "equal", "different" or "undecided".
        left, right: the two texts.
        given: the assumed equations.
        reason: the ground of the answer, in a sentence.
        certificate: for "equal", the data with which `proofs/check.py` checks the proof; see docs.
        renaming: for "equal", the name on the right of each parameter that the left side alone has: the two are equal
            if these are the same tensors. Empty where no parameter is renamed.
        where: for "equal", the conditions under which the functions of both sides are defined, such as
            "z[n] is not 0", where the proof needs them: elsewhere nothing is claimed.
        counterexample: for "different", sizes, integer tensors, an entry of the output, and both values there.
    """

    status: Status
    left: str
    right: str
    given: tuple[str, ...] = ()
    reason: str = ""
    certificate: dict[str, Any] | None = field(default=None, hash=False)
    counterexample: dict[str, Any] | None = field(default=None, hash=False)
    renaming: dict[str, str] = field(default_factory=dict, hash=False)
    where: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.status == "equal"

    def __str__(self) -> str:
        from polyattn.proving.printing import verdict_text

        return verdict_text(self)

    def _repr_html_(self) -> str:
        sides = display.table(("left", "right"), [(self.left, self.right)])
        head, _, rest = str(self).partition("\n")
        return display.heading(head) + display.block(rest) + display.folded("the two texts", sides)

    def to_json(self, indent: int | None = None) -> str:
        """Return the verdict as JSON text; `Verdict.from_json` reads it back."""
        return json.dumps(asdict(self), indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the verdict written by `to_json`.

        Raises:
            ProofError: the text is not a verdict. A certificate in it is not checked: `proofs/check.py` does that.
        """
        try:
            # JSON may repeat a key, and Python would keep the last one: two readers could see two
            # verdicts.
            data = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
        # Deeply nested brackets overflow the parser's stack.
        except (ValueError, RecursionError) as error:
            raise ProofError(f"this is no JSON: {error}") from None
        names = {f.name for f in fields(cls)}
        if isinstance(data, dict):
            data = {"renaming": {}, "where": [], **data}  # of a verdict stored before there were any
        if not isinstance(data, dict) or set(data) != names:
            raise ProofError(f"a verdict is a JSON object with {', '.join(sorted(names))}")
        _check_types(data)
        return cls(**{**data, "given": tuple(data["given"]), "where": tuple(data["where"])})


DOMAINS = {"reciprocal": "is not 0", "log": "is above 0", "sqrt": "is not below 0"}


def conditions(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the conditions of a certificate as text."""
    lines = dict(line.split(" = ", 1) for line in certificate["functions"])
    names = {left.partition("[")[0]: left for left in lines}
    found = []
    for name in certificate.get("where", ()):
        function, _, argument = lines[names[name]].partition("(")
        text, before = argument[:-1], ""
        while text != before:  # functions at the letters of their own lines are written out
            before, text = text, re.sub(r"\b[a-z]\w*(\[[^\]]*\])?", lambda m: lines.get(m[0], m[0]), text)
        text = text if len(text) <= SHOWN else argument[:-1]
        name, _, over = function.partition("[")
        found.append(f"sum[{over}(|{text}|) is not below 1e-12" if name == "normalize" else f"{text} {DOMAINS[name]}")
    return tuple(found)


SHOWN = 200
"""The length up to which a condition is written out."""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("an object has a key twice")
    return dict(pairs)


def _check_types(data: Mapping[str, Any]) -> None:
    if data["status"] not in get_args(Status):
        raise ProofError(f"a verdict's status is one of {', '.join(get_args(Status))}, not {data['status']!r}")
    for name in ("left", "right", "reason"):
        if not isinstance(data[name], str):
            raise ProofError(f"a verdict's {name} is text, not {type(data[name]).__name__}")
    if not isinstance(data["given"], list) or not all(isinstance(g, str) for g in data["given"]):
        raise ProofError("a verdict's given equations are a list of texts")
    if not isinstance(data["where"], list) or not all(isinstance(w, str) for w in data["where"]):
        raise ProofError("a verdict's conditions are a list of texts")
    renaming = data["renaming"]
    if not isinstance(renaming, dict) or not all(isinstance(name, str) for name in renaming.values()):
        raise ProofError("a verdict's renaming is an object of names")
    if renaming and data["status"] != "equal":
        raise ProofError("a verdict has a renaming only if it is 'equal'")
    for name, status in (("certificate", "equal"), ("counterexample", "different")):
        if not isinstance(data[name], dict if data["status"] == status else type(None)):
            raise ProofError(f"a verdict has a {name} exactly if it is {status!r}")
