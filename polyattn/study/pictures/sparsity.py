"""The sparsity pattern of an interaction tensor, unfolded by mode."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyattn.algebra import Spec
from polyattn.errors import BudgetError, SizeError
from polyattn.study.pictures.style import INK, PAPER, figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ENTRIES = 20_000_000


def sparsity(spec_or_tensor: Spec | str | NDArray[Any], sizes: Mapping[str, int] | None = None) -> Figure:
    """Draw the non-zero entries of an interaction tensor: a panel for each unfolding, its rows the output or one input.

    W has the output's axes and then those of each of the D inputs (Poly-NL, Eq. 4). The panel of a group of axes has a
    row for each of its positions, and the columns run over all other axes in their order; lines separate the columns by
    the first of these. A black cell is an entry of an array that is not zero, or an entry of a specification that is
    not zero for some parameters. W is that of the text, not symmetrised.

    Args:
        spec_or_tensor: a specification of one degree in one input, or its tensor as an array.
        sizes: sizes of the specification; by default every atomic size is 2, and the first 3.

    Raises:
        SizeError: an array has an odd number of axes or zero.
        BudgetError, NotPolynomialError: errors of `Spec.interaction_tensor`.
        MissingPackageError: matplotlib is not installed.
    """
    if isinstance(spec_or_tensor, str):
        spec_or_tensor = Spec(spec_or_tensor)
    if isinstance(spec_or_tensor, Spec):
        pattern, groups, title = _of_spec(spec_or_tensor, sizes)
    else:
        pattern, groups, title = _of_array(np.asarray(spec_or_tensor))
    return _drawn(pattern, groups, title)


Groups = list[tuple[str, tuple[int, ...]]]
"""The name of each group of axes, and its axes."""


def _of_spec(spec: Spec, sizes: Mapping[str, int] | None) -> tuple[NDArray[np.bool_], Groups, str]:
    known = spec.sizes.solve(sizes if sizes is not None else _small(spec), spec.sizes.names)
    (name,) = spec.inputs if len(spec.inputs) == 1 else (None,)
    entries = spec.interaction_tensor(known)  # refuses what has no such tensor
    inside = [known[s] if not s.isdigit() else int(s) for s in spec.inputs[name]] if name else []
    outside = [known[s] if s in known else prod(known[a] for a in s.split("*")) for s in spec.output_shape]
    degree = spec.degree
    shape = [*outside, *inside * degree]
    # Checked before the array is allocated.
    if prod(shape) > MOST_ENTRIES:
        raise BudgetError(f"the tensor has {prod(shape):,} entries, and a picture has room for {MOST_ENTRIES:,}")
    pattern = np.zeros(shape, dtype=bool)
    for place in entries:
        pattern[place] = True
    step = len(inside)
    groups = [(f"output {spec.output}", tuple(range(len(outside))))]
    groups += [
        (f"{name}, {k + 1} of {degree}", tuple(range(len(outside) + k * step, len(outside) + (k + 1) * step)))
        for k in range(degree)
    ]
    return pattern, groups, ", ".join(f"{n} = {known[n]}" for n in spec.sizes.names)


def _small(spec: Spec) -> dict[str, int]:
    return {n: 3 if k == 0 else 2 for k, n in enumerate(spec.sizes.atomic)}


def _of_array(tensor: NDArray[Any]) -> tuple[NDArray[np.bool_], Groups, str]:
    if tensor.ndim == 0 or tensor.ndim % 2:
        raise SizeError(
            f"an interaction tensor has a position and a channel for each x; this one has {tensor.ndim} axes"
        )
    if tensor.size > MOST_ENTRIES:
        raise BudgetError(f"the tensor has {tensor.size:,} entries, and a picture has room for {MOST_ENTRIES:,}")
    groups = [("output", (0, 1))]
    groups += [(f"input {k}", (2 * k, 2 * k + 1)) for k in range(1, tensor.ndim // 2)]
    return tensor != 0, groups, " x ".join(map(str, tensor.shape))


def _drawn(pattern: NDArray[np.bool_], groups: Groups, title: str) -> Figure:
    colours = __import__("matplotlib.colors", fromlist=["ListedColormap"])
    made = figure(8.5, 0.5 + 1.55 * len(groups))
    grid = made.subplots(len(groups), 1, squeeze=False)
    for axes, (name, own) in zip(grid.flat, groups, strict=True):
        rest = [k for k in range(pattern.ndim) if k not in own]
        rows = prod(pattern.shape[k] for k in own)
        matrix = pattern.transpose(*own, *rest).reshape(rows, -1)
        # Without interpolation, which would blur single cells away.
        axes.imshow(
            matrix, cmap=colours.ListedColormap([PAPER, INK]), aspect="auto", interpolation="none", vmin=0, vmax=1
        )
        axes.set_ylabel(plain(name), fontsize=8)
        axes.set_yticks([])
        axes.set_xticks([])
        blocks = pattern.shape[rest[0]] if rest else 1
        for k in range(1, blocks):
            axes.axvline(k * matrix.shape[1] / blocks - 0.5, color="#0072b2", linewidth=0.8)
    share = pattern.mean()
    made.suptitle(
        plain(f"{title}: {int(pattern.sum()):,} of {pattern.size:,} entries ({100 * share:.2g} %)"), fontsize=9
    )
    return made
