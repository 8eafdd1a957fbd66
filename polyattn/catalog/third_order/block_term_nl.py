"""NL's positions with a channel core in block-term form."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="NL with a block-term core",
    source="De Lathauwer, Decompositions of a Higher-Order Tensor in Block Terms, 2008",
    year=2008,
    sizes={"N": 5, "C": 4, "G": 2, "R": 3, "V": 2},
    reach={"N": "all"},
    equivariant=("N",),
    relation="e_nl with G heads",
)


def block_term_nl(
    terms: int | None = None, ranks: tuple[int, int] | None = None, *, mean: bool = True, bias: bool = False
) -> Spec:
    """Return NL with a block-term core: `T[b,d,f,h] = Σ_g (Σ_r wq[g,d,r] wk[g,f,r]) (Σ_s wv[g,h,s] wo[g,s,b])`.

    Source: De Lathauwer, Decompositions of a Higher-Order Tensor in Block Terms, 2008: G terms of multilinear rank
    (R, R, V, V), each with the core I ⊗ I, put into Poly-NL, Eq. 5. It is `e_nl` with G heads; one term of full
    ranks is `nl`, and terms of rank (1, 1) are `cp_nl`.

    Prefer it to `cp_nl` for the core of a trained `nl`: that is one matrix times another, so one term holds it.

    Args:
        terms: G as a number; without it G is a size to be given later.
        ranks: (query-key, value-output) of each term as numbers; without them the sizes R and V are given later.
        mean: divide the sum over positions by N.
        bias: query, key, value and output with biases: all orders up to the third (Poly-NL, Eq. 3).
    """
    r, s = ranks or ("R", "V")
    b = [f" + {text}" if bias else "" for text in ("bq[g,r]", "bk[g,r]", "bv[g,s]", "bo[b]")]
    scale = "1/N * " if mean else ""
    return Spec(f"""
        x[N,C]; where g : {terms or "G"}; where r : {r}; where s : {s}
        query[a,g,r] = x[a,d]*wq[g,d,r]{b[0]}
        key[e,g,r] = x[e,f]*wk[g,f,r]{b[1]}
        value[e,g,s] = x[e,h]*wv[g,h,s]{b[2]}
        context[g,r,s] = {scale}key[e,g,r]*value[e,g,s]
        attended[a,g,s] = query[a,g,r]*context[g,r,s]
        y[a,b] = attended[a,g,s]*wo[g,s,b]{b[3]}
    """)


def reference(x, wq, wk, wv, wo):
    """One non-local block for each term, with a similarity and a value of low rank."""
    y = np.zeros_like(x)
    for q, k, v, o in zip(wq, wk, wv, wo, strict=True):
        y += (x @ q @ k.T @ x.T) @ (x @ v @ o) / len(x)
    return y
