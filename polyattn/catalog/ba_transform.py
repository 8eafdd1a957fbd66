"""Bilinear attentional transform."""

from polyattn.algebra import Spec


def ba_transform() -> Spec:
    """Return BA-Transform: `Y_c = P X_c Q` for each channel c, P and Q predicted from X, one pair for each of G groups.

    Source: Chi et al., Non-Local Neural Networks with Grouped Bilinear Attentional Transforms, Eq. 1; P and Q by
    row and column pooling (Eq. 3 and 4, here by mean) of K channels and a convolution with a global field. Degree 3:
    P, X and Q. Its normalisation (Eq. 2), batch norm, ReLU and pooling by maximum are not polynomials and left out.

    Prefer it where rows and columns are to be mixed as wholes (zooming, moving, suppressing) and H and W are fixed:
    `wp` and `wq` have their sizes. For large or varying H and W see `ba_transform_block`.
    """
    return Spec("""
        x[H,W,C]; where C = G*M; where m : K
        row[i,m] = 1/W * x[i,j,c]*wf[c,m]            # 1x1 convolution, then row pooling
        col[j,m] = 1/H * x[i,j,c]*wf[c,m]
        p[g,i,k] = row[u,m]*wp[g,i,k,u,m]            # H x 1 convolution with a global field
        q[g,l,j] = col[v,m]*wq[g,l,j,v,m]
        y[i,j,(g n)] = p[g,i,k] * x[k,l,(g n)] * q[g,l,j]
    """)
