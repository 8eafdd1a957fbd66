"""`Polynomial`: a specification in canonical form; `==` is equality at every size.

Two polynomials in independent tensors are equal for all sizes exactly if their collected canonical terms are
(docs: the decision theorem). Functions are opaque tensors keyed by their canonical argument. Needless splits of
sizes are undone first (`coarse`), so that `==` is an equivalence relation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from html import escape

from polyattn.algebra.canonical import collect
from polyattn.algebra.coarse import Merging, leaves, undone
from polyattn.algebra.conditions import conditions_in, resized
from polyattn.algebra.derivative import derivatives
from polyattn.algebra.expand import MAX_WORK
from polyattn.algebra.monomial import (
    FunctionFactor,
    Index,
    Monomial,
    TensorFactor,
    map_tensors,
    size_product,
)
from polyattn.algebra.order import denominators, ordered_sizes, split_by_order
from polyattn.display import block
from polyattn.errors import BudgetError, SizeError, SpecError
from polyattn.language import Atoms, SizeTable
from polyattn.language.conditions import AT_MOST, LESS, is_condition, sizes_in
from polyattn.language.names import check_tensor_name
from polyattn.language.sizes import ROOT
from polyattn.language.syntax import IDENTITY, Split, is_fixed


@dataclass(frozen=True)
class Signature:
    """A polynomial's tensors: names and shapes, in atomic sizes per slot."""

    inputs: tuple[str, ...]
    output: str
    output_shape: tuple[Atoms, ...]
    shapes: Mapping[str, tuple[Atoms, ...]]
    sizes: SizeTable

    def output_indices(self) -> tuple[Index, ...]:
        return tuple(Index(k, a) for k, a in enumerate(a for slot in self.output_shape for a in slot))


