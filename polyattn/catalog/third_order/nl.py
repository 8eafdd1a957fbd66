"""Non-local block."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Non-local block",
    source="Wang et al., Non-local Neural Networks, 2018",
    year=2018,
    sizes={"N": 5, "C": 4},
    reach={"N": "all"},
    equivariant=("N",),
)


def nl(softmax: bool = False) -> Spec:
    """Return the non-local block: `Y = (X Wf Xᵀ)(X Wg)`, every position against every other.

    Source: Wang et al., Non-local Neural Networks, 2018; in this form Poly-NL, Eq. 2 and 8.

    Prefer it as the reference that the others are measured against. As written it makes the N x N similarity; without
    softmax the product may be regrouped as `X (Wf XᵀX Wg)`, which is linear in N. With `Wf = Wq Wkᵀ` and
    `Wg = Wv Wo / N` it is E-NL.

    Args:
        softmax: normalise each position's similarities (the embedded Gaussian); no longer a polynomial, and no
            longer linear in N in any order.
    """
    if softmax:
        return Spec("""
            x[N,C]
            similarity[a,e] = softmax[e](x[a,d]*wf[d,f]*x[e,f])
            y[a,b] = similarity[a,e] * x[e,h]*wg[h,b]
        """)
    return Spec("""
        x[N,C]
        y[a,b] = x[a,d]*wf[d,f]*x[e,f] * x[e,h]*wg[h,b]
    """)


def reference(x, wf, wg):
    """All similarities, then their sums of values."""
    return (x @ wf @ x.T) @ (x @ wg)
