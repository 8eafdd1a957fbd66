"""Softmax and its relatives: shifts, temperatures, blocks, logarithms, normalisers of linear attention.

Each identity has a near miss beside it, one edit apart.
"""

from proofs.theorem import Claim, Theorem

S = "s[N,M]\n"
SC = "s[N,M]\nc[N]\n"
SV = "s[N,M]\nv[M,C]\n"
QKB = "q[N,R]\nk[M,R]\nb[R]\n"
QKV = "q[N,R]\nk[M,R]\nv[M,C]\n"
BLOCKS = "s[N,E]\nv[E,C]\nwhere E = G*M\nwhere g, h : G\nwhere m : M\n"

PLAIN = S + "y[a,e] = softmax[e](s[a,e])"
ATTENTION = SV + "y[a,b] = softmax[e](s[a,e])*v[e,b]"
TILED = BLOCKS + (
    "total[a,g] = sum[m](exp(s[a,(g m)]))\nblock[a,g,b] = softmax[m](s[a,(g m)])*v[(g m),b]\n"
    "y[a,b] = total[a,g]*block[a,g,b]/sum[h](total[a,h])"
)
RUNNING = BLOCKS + (
    "largest[a,g] = max[m](s[a,(g m)])\ntop[a] = max[g](largest[a,g])\n"
    "total[a,g] = sum[m](exp(s[a,(g m)] - largest[a,g]))\n"
    "block[a,g,b] = exp(s[a,(g m)] - largest[a,g])*v[(g m),b]\nscale[a,g] = exp(largest[a,g] - top[a])\n"
    "y[a,b] = scale[a,g]*block[a,g,b]/sum[h](scale[a,h]*total[a,h])"
)
WHOLE = BLOCKS.replace("where g, h : G\nwhere m : M\n", "") + "y[a,b] = softmax[e](s[a,e])*v[e,b]"
LINEAR = QKV + "p[a,e] = exp(q[a,r])*exp(k[e,r])\nz[a] = sum[e](p[a,e])\ny[a,b] = p[a,e]*v[e,b]/z[a]"
STATE = QKV + (
    "state[r,b] = exp(k[e,r])*v[e,b]\nkeys[r] = sum[e](exp(k[e,r]))\nz[a] = exp(q[a,r])*keys[r]\n"
    "y[a,b] = exp(q[a,r])*state[r,b]/z[a]"
)


def both(name: str, words: str, left: str, right: str, miss: str, missing: str, wrong: str = "") -> tuple[Claim, Claim]:
    """An identity, and a near miss of it; `wrong` is the near miss's left side where that is another."""
    return Claim(name, words, left, right), Claim(f"not_{name}", missing, wrong or left, miss, holds=False)


