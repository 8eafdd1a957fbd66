"""Latent cross-attention."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend

FACTS = Facts(
    title="Latent cross-attention",
    source="Jaegle et al., Perceiver: General Perception with Iterative Attention, 2021, section 3",
    year=2021,
    sizes={"N": 5, "C": 4, "M": 3, "D": 2},
    degree=None,
    equivariant=("N",),
)


def perceiver() -> Spec:
    """Return cross-attention of M learned latents to the N positions: the output has the latents' positions.

    Source: Jaegle et al., Perceiver: General Perception with Iterative Attention, 2021, section 3.

    Prefer it as a first layer over very many positions; all that follows costs as M. It also pools, as in CaiT and
    DETR.
    """
    return Spec("""
        x[N,C]; where m : M; where d : D; where b : C
        q[m,d] = latent[m,b]*wq[b,d]
        p[m,a] = softmax[a](1/sqrt(D) * q[m,d]*wk[c,d]*x[a,c])
        y[m,b] = p[m,a]*x[a,c]*wv[c,b]
    """)


def reference(x, latent, wq, wk, wv):
    """Latents are the queries."""
    return attend(latent @ wq, x @ wk, x @ wv)
