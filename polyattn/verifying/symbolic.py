"""The symbolic level: the graphs on symbols, against the explicit interaction tensor applied to symbols."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from polyattn.algebra.tensor import Place, Product, interaction_terms
from polyattn.errors import BudgetError
from polyattn.proving.evaluation import Arithmetic, Point, evaluate
from polyattn.verifying.symbols import DEFAULT_BUDGET, MAX_DEGREE, Number, Ring, Symbolic, symbolic, whole
from polyattn.verifying.verification import Verification
from polyattn.verifying.verify_target import BATCH, Subject

Terms = list[tuple[Place, tuple[Place, ...], Mapping[Product, Fraction]]]
"""The entries of interaction tensors: the place in the output, those in the x's, and the entry."""


def check_symbolic(subject: Subject, budget: int | None) -> Verification:
    """Check a subject on symbols; see `verify`."""
    subject.require_polynomial("symbolic")
    _require_degree(subject)
    ring = Ring(DEFAULT_BUDGET if budget is None else budget)
    tensors = subject.fill(ring.symbols)
    output = _definition(subject, ring, tensors)  # first: it knows beforehand whether it is too large
    want = {subject.spec.output: output}
    if subject.derivative:
        want |= {name: _vector_jacobian(subject, ring, output, t, tensors) for t, name in subject.gradients.items()}
    have = subject.run(tensors, Arithmetic(object, ring.number, ring.settled))
    have = [
        (p, r if isinstance(r, str) else {n: _every(ring, np.asarray(a, dtype=object)) for n, a in r.items()})
        for p, r in have
    ]
    checks = subject.compare(
        have,
        want,
        lambda a, b: a.nonzero() != b.nonzero(),
        lambda array: f"{sum(len(entry.nonzero()) for entry in array.flat)} monomials in all",
    )
    return Verification(
        "symbolic",
        str(subject.spec),
        tuple(sorted(subject.sizes.items())),
        subject.words,
        f"on symbols, a batch of {BATCH}, against {_method(subject)}, coefficient for coefficient",
        checks,
    )


def _method(subject: Subject) -> str:
    definition = "the expanded sum of products"
    if len(subject.spec.inputs) == 1:
        (shape,) = subject.spec.inputs.values()
        outer = len(subject.spec.output_shape)
        orders = sorted({outer + len(shape) * d for d in subject.spec.polynomial().degrees})
        definition = f"the explicit interaction tensor of order {' and '.join(map(str, orders)) or 0}"
    return f"{definition} and its formal derivatives" if subject.derivative else definition


def _require_degree(subject: Subject) -> None:
    degree = max((len(t.factors) for t in subject.spec.expansion().terms), default=0)
    # One below the limit: the gradient's seed is one more factor.
    if degree >= MAX_DEGREE:
        raise BudgetError(f"the symbolic check handles at most {MAX_DEGREE - 1} factors in a product, not {degree}")


def _every(ring: Ring, array: np.ndarray) -> np.ndarray:
    """Return the array with every entry in the ring; numpy fills in bare numbers."""
    result = np.empty(array.shape, dtype=object)
    for place, value in np.ndenumerate(array):
        result[place] = symbolic(ring, value)
    return result


def _definition(subject: Subject, ring: Ring, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the output by definition, with one axis per slot."""
    # Several inputs have no interaction tensor; the expanded sum takes its place.
    if len(subject.spec.inputs) > 1:
        return np.stack([_expanded(subject, ring, sample) for sample in subject.samples(tensors)])
    terms = _interactions(subject)
    # The products below bypass the ring's multiplication, so they are counted here.
    ring.affords(BATCH * sum(len(entry) for _, _, entry in terms))
    ring.settled(np.empty(0))
    return np.stack([_applied(subject, ring, terms, sample) for sample in subject.samples(tensors)])


def _expanded(subject: Subject, ring: Ring, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    expansion = subject.spec.expansion()
    arithmetic = Arithmetic(object, ring.number, ring.settled)
    value = evaluate(expansion.terms, expansion.output, Point(subject.sizes, tensors), arithmetic)
    return _every(ring, value.reshape(subject.shape(subject.spec.output)))


def _interactions(subject: Subject) -> Terms:
    spec, terms = subject.spec, []
    ((x, shape),) = spec.inputs.items()
    outer, axes, expansion = len(spec.output_shape), len(shape), spec.expansion()
    for degree in sorted({term.degree_in([x]) for term in expansion.terms}):
        starts = range(outer, outer + axes * degree, axes)
        for place, entry in interaction_terms(spec, expansion, subject.sizes, degree).items():
            terms.append((place[:outer], tuple(place[k : k + axes] for k in starts), entry))
    return terms


def _applied(subject: Subject, ring: Ring, terms: Terms, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Apply `(((W • X) • X) • X)` to the symbols of a sample: every product is one monomial."""
    (x,) = subject.spec.inputs
    units = {
        name: {place: _unit(value) for place, value in np.ndenumerate(tensors[name].reshape(subject.shape(name)))}
        for name in subject.tensors
    }
    totals: dict[Place, dict[int, Number]] = {place: {} for place in np.ndindex(*subject.shape(subject.spec.output))}
    for place, at, entry in terms:
        total, inputs = totals[place], sum(units[x][k] for k in at)
        for parameters, coefficient in entry.items():
            # A product of symbols is the sum of their integers.
            monomial = inputs + sum(units[name][k] for name, k in parameters)
            total[monomial] = total.get(monomial, 0) + whole(coefficient)
    result = np.empty(subject.shape(subject.spec.output), dtype=object)
    for place, total in totals.items():
        result[place] = Symbolic(ring, total)
    return result


def _unit(value: Symbolic) -> int:
    (unit,) = value.terms
    return unit


def _vector_jacobian(
    subject: Subject, ring: Ring, output: np.ndarray, tensor: str, tensors: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Sum, over the output, its gradient's symbols times the formal derivative by each entry of a tensor."""
    dy, symbols = tensors[subject.plan.seed], tensors[tensor]
    result = np.empty(symbols.shape, dtype=object)
    for place, symbol in np.ndenumerate(symbols):
        # A parameter is shared by all samples; an input's entry belongs to one.
        samples = slice(None) if tensor in subject.spec.parameters else slice(place[0], place[0] + 1)
        total = Symbolic(ring, {})
        for entry, seed in zip(output[samples].flat, dy[samples].flat, strict=True):
            total = total + entry.derivative(symbol) * seed
        result[place] = total
        ring.settled(result)
    return result
