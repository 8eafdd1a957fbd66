"""Poly-NL, NL and E-NL are members of the families of factored channel cores.

All of them are NL's position pattern, `y[a,b] = x[a,d] core[d,f,h,b] x[e,f] x[e,h]`, and a family is a way to factor
the core: CP, Tucker, tensor train, block terms. For each family the layers are got from it by giving its factors. NL's
core, a matrix times a matrix, is a tensor train whose middle rank is 1, as E-NL's with the ranks R and V, and a CP
decomposition of rank C², with r = (p q).
"""

import polyattn as pa
from proofs.theorem import Claim, Theorem

NL, POLY_NL, E_NL = (str(pa.catalog.get(name)) for name in ("nl", "poly_nl", "e_nl"))
CP, TUCKER, TT, BLOCK = (str(pa.catalog.get(f"{name}_nl")) for name in ("cp", "tucker", "tt", "block_term"))
PATTERN = "x[N,C]\nwhere d, f, h : C\ny[a,b] = x[a,d]*core[d,f,h,b]*x[e,f]*x[e,h]"


def _one(text: str, **sizes: str) -> str:
    """A family's text with some of its ranks as numbers or as other sizes."""
    for size, value in sizes.items():
        text = text.replace(f": {size}\n", f": {value}\n")
    return text


def _renamed(text: str) -> str:
    """A layer's text with other names for the parameters that its family has too, in other shapes."""
    for name in "qkvo":
        text = text.replace(f"w{name}[", f"e{name}[")
    return text


THEOREM = Theorem(
    "Poly-NL, NL and E-NL are members of the families of factored cores",
    "Poly-NL, Eq. 5, with the decompositions of Kolda & Bader (CP, Tucker), Oseledets (tensor train) and De Lathauwer "
    "(block terms) for the channel core T[b,d,f,h].",
    (
        Claim(
            "cp_core",
            "the CP family is the pattern with a CP core",
            PATTERN,
            CP,
            ("core[d,f,h,b] = 1/N*wq[d,r]*wk[f,r]*wv[h,r]*wo[r,b]", "r : R"),
        ),
        Claim(
            "poly_nl_is_cp",
            "Poly-NL is a CP core of rank C whose first factor is the identity",
            _one(CP, R="C"),
            POLY_NL,
            ("wq[d,r] = I[d,r]", "wk[f,r] = w2[f,r]", "wv[h,r] = w1[h,r]", "wo[r,b] = w3[r,b]"),
        ),
        Claim(
            "reduced_poly_nl_is_cp",
            "Poly-NL with R inner channels is the CP family itself",
            CP,
            str(pa.catalog.poly_nl(reduced=True)),
            ("wq[d,r] = w0[d,r]", "wk[f,r] = w2[f,r]", "wv[h,r] = w1[h,r]", "wo[r,b] = w3[r,b]"),
        ),
        Claim(
            "nl_is_cp",
            "NL is a CP core of rank C²",
            str(pa.catalog.cp_nl(mean=False)).replace("where r : R", "where R = C*C\nwhere r : R"),
            NL,
            ("wq[d,(p q)] = I[d,p]", "wk[f,(p q)] = wf[p,f]", "wv[h,(p q)] = wg[h,q]", "wo[(p q),b] = I[q,b]"),
        ),
        Claim(
            "cp_is_tucker",
            "CP is Tucker with a superdiagonal core",
            _one(TUCKER, K="R", V="R", S="R"),
            CP,
            ("core[r,s,t,u] = I[r,s]*I[s,t]*I[t,u]",),
        ),
        Claim(
            "nl_is_tucker",
            "NL is Tucker at full ranks, its core being wf times wg",
            _one(TUCKER, R="C", K="C", V="C", S="C"),
            NL,
            (
                *("wq[d,r] = I[d,r]", "wk[f,s] = I[f,s]", "wv[h,t] = I[h,t]", "wo[u,b] = I[u,b]"),
                "core[r,s,t,u] = N*wf[r,s]*wg[t,u]",
            ),
        ),
        Claim(
            "e_nl_is_tucker",
            "E-NL is Tucker with the core I ⊗ I",
            _one(TUCKER, K="R", S="V"),
            E_NL,
            ("core[r,s,t,u] = I[r,s]*I[t,u]",),
        ),
        Claim(
            "e_nl_is_tt",
            "E-NL is a tensor train with the ranks (R, 1, V)",
            _one(TT, K="1"),
            _renamed(E_NL),
            ("wq[d,r] = eq[d,r]", "wk[r,f,s] = ek[f,r]", "wv[s,h,t] = ev[h,t]", "wo[t,b] = eo[t,b]"),
        ),
        Claim(
            "nl_is_tt",
            "NL is a tensor train with the ranks (C, 1, C)",
            _one(TT, R="C", K="1", V="C"),
            NL,
            ("wq[d,r] = I[d,r]", "wk[r,f,s] = wf[r,f]", "wv[s,h,t] = N*wg[h,t]", "wo[t,b] = I[t,b]"),
        ),
        Claim(
            "poly_nl_is_tt",
            "Poly-NL is a tensor train with the ranks (C, C, C)",
            _one(TT, R="C", K="C", V="C"),
            POLY_NL,
            ("wq[d,r] = I[d,r]", "wk[r,f,s] = w2[f,r]*I[r,s]", "wv[s,h,t] = w1[h,s]*I[s,t]", "wo[t,b] = w3[t,b]"),
        ),
        Claim(
            "e_nl_heads_is_block_term",
            "E-NL with J heads is a block-term core, a head being a term",
            _one(BLOCK, G="J", V="S"),
            _renamed(str(pa.catalog.e_nl(heads=True))),
            (
                *("wq[j,d,r] = eq[d,(j r)]", "wk[j,f,r] = ek[f,(j r)]"),
                *("wv[j,h,s] = ev[h,(j s)]", "wo[j,s,b] = eo[(j s),b]"),
            ),
        ),
    ),
)


def test_factored_cores():
    THEOREM.settle()
