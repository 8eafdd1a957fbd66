"""`Relation`: the answer of `relate`, with the conditions, as texts, and their proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from polyattn.algebra import Spec
from polyattn.proving import Verdict


@dataclass(frozen=True)
class Relation:
    """Conditions under which one layer is another, or their absence from a search.

    True only if conditions were found and proved: `pa.prove(relation.left, relation.right, given=[*relation.given,
    *relation.sizes])` is "equal".

    Attributes:
        left, right: the two specifications, as the proof speaks of them.
        given: definitions of parameters of the left by those of the right, the identity and numbers.
        sizes: equations between sizes, such as "R = K" or "G = 1".
        inputs: for each input of the left that is called otherwise, the input of the right that it is set to.
        renamed: names of the left that were changed, since the right uses them for something else.
        verdict: the proof; None where nothing was found.
        searched: the number of candidates looked at.
        complete: whether the search came to its end; otherwise its effort was spent.
    """

    left: Spec
    right: Spec
    given: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict, hash=False)
    renamed: Mapping[str, str] = field(default_factory=dict, hash=False)
    verdict: Verdict | None = None
    searched: int = 0
    complete: bool = True

    def __bool__(self) -> bool:
        return self.verdict is not None and bool(self.verdict)

    @property
    def is_equality(self) -> bool:
        """Return whether the two are equal without a condition other than names."""
        return bool(self) and not self.sizes and not self.given

    @property
    def condition(self) -> str:
        """Return all conditions in one line; "as they are" without conditions."""
        inputs = [f"{old} = {new}" for old, new in self.inputs.items()]
        return "; ".join([*inputs, *self.sizes, *self.given]) or "as they are"

    def __str__(self) -> str:
        if not self:
            how = "" if self.complete else ", where its effort was spent"
            return f"none within this search: {self.searched:,} candidates{how}"
        lines = ["the left is the right, proved at every size, if"]
        lines += [f"  {old} is called {new}" for old, new in self.renamed.items()]
        lines += [f"  {old} = {new}" for old, new in self.inputs.items()]
        lines += [f"  {text}" for text in (*self.sizes, *self.given)]
        if len(lines) == 1:
            lines = ["the left is the right, proved at every size"]
        return "\n".join([*lines, f"{self.searched:,} candidates searched"])
