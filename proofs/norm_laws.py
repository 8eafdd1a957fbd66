"""Normalisations: what they do not see, fused forms, and common denominators.

Each identity has a near miss beside it, one edit apart. Where a denominator may be 0, nothing is claimed.
"""

from proofs.softmax_laws import both
from proofs.theorem import Theorem

X = "x[N,C]\n"
XG = "x[N,C]\ng[C]\n"
QK = "q[N,R]\nk[M,R]\n"
CENTRED = X + (
    "m[a] = mean[c](x[a,c])\nd[a,c] = x[a,c] - m[a]\nv[a] = mean[c](d[a,c]*d[a,c])\n"
    "y[a,c] = d[a,c]/sqrt(v[a] + 0.00001)"
)
FUSED = X + (
    "m[a] = 1/C*x[a,c]\ns[a] = 1/C*x[a,c]*x[a,c]\nr[a] = 1/sqrt(s[a] - m[a]*m[a] + 0.00001)\n"
    "y[a,c] = x[a,c]*r[a] - m[a]*r[a]"
)
RMS = X + "y[a,c] = x[a,c]/sqrt(1/C*x[a,d]*x[a,d])"

PAIRS = (
    both(
        "fused_layer_norm",
        "layer norm with the variance of the centred map, and with the mean of squares less the square of the mean",
        CENTRED,
        FUSED,
        FUSED.replace(" - m[a]*m[a]", ""),
        "not with the mean of squares alone",
    ),
    both(
        "inverse_variance",
        "layer norm squared is the square over the variance",
        CENTRED.replace(
            "y[a,c] = d[a,c]/sqrt(v[a] + 0.00001)", "n[a,c] = d[a,c]/sqrt(v[a] + 0.00001)\ny[a,c] = n[a,c]*n[a,c]"
        ),
        CENTRED.replace("y[a,c] = d[a,c]/sqrt(v[a] + 0.00001)", "y[a,c] = d[a,c]*d[a,c]/(v[a] + 0.00001)"),
        CENTRED.replace("y[a,c] = d[a,c]/sqrt(v[a] + 0.00001)", "y[a,c] = d[a,c]*d[a,c]/(v[a] + 0.0001)"),
        "not with another epsilon",
    ),
    both(
        "rms_norm_scale",
        "RMS norm does not see a positive factor",
        X + "y[a,c] = 3*x[a,c]/sqrt(9/C*x[a,d]*x[a,d])",
        RMS,
        RMS,
        "it does see a sign",
        X + "y[a,c] = -3*x[a,c]/sqrt(9/C*x[a,d]*x[a,d])",
    ),
    both(
        "rms_norm_of_scaled_rows",
        "nor a positive factor of each row",
        "x[N,C]\nt[N]\nz[a,c] = exp(t[a])*x[a,c]\ny[a,c] = z[a,c]/sqrt(1/C*z[a,d]*z[a,d])",
        "x[N,C]\nt[N]\ny[a,c] = x[a,c]/sqrt(1/C*x[a,d]*x[a,d]) + 0*t[a]",
        "x[N,C]\nt[N]\ny[a,c] = x[a,c]/sqrt(1/C*x[a,d]*x[a,d]) + 0*t[a]",
        "not so with an epsilon",
        "x[N,C]\nt[N]\nz[a,c] = exp(t[a])*x[a,c]\ny[a,c] = z[a,c]/sqrt(1/C*z[a,d]*z[a,d] + 1)",
    ),
    both(
        "rms_and_l2",
        "RMS norm is the Euclidean one times the root of the number of channels",
        RMS,
        X + "y[a,c] = sqrt(C)*x[a,c]/sqrt(x[a,d]*x[a,d])",
        X + "y[a,c] = C*x[a,c]/sqrt(x[a,d]*x[a,d])",
        "not times that number",
    ),
    both(
        "norm_of_the_normed",
        "the mean square after RMS norm is 1",
        X + "n[a,c] = x[a,c]/sqrt(1/C*x[a,d]*x[a,d])\ny[a] = 1/C*n[a,c]*n[a,c]",
        X + "y[a] = 1 + 0*x[a,c]",
        X + "y[a] = C + 0*x[a,c]",
        "not the number of channels",
    ),
    both(
        "gain_after_or_in_the_weights",
        "a gain after RMS norm may be folded into the next weights",
        XG + "n[a,c] = x[a,c]*g[c]/sqrt(1/C*x[a,d]*x[a,d] + 1e-6)\ny[a,b] = n[a,c]*w[c,b]",
        XG + "v[c,b] = g[c]*w[c,b]\ny[a,b] = x[a,c]*v[c,b]/sqrt(1/C*x[a,d]*x[a,d] + 1e-6)",
        XG + "v[c,b] = g[b]*w[c,b]\ny[a,b] = x[a,c]*v[c,b]/sqrt(1/C*x[a,d]*x[a,d] + 1e-6)",
        "not along the other axis",
    ),
    both(
        "cosine_attention",
        "cosine attention: normed queries and keys, or scores over both norms",
        QK + "n[a,r] = q[a,r]/sqrt(q[a,s]*q[a,s])\nm[e,r] = k[e,r]/sqrt(k[e,s]*k[e,s])\n"
        "y[a,e] = softmax[e](n[a,r]*m[e,r])",
        QK + "y[a,e] = softmax[e](q[a,r]*k[e,r]/sqrt(q[a,s]*q[a,s]*k[e,t]*k[e,t]))",
        QK + "y[a,e] = softmax[e](q[a,r]*k[e,r]/sqrt(k[e,t]*k[e,t])) + 0*q[a,r]",
        "not over the keys' norms alone",
    ),
    both(
        "product_of_roots",
        "the root of a product of sums of squares",
        QK + "y[a,e] = sqrt(q[a,s]*q[a,s])*sqrt(k[e,t]*k[e,t])",
        QK + "y[a,e] = sqrt(q[a,s]*q[a,s]*k[e,t]*k[e,t])",
        QK + "y[a,e] = sqrt(q[a,s]*q[a,s]*k[e,s]*k[e,s])",
        "not of the sum of products",
    ),
    both(
        "sum_of_fractions",
        "1/(p + q) + 1/(p - q) over a common denominator",
        "p[N]\nq[N]\ny[a] = 1/(p[a] + q[a]) + 1/(p[a] - q[a])",
        "p[N]\nq[N]\ny[a] = 2*p[a]/(p[a]*p[a] - q[a]*q[a])",
        "p[N]\nq[N]\ny[a] = 2*q[a]/(p[a]*p[a] - q[a]*q[a])",
        "not with the other numerator",
    ),
    both(
        "summed_fractions",
        "the same under a sum over positions",
        "p[N]\nq[N]\nv[N]\ny = sum[a](v[a]/(p[a] + q[a])) + sum[a](v[a]/(p[a] - q[a]))",
        "p[N]\nq[N]\nv[N]\ny = sum[a](2*v[a]*p[a]/(p[a]*p[a] - q[a]*q[a]))",
        "p[N]\nq[N]\nv[N]\ny = 2*sum[a](v[a]*p[a])/sum[b](p[b]*p[b] - q[b]*q[b])",
        "the quotient of the sums is another",
    ),
    both(
        "logarithm_of_a_norm",
        "the logarithm of a norm is half that of its square",
        X + "y[a] = log(sqrt(4*x[a,c]*x[a,c]))",
        X + "y[a] = log(2) + 1/2*log(x[a,c]*x[a,c])",
        X + "y[a] = 2 + 1/2*log(x[a,c]*x[a,c])",
        "a factor is not a summand",
    ),
)

THEOREM = Theorem(
    "Normalisations, by the laws of roots and quotients",
    "Each identity with a near miss. The verdict says where a denominator has to differ from 0.",
    tuple(claim for pair in PAIRS for claim in pair),
)


def test_norm_laws():
    THEOREM.settle()
