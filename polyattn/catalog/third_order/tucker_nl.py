"""NL's positions with a channel core in Tucker form."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="NL with a Tucker core",
    source="Kolda & Bader, Tensor Decompositions and Applications, 2009, section 4",
    year=2009,
    sizes={"N": 4, "C": 3, "R": 2, "K": 3, "V": 2, "S": 3},
    reach={"N": "all"},
    equivariant=("N",),
)


def tucker_nl(
    ranks: tuple[int, int, int, int] | None = None, *, mean: bool = True, bias: bool = False, symmetric: bool = False
) -> Spec:
    """Return NL with a Tucker core: `T[b,d,f,h] = Σ core[r,s,t,u] wq[d,r] wk[f,s] wv[h,t] wo[u,b]`.

    Source: the Tucker decomposition, Kolda & Bader, Tensor Decompositions and Applications, 2009, section 4, put into
    Poly-NL, Eq. 5. `e_nl` is the member with `core[r,s,t,u] = I[r,s] I[t,u]`, `cp_nl` that with a superdiagonal
    core.

    Prefer it where features lie near subspaces of few channels: the small core may then be anything. The core has as
    many entries as the product of the four ranks, so they have to be small.

    Args:
        ranks: (query, key, value, output) as numbers; without them the sizes R, K, V, S are to be given later.
        mean: divide the sum over positions by N.
        bias: query, key, value and output with biases: all orders up to the third (Poly-NL, Eq. 3).
        symmetric: one matrix for key and value; the ranks of the two are then equal.
    """
    # With one matrix for key and value the two ranks are the same size.
    r, s, t, u = ranks or ("R", "K", "K" if symmetric else "V", "S")
    # The output's bias is over channels and has no rank.
    b = {w: f" + b{w}[{'b' if w == 'o' else i}]" if bias else "" for w, i in zip("qkvo", "rst ", strict=True)}
    scale = "1/N * " if mean else ""
    value = "" if symmetric else f"value[e,t] = x[e,h]*wv[h,t]{b['v']}"
    other = "key[e,t]" if symmetric else "value[e,t]"
    return Spec(f"""
        x[N,C]; where r : {r}; where s : {s}; where t : {t}; where u : {u}
        query[a,r] = x[a,d]*wq[d,r]{b["q"]}
        key[e,s] = x[e,f]*wk[f,s]{b["k"]}
        {value}
        context[s,t] = {scale}key[e,s]*{other}
        mixed[r,u] = core[r,s,t,u]*context[s,t]
        y[a,b] = query[a,r]*mixed[r,u]*wo[u,b]{b["o"]}
    """)


def reference(x, wq, wk, wv, core, wo):
    """`y[a,b] = 1/N Σ x[a,d] x[e,f] x[e,h] core[d,f,h,b]`, by loops over positions."""
    whole = core
    for w in (wq.T, wk.T, wv.T, wo):  # each product takes the first mode and puts the new one last
        whole = np.tensordot(whole, w, (0, 0))
    y = np.zeros_like(x)
    for a in range(len(x)):
        for e in range(len(x)):
            for d, f, h in np.ndindex(whole.shape[:3]):
                y[a] += x[a, d] * x[e, f] * x[e, h] * whole[d, f, h] / len(x)
    return y
