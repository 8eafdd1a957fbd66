"""Latent-GNN and GloRe are NL with a factorised similarity: what their graphs add is a low rank.

Latent-GNN passes features from positions to R nodes, along the nodes' adjacency, and back: NL with
`wf = wpsi adj wphiᵀ / N`. GloRe projects both ways by one matrix and reasons with `I - adj`: NL with
`wf = wtheta (I - adj) wthetaᵀ` and `wg = wphi wg wo`.
"""

import polyattn as pa
from proofs.theorem import Claim, Theorem

NL = str(pa.catalog.nl())
LATENT_GNN = str(pa.catalog.latent_gnn())
GLORE = str(pa.catalog.glore()).replace("wg[s,t]", "mix[s,t]")
SIMILARITY = "wf[d,f] = wtheta[d,k]*wtheta[f,k] - wtheta[d,k]*adj[k,l]*wtheta[f,l]"

THEOREM = Theorem(
    "Latent-GNN and GloRe are NL with a similarity of low rank",
    "Poly-NL, section 4.2, on Zhang et al. and Chen et al. Condition for GloRe's similarity to be symmetric, as a "
    "Gram matrix is: a symmetric adjacency.",
    (
        Claim("latent_gnn_is_nl", "Latent-GNN", NL, LATENT_GNN, ("wf[d,f] = 1/N*wpsi[d,k]*adj[k,l]*wphi[f,l]",)),
        Claim("glore_is_nl", "GloRe", NL, GLORE, (SIMILARITY, "wg[h,b] = wphi[h,s]*mix[s,t]*wo[t,b]")),
        Claim(
            "glore_similarity_is_symmetric",
            "GloRe's similarity is symmetric if its adjacency is",
            "x[N,C]\nwhere k, l : R\ny[a,e] = x[a,d]*wtheta[d,k]*adj[k,l]*wtheta[f,l]*x[e,f]",
            "x[N,C]\nwhere k, l : R\ny[a,e] = x[e,d]*wtheta[d,k]*adj[k,l]*wtheta[f,l]*x[a,f]",
            ("adj[k,l] = adj[l,k]",),
        ),
        Claim(
            "glore_similarity_needs_symmetry",
            "and is not in general",
            "x[N,C]\nwhere k, l : R\ny[a,e] = x[a,d]*wtheta[d,k]*adj[k,l]*wtheta[f,l]*x[e,f]",
            "x[N,C]\nwhere k, l : R\ny[a,e] = x[e,d]*wtheta[d,k]*adj[k,l]*wtheta[f,l]*x[a,f]",
            holds=False,
        ),
    ),
)


def test_low_rank_relatives():
    THEOREM.settle()
