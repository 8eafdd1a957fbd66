"""Bilinear attentional transform."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Bilinear attentional transform",
    source="Chi et al., Non-Local Neural Networks with Grouped Bilinear Attentional Transforms, Eq. 1",
    year=2020,
    sizes={"H": 3, "W": 4, "C": 4, "G": 2, "K": 3},
    reach={"H": "all", "W": "all"},
)


def ba_transform() -> Spec:
    """Return BA-Transform: `Y_c = P X_c Q` for each channel c, P and Q predicted from X, one pair for each of G groups.

    Source: Chi et al., Non-Local Neural Networks with Grouped Bilinear Attentional Transforms, Eq. 1; P and Q by
    row and column pooling (Eq. 3 and 4, here by mean) of K channels and a convolution with a global field. Degree 3:
    P, X and Q. Its normalisation (Eq. 2), batch norm, ReLU and pooling by maximum are not polynomials and left out.

    Prefer it where rows and columns are to be mixed as wholes (zooming, moving, suppressing) and H and W are fixed:
    `wp` and `wq` have their sizes. For large or varying H and W see `ba_transform_block`.
    """
    return Spec("""
        x[H,W,C]; where C = G*M; where m : K
        row[i,m] = 1/W * x[i,j,c]*wf[c,m]            # 1x1 convolution, then row pooling
        col[j,m] = 1/H * x[i,j,c]*wf[c,m]
        p[g,i,k] = row[u,m]*wp[g,i,k,u,m]            # H x 1 convolution with a global field
        q[g,l,j] = col[v,m]*wq[g,l,j,v,m]
        y[i,j,(g n)] = p[g,i,k] * x[k,l,(g n)] * q[g,l,j]
    """)


def reference(x, wf, wp, wq, M):
    """`P X_c Q`, channel by channel."""
    features = x @ wf
    row, col = features.mean(1), features.mean(0)
    y = np.empty_like(x)
    for c in range(x.shape[2]):
        p = np.array([[np.sum(kernel * row) for kernel in line] for line in wp[c // M]])
        q = np.array([[np.sum(kernel * col) for kernel in line] for line in wq[c // M]])
        y[:, :, c] = p @ x[:, :, c] @ q
    return y
