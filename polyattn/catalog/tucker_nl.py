"""NL's positions with a channel core in Tucker form."""

from polyattn.algebra import Spec


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
