"""Sweeps: the points described by `N=[196, 784], C=64, R="C/8", H="14:112"`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import product
from typing import Any

from polyattn.errors import SizeError

MAX_POINTS = 10_000
RANGE = re.compile(r"\s*(\d{1,15})\s*:\s*(\d{1,15})\s*(?::\s*(\d{1,6})\s*)?")
FACTOR = re.compile(r"\s*([*/]?)\s*([A-Z]\w*|\d{1,15})\s*")


def points(sizes: Mapping[str, Any]) -> tuple[tuple[dict[str, int], ...], tuple[str, ...]]:
    """Return the points of a sweep, the last varying size changing fastest, and the names of the varying sizes.

    Args:
        sizes: for each size a whole number; several; "196:65536", from one to the other by doubling ("196:65536:5": in
            five steps of one ratio); or a product of others such as "H*W" or "C/8" with a whole value.

    Raises:
        SizeError: a size is not one of these, a product contains an unknown size, or there are too many points.
    """
    lists: dict[str, tuple[int, ...]] = {}
    derived: dict[str, list[tuple[str, str]]] = {}
    for name, value in sizes.items():
        if isinstance(value, str) and not RANGE.fullmatch(value) and not value.strip().isdecimal():
            derived[name] = _factors(name, value)
        else:
            lists[name] = tuple(_numbers(name, value))
    order = _order(derived, set(lists))
    varied = tuple(name for name, values in lists.items() if len(values) > 1)
    # Counted before the points are made, which could fill the memory.
    count = 1
    for values in lists.values():
        count *= len(values)
    if count > MAX_POINTS:
        raise SizeError(f"these sizes have {count:,} combinations, and at most {MAX_POINTS:,} are studied at once")
    found = []
    for values in product(*lists.values()):
        point = dict(zip(lists, values, strict=True))
        for name in order:
            point[name] = _derived(name, derived[name], point)
        found.append({name: point[name] for name in sizes})
    return tuple(found), varied


def _numbers(name: str, value: Any) -> Iterator[int]:
    # Arrays of numpy and torch, of any number of axes; neither is imported here.
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        value = value.reshape(-1).tolist() if len(value.shape) else value.tolist()
    if isinstance(value, str):
        match = RANGE.fullmatch(value)
        yield from _range(name, match) if match else [_positive(name, int(value))]
    # numpy's integers have `__index__` too.
    elif hasattr(value, "__index__"):
        yield _positive(name, value)
    elif isinstance(value, Iterable):
        values = [_positive(name, v) for v in value]
        if not values:
            raise SizeError(f"size {name} is given as an empty list")
        # A repeated number would be planned and drawn twice.
        yield from dict.fromkeys(values)
    else:
        raise SizeError(f"size {name} must be a whole number, several, or a text such as '196:65536', not {value!r}")


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise SizeError(f"size {name} must be a positive whole number, not {value!r}")
    return int(value)


def _range(name: str, match: re.Match[str]) -> Iterable[int]:
    first, last = (_positive(name, int(match[k])) for k in (1, 2))
    if last < first:
        raise SizeError(f"size {name} goes from {first} down to {last}: write the smaller number first")
    if match[3] is None:
        values = [first]
        while 2 * values[-1] <= last:
            values.append(2 * values[-1])
        # Doubling may miss the end, which was asked for.
        return dict.fromkeys([*values, last])
    steps = int(match[3])
    if not 2 <= steps <= MAX_POINTS:
        raise SizeError(f"size {name} needs 2 to {MAX_POINTS:,} steps, not {steps}")
    # Rounding may make neighbouring steps equal.
    return dict.fromkeys(round(first * (last / first) ** (k / (steps - 1))) for k in range(steps))


def _factors(name: str, text: str) -> list[tuple[str, str]]:
    found, position = [], 0
    while position < len(text):
        match = FACTOR.match(text, position)
        # The first factor has no sign, all others need one.
        if match is None or bool(match[1]) != bool(found):
            break
        found.append((match[1] or "*", match[2]))
        position = match.end()
    if not found or position < len(text):
        raise SizeError(
            f"size {name} is given as {text!r}; a text is a number, a range such as 196:65536, or a product of other "
            "sizes such as H*W or C/8"
        )
    return found


def _order(derived: Mapping[str, list[tuple[str, str]]], known: set[str]) -> list[str]:
    """Order the derived sizes, each after its factors."""
    found: list[str] = []
    while len(found) < len(derived):
        ready = [
            name
            for name, factors in derived.items()
            if name not in found and all(f.isdecimal() or f in known or f in found for _, f in factors)
        ]
        # Round by round: what is left without progress depends on itself or on an unknown name.
        if not ready:
            name = next(n for n in derived if n not in found)
            missing = [f for _, f in derived[name] if not f.isdecimal() and f not in known and f not in found]
            raise SizeError(f"size {name} is made of {', '.join(missing)}, which nothing fixes")
        found += ready
    return found


def _derived(name: str, factors: list[tuple[str, str]], point: Mapping[str, int]) -> int:
    # Fractions: C/8*3 may be whole although C/8 is not.
    value = Fraction(1)
    for sign, factor in factors:
        number = int(factor) if factor.isdecimal() else point[factor]
        if number == 0:
            raise SizeError(f"size {name} would be multiplied or divided by 0")
        value = value * number if sign == "*" else value / number
    if value.denominator != 1:
        text = "".join(f"{s if k else ''}{f}" for k, (s, f) in enumerate(factors))
        at = ", ".join(f"{n}={v}" for n, v in point.items())
        raise SizeError(f"size {name} = {text} is {value} for {at}: no whole number")
    return int(value)
