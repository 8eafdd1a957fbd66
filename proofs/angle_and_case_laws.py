"""Sines and cosines of sums, functions by cases, and products under logarithms and roots.

Each identity has a near miss beside it, one edit apart. Where a logarithm or a root is not defined, nothing is claimed.
"""

from proofs.softmax_laws import both
from proofs.theorem import Theorem

X = "x[N,C]\n"
XZ = "x[N]\nz[N]\n"
ROTARY = "t[N]\nq[N]\nk[N]\n"

PAIRS = (
    both(
        "rotary_positions",
        "scores of rotated queries and keys depend on the difference of their angles",
        ROTARY + "y[a,e] = q[a]*cos(t[a])*k[e]*cos(t[e]) + q[a]*sin(t[a])*k[e]*sin(t[e])",
        ROTARY + "y[a,e] = q[a]*k[e]*cos(t[a] - t[e])",
        ROTARY + "y[a,e] = q[a]*k[e]*cos(t[a] + t[e])",
        "not on their sum",
    ),
    both(
        "double_angle",
        "the sine of twice an angle",
        X + "y[a,c] = sin(-2*x[a,c])",
        X + "y[a,c] = -2*sin(x[a,c])*cos(x[a,c])",
        X + "y[a,c] = -2*sin(x[a,c])",
        "not twice the sine",
    ),
    both(
        "softplus_without_overflow",
        "softplus as it is computed: relu and a logarithm of a number between 1 and 2",
        X + "y[a,c] = softplus(x[a,c])",
        X + "y[a,c] = relu(x[a,c]) + log(1 + exp(-abs(x[a,c])))",
        X + "y[a,c] = relu(x[a,c]) + log(1 + exp(abs(x[a,c])))",
        "not with the other sign",
    ),
    both(
        "gelu_parts",
        "gelu(x) - gelu(-x) = x, for both gelus",
        X + "y[a,c] = gelu(x[a,c]) - gelu(-x[a,c]) + gelu_tanh(x[a,c]) - gelu_tanh(-x[a,c])",
        X + "y[a,c] = 2*x[a,c]",
        X + "y[a,c] = 2*x[a,c]",
        "those of silu are x once",
        X + "y[a,c] = silu(x[a,c]) - silu(-x[a,c])",
    ),
    both(
        "maxima_and_increasing_functions",
        "an increasing function of the largest is the largest of its values",
        "s[N,M]\ny[a] = exp(max[e](s[a,e])) + relu(max[e](s[a,e]))",
        "s[N,M]\ny[a] = max[e](exp(s[a,e])) + max[e](relu(s[a,e]))",
        "s[N,M]\ny[a] = max[e](exp(-s[a,e])) + max[e](relu(s[a,e]))",
        "not of a decreasing one",
    ),
    both(
        "maximum_of_the_tiles",
        "the largest of the tiles' largest is that of all",
        "s[N,E]\nwhere E = G*M\nwhere m : M\nl[a,g] = max[m](s[a,(g m)])\ny[a] = max[g](l[a,g])",
        "s[N,E]\nwhere E = G*M\ny[a] = max[e](s[a,e])",
        "s[N,E]\nwhere E = G*M\ny[a] = max[e](s[a,e])",
        "their sum is not",
        "s[N,E]\nwhere E = G*M\nwhere m : M\nl[a,g] = max[m](s[a,(g m)])\ny[a] = sum[g](l[a,g])",
    ),
    both(
        "absolute_values_of_products",
        "|xz| = |x||z|",
        XZ + "y[a] = abs(x[a]*z[a])",
        XZ + "y[a] = abs(x[a])*abs(z[a])",
        XZ + "y[a] = abs(x[a])*z[a]",
        "both signs are lost",
    ),
    both(
        "logarithm_of_a_product",
        "where both logarithms are defined, their sum is that of the product",
        XZ + "y[a] = log(x[a]*z[a])",
        XZ + "y[a] = log(x[a]) + log(z[a])",
        XZ + "y[a] = log(x[a]) + log(z[a])",
        "not the logarithm of the sum",
        XZ + "y[a] = log(x[a] + z[a])",
    ),
    both(
        "geometric_mean",
        "the geometric mean by logarithms and by roots",
        XZ + "y[a] = exp(1/2*log(x[a]) + 1/2*log(z[a]))",
        XZ + "y[a] = sqrt(x[a])*sqrt(z[a])",
        XZ + "y[a] = sqrt(x[a] + z[a])",
        "not of the sum",
    ),
    both(
        "loss_of_logits",
        "the cross-entropy of a logit and its complement, without logarithms of small numbers",
        XZ + "y[a] = -z[a]*log(sigmoid(x[a])) - log(1 - sigmoid(x[a])) + z[a]*log(1 - sigmoid(x[a]))",
        XZ + "y[a] = relu(x[a]) - z[a]*x[a] + log(1 + exp(-abs(x[a])))",
        XZ + "y[a] = relu(x[a]) + z[a]*x[a] + log(1 + exp(-abs(x[a])))",
        "not with the other sign of the logit",
    ),
)

THEOREM = Theorem(
    "Angles, cases and logarithms of products",
    "Each identity with a near miss. The verdict says where an argument has to be above 0.",
    tuple(claim for pair in PAIRS for claim in pair),
)


def test_angle_and_case_laws():
    THEOREM.settle()
