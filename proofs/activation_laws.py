"""Activations in terms of one another, and what leaves a relu, an absolute value, a maximum.

Each identity has a near miss beside it, one edit apart.
"""

from proofs.softmax_laws import both
from proofs.theorem import Theorem

X = "x[N,C]\n"
S = "s[N,M]\nc[N]\n"

PAIRS = (
    both(
        "sigmoid_as_softmax_of_two",
        "sigmoid is a softmax of two scores, one of them 0",
        X + "y[a,c] = sigmoid(x[a,c])",
        X + "y[a,c] = exp(x[a,c])/(exp(x[a,c]) + exp(0*x[a,c]))",
        X + "y[a,c] = exp(x[a,c])/(exp(x[a,c]) + 2)",
        "not of three",
    ),
    both(
        "sigmoid_of_the_negative",
        "sigmoid(-x) = 1 - sigmoid(x)",
        X + "y[a,c] = sigmoid(-x[a,c])",
        X + "y[a,c] = 1 - sigmoid(x[a,c])",
        X + "y[a,c] = -sigmoid(x[a,c])",
        "it is not odd",
    ),
    both(
        "slope_of_sigmoid",
        "the slope of sigmoid in both forms",
        X + "y[a,c] = sigmoid(x[a,c])*sigmoid(-x[a,c])",
        X + "p[a,c] = sigmoid(x[a,c])\ny[a,c] = p[a,c] - p[a,c]*p[a,c]",
        X + "p[a,c] = sigmoid(x[a,c])\ny[a,c] = 1 - p[a,c]*p[a,c]",
        "not the form of tanh",
    ),
    both(
        "tanh_from_sigmoid",
        "tanh is a sigmoid of twice the argument, stretched",
        X + "y[a,c] = tanh(x[a,c])",
        X + "y[a,c] = 2*sigmoid(2*x[a,c]) - 1",
        X + "y[a,c] = 2*sigmoid(x[a,c]) - 1",
        "not of the argument itself",
    ),
    both(
        "tanh_of_a_sum",
        "the addition theorem of tanh",
        X + "v[C]\ny[a,c] = tanh(x[a,c] + v[c])",
        X + "v[C]\ny[a,c] = (tanh(x[a,c]) + tanh(v[c]))/(1 + tanh(x[a,c])*tanh(v[c]))",
        X + "v[C]\ny[a,c] = (tanh(x[a,c]) + tanh(v[c]))/(1 - tanh(x[a,c])*tanh(v[c]))",
        "not with the sign of the tangent's",
    ),
    both(
        "silu_is_gated",
        "silu gates its argument by a sigmoid",
        X + "y[a,c] = silu(x[a,c])",
        X + "y[a,c] = x[a,c] - x[a,c]*sigmoid(-x[a,c])",
        X + "y[a,c] = x[a,c]*sigmoid(-x[a,c])",
        "not by that of the negative",
    ),
    both(
        "swiglu_gates",
        "a gated unit with silu, and with x sigmoid(x)",
        X + "y[a,b] = silu(x[a,c]*w[c,b])*x[a,d]*u[d,b]",
        X + "h[a,b] = x[a,c]*w[c,b]\ny[a,b] = h[a,b]*x[a,d]*u[d,b]/(1 + exp(-h[a,b]))",
        X + "h[a,b] = x[a,c]*u[c,b]\ny[a,b] = h[a,b]*x[a,d]*w[d,b]/(1 + exp(-h[a,b]))",
        "not with gate and value exchanged",
    ),
    both(
        "softplus_parts",
        "softplus(x) - softplus(-x) = x",
        X + "y[a,c] = softplus(x[a,c]) - softplus(-x[a,c])",
        X + "y[a,c] = x[a,c]",
        X + "y[a,c] = abs(x[a,c])",
        "not the absolute value",
    ),
    both(
        "softplus_as_logsumexp",
        "softplus is a log-sum-exp with 0, so exp of it is 1 + exp",
        X + "y[a,c] = exp(softplus(x[a,c]))",
        X + "y[a,c] = 1 + exp(x[a,c])",
        X + "y[a,c] = exp(x[a,c])",
        "not exp alone",
    ),
    both(
        "relu_parts",
        "relu(x) - relu(-x) = x",
        X + "y[a,c] = relu(x[a,c]) - relu(-x[a,c])",
        X + "y[a,c] = x[a,c]",
        X + "y[a,c] = 0*x[a,c]",
        "it is not even",
    ),
    both(
        "relu_twice",
        "relu of relu is relu",
        X + "y[a,c] = relu(relu(x[a,c]))",
        X + "y[a,c] = relu(x[a,c])",
        X + "y[a,c] = 0*x[a,c]",
        "of its negative it is 0, not relu",
    ),
    both(
        "relu_squared",
        "the square of relu, and relu(x) x",
        X + "h[a,c] = relu(x[a,c])\ny[a,c] = h[a,c]*h[a,c]",
        X + "y[a,c] = relu(x[a,c])*x[a,c]",
        X + "y[a,c] = x[a,c]*x[a,c]",
        "not the square of x",
    ),
    both(
        "positive_weights_through_relu",
        "a positive weight after relu may be folded into the weights before it",
        X + "g[C]\ny[a,b] = exp(g[d])*relu(x[a,c]*w[c,d])*u[d,b]",
        X + "g[C]\nv[c,d] = exp(g[d])*w[c,d]\ny[a,b] = relu(x[a,c]*v[c,d])*u[d,b]",
        X + "g[C]\nv[c,d] = g[d]*w[c,d]\ny[a,b] = relu(x[a,c]*v[c,d])*u[d,b]",
        "one of any sign may not",
        X + "g[C]\ny[a,b] = g[d]*relu(x[a,c]*w[c,d])*u[d,b]",
    ),
    both(
        "absolute_value_of_a_product",
        "|x|² = x², and a positive factor leaves",
        X + "y[a,c] = abs(-3*x[a,c])*abs(x[a,c])",
        X + "y[a,c] = 3*x[a,c]*x[a,c]",
        X + "y[a,c] = 3*x[a,c]*abs(x[a,c])",
        "not with one sign left",
    ),
    both(
        "elu_by_cases",
        "elu from relu and an exponential",
        X + "y[a,c] = elu(x[a,c]) - relu(x[a,c])",
        X + "y[a,c] = exp(-relu(-x[a,c])) - 1",
        X + "y[a,c] = exp(x[a,c]) - 1",
        "not with the exponential of a positive argument",
    ),
    both(
        "maximum_and_minimum",
        "the least is the negative of the largest negative",
        S + "y[a] = min[e](2*s[a,e] + c[a])",
        S + "y[a] = c[a] - 2*max[e](-s[a,e])",
        S + "y[a] = c[a] + 2*max[e](-s[a,e])",
        "not with the other sign",
    ),
    both(
        "maximum_of_blocks",
        "a positive factor and a shift leave a maximum",
        S + "y[a] = max[e](exp(c[a])*s[a,e] + c[a])",
        S + "y[a] = exp(c[a])*max[e](s[a,e]) + c[a]",
        S + "y[a] = c[a]*max[e](s[a,e]) + c[a]",
        "a factor of any sign does not",
        S + "y[a] = max[e](c[a]*s[a,e] + c[a])",
    ),
)

THEOREM = Theorem(
    "Activations, by their laws",
    "Sigmoid, tanh, silu and softplus as exponentials; relu, abs and max by homogeneity and cases.",
    tuple(claim for pair in PAIRS for claim in pair),
)


def test_activation_laws():
    THEOREM.settle()
