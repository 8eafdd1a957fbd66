"""Bottleneck attention of maps."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="Bottleneck attention of maps",
    source="Srinivas et al., Bottleneck Transformers for Visual Recognition, 2021, section 3",
    year=2021,
    sizes={"H": 2, "W": 3, "C": 3, "D": 2},
    degree=None,
    reach={"H": "all", "W": "all"},
)


def bottleneck() -> Spec:
    """Return attention over a map in which each query also meets embeddings of the differences in height and in width.

    Source: Srinivas et al., Bottleneck Transformers for Visual Recognition, 2021, section 3.

    Prefer it to `multi_head` on maps of one size: the embeddings have 2H - 1 and 2W - 1 rows.
    """
    return Spec("""
        x[H,W,C]; where d : D
        q[i,j,d] = x[i,j,c]*wq[c,d]
        k[k,l,d] = x[k,l,c]*wk[c,d]
        p[i,j,k,l] = softmax[k,l](q[i,j,d]*k[k,l,d] + q[i,j,d]*rh[i-k,d] + q[i,j,d]*rw[j-l,d])
        y[i,j,b] = p[i,j,k,l]*x[k,l,c]*wv[c,b]
    """)


def reference(x, wq, wk, rh, rw, wv):
    """Position by position."""
    y, (height, width) = np.zeros((*x.shape[:2], wv.shape[1])), x.shape[:2]
    places = list(np.ndindex(height, width))
    for i, j in places:
        q = x[i, j] @ wq
        scores = [q @ (x[k, l] @ wk + rh[i - k + height - 1] + rw[j - l + width - 1]) for k, l in places]
        y[i, j] = softmax(np.array(scores)) @ np.array([x[k, l] @ wv for k, l in places])
    return y
