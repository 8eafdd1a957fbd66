"""Bilinear attentional transform with block-based matrices."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Bilinear attentional transform of blocks",
    source="Chi et al., Non-Local Neural Networks with Grouped Bilinear Attentional Transforms, section 3.3",
    year=2020,
    sizes={"S": 2, "U": 2, "V": 3, "C": 4, "G": 2, "K": 3},
    reach={"H": "all", "W": "all"},
)


def ba_transform_block() -> Spec:
    """Return BA-Transform with block-based matrices: `Y_c = (P ⊗ I) X_c (Q ⊗ I)`, P and Q of size S x S.

    Source: Chi et al., Non-Local Neural Networks with Grouped Bilinear Attentional Transforms, section 3.3: H and W
    fall into S blocks (Eq. 5 and 6, here by mean) of U rows and V columns, and each entry of P or Q is copied to the
    diagonal of its block (Figure 3).

    Prefer it to `ba_transform` at high resolution: fewer parameters, whose sizes do not depend on H and W, and better
    accuracy in the paper (Table 2). At U = V = 1 the two are one.
    """
    return Spec("""
        x[H,W,C]; where C = G*M; where H = S*U; where W = S*V; where m : K
        row[i,m] = 1/U/W * x[(i u),j,c]*wf[c,m]
        col[j,m] = 1/V/H * x[i,(j v),c]*wf[c,m]
        p[g,i,k] = row[t,m]*wp[g,i,k,t,m]
        q[g,l,j] = col[t,m]*wq[g,l,j,t,m]
        y[(i u),(j v),(g n)] = p[g,i,k] * x[(k u),(l v),(g n)] * q[g,l,j]      # P is P_s ⊗ I
    """)


def reference(x, wf, wp, wq, M):
    """`(P ⊗ I) X_c (Q ⊗ I)`, channel by channel."""
    features, blocks = x @ wf, wp.shape[1]
    row = np.array([part.mean((0, 1)) for part in np.split(features, blocks, 0)])
    col = np.array([part.mean((0, 1)) for part in np.split(features, blocks, 1)])
    y = np.empty_like(x)
    for c in range(x.shape[2]):
        p = np.array([[np.sum(kernel * row) for kernel in line] for line in wp[c // M]])
        q = np.array([[np.sum(kernel * col) for kernel in line] for line in wq[c // M]])
        p, q = np.kron(p, np.eye(len(x) // blocks)), np.kron(q, np.eye(x.shape[1] // blocks))
        y[:, :, c] = p @ x[:, :, c] @ q
    return y
