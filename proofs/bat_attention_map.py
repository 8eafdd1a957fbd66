"""BAT's attention map `Pᵀ A Qᵀ` (Eq. 8) is a gradient: of the output, weighted by A, by the input at fixed P and Q.

The paper takes A as all ones and calls the result the weight that each position gets. It is the gradient of the sum of
the outputs as long as P and Q are held fixed; through P and Q, which depend on the input, there is more.
"""

import polyattn as pa
from proofs.theorem import Claim, Theorem

APPLY = pa.Spec("x[H,W]\ny[i,j] = p[i,k]*x[k,l]*q[l,j]")
PREDICTED = pa.Spec("x[H,W]\nrow[i] = x[i,j]\ny[i,j] = row[u]*wp[i,k,u]*x[k,l]*q[l,j]")
MAP = "x[H,W]\ndy[H,W]\nmap[k,l] = p[i,k]*dy[i,j]*q[l,j]"

THEOREM = Theorem(
    "BAT's attention map is a gradient at fixed P and Q",
    "Chi et al., Eq. 8, one channel, with the weights A as the seed dy. Condition: P and Q do not depend on the input.",
    (
        Claim("bat_attention_map", "Pᵀ A Qᵀ is the vector-Jacobian product", str(APPLY.derivative("x")), MAP),
        Claim(
            "bat_attention_map_of_predicted",
            "with P predicted from the input it is only a part of it",
            str(PREDICTED.derivative("x")),
            MAP,
            ("p[i,k] = x[u,v]*wp[i,k,u]",),
            holds=False,
        ),
    ),
)


def test_bat_attention_map():
    THEOREM.settle()
