"""Global reasoning unit."""

from polyattn.algebra import Spec


def glore() -> Spec:
    """GloRe: `Y = B ((I - A) (Bᵀ X Wφ) Wg) Wo`, a graph convolution between two projections by one matrix `B = X Wθ`.

    Source: Chen et al., Graph-Based Global Reasoning Networks, 2019, section 3: positions to R nodes of V channels,
    reasoning among the nodes, and the same projection back. Degree 3: B twice, and the reduced features.

    Prefer it where nodes are to exchange features through a learned graph. It is `nl` with
    `wf = wtheta (I - adj) wthetaᵀ`, as one projection serves both ways, and `wg = wphi wg wo`. The published code may
    divide the nodes by N; the paper does not, and neither does this: scale `wo` where N varies.
    """
    return Spec("""
        x[N,C]; where k, l : R; where s, t : V
        projection[e,k] = x[e,d]*wtheta[d,k]
        reduced[e,s] = x[e,h]*wphi[h,s]
        nodes[k,s] = projection[e,k]*reduced[e,s]
        diffused[k,s] = nodes[k,s] - adj[k,l]*nodes[l,s]
        state[k,t] = diffused[k,s]*wg[s,t]
        y[a,b] = projection[a,k]*state[k,t]*wo[t,b]
    """)
