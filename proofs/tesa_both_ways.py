"""TESA computed through its I_r x I_r similarities is TESA computed through its large ones.

Each of TESA's three terms is a non-local block on one matricisation of X: for rows, similarities of H x H by sums over
columns and channels, then values; or first keys times values, an array over columns, channels and columns, channels.
"""

import polyattn as pa
from proofs.theorem import Claim, Theorem

CONTEXTS = """x[H,W,C]
where r : R
key1[k,l,r] = x[k,l,f]*wk1[f,r]
value1[k,l,b] = x[k,l,h]*wv1[h,b]
context1[r,b] = key1[k,l,r]*value1[k,l,b]
key2[k,v,r] = x[k,v,f]*wk2[f,r]
value2[k,j,b] = x[k,j,h]*wv2[h,b]
context2[v,r,j,b] = key2[k,v,r]*value2[k,j,b]
key3[u,l,r] = x[u,l,f]*wk3[f,r]
value3[i,l,b] = x[i,l,h]*wv3[h,b]
context3[u,r,i,b] = key3[u,l,r]*value3[i,l,b]
y[i,j,b] = alpha1*x[i,j,d]*wq1[d,r]*context1[r,b] + alpha2*x[i,v,d]*wq2[d,r]*context2[v,r,j,b]
         + alpha3*x[u,j,d]*wq3[d,r]*context3[u,r,i,b]"""

SIMILARITIES = """x[H,W,C]
where r : R
same1[i,j,k,l] = x[i,j,d]*wq1[d,r]*x[k,l,f]*wk1[f,r]
same2[i,k] = x[i,v,d]*wq2[d,r]*x[k,v,f]*wk2[f,r]
same3[j,l] = x[u,j,d]*wq3[d,r]*x[u,l,f]*wk3[f,r]
y[i,j,b] = alpha1*same1[i,j,k,l]*x[k,l,h]*wv1[h,b] + alpha2*same2[i,k]*x[k,j,h]*wv2[h,b]
         + alpha3*same3[j,l]*x[i,l,h]*wv3[h,b]"""

THEOREM = Theorem(
    "TESA through I_r x I_r similarities is TESA through its large ones",
    "Babiloni et al., TESA; Poly-NL, section 4.2. The order of the two products is free in each of the three terms, "
    "so the cheaper can be chosen term by term. It is not with a softmax over the similarities.",
    (
        Claim("tesa_both_ways", "similarities first or contexts first", SIMILARITIES, CONTEXTS),
        Claim("tesa_as_in_the_catalogue", "and both are the catalogue's", SIMILARITIES, str(pa.catalog.tesa())),
        Claim(
            "tesa_without_rows",
            "the term of the rows is none of the others: exchanging rows and columns in it is another layer",
            SIMILARITIES,
            SIMILARITIES.replace("same2[i,k]*x[k,j,h]", "same2[k,i]*x[k,j,h]"),
            holds=False,
        ),
    ),
)


def test_tesa_both_ways():
    THEOREM.settle()
