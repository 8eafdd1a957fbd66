"""Double attention."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Double attention",
    source="Chen et al., A²-Nets: Double Attention Networks, 2018, Eq. 6",
    year=2018,
    sizes={"N": 5, "C": 6, "R": 3, "V": 2},
    reach={"N": "all"},
    equivariant=("N",),
    relation="e_nl with other names: wq = wrho, wk = wtheta, wv = wphi",
)


def a2_net(softmax: bool = False) -> Spec:
    """Return double attention: gather `G = A Bᵀ / N`, V features in each of R attention maps, then distribute `G V`.

    Source: Chen et al., A²-Nets: Double Attention Networks, 2018, Eq. 6: `A = φ(X)`, `B = θ(X)`, `V = ρ(X)`, each a
    1x1 convolution, and `wo` back to C channels. Here a row is a position, so all are transposed.

    Prefer it, as `e_nl`, at a cost linear in N; the two are one layer, `wrho`, `wtheta`, `wphi` being E-NL's query, key
    and value, with softmax and without.

    Args:
        softmax: the published attention maps, B over positions and V over the R maps of each position; they replace
            the 1/N. Not a polynomial.
    """
    if softmax:
        # The softmax over positions replaces the mean; the other one shares each position among the
        # maps.
        return Spec("""
            x[N,C]; where r : R; where s : V
            features[e,s] = x[e,h]*wphi[h,s]
            gather[e,r] = softmax[e](x[e,f]*wtheta[f,r])
            distribute[a,r] = softmax[r](x[a,d]*wrho[d,r])
            descriptors[s,r] = features[e,s]*gather[e,r]
            y[a,b] = descriptors[s,r]*distribute[a,r]*wo[s,b]
        """)
    return Spec("""
        x[N,C]; where r : R; where s : V
        features[e,s] = x[e,h]*wphi[h,s]
        gather[e,r] = x[e,f]*wtheta[f,r]
        distribute[a,r] = x[a,d]*wrho[d,r]
        descriptors[s,r] = 1/N * features[e,s]*gather[e,r]
        y[a,b] = descriptors[s,r]*distribute[a,r]*wo[s,b]
    """)


def reference(x, wphi, wtheta, wrho, wo):
    """Gather, then distribute; a row of the transposed maps is a position."""
    a, b, v = (x @ wphi).T, (x @ wtheta).T, (x @ wrho).T
    return ((a @ b.T / len(x)) @ v).T @ wo
