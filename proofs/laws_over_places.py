"""Softmax, its relatives and maxima over chosen places: masks, windows, neighbourhoods.

Each identity has a near miss beside it, one edit apart. A softmax over no place is 0.
"""

from proofs.softmax_laws import both
from proofs.theorem import Theorem

S = "s[N,N]\n"
SC = "s[N,N]\nc[N]\n"
SV = "s[N,N]\nv[N,C]\n"
NEAR = "q[N,R]\nk[N,R]\nv[N,C]\nwhere u : -1..1\n"
LINEAR = "q[N,R]\nk[N,R]\nv[N,C]\n"

PAIRS = (
    both(
        "masked_softmax_is_a_quotient",
        "softmax over earlier places is the masked exponential over its sum",
        S + "y[a,e] = softmax[e](s[a,e] where e <= a)",
        S + "z[a] = sum[e](exp(s[a,e])*[e <= a])\ny[a,e] = exp(s[a,e])*[e <= a]/z[a]",
        S + "z[a] = sum[e](exp(s[a,e]))\ny[a,e] = exp(s[a,e])*[e <= a]/z[a]",
        "not over the sum of all places",
    ),
    both(
        "masked_softmax_shift",
        "a number added to each score of a row changes nothing, of a row without places either",
        SC + "y[a,e] = softmax[e](s[a,e] + c[a] where e < a)",
        SC + "y[a,e] = softmax[e](s[a,e] where e < a) + 0*c[a]",
        SC + "y[a,e] = softmax[e](s[a,e] where e <= a) + 0*c[a]",
        "the place itself counts",
    ),
    both(
        "masked_rows_sum_to_one",
        "rows with a place sum to 1",
        SC + "p[a,e] = softmax[e](s[a,e] where e <= a)\ny[a] = sum[e](p[a,e])*c[a]",
        SC + "y[a] = c[a] + 0*s[a,e]",
        SC + "y[a] = c[a] + 0*s[a,e]",
        "the first row has no earlier place, and sums to 0",
        SC + "p[a,e] = softmax[e](s[a,e] where e < a)\ny[a] = sum[e](p[a,e])*c[a]",
    ),
    both(
        "masked_softmax_in_two_passes",
        "the masked maximum taken off first",
        SV + "m[a] = max[e](s[a,e] where e <= a)\nu[a,e] = exp(s[a,e] - m[a])*[e <= a]\n"
        "y[a,b] = u[a,e]*v[e,b]/sum[f](u[a,f])",
        SV + "y[a,b] = softmax[e](s[a,e] where e <= a)*v[e,b]",
        SV + "y[a,b] = softmax[e](s[a,e])*v[e,b]",
        "not all places",
    ),
    both(
        "sliding_window",
        "softmax over a window is a quotient wherever that has a place",
        S + "y[a,e] = softmax[e](s[a,e] where e <= a, a-e < W)",
        S + "z[a] = sum[e](exp(s[a,e])*[e <= a]*[a-e < W])\ny[a,e] = exp(s[a,e])*[e <= a]*[a-e < W]/z[a]",
        S + "z[a] = sum[e](exp(s[a,e])*[e <= a]*[a-e <= W])\ny[a,e] = exp(s[a,e])*[e <= a]*[a-e < W]/z[a]",
        "a window of another width",
    ),
    both(
        "masked_mean",
        "the mean over earlier places divides by their number",
        S + "y[a] = mean[e](s[a,e] where e <= a)",
        S + "n[a] = sum[e]([e <= a])\ny[a] = sum[e](s[a,e] where e <= a)/n[a]",
        S + "y[a] = 1/N*sum[e](s[a,e] where e <= a)",
        "not by that of all",
    ),
    both(
        "masked_logsumexp_and_minimum",
        "shifts and factors leave them",
        SC + "y[a] = logsumexp[e](s[a,e] + c[a] where e <= a) + min[e](2*s[a,e] where e <= a)",
        SC + "y[a] = c[a] + logsumexp[e](s[a,e] where e <= a) - 2*max[e](-s[a,e] where e <= a)",
        SC + "y[a] = c[a] + logsumexp[e](s[a,e] where e <= a) + 2*max[e](-s[a,e] where e <= a)",
        "a minimum is not a maximum",
    ),
    both(
        "causal_linear_attention_with_its_normaliser",
        "causal linear attention from scores, or from a state",
        LINEAR + "p[a,e] = exp(q[a,r])*exp(k[e,r])*[e <= a]\ny[a,b] = p[a,e]*v[e,b]/sum[f](p[a,f])",
        LINEAR + "s[a,r,b] = exp(k[e,r])*v[e,b]*[e <= a]\nz[a,r] = exp(k[e,r])*[e <= a]\n"
        "y[a,b] = exp(q[a,r])*s[a,r,b]/(exp(q[a,t])*z[a,t])",
        LINEAR + "s[a,r,b] = exp(k[e,r])*v[e,b]*[e <= a]\nz[r] = sum[e](exp(k[e,r]))\n"
        "y[a,b] = exp(q[a,r])*s[a,r,b]/sum[t](exp(q[a,t])*z[t])",
        "not with the sum of all keys",
    ),
    both(
        "neighbourhood_attention_shift",
        "what the scores of a neighbourhood share changes nothing, borders included",
        NEAR + "b[R]\np[i,u] = softmax[u](q[i,r]*k[i+u,r] + q[i,r]*b[r])\ny[i,c] = p[i,u]*v[i+u,c]",
        NEAR + "b[R]\np[i,u] = softmax[u](q[i,r]*k[i+u,r])\ny[i,c] = p[i,u]*v[i+u,c] + 0*b[r]",
        NEAR + "b[R]\np[i,u] = softmax[u](q[i,r]*k[i+u,r] + k[i+u,r]*b[r])\ny[i,c] = p[i,u]*v[i+u,c]",
        "a number of each key does",
    ),
    both(
        "max_pooling_of_a_shifted_map",
        "max pooling of a map times a positive number and with a bias of each channel",
        "x[N,C]\nb[C]\nwhere u : -1..1\ny[i,c] = max[u](2*x[i+u,c] + b[c])",
        "x[N,C]\nb[C]\nwhere u : -1..1\ny[i,c] = 2*max[u](x[i+u,c]) + b[c]",
        "x[N,C]\nb[C]\nwhere u : -1..1\ny[i,c] = 2*max[u](x[i+u,c] + b[c])",
        "the bias is not doubled",
    ),
)

THEOREM = Theorem(
    "Functions over chosen places",
    "Each identity with a near miss. `exp(s + log(c))` is `c*exp(s)` for a condition c; a row without places is 0.",
    tuple(claim for pair in PAIRS for claim in pair),
)


def test_laws_over_places():
    THEOREM.settle()
