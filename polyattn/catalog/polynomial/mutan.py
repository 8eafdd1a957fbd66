"""MUTAN."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="MUTAN",
    source="Ben-younes et al., MUTAN: Multimodal Tucker Fusion for Visual Question Answering, 2017, section 3.2",
    year=2017,
    sizes={"Q": 4, "V": 3, "S": 3, "T": 2, "O": 2, "R": 2},
    degree=2,
)


def mutan() -> Spec:
    """Return the fusion of two vectors by a Tucker tensor whose core is a sum of R products of matrices.

    Source: Ben-younes et al., MUTAN: Multimodal Tucker Fusion for Visual Question Answering, 2017, section 3.2.

    Prefer it to `bilinear_pooling` where the full tensor is too large, to `mlb` where two modes are to have ranks of
    their own. The tanh of the inputs' projections are left out.
    """
    return Spec("""
        q[Q]; v[V]; where s : S; where t : T; where o : O; where r : R; where p : O
        y[p] = q[c]*wq[c,s]*ms[r,s,o] * v[d]*wv[d,t]*mt[r,t,o] * wo[o,p]
    """)


def reference(q, v, wq, ms, wv, mt, wo):
    """A product for each of R slices."""
    return sum((q @ wq @ ms[r]) * (v @ wv @ mt[r]) for r in range(len(ms))) @ wo