PAIRS = (
    both(
        "softmax_shift",
        "a number added to each score of a row changes nothing",
        SC + "y[a,e] = softmax[e](s[a,e] + c[a])",
        SC + "y[a,e] = softmax[e](s[a,e]) + 0*c[a]",
        "s[N,M]\nc[M]\ny[a,e] = softmax[e](s[a,e]) + 0*c[e]",
        "not so for a number of each place",
        "s[N,M]\nc[M]\ny[a,e] = softmax[e](s[a,e] + c[e])",
    ),
    both(
        "softmax_is_a_quotient",
        "softmax is the exponential over its sum",
        PLAIN,
        S + "y[a,e] = exp(s[a,e])/sum[f](exp(s[a,f]))",
        S + "y[a,e] = exp(s[a,e])/sum[b](exp(s[b,e]))",
        "not over the sum of a column",
    ),
    both(
        "softmax_rows_sum_to_one",
        "the rows of softmax sum to 1",
        SC + "y[a] = c[a]*sum[e](softmax[e](s[a,e]))",
        SC + "y[a] = c[a] + 0*s[a,e]",
        SC + "y[a] = c[a] + 0*s[a,e]",
        "their squares do not",
        SC + "p[a,e] = softmax[e](s[a,e])\ny[a] = c[a]*p[a,e]*p[a,e]",
    ),
    both(
        "softmax_of_a_safe_exponent",
        "the largest score of a row may be taken off first",
        PLAIN,
        S + "m[a] = max[e](s[a,e])\ny[a,e] = exp(s[a,e] - m[a])/sum[f](exp(s[a,f] - m[a]))",
        S + "m[a] = max[e](s[a,e])\ny[a,e] = exp(s[a,e] - m[a])/sum[f](exp(s[a,f]))",
        "not off the numerator alone",
    ),
    both(
        "temperature_in_the_weights",
        "a temperature may be folded into the queries' weights",
        "x[N,C]\nwhere r : R\ny[a,e] = softmax[e](1/sqrt(R)*x[a,c]*wq[c,r]*x[e,d]*wk[d,r])",
        "x[N,C]\nwhere r : R\nq[a,r] = 1/sqrt(R)*x[a,c]*wq[c,r]\ny[a,e] = softmax[e](q[a,r]*x[e,d]*wk[d,r])",
        "x[N,C]\nwhere r : R\nq[a,r] = 1/R*x[a,c]*wq[c,r]\ny[a,e] = softmax[e](q[a,r]*x[e,d]*wk[d,r])",
        "not the square of it",
    ),
    both(
        "temperature_outside",
        "a temperature t leaves the exponent as a power: for 1/2 a square root",
        S + "y[a,e] = softmax[e](1/2*s[a,e])",
        S + "y[a,e] = sqrt(exp(s[a,e]))/sum[f](sqrt(exp(s[a,f])))",
        S + "y[a,e] = sqrt(exp(s[a,e])/sum[f](exp(s[a,f])))",
        "not so of the whole quotient",
    ),
    both(
        "query_bias_cancels",
        "a bias of the keys adds to each row one number, which softmax does not see",
        QKB + "y[a,e] = softmax[e](q[a,r]*k[e,r] + q[a,r]*b[r])",
        QKB + "y[a,e] = softmax[e](q[a,r]*k[e,r]) + 0*b[r]",
        QKB + "y[a,e] = softmax[e](q[a,r]*k[e,r]) + 0*b[r]",
        "a bias of the queries it does see",
        QKB + "y[a,e] = softmax[e](q[a,r]*k[e,r] + b[r]*k[e,r])",
    ),
    both(
        "tiles",
        "attention in tiles of any size, each with a softmax of its own",
        TILED,
        WHOLE,
        WHOLE,
        "not without the tiles' weights",
        TILED.replace("total[a,g]*block[a,g,b]/sum[h](total[a,h])", "1/G*block[a,g,b] + 0*total[a,g]"),
    ),
    both(
        "running_maximum",
        "online softmax: tiles with maxima of their own, rescaled to the common one",
        RUNNING,
        WHOLE,
        WHOLE,
        "not without rescaling the tiles' sums",
        RUNNING.replace("sum[h](scale[a,h]*total[a,h])", "sum[h](total[a,h])"),
    ),
    both(
        "weighted_mean_of_a_constant",
        "attention moves no value that is the same at all places",
        "s[N,M]\nu[C]\ny[a,b] = softmax[e](s[a,e])*u[b]",
        "s[N,M]\nu[C]\ny[a,b] = u[b] + 0*s[a,e]",
        "s[N,M]\nu[C]\ny[a,b] = u[b] + 0*s[a,e]",
        "exponentials without a normaliser do",
        "s[N,M]\nu[C]\ny[a,b] = sum[e](exp(s[a,e]))*u[b]",
    ),
    both(
        "log_softmax",
        "log-softmax is the score less the log-sum-exp",
        S + "y[a,e] = log(softmax[e](s[a,e]))",
        S + "l[a] = logsumexp[e](s[a,e])\ny[a,e] = s[a,e] - l[a]",
        S + "l[a] = max[e](s[a,e])\ny[a,e] = s[a,e] - l[a]",
        "not less the maximum",
    ),
    both(
        "softmax_by_logsumexp",
        "softmax is the exponential of log-softmax",
        PLAIN,
        S + "y[a,e] = exp(s[a,e] - logsumexp[f](s[a,f]))",
        S + "y[a,e] = exp(s[a,e] - logsumexp[b](s[b,e]))",
        "not along the other axis",
    ),
    both(
        "logsumexp_shift",
        "a number leaves log-sum-exp",
        SC + "y[a] = logsumexp[e](s[a,e] + c[a])",
        SC + "y[a] = c[a] + logsumexp[e](s[a,e])",
        SC + "y[a] = 2*logsumexp[e](s[a,e]) + 0*c[a]",
        "not a factor",
        SC + "y[a] = logsumexp[e](2*s[a,e]) + 0*c[a]",
    ),
    both(
        "logsumexp_of_tiles",
        "log-sum-exp of the tiles' log-sum-exps is that of all",
        "s[N,E]\nwhere E = G*M\nwhere m : M\nl[a,g] = logsumexp[m](s[a,(g m)])\ny[a] = logsumexp[g](l[a,g])",
        "s[N,E]\nwhere E = G*M\ny[a] = logsumexp[e](s[a,e])",
        "s[N,E]\nwhere E = G*M\ny[a] = logsumexp[e](s[a,e])",
        "not their sum",
        "s[N,E]\nwhere E = G*M\nwhere m : M\nl[a,g] = logsumexp[m](s[a,(g m)])\ny[a] = sum[g](l[a,g])",
    ),
    both(
        "exponential_of_a_sum",
        "the exponential of a sum is a product",
        SC + "y[a,e] = exp(s[a,e] - 2*c[a])",
        SC + "y[a,e] = exp(s[a,e])/exp(c[a])/exp(c[a])",
        SC + "y[a,e] = exp(s[a,e]) - exp(c[a])*exp(c[a])",
        "not a difference",
    ),
    both(
        "sums_in_the_exponent",
        "a sum in the exponent is the product over its terms: of two heads here",
        "q[N,R]\nwhere R = T*2\ny[a] = exp(sum[r](q[a,r]))",
        "q[N,R]\nwhere R = T*2\nwhere t : T\nwhere i : 2\np[a,i] = sum[t](q[a,(t i)])\ny[a] = exp(sum[i](p[a,i]))",
        "q[N,R]\nwhere R = T*2\nwhere t : T\nwhere i : 2\np[a,i] = sum[t](q[a,(t i)])\ny[a] = sum[i](exp(p[a,i]))",
        "not the sum of their exponentials",
    ),
    both(
        "linear_attention_in_both_orders",
        "normalised linear attention: scores first, or the state first",
        LINEAR,
        STATE,
        STATE.replace("keys[r] = sum[e](exp(k[e,r]))", "keys[r] = 1/M*sum[e](exp(k[e,r]))"),
        "not with the mean of the keys in the normaliser",
    ),
    both(
        "linear_attention_of_scaled_queries",
        "the normaliser takes out a factor of each query",
        LINEAR.replace("p[a,e] = ", "p[a,e] = 2*"),
        LINEAR,
        LINEAR,
        "not out of the numerator alone",
        LINEAR.replace("= p[a,e]*v", "= 2*p[a,e]*v"),
    ),
    both(
        "sinkhorn_step",
        "softmax along rows of exponentials already normalised along rows changes nothing",
        S + "p[a,e] = softmax[e](s[a,e])\ny[a,e] = p[a,e]/sum[f](p[a,f])",
        PLAIN,
        PLAIN,
        "normalising along columns next does",
        S + "p[a,e] = softmax[e](s[a,e])\ny[a,e] = p[a,e]/sum[b](p[b,e])",
    ),
)

THEOREM = Theorem(
    "Softmax and its normalisers, by the laws of exponentials",
    "Each identity with a near miss; softmax as a quotient of exponentials, which are homomorphisms.",
    tuple(claim for pair in PAIRS for claim in pair),
)


def test_softmax_laws():
    THEOREM.settle()
