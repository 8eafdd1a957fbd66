"""NL's positions with a channel core in tensor-train form."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="NL with a tensor-train core",
    source="Oseledets, Tensor-Train Decomposition, 2011",
    year=2011,
    sizes={"N": 4, "C": 3, "R": 2, "K": 3, "V": 2},
    reach={"N": "all"},
    equivariant=("N",),
)


def tt_nl(ranks: tuple[int, int, int] | None = None, *, mean: bool = True, bias: bool = False) -> Spec:
    """Return NL with a tensor-train core: `T[b,d,f,h] = Σ wq[d,r] wk[r,f,s] wv[s,h,t] wo[t,b]`.

    Source: Oseledets, Tensor-Train Decomposition, 2011, put into Poly-NL, Eq. 5, with the modes in the order query,
    key, value, output. `nl` is the member with the ranks (C, 1, C), `e_nl` that with (R, 1, V): the rank in the middle
    says how much more than a product of a similarity and a value the core is.

    Prefer it where a trained core is near `nl`'s and a little beyond; at a middle rank of 1 it costs as much as `e_nl`.

    Args:
        ranks: (query-key, key-value, value-output) as numbers; without them the sizes R, K, V are to be given later.
        mean: divide the sum over positions by N.
        bias: query, key, value and output with biases: all orders up to the third (Poly-NL, Eq. 3).
    """
    r, s, t = ranks or ("R", "K", "V")
    b = [f" + {text}" if bias else "" for text in ("bq[r]", "bk[r,s]", "bv[s,t]", "bo[b]")]
    scale = "1/N * " if mean else ""
    return Spec(f"""
        x[N,C]; where r : {r}; where s : {s}; where t : {t}
        query[a,r] = x[a,d]*wq[d,r]{b[0]}
        key[e,r,s] = x[e,f]*wk[r,f,s]{b[1]}
        value[e,s,t] = x[e,h]*wv[s,h,t]{b[2]}
        context[r,t] = {scale}key[e,r,s]*value[e,s,t]
        y[a,b] = query[a,r]*context[r,t]*wo[t,b]{b[3]}
    """)


def reference(x, wq, wk, wv, wo):
    """`y[a,b] = 1/N Σ x[a,d] x[e,f] x[e,h] core[d,f,h,b]`, by loops over positions."""
    whole = np.tensordot(np.tensordot(np.tensordot(wq, wk, 1), wv, 1), wo, 1)
    y = np.zeros_like(x)
    for a in range(len(x)):
        for e in range(len(x)):
            for d, f, h in np.ndindex(whole.shape[:3]):
                y[a] += x[a, d] * x[e, f] * x[e, h] * whole[d, f, h] / len(x)
    return y
