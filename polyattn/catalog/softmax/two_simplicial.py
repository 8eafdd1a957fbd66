"""2-simplicial attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="2-simplicial attention",
    source="Clift et al., Logic and the 2-Simplicial Transformer, 2019, section 2",
    year=2019,
    sizes={"N": 3, "C": 4, "D": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def two_simplicial() -> Spec:
    """Return attention to pairs of positions: a trilinear similarity, softmax over all pairs, products of two values.

    Source: Clift et al., Logic and the 2-Simplicial Transformer, 2019, section 2.

    Prefer it where a relation of three positions is to be found in one layer: N³ similarities. The paper has the
    volume of three vectors as similarity, this the later trilinear form.
    """
    return Spec("""
        x[N,C]; where d : D
        q[a,d] = x[a,c]*wq[c,d]
        k[e,d] = x[e,c]*wk[c,d]
        l[f,d] = x[f,c]*wl[c,d]
        p[a,e,f] = softmax[e,f](1/sqrt(D) * q[a,d]*k[e,d]*l[f,d])
        y[a,b] = p[a,e,f]*x[e,c]*wv[c,b]*x[f,g]*wu[g,b]
    """)


def reference(x, wq, wk, wl, wv, wu):
    """Position by position, over all pairs."""
    pairs, y = list(np.ndindex(len(x), len(x))), []
    for a in x @ wq:
        scores = np.array([np.sum(a * (x[e] @ wk) * (x[f] @ wl)) for e, f in pairs]) / np.sqrt(wq.shape[1])
        y.append(softmax(scores) @ np.array([(x[e] @ wv) * (x[f] @ wu) for e, f in pairs]))
    return np.array(y)
