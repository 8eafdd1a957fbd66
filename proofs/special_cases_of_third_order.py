"""NL, Poly-NL, E-NL, BA-Transform, TESA and Latent-GNN are special cases of Poly-NL's Eq. 4, with their W explicit.

Eq. 4 is `Y = ((W • X) • X) • X` with an interaction tensor W of order 2(D+1), here D = 3: order 8 for a matrix X of
positions and channels (Eq. 5), order 12 for a feature map of rows, columns and channels. For each layer W is written
down as a product of small tensors and deltas and put into Eq. 4, which then is the layer.
"""

import polyattn as pa
from proofs.theorem import Claim, Theorem

MATRIX = "x[N,C]\ny[a,b] = w8[a,b,c,d,e,f,g,h] * x[c,d]*x[e,f]*x[g,h]\nwhere a, c, e, g : N\nwhere b, d, f, h : C"
MAP = """x[H,W,C]
where i, k, m, o : H
where j, l, n, p : W
where b, d, f, h : C
y[i,j,b] = w12[i,j,b,k,l,d,m,n,f,o,p,h] * x[k,l,d]*x[m,n,f]*x[o,p,h]"""
GROUPED = MAP.replace("x[H,W,C]\n", "x[H,W,C]\nwhere C = G*M\n")

W_NL = "w8[a,b,c,d,e,f,g,h] = I[a,c]*I[e,g]*wf[d,f]*wg[h,b]"
W_POLY_NL = "w8[a,b,c,d,e,f,g,h] = 1/N*I[a,c]*I[e,g]*w1[h,d]*w2[f,d]*w3[d,b]"
W_E_NL = "w8[a,b,c,d,e,f,g,h] = 1/N*I[a,c]*I[e,g]*wq[d,r]*wk[f,r]*wv[h,s]*wo[s,b]"
W_LATENT_GNN = "w8[a,b,c,d,e,f,g,h] = 1/N*I[a,c]*I[e,g]*wpsi[d,k]*adj[k,l]*wphi[f,l]*wg[h,b]"
W_TESA = (
    "w12[i,j,b,k,l,d,m,n,f,o,p,h] = alpha1*I[i,k]*I[j,l]*I[m,o]*I[n,p]*wq1[d,r]*wk1[f,r]*wv1[h,b]"
    " + alpha2*I[i,k]*I[l,n]*I[m,o]*I[j,p]*wq2[d,r]*wk2[f,r]*wv2[h,b]"
    " + alpha3*I[k,m]*I[j,l]*I[i,o]*I[n,p]*wq3[d,r]*wk3[f,r]*wv3[h,b]"
)
W_BA_TRANSFORM = (
    "w12[i,j,(s t),k,l,d,m,n,(g c),o,p,h] = 1/W*1/H*I[s,g]*I[t,c]*wf[d,u]*wp[g,i,m,k,u]*wf[h,v]*wq[g,n,j,p,v]"
)

THEOREM = Theorem(
    "NL, Poly-NL, E-NL, BA-Transform, TESA and Latent-GNN are special cases of Eq. 4",
    "Poly-NL, Eq. 4 and 5 and section 4.2. The positions' deltas are what the layers share: NL, Poly-NL, E-NL and "
    "Latent-GNN all have I[a,c]*I[e,g], one x at the output's position and two at one other.",
    (
        Claim("eq4_nl", "NL is Eq. 4 with W = δ_ac δ_eg wf wg", MATRIX, str(pa.catalog.nl()), (W_NL,)),
        Claim("eq4_poly_nl", "Poly-NL is Eq. 4", MATRIX, str(pa.catalog.poly_nl()), (W_POLY_NL,)),
        Claim("eq4_e_nl", "E-NL is Eq. 4", MATRIX, str(pa.catalog.e_nl()), (W_E_NL,)),
        Claim("eq4_latent_gnn", "Latent-GNN is Eq. 4", MATRIX, str(pa.catalog.latent_gnn()), (W_LATENT_GNN,)),
        Claim("eq4_tesa", "TESA is Eq. 4, three position patterns added up", MAP, str(pa.catalog.tesa()), (W_TESA,)),
        Claim(
            "eq4_ba_transform",
            "BA-Transform is Eq. 4: the x in the middle is moved, the outer two are pooled",
            GROUPED,
            str(pa.catalog.ba_transform()),
            (W_BA_TRANSFORM,),
        ),
    ),
)


def test_special_cases_of_third_order():
    THEOREM.settle()
