"""Certificates of equality: what `proofs/check.py` needs to check a proof without trusting the prover.

Each side is a chain of texts: the specification as it was given, expanded, and after each use of a given equation;
between two of them stands a witness. The two last texts correspond pair by pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyattn.algebra import FunctionFactor, Index, Monomial, Polynomial, Signature
from polyattn.algebra.printing import Printer
from polyattn.language import Atoms, SizeTable
from polyattn.language.resolve import accesses_of
from polyattn.language.syntax import Access, Definition, Sum
from polyattn.proving.derivation import Derivation
from polyattn.proving.given import Given, Rule
from polyattn.proving.rewriting import Place, proper
from polyattn.proving.sizes import CommonSizes, sizes_text
from polyattn.proving.witness import Correspondence, Forms, witness

FORMAT = "polyattn equality 1"


def certificate(
    derivations: tuple[Derivation, Derivation],
    shapes: Mapping[str, tuple[Atoms, ...]],
    sizes: CommonSizes,
    given: Sequence[Given],
    declarations: Sequence[str],
) -> dict[str, Any]:
    """The certificate of two derivations that end in equal sums.

    Args:
        shapes: the shapes of all tensors.
        given: the equations between tensors that were used.
        declarations: the given texts about sizes.

    Raises:
        NoWitnessError: there is no correspondence of factors where a function's argument cancels.
    """
    numbers = {g.text: k for k, g in enumerate(given)}
    left, right = (_Chain(d, shapes, sizes, numbers) for d in derivations)
    equations = [{"text": g.text, "indices": sizes_text(g.letters)} for g in given]
    used = sorted({t for d in derivations for t in d.tensors})
    return {
        "format": FORMAT,
        "shapes": {tensor: ["*".join(atoms) for atoms in shapes[tensor]] for tensor in used},
        "given": equations + [{"text": text, "indices": {}} for text in declarations],
        "left": left.data,
        "right": right.data,
        "pairs": _pairs(left, right, derivations[0].forms),
    }


class _Chain:
    """One side's texts and witnesses, and the letters of the last text."""

    def __init__(
        self,
        derivation: Derivation,
        shapes: Mapping[str, tuple[Atoms, ...]],
        sizes: CommonSizes,
        numbers: Mapping[str, int],
    ):
        self.derivation, self.numbers = derivation, numbers
        side = derivation.side
        table = SizeTable(
            tuple(dict.fromkeys(s for split in sizes.splits for s in (split.size, *split.parts))), sizes.splits
        )
        mine = side.signature
        everything = {**shapes, mine.output: mine.output_shape}
        self.signature = Signature(mine.inputs, mine.output, mine.output_shape, everything, table)
        self.letters: list[dict[Index, str]] = []
        resolved = side.spec.resolved.index_sizes
        steps = [self._step(k) for k in range(len(derivation.steps))]
        self.data = {"text": side.text, "indices": [sizes_text(letters) for letters in resolved], "steps": steps}

    @property
    def terms(self) -> tuple[Monomial, ...]:
        return self.derivation.terms

    def _step(self, number: int) -> dict[str, Any]:
        step = self.derivation.steps[number]
        data: dict[str, Any] = {"by": "expansion"}
        if isinstance(step.given, Rule) and step.use is not None:
            before = self.derivation.steps[number - 1].terms
            place, factors = _proper_place(before, step.use.place, step.use.factors)
            data = {"by": "rule", "given": self.numbers[step.given.text], "place": place, "factors": factors}
        elif step.given is not None:
            data = {"by": "definition", "given": self.numbers[step.given.text]}
        return data | self._text(step.terms) | {"terms": witness(step.raw, step.terms, self.derivation.forms)}

    def _text(self, terms: tuple[Monomial, ...]) -> dict[str, Any]:
        printer = Printer(Polynomial(self.signature, terms))
        statements = printer.run()
        self.letters = _letters_of(statements.definitions[-1], self.signature.output_indices(), terms)
        indices = [{i: printer.letters[i] for i in _letters_in(d)} for d in statements.definitions]
        return {"text": str(statements), "indices": indices}


def _letters_in(definition: Definition) -> list[str]:
    accesses = (definition.target, *accesses_of(definition.body))
    return list(dict.fromkeys(i for access in accesses for i in access.indices))


def _letters_of(
    definition: Definition, output: tuple[Index, ...], terms: tuple[Monomial, ...]
) -> list[dict[Index, str]]:
    """For each term, the letters that its indices were written with."""
    assert isinstance(definition.body, Sum)
    found = []
    for written, term in zip(definition.body.terms, terms, strict=True):
        letters = dict(zip(output, definition.target.indices, strict=True))
        accesses = (f for f in written.factors if isinstance(f, Access))
        for access, factor in zip(accesses, term.factors, strict=False):  # ones may follow, I[n,n], for the output
            letters |= dict(zip(factor.indices, access.indices, strict=True))
        found.append(letters)
    return found


def _proper_place(terms: tuple[Monomial, ...], place: Place, factors: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """A place in a sum, with factors counted without identities."""
    number, *inside = place
    ranks = {position: k for k, position in enumerate(proper(terms[number]))}
    if not inside:
        return [number], [ranks[k] for k in factors]
    position, *rest = inside
    factor = terms[number].factors[position]
    assert isinstance(factor, FunctionFactor)
    inner, found = _proper_place(factor.terms, tuple(rest), factors)
    return [number, ranks[position], *inner], found


def _pairs(left: _Chain, right: _Chain, forms: Forms) -> list[dict[str, Any]]:
    places = {forms.key(t): k for k, t in enumerate(right.terms)}
    found = []
    for number, term in enumerate(left.terms):
        if not term.coefficient:
            continue
        other = places[forms.key(term)]
        same = Correspondence(term, right.terms[other], forms)
        mine, theirs = left.letters[number], right.letters[other]
        indices = {mine[i]: theirs[j] for i, j in same.indices.items() if i in mine and j in theirs}
        found.append(
            {
                "left": number,
                "right": other,
                "factors": same.entries(),
                "indices": indices,
                "coefficient": str(term.coefficient),
                "powers": dict(term.powers),
            }
        )
    return found
