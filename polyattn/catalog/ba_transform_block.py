"""Bilinear attentional transform with block-based matrices."""

from polyattn.algebra import Spec


def ba_transform_block() -> Spec:
    """Return BA-Transform with block-based matrices: `Y_c = (P ⊗ I) X_c (Q ⊗ I)`, P and Q of size S x S.

    Source: Chi et al., Non-Local Neural Networks with Grouped Bilinear Attentional Transforms, section 3.3: H and W
    fall into S blocks (Eq. 5 and 6, here by mean) of U rows and V columns, and each entry of P or Q is copied to the
    diagonal of its block (Figure 3).

    Prefer it to `ba_transform` at high resolution: fewer parameters, whose sizes do not depend on H and W, and better
    accuracy in the paper (Table 2). At U = V = 1 the two are one.
    """
    return Spec("""
        x[H,W,C]; where C = G*M; where H = S*U; where W = S*V; where m : K
        row[i,m] = 1/U/W * x[(i u),j,c]*wf[c,m]
        col[j,m] = 1/V/H * x[i,(j v),c]*wf[c,m]
        p[g,i,k] = row[t,m]*wp[g,i,k,t,m]
        q[g,l,j] = col[t,m]*wq[g,l,j,t,m]
        y[(i u),(j v),(g n)] = p[g,i,k] * x[(k u),(l v),(g n)] * q[g,l,j]      # P is P_s ⊗ I
    """)
