"""Functions of numpy arrays for the references of the catalogue; nothing here is used by the library itself."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np


def softmax(a: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    """Return exponentials divided by their sum along an axis."""
    powers = np.exp(a - np.max(a, axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def sigmoid(a: np.ndarray) -> np.ndarray:
    """Return `1 / (1 + exp(-a))`."""
    return 1 / (1 + np.exp(-np.asarray(a)))


def relu(a: np.ndarray) -> np.ndarray:
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
