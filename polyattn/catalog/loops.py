"""Functions of numpy arrays for the references of the catalogue; nothing here is used by the library itself."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
from numpy.typing import ArrayLike


def softmax(a: ArrayLike, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    """Return exponentials divided by their sum along an axis."""
    powers = np.exp(a - np.max(a, axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def sigmoid(a: ArrayLike) -> np.ndarray:
    """Return `1 / (1 + exp(-a))`."""
    return 1 / (1 + np.exp(-np.asarray(a)))


def relu(a: ArrayLike) -> np.ndarray:
    """Return the larger of a and 0."""
    return np.maximum(a, 0)


def silu(a: np.ndarray) -> np.ndarray:
    """Return `a sigmoid(a)`."""
    return a * sigmoid(a)


def gelu(a: np.ndarray) -> np.ndarray:
    """Return a times the normal distribution function of a."""
    return a * np.vectorize(lambda v: (1 + erf(v / sqrt(2))) / 2)(a)


def elu(a: np.ndarray) -> np.ndarray:
    """Return a where it is positive, `exp(a) - 1` elsewhere."""
    return np.where(a > 0, a, np.exp(np.minimum(a, 0)) - 1)


def unit(a: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return a divided by its Euclidean norm along an axis."""
    return a / np.sqrt(np.sum(a * a, axis=axis, keepdims=True))


def heads(a: np.ndarray, number: int) -> list[np.ndarray]:
    """Return the columns of each head, head after head."""
    return np.split(a, number, axis=-1)


def attend(query: np.ndarray, keys: np.ndarray, values: np.ndarray, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """Return softmax attention of matrices, one query after the other, scaled by the root of the channels."""
    rows = []
    for position, q in enumerate(query):
        scores = np.array([q @ k for k in keys]) / sqrt(query.shape[1])
        rows.append(softmax(scores + (bias[position] if isinstance(bias, np.ndarray) else bias)) @ values)
    return np.array(rows)


def layer_norm(a: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """Return the rows without their mean, divided by their standard deviation."""
    deviations = a - a.mean(-1, keepdims=True)
    return deviations / np.sqrt((deviations**2).mean(-1, keepdims=True) + eps)


def leaky(a: np.ndarray) -> np.ndarray:
    """Return a where it is positive, a fifth of it elsewhere."""
    return np.where(a > 0, a, 0.2 * a)


def around(x: np.ndarray, i: int, j: int, far: int) -> dict[tuple[int, int], np.ndarray]:
    """Return the places of a map at most `far` rows and columns away, by their offset; those outside are not there."""
    steps = [(u, v) for u in range(-far, far + 1) for v in range(-far, far + 1)]
    return {(u, v): x[i + u, j + v] for u, v in steps if 0 <= i + u < x.shape[0] and 0 <= j + v < x.shape[1]}


def depthwise(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the convolution of each channel with its kernel, place by place; zeros outside of the map."""
    far, y = len(w) // 2, np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        y[i, j] = sum(w[u + far, v + far] * z for (u, v), z in around(x, i, j, far).items())
    return y
