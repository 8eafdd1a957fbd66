"""Coordinate attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import relu, sigmoid

FACTS = Facts(
    title="Coordinate attention",
    source="Hou et al., Coordinate Attention for Efficient Mobile Network Design, 2021, Eq. 4 to 9",
    year=2021,
    sizes={"H": 3, "W": 4, "C": 3, "R": 2},
    degree=None,
    reach={"H": "all", "W": "all"},
    equivariant=("H", "W"),
)


def coordinate() -> Spec:
    """Return the map scaled by a gate for its row and one for its column, both from means along the other axis.

    Source: Hou et al., Coordinate Attention for Efficient Mobile Network Design, 2021, Eq. 4 to 9.

    Prefer it to `squeeze_excitation` where places matter. Batch norm is left out, and relu stands for the hard swish.
    """
    return Spec("""
        x[H,W,C]; where r, s : R
        row[i,c] = 1/W * x[i,j,c]
        col[j,c] = 1/H * x[i,j,c]
        f[i,r] = relu(row[i,c]*w1[c,r])
        g[j,s] = relu(col[j,c]*w1[c,s])
        y[i,j,b] = x[i,j,b] * sigmoid(f[i,r]*wh[r,b]) * sigmoid(g[j,s]*ww[s,b])
    """)


def reference(x, w1, wh, ww):
    """Position by position."""
    rows = sigmoid(relu(x.mean(1) @ w1) @ wh)
    columns = sigmoid(relu(x.mean(0) @ w1) @ ww)
    return np.array([[x[i, j] * rows[i] * columns[j] for j in range(x.shape[1])] for i in range(len(x))])
