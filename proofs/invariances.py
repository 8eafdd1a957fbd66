"""What attention does not see: a rotation of queries and keys, and a constant map under rows that sum to one.

A rotation: queries and keys multiplied by one orthogonal matrix have the same similarities, so the layer is the same,
softmax included. A constant: attention whose rows sum to one, as softmax and BAT's Eq. 2 make them, leaves a feature
map that is the same at all positions as it is.
"""

from proofs.theorem import Claim, Theorem

SOFTMAX = """x[N,C]
where r, s, t : R
query[a,s] = x[a,d]*wq[d,r]*u[r,s]
key[e,s] = x[e,f]*wk[f,t]*u[t,s]
weights[a,e] = softmax[e](query[a,s]*key[e,s])
y[a,b] = weights[a,e]*x[e,h]*wg[h,b]"""
PLAIN = SOFTMAX.replace("*u[r,s]", "*I[r,s]").replace("*u[t,s]", "*I[t,s]")
CONSTANT = """x[H,W,C]
where k : H
where l : W
same[c] = x[m,n,c]
y[i,j,c] = p[i,k]*same[c]*q[l,j]"""
KEPT = "x[H,W,C]\nsame[c] = x[m,n,c]\ny[i,j,c] = same[c]*I[i,i]*I[j,j]"
ROWS = ("p[i,k] summed over k is 1", "q[l,j] summed over l is 1")

THEOREM = Theorem(
    "Attention does not see a rotation of queries and keys, nor moves a constant map",
    "For an orthogonal u with u uᵀ = I; for P with rows and Q with columns that sum to one (Chi et al., Eq. 2).",
    (
        Claim("rotated_softmax", "a rotation, with softmax", SOFTMAX, PLAIN, ("u[i,k]*u[j,k] = I[i,j]",)),
        Claim("any_matrix_in_softmax", "not so for every matrix u", SOFTMAX, PLAIN, holds=False),
        Claim("constant_map", "P X Q = X for an X that is constant along rows and columns", CONSTANT, KEPT, ROWS),
        Claim(
            "constant_map_other_side",
            "not so if Q's rows sum to one",
            CONSTANT,
            KEPT,
            (ROWS[0], "q[l,j] summed over j is 1"),
            holds=False,
        ),
    ),
)


def test_invariances():
    THEOREM.settle()
