"""Invariants of an equation: degree, symmetries, equivariance, invariances, ranks and the order of cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations
from typing import Any

from polyattn import proving
from polyattn.algebra import FunctionFactor, Monomial, Polynomial, Spec, TensorFactor
from polyattn.algebra.monomial import map_tensors
from polyattn.errors import PolyattnError
from polyattn.language.syntax import (
    IDENTITY,
    Access,
    Call,
    Definition,
    Number,
    Slot,
    Statements,
    Sum,
    Term,
)
from polyattn.relating.exponents import Exponent, exponents
from polyattn.relating.ranks import rank_bounds
from polyattn.relating.relate import specification
from polyattn.relating.sides import tensors_of, with_accesses

HIGHEST = 6
"""The highest power of a scale that is tried for a layer with functions."""


@dataclass(frozen=True)
class Invariants:
    """Properties of a layer that are computed from its canonical form, proofs and plans.

    Attributes:
        degrees: the degrees of its terms in the inputs; a function of them counts as one factor.
        swaps: pairs of inputs' places, numbered from 1 in the order of the canonical form, under whose exchange the
            interaction tensor stays the same; for layers of one degree without functions.
        exchanges: the same if parameters change places too: each pair with the parameters' new names.
        equivariant: axes of the inputs under whose permutation the output is permuted with them.
        rotations: sizes along which the layer is the same after a rotation of all channels that the weights follow.
        homogeneous: k if scaling the inputs by any s > 0 scales the output by s^k; None if no k was proved.
        shifts: inputs and intermediates to which any vector may be added, the same at each place of the first axis.
        ranks: for each unfolding of the interaction tensor, products of sizes that its rank is at most.
        exponents: for each size the smallest power in the multiply-accumulates of all plans found, with the plan.
    """

    degrees: tuple[int, ...]
    swaps: tuple[tuple[int, int], ...]
    exchanges: Mapping[tuple[int, int], Mapping[str, str]] = field(hash=False)
    equivariant: tuple[str, ...]
    rotations: tuple[str, ...]
    homogeneous: int | None
    shifts: tuple[str, ...]
    ranks: Mapping[str, tuple[str, ...]] = field(hash=False)
    exponents: Mapping[str, Exponent] = field(hash=False)

    @property
    def degree(self) -> int:
        """Return the largest degree of a term in the inputs."""
        return max(self.degrees, default=0)

    def data(self) -> dict[str, Any]:
        """Return the invariants for JSON."""
        return {
            "degrees": list(self.degrees),
            "swaps": [list(pair) for pair in self.swaps],
            "exchanges": [{"swap": list(pair), "parameters": dict(names)} for pair, names in self.exchanges.items()],
            "equivariant": list(self.equivariant),
            "rotations": list(self.rotations),
            "homogeneous": self.homogeneous,
            "shifts": list(self.shifts),
            "ranks": {unfolding: list(bounds) for unfolding, bounds in self.ranks.items()},
            "exponents": {size: e.power for size, e in self.exponents.items()},
        }

    def __str__(self) -> str:
        swaps = [f"x{i} with x{j}" for i, j in self.swaps]
        swaps += [
            f"x{i} with x{j} if {', '.join(f'{a} = {b}' for a, b in n.items())}" for (i, j), n in self.exchanges.items()
        ]
        needs = " ".join(f"{size}^{e.power}" for size, e in self.exponents.items())
        lines = {
            "degree": ", ".join(map(str, self.degrees)),
            "symmetric in": "; ".join(swaps),
            "equivariant": ", ".join(self.equivariant),
            "rotations of": ", ".join(self.rotations),
            "scales with": "" if self.homogeneous is None else f"s^{self.homogeneous}",
            "shifts of": ", ".join(self.shifts),
            "needs": needs,
        }
        for unfolding, bounds in self.ranks.items():
            lines[f"rank {unfolding}"] = f"at most {' and '.join(bounds)}"
        return "\n".join(f"{name:<13} {value or 'none'}" for name, value in lines.items())


def invariants(
    spec: Any, *, args: Any = None, kwargs: Mapping[str, Any] | None = None, names: Any = None
) -> Invariants:
    """Return properties of a layer that follow from its equation.

    Args:
        spec: a specification, a text, a name of the catalogue, a polynomial, or code.
        args, kwargs, names: for code, as for `polyattn.prove`.

    Raises:
        SpecError: a text is wrong.
        ReadingError: code cannot be read, or `args` is missing.
        BudgetError: the expansion is too large.

    >>> found = invariants("x[N,C]; y[a,b] = x[a,c]*x[e,c]*x[e,b]")
    >>> found.degree, found.equivariant, found.rotations, found.homogeneous
    (3, ('N', 'C'), ('C',), 3)
    """
    value = specification(spec, args, kwargs, names)
    polynomial = value.polynomial()
    swaps, exchanges = _swaps(value, polynomial)
    return Invariants(
        polynomial.degrees,
        swaps,
        exchanges,
        _equivariant(value, polynomial),
        _rotations(value, polynomial),
        _homogeneous(value, polynomial),
        _shifts(value),
        rank_bounds(value, polynomial),
        exponents(value),
    )


def _swaps(
    spec: Spec, polynomial: Polynomial
) -> tuple[tuple[tuple[int, int], ...], dict[tuple[int, int], dict[str, str]]]:
    """Return the exchanges of two places of the inputs that leave the tensor the same, and those with parameters."""
    if len(polynomial.degrees) != 1 or not polynomial.is_polynomial or len(spec.inputs) != 1:
        return (), {}
    degree, (name,) = polynomial.degree, spec.inputs
    places = [f"{name}_{k + 1}" for k in range(degree)]
    if {*places, *(f"{p}_" for p in spec.parameters)} & tensors_of(spec):
        return (), {}
    plain = _told_apart(polynomial, name, places, {})
    swaps, exchanges = [], {}
    for i, j in combinations(range(degree), 2):
        moved = list(places)
        moved[i], moved[j] = moved[j], moved[i]
        if _told_apart(polynomial, name, moved, {}) == plain:
            swaps.append((i + 1, j + 1))
            continue
        renamed = _told_apart(polynomial, name, moved, {p: f"{p}_" for p in spec.parameters})
        verdict = proving.prove(renamed, plain, effort=0)
        if verdict:
            names = {old.removesuffix("_"): new for old, new in verdict.renaming.items()}
            exchanges[i + 1, j + 1] = {old: new for old, new in names.items() if old != new}
    return tuple(swaps), exchanges


def _told_apart(polynomial: Polynomial, name: str, places: list[str], names: Mapping[str, str]) -> Polynomial:
    """Return the polynomial with a name of its own for each place of the input: the interaction tensor itself."""
    terms = []
    for term in polynomial.terms:
        rest, factors = iter(places), []
        for factor in term.factors:
            assert isinstance(factor, TensorFactor)
            new = next(rest) if factor.tensor == name else names.get(factor.tensor, factor.tensor)
            factors.append(TensorFactor(new, factor.indices))
        terms.append(Monomial(term.coefficient, term.powers, tuple(factors)))
    signature = polynomial.signature
    shapes = {names.get(t, t): s for t, s in signature.shapes.items() if t != name}
    shapes |= dict.fromkeys(places, signature.shapes[name])
    return Polynomial.of(replace(signature, inputs=tuple(sorted(places)), shapes=shapes), terms)


def _equivariant(spec: Spec, polynomial: Polynomial) -> tuple[str, ...]:
    """Return the axes whose permutation of the inputs is one of the output.

    The permuted equation has every other tensor along that axis permuted, too. It has the same canonical form exactly
    if there is no such tensor: two parameters that may be any are not one.
    """
    found = []
    for size in dict.fromkeys(s for shape in spec.inputs.values() for s in shape):
        atoms = set(polynomial.coarse.signature.sizes.atoms(size))
        fixed: set[str] = set()

        def mark(factor: TensorFactor, atoms: set[str] = atoms, fixed: set[str] = fixed) -> None:
            fixed.update(_marked(factor, atoms, spec))

        for term in polynomial.coarse.terms:
            map_tensors(term, mark)
        if not fixed:
            found.append(size)
    return tuple(found)


def _marked(factor: TensorFactor, atoms: set[str], spec: Spec) -> list[str]:
    """Return the name of a tensor that a permutation along one of the sizes would change."""
    same = factor.tensor in spec.inputs or factor.tensor == IDENTITY
    return [] if same or not any(i.size in atoms for i in factor.indices) else [factor.tensor]


def _rotations(spec: Spec, polynomial: Polynomial) -> tuple[str, ...]:
    """Return the sizes of which each index joins two slots of inputs, parameters and the output: a rotation of all
    slots along it then cancels.
    """
    sizes = dict.fromkeys(shape[-1] for shape in spec.inputs.values() if shape)
    coarse = polynomial.coarse
    found = []
    for size in sizes:
        if size.isdigit() or coarse.signature.sizes.atoms(size) != (size,):
            continue
        if all(_joins_two(t, coarse.signature.output_indices(), size) for t in coarse.terms):
            found.append(size)
    return tuple(found)


def _joins_two(term: Monomial, output: tuple[Any, ...], size: str) -> bool:
    counts: dict[Any, int] = dict.fromkeys((i for i in output if i.size == size), 1)
    for factor in term.factors:
        if isinstance(factor, FunctionFactor):
            # Entry by entry, and where it runs over the size, a function sees the channels themselves.
            if any(i.size == size for i in (*factor.free, *factor.at, *factor.over)):
                return False
            if not all(_joins_two(t, (), size) for t in factor.terms):
                return False
        else:
            for index in factor.indices:
                if index.size == size:
                    counts[index] = counts.get(index, 0) + 1
    return all(n == 2 for n in counts.values())


def _homogeneous(spec: Spec, polynomial: Polynomial) -> int | None:
    """Return the power of s > 0 that the output is multiplied by where the inputs are multiplied by s."""
    if polynomial.is_polynomial:
        return polynomial.degree if len(polynomial.degrees) == 1 else None
    if spec.has_offsets or {SCALE, *(f"{n}_in" for n in (*spec.inputs, spec.output))} & tensors_of(spec):
        return None
    for power in range(HIGHEST + 1):
        try:
            if proving.prove(_scaled(spec, 1, 0), _scaled(spec, 0, power), effort=0):
                return power
        except PolyattnError:  # a text that the language refuses
            return None
    return None


SCALE, SHIFT = "scale_t", "shift_v"
"""Names of new parameters: the scale is the exponential of one, which is positive."""


def _scaled(spec: Spec, inward: int, outward: int) -> Spec:
    """Return a specification with its inputs times the scale to one power, and its output to another."""
    statements = spec.core_statements

    def times(power: int, access: Access) -> Sum:
        scale = Call("exp", (), Sum((Term(False, (Access(SCALE, ()),), (False,)),)))
        # Written out for the power 0 too, so that both sides have the parameter.
        zero = Call("exp", (), Sum((Term(False, (Number(Fraction(0)), Access(SCALE, ())), (False, False)),)))
        factors = (*((scale,) * power or (zero,)), access)
        return Sum((Term(False, factors, (False,) * len(factors)),))

    first = []
    for old in statements.inputs:
        slots = tuple(Slot((f"in{k}",)) for k in range(len(old.sizes)))
        first.append(Definition(Access(old.name, slots), times(inward, Access(f"{old.name}_in", slots))))
    *before, last = statements.definitions
    inner = Access(f"{last.name}_in", last.target.slots)
    definitions = (*first, *before, replace(last, target=inner), Definition(last.target, times(outward, inner)))
    inputs = tuple(replace(i, name=f"{i.name}_in") for i in statements.inputs)
    return Spec(replace(statements, inputs=inputs, definitions=definitions))


def _shifts(spec: Spec) -> tuple[str, ...]:
    """Return the inputs and intermediates to which a vector may be added that is the same along their first axis."""
    if not spec.has_functions or spec.has_offsets or SHIFT in tensors_of(spec):
        return ()
    found = []
    for name in (*spec.inputs, *(d.name for d in spec.core_statements.definitions[:-1])):
        if len(spec.shape(name)) < 2 or f"{name}_in" in tensors_of(spec):
            continue
        try:
            if proving.prove(_shifted(spec.core_statements, name), spec, effort=0):
                found.append(name)
        except PolyattnError:  # a text that the language refuses
            continue
    return tuple(found)


def _shifted(statements: Statements, name: str) -> Spec:
    """Return the statements with a new parameter added to a tensor where it is read."""

    def read(old: Access) -> Access:
        return replace(old, tensor=f"{name}_in") if old.tensor == name else old

    definitions = [replace(d, body=with_accesses(d.body, read)) for d in statements.definitions]
    place = 1 + max((k for k, d in enumerate(definitions) if d.name == name), default=-1)
    shape = (
        next(i.sizes for i in statements.inputs if i.name == name) if not place else definitions[place - 1].target.slots
    )
    slots = tuple(Slot((f"in{k}",)) for k in range(len(shape)))
    plain = Term(False, (Access(name, slots),), (False,))
    vector = Term(False, (Access(SHIFT, slots[1:]),), (False,))
    definitions.insert(place, Definition(Access(f"{name}_in", slots), Sum((plain, vector))))
    return Spec(replace(statements, definitions=tuple(definitions)))
