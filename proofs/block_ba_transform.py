"""Block-based BA-Transform is the full-resolution BA-Transform with `P ⊗ I` and `Q ⊗ I`.

The paper copies each entry of the S x S matrix to the diagonal of its U x U block (section 3.3, Figure 3): that is the
Kronecker product with an identity. The same holds for the whole layer: pooling rows within blocks and predicting a
small P is a full-size predictor whose weights are constant within blocks.
"""

import polyattn as pa
from proofs.theorem import Claim, Theorem

SPLITS = "where C = G*M\nwhere H = S*U\nwhere W = T*V\n"
APPLY = f"x[H,W,C]\n{SPLITS}y[i,j,(g n)] = p[g,i,k] * x[k,l,(g n)] * q[g,l,j]"
APPLY_BLOCKS = (
    f"x[H,W,C]\n{SPLITS}y[(i u),(j v),(g n)] = ps[g,i,k] * x[(k u),(l v),(g n)] * qs[g,l,j]\nwhere i, k : S\n"
    "where j, l : T"
)
KRONECKER = ("p[g,(i u),(k v)] = ps[g,i,k]*I[u,v]", "q[g,(l u),(j v)] = qs[g,l,j]*I[u,v]")

FULL = str(pa.catalog.ba_transform())
BLOCKS = str(pa.catalog.ba_transform_block()).replace("wp[", "wps[").replace("wq[", "wqs[")
PREDICTORS = (
    "wp[g,(i u),(k v),(t s),m] = 1/U*wps[g,i,k,t,m]*I[u,v]",
    "wq[g,(l u),(j v),(t s),m] = 1/V*wqs[g,l,j,t,m]*I[u,v]",
)

THEOREM = Theorem(
    "Block-based BA-Transform is the full-resolution BA-Transform with P ⊗ I and Q ⊗ I",
    "Chi et al., section 3.3 and Figure 3. The identity belongs inside the block: entries copied to all of the block, "
    "P ⊗ 1, are another layer. Pooling is by mean here; by maximum (Eq. 5 and 6) only the first claim holds.",
    (
        Claim("blocks_are_kronecker_products", "for given P and Q", APPLY, APPLY_BLOCKS, KRONECKER),
        Claim("block_layer_is_the_full_layer", "for the whole layer", FULL, BLOCKS, PREDICTORS),
        Claim(
            "blocks_copied_to_all_entries",
            "with P ⊗ 1 in place of P ⊗ I they differ",
            APPLY,
            APPLY_BLOCKS,
            ("p[g,(i u),(k v)] = ps[g,i,k]", "q[g,(l u),(j v)] = qs[g,l,j]*I[u,v]"),
            holds=False,
        ),
        Claim(
            "blocks_inside_out",
            "with I ⊗ P in place of P ⊗ I they differ",
            APPLY.replace("S*U", "S*S"),
            APPLY_BLOCKS.replace("S*U", "S*S"),
            ("p[g,(u i),(v k)] = ps[g,i,k]*I[u,v]", KRONECKER[1]),
            holds=False,
        ),
    ),
)


def test_block_ba_transform():
    THEOREM.settle()
