"""Random sums with conditions, and their values by loops in plain Python; nothing of polyattn computes here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from operator import eq, ge, gt, le, lt, ne
from random import Random

RELATIONS = {"<=": le, "<": lt, ">=": ge, ">": gt, "==": eq, "!=": ne}
OPPOSITE = {"<=": ">", "<": ">=", ">=": "<", ">": "<=", "==": "!=", "!=": "=="}
MIRRORED = {"<=": ">=", "<": ">", ">=": "<=", ">": "<", "==": "==", "!=": "!="}
SUMMED = ("e", "f", "g", "h")


@dataclass(frozen=True)
class Condition:
    """`left relation right + shift`; sides are indices, or pairs of indices for a composite.

    In blocks (`split`) each index is a pair; `part` 0 or 1 compares the blocks, or the places within them.
    """

    left: tuple[str, ...]
    relation: str
    right: tuple[str, ...]
    shift: int = 0
    part: int | None = None

    def __str__(self) -> str:
        left, right = (i[0] if len(i) == 1 else f"({' '.join(i)})" for i in (self.left, self.right))
        return f"[{left} {self.relation} {right}{f'{self.shift:+d}' if self.shift else ''}]"

    def holds(self, at: dict[str, int]) -> bool:
        left, right = ([at[i] for i in side] for side in (self.left, self.right))
        if self.part is not None:
            left, right = ([divmod(i, at["block"])[self.part] for i in side] for side in (left, right))
        if self.shift:
            return RELATIONS[self.relation](left[0], right[0] + self.shift)
        # Tuples compare as the whole does: the outer part first.
        return RELATIONS[self.relation](left, right)


@dataclass(frozen=True)
class Product:
    """`number * N**power * tensors * conditions`; `counted` are indices that conditions alone hold."""

    number: int
    power: int
    tensors: tuple[tuple[str, tuple[str, ...]], ...]
    conditions: tuple[Condition, ...]

    @property
    def indices(self) -> set[str]:
        found = {i for _, indices in self.tensors for i in indices}
        return found | {i for c in self.conditions for side in (c.left, c.right) for i in side}

    def __str__(self) -> str:
        sizes = ["N"] * self.power
        factors = [f"{name}[{','.join(indices)}]" for name, indices in self.tensors] + [str(c) for c in self.conditions]
        head = f"{abs(self.number)}" + "/N" * -self.power
        return ("- " if self.number < 0 else "+ ") + "*".join([head, *sizes, *factors])

    def value(self, place: int, tensors: dict[str, list], n: int, block: int = 1) -> Fraction:
        summed = sorted(self.indices - {"a"})
        total = 0
        for values in product(range(n), repeat=len(summed)):
            at = {"a": place, "block": block, **dict(zip(summed, values, strict=True))}
            if all(c.holds(at) for c in self.conditions):
                part = 1
                for name, indices in self.tensors:
                    entry = tensors[name]
                    for i in indices:
                        entry = entry[at[i]]
                    part *= entry
                total += part
        return self.number * Fraction(n) ** self.power * total


Sum = tuple[Product, ...]


def text(total: Sum) -> str:
    """Return the specification of a sum."""
    return f"x[N]; u[N]; m[N,N]; where a : N; where e, f, g, h : N; y[a] = {' '.join(map(str, total))}"


INNER = dict(zip(("a", *SUMMED), "bpqst", strict=True))
"""The index within a block for each index of blocks."""


def split_text(total: Sum) -> str:
    """Return the specification of a sum with N = G*M: an index is a pair, conditions compare pairs or parts."""
    where = f"where N = G*M; where {', '.join(INNER)} : G; where {', '.join(INNER.values())} : M"
    return f"x[N]; u[N]; m[N,N]; {where}; y[(a b)] = {' '.join(map(_split, total))}"


def _split(part: Product) -> str:
    pairs = {i: f"({i} {INNER[i]})" for i in INNER}
    sizes, read = ["N"] * part.power, {i for _, indices in part.tensors for i in indices}
    for index in sorted(part.indices - {"a"} - read):
        parts = {c.part for c in part.conditions if index in (*c.left, *c.right)}
        if None not in parts:  # a part that nothing else has counts places
            sizes += [size for k, size in enumerate("GM") if k not in parts]
    factors = [f"{name}[{','.join(pairs[i] for i in indices)}]" for name, indices in part.tensors]
    for c in part.conditions:
        (left,), (right,) = c.left, c.right
        sides = (
            (pairs[left], pairs[right])
            if c.part is None
            else (left, right)
            if not c.part
            else (INNER[left], INNER[right])
        )
        factors.append(f"[{sides[0]} {c.relation} {sides[1]}]")
    head = f"{abs(part.number)}" + "/N" * -part.power
    return ("- " if part.number < 0 else "+ ") + "*".join([head, *sizes, *factors])


def in_parts(random: Random, total: Sum) -> Sum:
    """Return a sum of which some conditions compare blocks, or places within blocks."""
    return tuple(
        replace(p, conditions=tuple(replace(c, part=random.choice((None, None, 0, 1))) for c in p.conditions))
        for p in total
    )


def values(total: Sum, tensors: dict[str, list], n: int, block: int = 1) -> list[Fraction]:
    return [sum((p.value(a, tensors, n, block) for p in total), Fraction(0)) for a in range(n)]


def drawn_tensors(random: Random, n: int) -> dict[str, list]:
    def numbers() -> list[int]:
        return [random.randint(-3, 3) for _ in range(n)]

    return {"x": numbers(), "u": numbers(), "m": [numbers() for _ in range(n)]}


def drawn_product(random: Random, most: int = 4, shifts: bool = False) -> Product:
    indices = ("a", *SUMMED[: random.randint(1, most)])
    conditions = []
    for index in indices[1:]:
        for _ in range(random.choice((0, 1, 1, 2))):
            other = random.choice([i for i in indices if i != index])
            shift = random.choice((0, 0, -2, -1, 1)) if shifts else 0
            conditions.append(Condition((index,), random.choice(list(RELATIONS)), (other,), shift))
    tensors = [(random.choice("xu"), (i,)) for i in indices if random.random() < 0.6]
    if random.random() < 0.3:
        tensors.append(("m", tuple(random.choices(indices, k=2))))
    number = random.choice((1, 1, 2, -1, 3))
    return Product(number, random.choice((0, 0, 0, 1, -1)), tuple(tensors), tuple(conditions))


def drawn_sum(random: Random, most: int = 4, shifts: bool = False) -> Sum:
    total = tuple(drawn_product(random, most, shifts) for _ in range(random.choice((1, 1, 2))))
    # Something has to have the output's index and each summed one, or the text would not say how often it counts.
    return total


def rewritten(random: Random, total: Sum) -> Sum:
    """Return an equal sum: conditions in other words, places counted instead of N, indices renamed."""
    found: list[Product] = []
    for part in total:
        done = [part]
        for _ in range(random.randint(1, 2)):
            done = [new for p in done for new in _rewritten(random, p)]
        found += done
    random.shuffle(found)
    return tuple(found)


def _rewritten(random: Random, part: Product) -> list[Product]:
    kind = random.choice(("mirror", "trichotomy", "complement", "rename", "places", "shuffle"))
    places = [k for k, c in enumerate(part.conditions)]
    if kind == "rename":
        names = dict(zip(SUMMED, random.sample(SUMMED, len(SUMMED)), strict=True))
        tensors = tuple((t, tuple(names.get(i, i) for i in indices)) for t, indices in part.tensors)
        conditions = tuple(
            replace(c, left=tuple(names.get(i, i) for i in c.left), right=tuple(names.get(i, i) for i in c.right))
            for c in part.conditions
        )
        return [replace(part, tensors=tensors, conditions=conditions)]
    if kind == "shuffle":
        tensors = random.sample(part.tensors, len(part.tensors))
        return [replace(part, tensors=tuple(tensors), conditions=part.conditions[::-1])]
    free = [i for i in SUMMED if i not in part.indices]
    if kind == "places" and part.power > 0 and free:
        # N counts the places before, at and after any place.
        made = [Condition((free[0],), relation, ("a",)) for relation in ("<", "==", ">")]
        return [replace(part, power=part.power - 1, conditions=(*part.conditions, c)) for c in made]
    if not places:
        return [part]
    k = random.choice(places)
    old, rest = part.conditions[k], (*part.conditions[:k], *part.conditions[k + 1 :])
    if kind == "mirror":
        new = Condition(old.right, MIRRORED[old.relation], old.left, -old.shift, old.part)
        return [replace(part, conditions=(new, *rest))]
    if kind == "trichotomy" and old.relation in ("<=", ">=", "!="):
        strict = {"<=": "<", ">=": ">", "!=": "<"}[old.relation]
        other = ">" if old.relation == "!=" else "=="
        return [replace(part, conditions=(replace(old, relation=r), *rest)) for r in (strict, other)]
    if kind == "complement":
        whole = Product(part.number, part.power, part.tensors, rest)
        lost = part.indices - whole.indices - {"a"}
        # Without the condition an index that nothing else holds counts N places.
        whole = replace(whole, power=whole.power + len(lost))
        opposite = replace(old, relation=OPPOSITE[old.relation])
        return [whole, replace(part, number=-part.number, conditions=(opposite, *rest))]
    return [part]


def changed(random: Random, total: Sum) -> Sum:
    """Return a sum with one change, which is mostly another function."""
    k = random.randrange(len(total))
    part = total[k]
    if part.conditions and random.random() < 0.7:
        j = random.randrange(len(part.conditions))
        new = replace(part.conditions[j], relation=random.choice(list(RELATIONS)))
        part = replace(part, conditions=(*part.conditions[:j], new, *part.conditions[j + 1 :]))
    elif part.tensors:
        j = random.randrange(len(part.tensors))
        name, indices = part.tensors[j]
        held = sorted(part.indices | {"a"})
        new_tensor = (name, tuple(random.choice(held) for _ in indices))
        left = (*part.tensors[:j], new_tensor, *part.tensors[j + 1 :])
        lost = part.indices - replace(part, tensors=left).indices - {"a"}
        part = replace(part, tensors=left, power=part.power + len(lost))
    else:
        part = replace(part, number=part.number + 1)
    return (*total[:k], part, *total[k + 1 :])
