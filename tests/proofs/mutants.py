"""Structural changes to JSON values, for fuzzing what reads them."""

from __future__ import annotations

import copy
import re
from random import Random
from typing import Any

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**30, 1.0, 0.5, 1e308, "", "0", "1", "I", "left", "f1", "y[n] = 1"),
    *([], {}, [[]], [0], {"0": 0}, "\u0441", "x[\uff4e,c]", "1" * 5000),
)
TOKEN = re.compile(r"[A-Za-z]\w*|\d+|[^\w\s]")


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """The path of every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, part in inner for place in places(part, (*at, key)))]


def mutant(value: Any, random: Random) -> Any:
    """The value with one change somewhere."""
    value = copy.deepcopy(value)
    *way, last = random.choice(places(value)[1:])
    parent = value
    for key in way:
        parent = parent[key]
    parent[last] = changed(parent[last], random)
    if random.random() < 0.2:
        restructured(parent, last, random)
    return value


def changed(old: Any, random: Random) -> Any:
    options: list[Any] = [random.choice(STRANGE)]
    if isinstance(old, str):
        options += [text_changed(old, random) for _ in range(4)]
    if type(old) is int:
        options += [old + 1, old - 1, -old, float(old), str(old), bool(old), [old]]
    if isinstance(old, list) and old:
        swapped, k = list(old), random.randrange(len(old))
        j = random.randrange(len(old))
        swapped[k], swapped[j] = swapped[j], swapped[k]
        options += [swapped, old[:k] + old[k + 1 :], [*old, old[k]], [old[k], *old], old[::-1], {"0": old}, tuple(old)]
    if isinstance(old, dict) and old:
        key = random.choice(sorted(old))
        rest = {k: v for k, v in old.items() if k != key}
        options += [rest, old | {"extra": 0}, {**rest, key + "1": old[key]}, dict.fromkeys(old, old[key]), list(old)]
    return random.choice(options)


def text_changed(old: str, random: Random) -> str:
    """A text with one token replaced, dropped, doubled or exchanged with another."""
    found = list(TOKEN.finditer(old))
    if not found:
        return old + "x"
    one, other = random.choice(found), random.choice(found)
    new = random.choice([other[0], "", one[0] * 2, one[0] + other[0], "2", "N", "-", "*", "/", "x", one[0] + " "])
    return old[: one.start()] + new + old[one.end() :]


def restructured(parent: Any, key: Any, random: Random) -> None:
    if isinstance(parent, list):
        parent.insert(random.randrange(len(parent) + 1), parent[key])
    else:
        parent[key] = [parent[key]]
