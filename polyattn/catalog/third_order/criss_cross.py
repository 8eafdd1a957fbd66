"""Criss-cross attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Criss-cross attention",
    source="Huang et al., CCNet",
    year=2019,
    sizes={"H": 3, "W": 4, "C": 4, "R": 3},
    reach={"H": "all", "W": "all"},
    equivariant=("H", "W"),
    relation="the sum of axial along both axes",
)


def criss_cross(mean: bool = False) -> Spec:
    """Return criss-cross attention: each position attends to its column and its row, a non-local block on each.

    Source: Huang et al., CCNet: Criss-Cross Attention for Semantic Segmentation, 2019, Eq. 1 and 2, without softmax.

    It is `axial("height") + axial("width")` with shared weights. In this plain sum the position itself occurs twice,
    in its column and in its row. CCNet leaves it out of one of the two, normalises the H + W - 1 similarities by one
    softmax over both, and applies the layer twice with the same weights, so that any two positions meet.

    Prefer it to `nl` on large maps where similarities are to be explicit: HW (H + W) of them instead of (HW)².

    Args:
        mean: divide the sum over the column by H and that over the row by W.
    """
    tall, wide = ("1/H * ", "1/W * ") if mean else ("", "")
    return Spec(f"""
        x[H,W,C]; where r : R
        query[i,j,r] = x[i,j,d]*wq[d,r]
        key[i,j,r] = x[i,j,f]*wk[f,r]
        value[i,j,b] = x[i,j,h]*wv[h,b]
        column[i,j,k] = query[i,j,r]*key[k,j,r]
        row[i,j,l] = query[i,j,r]*key[i,l,r]
        y[i,j,b] = {tall}column[i,j,k]*value[k,j,b] + {wide}row[i,j,l]*value[i,l,b]
    """)


def reference(x, wq, wk, wv):
    """Each position attends to its column and its row."""
    query, key, value = x @ wq, x @ wk, x @ wv
    y = np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        y[i, j] = (key[:, j] @ query[i, j]) @ value[:, j] + (key[i] @ query[i, j]) @ value[i]
    return y
