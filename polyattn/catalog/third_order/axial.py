"""Axial attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.errors import SpecError

FACTS = Facts(
    title="Axial attention",
    source="Ho et al., Axial Attention in Multidimensional Transformers, 2019",
    year=2019,
    sizes={"H": 4, "W": 3, "C": 4, "R": 3},
    reach={"H": "all"},
    equivariant=("H", "W"),
)


def axial(axis: str = "height", softmax: bool = False, mean: bool = False) -> Spec:
    """Return axial attention along one axis: a non-local block on each column ("height") or each row ("width").

    Source: Ho et al., Axial Attention in Multidimensional Transformers, 2019; Wang et al., Axial-DeepLab, 2020, without
    its position encodings. A full axial layer is one of each axis in turn, height first: two layers of degree 3 (their
    composition would be one of degree 9), after which any two positions have met.

    Prefer it to `nl` on large maps: HW * H or HW * W similarities instead of (HW)². `criss_cross` is the sum of both.

    Args:
        axis: "height" or "width".
        softmax: normalise each position's similarities, as published; not a polynomial.
        mean: divide the sum over the axis by its length. With softmax it is refused.

    Raises:
        SpecError: another axis, or two normalisations.
    """
    if axis not in ("height", "width"):
        raise SpecError(f"axial attention runs along 'height' or 'width', not {axis!r}")
    if softmax and mean:
        raise SpecError("axial attention has softmax or a mean, not both")
    scale = "" if not mean else "1/H * " if axis == "height" else "1/W * "
    # `at` is a position on the same axis: the running index, and the other coordinate of the output.
    over, at = ("k", "k,j") if axis == "height" else ("l", "i,l")
    similarity = f"query[i,j,r]*key[{at},r]"
    if softmax:
        similarity = f"softmax[{over}]({similarity})"
    return Spec(f"""
        x[H,W,C]; where r : R
        query[i,j,r] = x[i,j,d]*wq[d,r]
        key[i,j,r] = x[i,j,f]*wk[f,r]
        value[i,j,b] = x[i,j,h]*wv[h,b]
        similarity[i,j,{over}] = {similarity}
        y[i,j,b] = {scale}similarity[i,j,{over}]*value[{at},b]
    """)


def reference(x, wq, wk, wv):
    """Each column by itself: similarities, then their sum of values."""
    y = np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        for k in range(len(x)):
            y[i, j] += (x[i, j] @ wq) @ (x[k, j] @ wk) * (x[k, j] @ wv)
    return y
