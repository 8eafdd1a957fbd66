"""Latent graph neural network."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Latent graph network",
    source="Zhang et al., LatentGNN: Learning Efficient Non-local Relations for Visual Recognition, 2019",
    year=2019,
    sizes={"N": 5, "C": 6, "R": 3},
    reach={"N": "all"},
    equivariant=("N",),
    relation="nl with wf = wpsi adj wphiᵀ / N",
)


def latent_gnn(mean: bool = True) -> Spec:
    """Return Latent-GNN: `Y = Ψ A (Φᵀ X Wg) / N`, positions exchange through R latent nodes.

    Source: Zhang et al., LatentGNN: Learning Efficient Non-local Relations for Visual Recognition, 2019; Poly-NL,
    section 4.2. Features go from positions to nodes (Φ), along the nodes' adjacency A, and back (Ψ); as written no
    N x N matrix is made. The published block computes A from the nodes and normalises Ψ and Φ; here A is a parameter.

    Prefer it where a few latent nodes are enough and the cost is to be linear in N; it is `nl` with
    `wf = wpsi adj wphiᵀ / N`, of rank R. `glore` has one projection for both ways and mixes the channels of its nodes.

    Args:
        mean: whether nodes are means over the positions. Without it they are sums, as in the published block.
    """
    over = "1/N * " if mean else ""
    return Spec(f"""
        x[N,C]; where k, l : R
        psi[a,k] = x[a,d]*wpsi[d,k]
        phi[e,l] = x[e,f]*wphi[f,l]
        value[e,b] = x[e,h]*wg[h,b]
        nodes[l,b] = {over}phi[e,l]*value[e,b]
        passed[k,b] = adj[k,l]*nodes[l,b]
        y[a,b] = psi[a,k]*passed[k,b]
    """)


def reference(x, wpsi, wphi, wg, adj):
    """Through the latent nodes."""
    return (x @ wpsi) @ adj @ (x @ wphi).T @ (x @ wg) / len(x)
