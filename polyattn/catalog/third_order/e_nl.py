"""Efficient non-local block."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Efficient attention",
    source="Shen et al., Efficient Attention: Attention with Linear Complexities, 2021",
    year=2021,
    sizes={"N": 5, "C": 6, "R": 3, "V": 2},
    reach={"N": "all"},
    equivariant=("N",),
    relation="nl with wf = wq wkᵀ and wg = wv wo / N",
)


def e_nl(softmax: bool = False, heads: bool = False) -> Spec:
    """Return efficient attention: `Y = Q (Kᵀ V / N) Wo`, the context of R x V numbers first.

    Source: Shen et al., Efficient Attention: Attention with Linear Complexities, 2021, with scaling normalisation;
    Poly-NL, section 4.2.

    Prefer it to `nl` where the similarity is to have a low rank R, or where softmax is wanted at a cost linear in N.
    Without softmax it is `nl` with `wf = wq wkᵀ` and `wg = wv wo / N`, and `a2_net` with other names.

    Args:
        softmax: the published normalisation, over channels for each position's query and over positions for each
            channel of the key, which then replaces the 1/N. Not a polynomial.
        heads: J heads, each with its own R channels of query and key and S of value.
    """
    if heads:
        query, key, mean = "x[a,d]*wq[d,(j r)]", "x[e,f]*wk[f,(j r)]", "1/N * "
        # The key's softmax over positions replaces the mean.
        if softmax:
            query, key, mean = f"softmax[r]({query})", f"softmax[e]({key})", ""
        return Spec(f"""
            x[N,C]; where D = J*R; where V = J*S; where j : J; where r : R; where s : S
            query[a,j,r] = {query}
            key[e,j,r] = {key}
            value[e,j,s] = x[e,h]*wv[h,(j s)]
            context[j,r,s] = {mean}key[e,j,r]*value[e,j,s]
            attended[a,j,s] = query[a,j,r]*context[j,r,s]
            y[a,b] = attended[a,j,s]*wo[(j s),b]
        """)
    if softmax:
        return Spec("""
            x[N,C]; where r : R; where s : V
            query[a,r] = softmax[r](x[a,d]*wq[d,r])
            key[e,r] = softmax[e](x[e,f]*wk[f,r])
            value[e,s] = x[e,h]*wv[h,s]
            context[r,s] = key[e,r]*value[e,s]
            y[a,b] = query[a,r]*context[r,s]*wo[s,b]
        """)
    return Spec("""
        x[N,C]; where r : R; where s : V
        query[a,r] = x[a,d]*wq[d,r]
        key[e,r] = x[e,f]*wk[f,r]
        value[e,s] = x[e,h]*wv[h,s]
        context[r,s] = 1/N * key[e,r]*value[e,s]
        y[a,b] = query[a,r]*context[r,s]*wo[s,b]
    """)


def reference(x, wq, wk, wv, wo):
    """The context of keys and values first."""
    context = (x @ wk).T @ (x @ wv) / len(x)
    return x @ wq @ context @ wo