@dataclass(frozen=True, eq=False, repr=False)
class Polynomial:
    """A sum of monomials, each up to renaming of its summed indices, with equal ones collected.

    Make one with `spec.polynomial()`. Immutable and hashable. `==` asks for the same inputs, the same shapes, and the
    same value at every size; `where C = G*M` is a part of it only if it counts (see `coarse`). A literal size counts as
    one more name: polynomials equal by `==` are equal there too, but some unequal ones coincide at that number, as
    x[a,b] and x[a,c] do at size 1.

    Attributes:
        signature: the tensors' names and shapes.
        terms: canonical monomials; the output's atomic slots are the indices 0, 1, ...
    """

    signature: Signature
    terms: tuple[Monomial, ...]

    @classmethod
    def of(cls, signature: Signature, terms: Iterable[Monomial]) -> Polynomial:
        """Return the polynomial of any monomials over the signature's tensors."""
        return cls(signature, collect(terms, signature.output_indices()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Polynomial):
            return NotImplemented
        if self._key == other._key:
            return True
        return bool(self.ordered or other.ordered) and _equal_in_order(self, other)

    def __hash__(self) -> int:
        # A sum with conditions may be equal to one without: their terms differ, their tensors do not.
        return hash((tuple(sorted(self.signature.inputs)), _all_tensors(self.in_order())))

    @cached_property
    def ordered(self) -> frozenset[str]:
        """Return the atomic sizes whose positions are compared by conditions."""
        return ordered_sizes(self.terms)

    def in_order(
        self, sizes: Collection[str] | None = None, scale: Mapping[str, int] | None = None
    ) -> tuple[Monomial, ...]:
        """Return the canonical terms split by the weak orders of their indices; see `polyattn.algebra.order`.

        Args:
            sizes: the ordered atomic sizes; those of conditions unless given.
            scale: powers of them that the sum is multiplied by; the largest that it divides by unless given.

        Raises:
            BudgetError: more than 20,000 weak orders.
        """
        sizes = self.ordered if sizes is None else sizes
        if not sizes:
            return self.terms
        scale = denominators(self.terms, sizes) if scale is None else scale
        output = self.signature.output_indices()
        return collect(split_by_order(self.terms, output, sizes, scale), output)

    @cached_property
    def _key(self) -> tuple:
        """Return the coarsest form, with the shapes of its inputs, its output and its other tensors."""
        coarse, shapes = self.coarse, self.coarse.signature.shapes
        # Every input takes part, even an unused one; of the other tensors, those that occur.
        inputs = tuple(sorted((name, shapes[name]) for name in coarse.signature.inputs))
        others = tuple((name, shapes.get(name)) for name in coarse.tensors if name not in coarse.signature.inputs)
        return inputs, coarse.signature.output_shape, others, coarse.terms

    @cached_property
    def coarse(self) -> Polynomial:
        """Return the same polynomial without the splits that do not count: those whose parts occur only together.

        One index over C replaces each pair over (G, M), and C replaces G*M, unless one of a pair's indices is used
        without the other, or G and M are both used without C.
        """
        polynomial = self
        # Round by round: undoing the inner splits turns the outer ones into splits of atoms.
        while (coarser := polynomial._coarser()) is not polynomial:
            polynomial = coarser
        return polynomial

    def _coarser(self) -> Polynomial:
        """Undo the splits into atomic sizes; return itself if all count, or none exists."""
        sig = self.signature
        if not sig.sizes.splits:
            return self
        shapes = {name: sig.shapes[name] for name in (*sig.inputs, *self.tensors) if name in sig.shapes}
        slots = (*sig.output_shape, *(slot for shape in shapes.values() for slot in shape))
        used = {atom for slot in slots for atom in slot}.union(*map(_sizes, self.terms))
        # Splits of sizes that occur nowhere are declarations only, and go.
        live = tuple(s for s in sig.sizes.splits if used.issuperset(a for a in sig.sizes.atoms(s.size)))
        rest = iter(sig.output_indices())
        output = tuple(tuple(next(rest) for _ in slot) for slot in sig.output_shape)
        merging = Merging(leaves(SizeTable(sig.sizes.names, live), used), output, sig.shapes)
        merging, terms, told = undone(merging, self.terms, shapes | {sig.output: sig.output_shape})
        splits = tuple(s for s in live if s not in merging.splits)
        if splits == sig.sizes.splits:
            return self
        gone = {part for s in sig.sizes.splits if s not in splits for part in s.parts}
        # A part that is used on its own keeps its name.
        gone -= used - merging.gone
        names = tuple(n for n in sig.sizes.names if n not in gone)
        signature = Signature(sig.inputs, sig.output, told[sig.output], told, SizeTable(names, splits))
        return Polynomial.of(signature, terms)

    def __add__(self, other: Polynomial) -> Polynomial:
        if not isinstance(other, Polynomial):
            return NotImplemented
        # Refined first, so that both sides count in the same atoms.
        a, b = common_refinement(self, other)
        if _flat(a.signature.output_shape) != _flat(b.signature.output_shape):
            raise SizeError(f"outputs of different shapes: {_shape_text(a.signature)} and {_shape_text(b.signature)}")
        return Polynomial.of(_merged(a.signature, b.signature), (*a.terms, *b.terms))

    def __mul__(self, number: int | Fraction) -> Polynomial:
        if not isinstance(number, int | Fraction):
            return NotImplemented
        return Polynomial.of(self.signature, (t.scaled(Fraction(number)) for t in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> Polynomial:
        return self * -1

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + -other if isinstance(other, Polynomial) else NotImplemented

    def __bool__(self) -> bool:
        return bool(self.terms and self.in_order())

    def __str__(self) -> str:
        from polyattn.algebra.printing import statements_of

        return str(statements_of(self).definitions[-1]) if self.terms else f"{self.signature.output} = 0"

    def __repr__(self) -> str:
        return f"<Polynomial {self}>"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def _repr_html_(self) -> str:
        """Return the sum typeset, if the notebook has MathJax, above its text."""
        return escape(self._repr_latex_()) + block(str(self))

    def latex(self) -> str:
        """Return the expanded sum as LaTeX."""
        from polyattn.algebra.printing import statements_of
        from polyattn.language.latex import latex

        return latex(statements_of(self)) if self.terms else f"{self.signature.output} = 0"

    @property
    def degree(self) -> int:
        """Return the largest number of factors in a term that are, or are functions of, the inputs."""
        return max(self.degrees, default=0)

    @property
    def degrees(self) -> tuple[int, ...]:
        """Return the degrees of the terms in the inputs, sorted, each once."""
        return tuple(sorted({t.degree_in(self.signature.inputs) for t in self.terms}))

    @property
    def is_polynomial(self) -> bool:
        """Return whether every term is free of functions."""
        return not any(isinstance(f, FunctionFactor) for t in self.terms for f in t.factors)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Return the sorted names of all tensors, those inside functions included."""
        return _all_tensors(self.terms)

    def derivative(self, tensor: str, seed: str = "dy") -> Polynomial:
        """Return the vector-Jacobian product: sum over the output of `seed` times the derivative by `tensor`.

        Args:
            tensor: an input or a parameter.
            seed: the name of the new input, of the output's shape.

        Returns:
            The polynomial of `d<tensor>`, of the tensor's shape.

        Raises:
            NotPolynomialError: the tensor occurs inside a function of your own.
            SpecError: the tensor does not occur, or the seed's name is in use or not a name of the language.
            BudgetError: the derivative has more than 200,000 factors in all.
        """
        sig = self.signature
        if tensor not in sig.shapes or tensor == sig.output:
            raise SpecError(
                f"there is no tensor {tensor!r}; there are {', '.join(t for t in sig.shapes if t != sig.output)}"
            )
        check_tensor_name(seed, "the seed", (*sig.shapes, sig.output), scalar=not sig.output_shape)
        shape = sig.shapes[tensor]
        free = tuple(Index(k, a) for k, a in enumerate(a for slot in shape for a in slot))
        # The product rule copies a term once per occurrence of the tensor: counted before it is done.
        if sum(t.length * _tensors(t).count(tensor) for t in self.terms) > MAX_WORK:
            raise BudgetError(f"the derivative by '{tensor}' has more than {MAX_WORK} factors in all")
        terms = [d for term in self.terms for d in derivatives(term, tensor, seed, free, sig.output_indices())]
        name = f"d{tensor}"
        while name in sig.shapes or name == seed:
            name += "_"
        shapes = {t: s for t, s in sig.shapes.items() if t != sig.output} | {seed: sig.output_shape}
        signature = Signature((*sig.inputs, seed), name, shape, shapes, sig.sizes)
        return Polynomial.of(signature, terms)

    def substitute(self, *statements: str) -> Polynomial:
        """Return the polynomial with parameters replaced by their definitions, as in `Spec.substitute`."""
        from polyattn.algebra.spec import Spec

        return Spec.of(self).substitute(*statements).polynomial()

    def refined(self, splits: tuple[Split, ...]) -> Polynomial:
        """Return the same polynomial over smaller atomic sizes: `C = G*M` replaces each index over C by a pair."""
        sig = self.signature
        table = SizeTable(
            tuple(
                dict.fromkeys((*sig.sizes.names, *(n for s in splits for n in (s.size, *s.parts) if not n.isdigit())))
            ),
            tuple(dict.fromkeys((*sig.sizes.splits, *splits))),
        )

        def fine(slots: tuple[Atoms, ...]) -> tuple[Atoms, ...]:
            return tuple(tuple(b for a in atoms for b in table.atoms(a)) for atoms in slots)

        shapes = {t: fine(s) for t, s in sig.shapes.items()}
        signature = Signature(sig.inputs, sig.output, fine(sig.output_shape), shapes, table)
        return Polynomial.of(signature, (_refine_term(t, table, sig.output_indices()) for t in self.terms))


def common_refinement(a: Polynomial, b: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Return both polynomials over common atomic sizes.

    Raises:
        SizeError: they split one size differently, one relates sizes that are independent in the other, or they use
            one tensor with different shapes.
    """
    # Splits that do not count may contradict each other; those that do may not.
    if any(a.signature.sizes.parts(s.size) not in (None, s.parts) for s in b.signature.sizes.splits):
        a, b = a.coarse, b.coarse
    mine, theirs = a.signature.sizes, b.signature.sizes
    for split in theirs.splits:
        if mine.parts(split.size) not in (None, split.parts):
            raise SizeError(f"size {split.size} is split as {split} on one side, differently on the other")
    fine_a = a.refined(theirs.splits) if set(theirs.splits) - set(mine.splits) else a
    fine_b = b.refined(mine.splits) if set(mine.splits) - set(theirs.splits) else b
    _check_independent(mine, fine_a.signature.sizes)
    _check_independent(theirs, fine_b.signature.sizes)
    for name, shape in fine_a.signature.shapes.items():
        other = fine_b.signature.shapes.get(name)
        used = name in a.tensors and name in b.tensors
        if used and other is not None and _flat(shape) != _flat(other):
            raise SizeError(f"tensor {name!r} has different shapes on the two sides: {_flat(shape)} and {_flat(other)}")
    return fine_a, fine_b


def _check_independent(sizes: SizeTable, fine: SizeTable) -> None:
    """Refuse splits that make different products of one side's sizes equal: C = G*M if that side has all three."""
    # Each size as a vector of exponents of the finer atoms: independent exactly if the rank is full.
    rows = [[fine.atoms(size).count(atom) for atom in fine.atomic] for size in sizes.atomic]
    import numpy as np  # a fifth of the time that the first specification of a process takes

    rank = np.linalg.matrix_rank(np.array(rows)) if sizes.atomic and fine.atomic else 0
    if rank < len(rows):
        splits = ", ".join(str(s).removeprefix("where ") for s in fine.splits if s not in sizes.splits)
        raise SizeError(f"{splits} on one side, but {', '.join(sizes.atomic)} are independent on the other")


def _equal_in_order(a: Polynomial, b: Polynomial) -> bool:
    """Return whether two sums, of which one has conditions, are equal once they are split by weak orders."""
    try:
        a, b = common_refinement(a, b)
    except SizeError:
        return False
    mine, theirs = a.signature, b.signature
    shapes = [{n: s.shapes[n] for n in s.inputs} for s in (mine, theirs)]
    if shapes[0] != shapes[1] or mine.output_shape != theirs.output_shape:
        return False
    sizes = a.ordered | b.ordered
    scale = denominators((*a.terms, *b.terms), sizes)
    return a.in_order(sizes, scale) == b.in_order(sizes, scale)


def _all_tensors(terms: Iterable[Monomial]) -> tuple[str, ...]:
    return tuple(sorted({name for term in terms for name in _tensors(term)}))


def _tensors(term: Monomial) -> list[str]:
    """Return the names of a monomial's tensors with repetitions, those inside functions included."""
    names: list[str] = []
    map_tensors(term, lambda f: names.append(f.tensor))
    return [name for name in names if not is_fixed(name)]


def _sizes(term: Monomial) -> set[str]:
    """Return the sizes of a monomial's indices and coefficients, those inside functions included."""
    inner = (t for f in term.factors if isinstance(f, FunctionFactor) for t in f.terms)
    powers = (size.removeprefix(ROOT) for size, _ in term.powers)
    compared = (s for f in conditions_in([term]) for s in sizes_in(f.tensor))
    return {i.size for i in term.all_indices()}.union(powers, compared, *map(_sizes, inner))


def _flat(shape: tuple[Atoms, ...]) -> Atoms:
    return tuple(a for slot in shape for a in slot)


def _merged(a: Signature, b: Signature) -> Signature:
    inputs = tuple(dict.fromkeys((*a.inputs, *b.inputs)))
    names = tuple(dict.fromkeys((*a.sizes.names, *b.sizes.names)))
    splits = tuple(dict.fromkeys((*a.sizes.splits, *b.sizes.splits)))
    return replace(a, inputs=inputs, shapes={**b.shapes, **a.shapes}, sizes=SizeTable(names, splits))


def _shape_text(signature: Signature) -> str:
    return f"{signature.output}[{','.join(signature.sizes.name(s) for s in signature.output_shape)}]"


def _refine_condition(factor: TensorFactor, table: SizeTable, indices: tuple[Index, ...]) -> TensorFactor:
    """Return a condition over smaller atomic sizes."""
    if factor.tensor in (LESS, AT_MOST):
        return TensorFactor(factor.tensor, indices)
    if len(indices) > len(factor.indices):
        raise SizeError("a condition with numbers or sizes compares positions of a size that is split elsewhere")
    return TensorFactor(resized(factor.tensor, {s: table.atoms(s) for s in sizes_in(factor.tensor)}), indices)


def _refine_term(term: Monomial, table: SizeTable, output: tuple[Index, ...]) -> Monomial:
    """Replace each index by one index per new atomic size; the output's keep the first numbers, in order."""
    fresh: dict[Index, tuple[Index, ...]] = {}
    counter = 0
    for index in dict.fromkeys((*output, *term.all_indices())):
        atoms = table.atoms(index.size)
        fresh[index] = tuple(Index(counter + k, atom) for k, atom in enumerate(atoms))
        counter += len(atoms)

    def spread(indices: tuple[Index, ...]) -> tuple[Index, ...]:
        return tuple(j for i in indices for j in fresh[i])

    def refine(t: Monomial) -> Monomial:
        number, powers = t.coefficient, []
        for size, exponent in t.powers:
            extra, more = size_product(table.atoms(size), exponent)
            number *= extra
            powers += more
        factors = []
        for f in t.factors:
            if isinstance(f, FunctionFactor):
                terms = tuple(map(refine, f.terms))
                factors.append(FunctionFactor(f.function, spread(f.over), spread(f.free), terms, spread(f.at)))
            elif f.tensor == IDENTITY:
                # I over pairs is the product of the identities over their parts.
                pairs = zip(*(fresh[i] for i in f.indices), strict=True)
                factors += [TensorFactor(IDENTITY, pair) for pair in pairs]
            elif is_condition(f.tensor):
                factors.append(_refine_condition(f, table, spread(f.indices)))
            else:
                factors.append(TensorFactor(f.tensor, spread(f.indices)))
        return Monomial(Fraction(1), (), tuple(factors)).scaled(number, powers)

    return refine(term)
