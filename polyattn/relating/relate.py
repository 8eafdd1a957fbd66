"""`relate`: under which conditions one layer is another, searched and proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from polyattn import proving
from polyattn.algebra import Polynomial, Spec
from polyattn.errors import BudgetError, ProofError
from polyattn.language import Specification
from polyattn.proving import Verdict
from polyattn.reading.asking import as_reading, is_code
from polyattn.relating.flattening import flattened
from polyattn.relating.matching import Matcher, SpentSearchError
from polyattn.relating.network import network
from polyattn.relating.relation import Relation
from polyattn.relating.sides import Sides, may_become, renamed, sides
from polyattn.relating.texts import condition

EFFORT = 50_000
"""The number of steps of a search, unless the caller says otherwise."""

MOST_PROOFS = 8
"""The most candidates of one assignment of the inputs that are put to the prover."""


def relate(
    a: Specification | Polynomial | str | Any,
    b: Specification | Polynomial | str | Any,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    names: str | Mapping[Any, str] | None = None,
    effort: int = EFFORT,
) -> Relation:
    """Return conditions under which `a` becomes `b`, searched and proved.

    Conditions are definitions of parameters of `a`: the identity, zero, ones, one of `b`'s parameters, transposed or
    repeated along an index, a product of several, each with a number in front; and equations between sizes: equal, 1,
    or a product. An input may become another, and positions along several axes those along one (`relation.left` has
    them so). Each result is proved by `polyattn.prove`; others may exist where terms of `a` would
    have to merge, or where a law of functions would have to help.

    Args:
        a, b: specifications, polynomials, texts, names of the catalogue, modules, functions of tensors, or readings.
        args, kwargs, names: for code, as for `polyattn.prove`.
        effort: largest number of steps of the search.

    Returns:
        The relation; true only if conditions were found and proved.

    Raises:
        SpecError: a text is wrong.
        ProofError: `effort` is not a positive whole number, or a side is neither an equation nor code.
        ReadingError: code cannot be read, or `args` is missing.
        BudgetError: the expansion is too large.

    >>> relation = relate("nl", "e_nl")
    >>> print(relation)
    the left is the right, proved at every size, if
      wf[c,c1] = wk[c1,r]*wq[c,r]
      wg[c,c1] = 1/N*wo[v,c1]*wv[c,v]
    1 candidates searched
    >>> bool(relate("nl", "poly_nl"))
    False
    """
    if not isinstance(effort, int) or isinstance(effort, bool) or effort < 1:
        raise ProofError(f"`effort` must be a positive number of steps, not {effort!r}")
    first, second = (specification(s, args, kwargs, names) for s in (a, b))
    plain = _as_they_are(first, second)
    if plain:
        texts = tuple(_equation(first, *pair) for pair in plain.renaming.items())
        return Relation(first, second, texts, verdict=plain, searched=1)
    searched, complete = 0, True
    # Positions of several axes are those of one, in the order of their text.
    ways = [way for way in (first, flattened(first, second)) if way is not None and may_become(way, second)]
    for way in ways:
        for found in sides(way, second):
            relation, count, finished = _search(found, way, second, effort)
            searched, complete = searched + count, complete and finished
            if relation is not None:
                return replace(relation, searched=searched, complete=complete)
    return Relation(first, second, searched=searched, complete=complete)


def specification(
    subject: Any,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    names: str | Mapping[Any, str] | None = None,
) -> Spec:
    """Return the specification of a text, a name of the catalogue, a polynomial, or code."""
    if isinstance(subject, str):
        if "[" in subject:
            return Spec(subject)
        from polyattn import catalog

        return catalog.get(subject)
    if isinstance(subject, Spec):
        return subject
    if isinstance(subject, Specification):
        return Spec(subject.statements)
    if isinstance(subject, Polynomial):
        return Spec.of(subject)
    if is_code(subject):
        return as_reading(subject, args, kwargs, names).spec
    raise ProofError(
        f"a side of a relation is a {type(subject).__name__}; a Spec, a Polynomial, a text, a name of the catalogue "
        "or code is expected"
    )


def _as_they_are(a: Spec, b: Spec) -> Verdict | None:
    """Return the proof that the two are equal up to names, or None."""
    # Names are matched one to one: a proof by laws, which may take long, needs as many parameters of each shape.
    if a.inputs != b.inputs or sorted(a.parameters.values()) != sorted(b.parameters.values()):
        return None
    try:
        verdict = proving.prove(a, b, effort=0)
    except (ProofError, BudgetError):  # other inputs, or one name for two shapes
        return None
    return verdict if verdict else None


def _equation(spec: Spec, old: str, new: str) -> str:
    slots = ",".join(f"i{k + 1}" for k in range(len(spec.shape(old))))
    return f"{old}[{slots}] = {new}[{slots}]" if slots else f"{old} = {new}"


def _search(found: Sides, first: Spec, second: Spec, effort: int) -> tuple[Relation | None, int, bool]:
    """Return a proved relation, the number of candidates, and whether the search came to its end."""
    mine, theirs = found.parameters
    back = {new: old for old, new in found.names.sizes.items()}
    matcher = Matcher(network(found.a, mine), network(found.b, theirs), found.shared, back, effort)
    tried = 0
    try:
        for match in matcher.run():
            texts = condition(found, match)
            left = renamed(first, texts.names)
            try:
                verdict = proving.prove(left, second, given=[*texts.given, *texts.sizes], effort=0)
            except (ProofError, BudgetError):  # a text that the language cannot say, such as a clash of names
                verdict = None
            if verdict:
                names = {**texts.names.tensors, **texts.names.sizes}
                inputs = {old: new for old, new in found.inputs.items() if old != new}
                others = {old: new for old, new in names.items() if old not in inputs}
                relation = Relation(left, second, texts.given, texts.sizes, inputs, others, verdict)
                return relation, matcher.searched, True
            tried += 1
            if tried == MOST_PROOFS:
                return None, matcher.searched, False
    except SpentSearchError:
        return None, matcher.searched, False
    return None, matcher.searched, True
