"""Specifications with offsets for tests, each with loops over every place that share no code with the library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from hypothesis import strategies as st

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Axis:
    """One slot of a map, read at `stride*i + step*u + start`, for u from least to greatest."""

    letter: str
    offset: str
    size: str
    length: int
    places: int
    stride: int
    step: int
    start: int
    least: int
    greatest: int

    @property
    def text(self) -> str:
        def times(k: int, name: str) -> str:
            return name if k == 1 else f"{k}*{name}"

        sign = "-" if self.step < 0 else "+"
        number = f"{self.start:+d}" if self.start else ""
        return f"{times(self.stride, self.letter)}{sign}{times(abs(self.step), self.offset)}{number}"

    def position(self, i: int, u: int) -> int | None:
        """Return the place that is read for the k-th value of the offset; None outside of the map."""
        place = self.stride * i + self.step * (self.least + u) + self.start
        return place if 0 <= place < self.length else None

    @property
    def count(self) -> int:
        return self.greatest - self.least + 1


@dataclass(frozen=True)
class Case:
    """A specification, its sizes and its loops: from arrays to the output of one sample."""

    text: str
    sizes: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    parameters: tuple[str, ...]
    loops: Callable[[Arrays], np.ndarray]

    def arrays(self, seed: int, whole: bool = False) -> Arrays:
        rng = np.random.default_rng(seed)
        draw = (lambda s: rng.integers(-3, 4, s).astype(float)) if whole else rng.standard_normal
        return {name: draw(shape) for name, shape in self.shapes.items()}


REDUCE: dict[str, Callable[[np.ndarray], float]] = {
    "sum": lambda a: a.sum(),
    "mean": lambda a: a.mean() if a.size else 0.0,
    "max": lambda a: a.max(),
    "min": lambda a: a.min(),
    "logsumexp": lambda a: np.log(np.exp(a).sum()),
}


@st.composite
def axes(draw, most: int = 2, plain: bool = False) -> tuple[Axis, ...]:
    found = []
    for letter, offset, size in ("iuH", "jvW")[: draw(st.integers(1, most))]:
        length = draw(st.integers(1, 4))
        stride, step = draw(st.sampled_from([(1, 1)] if plain else [(1, 1), (1, 1), (2, 1), (1, 2), (1, -1), (2, -2)]))
        least = draw(st.integers(-2, 0))
        greatest = draw(st.integers(max(least, 0), 2))
        declared = stride > 1 or draw(st.booleans())
        places = draw(st.integers(1, 4)) if declared and not plain else length
        found.append(
            Axis(letter, offset, size, length, places, stride, step, draw(st.integers(-1, 1)), least, greatest)
        )
    return tuple(found)


def declarations(found: tuple[Axis, ...]) -> str:
    return "".join(f"where {a.offset} : {a.least}..{a.greatest}; where {a.letter} : {a.size}2; " for a in found)


def frame(found: tuple[Axis, ...]) -> tuple[str, str, str, str, dict[str, int]]:
    """Return the slots of the map, those at offsets, the places, the offsets, and the sizes."""
    sizes = {a.size: a.length for a in found} | {f"{a.size}2": a.places for a in found}
    parts = [",".join(getattr(a, n) for a in found) for n in ("size", "text", "letter", "offset")]
    return parts[0], parts[1], parts[2], parts[3], sizes


@st.composite
def convolutions(draw) -> Case:
    """A convolution, of all channels or each by itself, with a 1 x 1 convolution before it or not."""
    found = draw(axes())
    slots, at, places, offsets, sizes = frame(found)
    kind = draw(st.sampled_from(["full", "depthwise", "separable", "box"]))
    right = {"full": f"w[{offsets},c,b]", "depthwise": f"w[{offsets},c]", "separable": f"v[c,b]*w[{offsets},b]"}
    left = "b" if kind in ("full", "separable") else "c"
    body = f"x[{at},c]" + (f"*{right[kind]}" if kind != "box" else "")
    text = f"x[{slots},C]; where b : D; {declarations(found)}y[{places},{left}] = {body}"
    counts = tuple(a.count for a in found)
    shapes: dict[str, tuple[int, ...]] = {"x": (*(a.length for a in found), 3)}
    shapes |= {"full": {"w": (*counts, 3, 2)}, "depthwise": {"w": (*counts, 3)}, "box": {}}.get(
        kind, {"v": (3, 2), "w": (*counts, 2)}
    )  # type: ignore[operator]

    def loops(arrays: Arrays) -> np.ndarray:
        x = arrays["x"]
        out = np.zeros((*(a.places for a in found), 2 if left == "b" else 3))
        for at_ in product(*(range(a.places) for a in found)):
            for us in product(*(range(a.count) for a in found)):
                place = tuple(a.position(i, u) for a, i, u in zip(found, at_, us, strict=True))
                if None in place:
                    continue
                for c, b in product(range(3), range(2)):
                    if kind == "full":
                        out[(*at_, b)] += x[(*place, c)] * arrays["w"][(*us, c, b)]  # type: ignore[index]
                    elif kind == "separable":
                        out[(*at_, b)] += x[(*place, c)] * arrays["v"][c, b] * arrays["w"][(*us, b)]  # type: ignore[index]
                    elif b == 0:
                        out[(*at_, c)] += x[(*place, c)] * (arrays["w"][(*us, c)] if kind == "depthwise" else 1)  # type: ignore[index]
        return out

    parameters = tuple(n for n in shapes if n != "x")
    return Case(text, {**sizes, "C": 3, "D": 2}, shapes, parameters, loops)


def has_places(found: tuple[Axis, ...]) -> bool:
    return all(any(a.position(i, u) is not None for u in range(a.count)) for a in found for i in range(a.places))


@st.composite
def reductions(draw) -> Case:
    """A pooling: a function of the places of a window that are within the map."""
    found = draw(axes())
    function = draw(st.sampled_from(sorted(REDUCE)))
    if function in ("max", "min", "logsumexp") and not has_places(found):
        function = "mean"
    slots, at, places, offsets, sizes = frame(found)
    argument = draw(st.sampled_from([f"x[{at},c]", f"x[{at},c]*g[c]", f"x[{at},c] + g[c]"]))
    text = f"x[{slots},C]; {declarations(found)}y[{places},c] = {function}[{offsets}]({argument})"
    shapes: dict[str, tuple[int, ...]] = {"x": (*(a.length for a in found), 2)}
    shapes |= {"g": (2,)} if "g" in argument else {}

    def loops(arrays: Arrays) -> np.ndarray:
        out = np.zeros((*(a.places for a in found), 2))
        for at_ in product(*(range(a.places) for a in found)):
            for c in range(2):
                values = []
                for us in product(*(range(a.count) for a in found)):
                    place = tuple(a.position(i, u) for a, i, u in zip(found, at_, us, strict=True))
                    if None not in place:
                        value = arrays["x"][(*place, c)]  # type: ignore[index]
                        g = arrays["g"][c] if "g" in argument else 0.0
                        values.append(value * g if "*g" in argument else value + g)
                out[(*at_, c)] = REDUCE[function](np.array(values))
        return out

    return Case(text, {**sizes, "C": 2}, shapes, ("g",) if "g" in shapes else (), loops)


@st.composite
def attentions(draw) -> Case:
    """Attention over a neighbourhood, with a relative position for each offset or without one."""
    found = draw(axes(plain=True))
    slots, at, places, offsets, sizes = frame(found)
    biased = draw(st.booleans())
    bias = f" + r[{offsets}]" if biased else ""
    text = (
        f"q[{slots},R]; k[{slots},R]; v[{slots},C]; {declarations(found)}"
        f"p[{places},{offsets}] = softmax[{offsets}](q[{places},r]*k[{at},r]{bias}); "
        f"y[{places},c] = p[{places},{offsets}]*v[{at},c]"
    )
    text = text.replace("where i : H2; ", "").replace("where j : W2; ", "").replace(" + r[", " + t[")
    lengths = tuple(a.length for a in found)
    shapes: dict[str, tuple[int, ...]] = {"q": (*lengths, 2), "k": (*lengths, 2), "v": (*lengths, 3)}
    shapes |= {"t": tuple(a.count for a in found)} if biased else {}

    def loops(arrays: Arrays) -> np.ndarray:
        out = np.zeros((*lengths, 3))
        for at_ in product(*(range(n) for n in lengths)):
            pairs = []
            for us in product(*(range(a.count) for a in found)):
                place = tuple(a.position(i, u) for a, i, u in zip(found, at_, us, strict=True))
                if None not in place:
                    score = arrays["q"][at_] @ arrays["k"][place] + (arrays["t"][us] if biased else 0.0)  # type: ignore[index]
                    pairs.append((np.exp(score), arrays["v"][place]))  # type: ignore[index]
            if pairs:
                out[at_] = sum(w * v for w, v in pairs) / sum(w for w, _ in pairs)
        return out

    kept = {name: n for name, n in sizes.items() if not name.endswith("2")}
    return Case(text, {**kept, "R": 2, "C": 3}, shapes, ("t",) if biased else (), loops)


def cases() -> st.SearchStrategy[Case]:
    return st.one_of(convolutions(), reductions(), attentions())
