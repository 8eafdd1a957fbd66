"""Compressed interaction network."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Compressed interaction network",
    source="Lian et al., xDeepFM, 2018, Eq. 6",
    year=2018,
    sizes={"M": 3, "D": 4, "H": 2, "K": 2},
    equivariant=("D",),
)


def cin() -> Spec:
    """Return two layers of CIN: products of every feature map with every field, entry by entry, compressed by weights.

    Source: Lian et al., xDeepFM, 2018, Eq. 6.

    Prefer it to `factorisation_machine` where products of three fields are wanted explicitly.
    """
    return Spec("""
        x[M,D]; where i, j, o : M; where h : H; where k : K
        first[h,d] = w1[h,i,j]*x[i,d]*x[j,d]
        y[k,d] = w2[k,h,o]*first[h,d]*x[o,d]
    """)


def reference(x, w1, w2):
    """Each compressed map as a sum over pairs."""

    def layer(w, maps):
        return np.array([sum(v[i, j] * maps[i] * x[j] for i, j in np.ndindex(v.shape)) for v in w])

    return layer(w2, layer(w1, x))
