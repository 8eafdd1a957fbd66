"""NL's positions with a channel core in CP form."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="NL with a CP core",
    source="Kolda & Bader, Tensor Decompositions and Applications, 2009, section 3",
    year=2009,
    sizes={"N": 5, "C": 4, "R": 3},
    reach={"N": "all"},
    equivariant=("N",),
    symmetries=((("wk", "wv"),),),
)


def cp_nl(rank: int | None = None, *, mean: bool = True, bias: bool = False, symmetric: bool = False) -> Spec:
    """Return NL with a CP core: `T[b,d,f,h] = Σ_r wq[d,r] wk[f,r] wv[h,r] wo[r,b]` at positions x[a,d] x[e,f] x[e,h].

    Source: the canonical polyadic decomposition, Kolda & Bader, Tensor Decompositions and Applications, 2009, section
    3, put into Poly-NL, Eq. 5. It is Poly-NL with R inner channels; Poly-NL, Eq. 7, is the member with rank C and
    `wq = I`, and `nl` one with rank C².

    Prefer it where the layer is to be as cheap as can be: R numbers are all that passes between positions, and 4 NCR
    multiply-accumulates the leading cost. `block_term_nl` holds `nl` and `e_nl` at far lower ranks.

    Args:
        rank: R as a number; without it R is a size to be given later.
        mean: divide the sum over positions by N.
        bias: query, key, value and output with biases: all orders up to the third (Poly-NL, Eq. 3).
        symmetric: one matrix for key and value, a symmetric decomposition over the exchangeable pair of x's.
    """
    # The output's bias is over channels, the others over the rank.
    b = {w: f" + b{w}[{'b' if w == 'o' else 'r'}]" if bias else "" for w in "qkvo"}
    scale = "1/N * " if mean else ""
    # The shared matrix makes key and value one tensor, which is written once.
    value = "" if symmetric else f"value[e,r] = x[e,h]*wv[h,r]{b['v']}"
    other = "key[e,r]" if symmetric else "value[e,r]"
    return Spec(f"""
        x[N,C]; where r : {rank or "R"}
        query[a,r] = x[a,d]*wq[d,r]{b["q"]}
        key[e,r] = x[e,f]*wk[f,r]{b["k"]}
        {value}
        pooled[r] = {scale}key[e,r]*{other}
        y[a,b] = query[a,r]*pooled[r]*wo[r,b]{b["o"]}
    """)


def reference(x, wq, wk, wv, wo):
    """Rank by rank: a sum over r of outer products."""
    y = np.zeros_like(x)
    for r in range(wq.shape[1]):
        y += np.outer(x @ wq[:, r], wo[r]) * np.dot(x @ wk[:, r], x @ wv[:, r]) / len(x)
    return y
