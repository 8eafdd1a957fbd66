"""Global reasoning unit."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Global reasoning unit",
    source="Chen et al., Graph-Based Global Reasoning Networks, 2019",
    year=2019,
    sizes={"N": 5, "C": 6, "R": 3, "V": 2},
    reach={"N": "all"},
    equivariant=("N",),
    relation="nl with wf = wtheta (I - adj) wthetaᵀ",
)


def glore(mean: bool = False, relu: bool = False) -> Spec:
    """Return GloRe: `Y = B ((I - A) (Bᵀ X Wφ) Wg) Wo`, a graph convolution between projections by one `B = X Wθ`.

    Source: Chen et al., Graph-Based Global Reasoning Networks, 2019, section 3: positions to R nodes of V channels,
    reasoning among the nodes, and the same projection back. Degree 3: B twice, and the reduced features.

    Prefer it where nodes are to exchange features through a learned graph. It is `nl` with
    `wf = wtheta (I - adj) wthetaᵀ`, as one projection serves both ways, and `wg = wphi wg wo`. The published code may
    divide the nodes by N; the paper does not, and neither does this unless it is asked to.

    Args:
        mean: whether nodes are means over the positions instead of sums, for maps whose size varies.
        relu: the published ReLU between the exchange of the nodes and that of their channels. Not a polynomial.
    """
    over = "1/N * " if mean else ""
    diffused = "nodes[k,s] - adj[k,l]*nodes[l,s]"
    if relu:
        diffused = f"relu({diffused})"
    return Spec(f"""
        x[N,C]; where k, l : R; where s, t : V
        projection[e,k] = x[e,d]*wtheta[d,k]
        reduced[e,s] = x[e,h]*wphi[h,s]
        nodes[k,s] = {over}projection[e,k]*reduced[e,s]
        diffused[k,s] = {diffused}
        state[k,t] = diffused[k,s]*wg[s,t]
        y[a,b] = projection[a,k]*state[k,t]*wo[t,b]
    """)


def reference(x, wtheta, wphi, adj, wg, wo):
    """Project to nodes, mix them along the graph, project back by the same matrix."""
    projection = (x @ wtheta).T
    nodes = projection @ (x @ wphi)
    return projection.T @ ((np.eye(len(adj)) - adj) @ nodes @ wg) @ wo
