"""Linear attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import elu

FACTS = Facts(
    title="Linear attention",
    source="Katharopoulos et al., Transformers are RNNs, 2020, Eq. 4 to 7",
    year=2020,
    sizes={"N": 5, "C": 4, "D": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def linear_attention() -> Spec:
    """Return linear attention: features elu + 1 of queries and keys in the place of the softmax, with their normaliser.

    Source: Katharopoulos et al., Transformers are RNNs, 2020, Eq. 4 to 7.

    Prefer it to `multi_head` where N is large: the context of D x C numbers is summed first.
    """
    return Spec("""
        x[N,C]; where d : D
        q[a,d] = elu(x[a,c]*wq[c,d]) + 1
        k[e,d] = elu(x[e,c]*wk[c,d]) + 1
        z[a] = q[a,d]*k[e,d]
        y[a,b] = q[a,d]*k[e,d]*x[e,c]*wv[c,b] / z[a]
    """)


def reference(x, wq, wk, wv):
    """Position by position, weights of all others."""
    queries, keys, y = elu(x @ wq) + 1, elu(x @ wk) + 1, []
    for q in queries:
        weights = np.array([q @ k for k in keys])
        y.append(weights / weights.sum() @ (x @ wv))
    return np.array(y)
