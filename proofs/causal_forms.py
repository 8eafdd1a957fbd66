"""Causal forms at every length: states in the place of masks, and what is one position off.

Σ_{e≤a} is written `[e <= a]`. Higher-order linear attention (HLA) is Σ_{i≤j≤t} (q_t·k_i)(k_i·q_j) v_j; its Theorem 3.1
keeps the sums S, C and G below, of which two states and no difference are enough.
"""

from proofs.theorem import Claim, Theorem

QKV = "q[N,D]\nk[N,D]\nv[N,C]\n"
X = "x[N,C]\n"
LINEAR = QKV + "y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e <= a]"
HLA = QKV + "y[a,b] = q[a,r]*k[i,r]*k[i,s]*q[j,s]*v[j,b]*[i <= j]*[j <= a]"
HLA_STATES = QKV + (
    "s[a,r,t] = k[i,r]*k[i,t]*[i <= a]\n"
    "c[a,t,b] = q[j,t]*v[j,b]*[j <= a]\n"
    "g[a,r,b] = k[i,r]*k[i,t]*q[j,t]*v[j,b]*[j < i]*[i <= a]\n"
    "y[a,b] = q[a,r]*s[a,r,t]*c[a,t,b] - q[a,r]*g[a,r,b]"
)
POLY_NL = X + "y[a,b] = x[e,h]*w1[h,d]*x[e,f]*w2[f,d]*x[a,d]*w3[d,b]*[e <= a]"
NORMALISED = QKV + "z[a] = q[a,r]*k[e,r]*[e <= a]\n"
AHLA = QKV + "y[a,b] = q[a,r]*k[j,r]*q[j,s]*k[i,s]*v[i,b]*[i <= j]*[j <= a]"
DECAY = QKV + "g[N,D]\nc[a,r] = g[e,r]*[e <= a]\ny[a,b] = q[a,r]*k[e,r]*exp(c[a,r] - c[e,r])*v[e,b]*[e <= a]"
RETENTION = QKV + "g[N]\nc[a] = g[e]*[e <= a]\ny[a,b] = q[a,r]*k[e,r]*exp(c[a] - c[e])*v[e,b]*[e <= a]"
TESA = X + "where r : R\ny[a,b] = x[a,d]*wq[d,r]*x[e,f]*wk[f,r]*x[e,h]*wv[h,b]*[e <= a]"
WINDOW = X + "y[a,b] = x[e,b]*[e <= a]*[a-e < W]"
BLOCKS = X + "where N = G*M\n"

THEOREM = Theorem(
    "Causal layers are sums over states",
    "Decided at every length, by the weak orders of the positions; the near misses are one position off.",
    (
        Claim(
            "causal_linear_attention_by_states",
            "causal linear attention is the query with the state Σ k v",
            LINEAR,
            QKV + "s[a,r,b] = k[e,r]*v[e,b]*[e <= a]\ny[a,b] = q[a,r]*s[a,r,b]",
        ),
        Claim(
            "causal_linear_attention_and_the_present",
            "the state before a position, and the position itself",
            LINEAR,
            QKV + "y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e < a] + q[a,r]*k[a,r]*v[a,b]",
        ),
        Claim(
            "causal_linear_attention_strict",
            "the state before a position alone is something else",
            LINEAR,
            QKV + "y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e < a]",
            holds=False,
        ),
        Claim(
            "causal_normaliser_in_either_order",
            "causal linear attention divided by its normaliser, before or after the values",
            NORMALISED + "y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e <= a]/z[a]",
            NORMALISED + "p[a,e] = q[a,r]*k[e,r]*[e <= a]/z[a]\ny[a,b] = p[a,e]*v[e,b]",
        ),
        Claim("hla_theorem_3_1", "HLA is the difference of Theorem 3.1", HLA, HLA_STATES),
        Claim(
            "hla_by_two_states",
            "HLA is two states, one inside the other",
            HLA,
            QKV
            + "s[j,r,t] = k[i,r]*k[i,t]*[i <= j]\ng[a,r,b] = s[j,r,t]*q[j,t]*v[j,b]*[j <= a]\ny[a,b] = q[a,r]*g[a,r,b]",
        ),
        Claim(
            "hla_with_the_diagonal_twice",
            "with the diagonal in the term that is subtracted it is something else",
            HLA,
            HLA_STATES.replace("[j < i]", "[j <= i]"),
            holds=False,
        ),
        Claim(
            "hla_without_order",
            "without the order of i and j it is something else",
            HLA,
            HLA.replace("[i <= j]", "[i <= a]"),
            holds=False,
        ),
        Claim(
            "causal_poly_nl_gram_form",
            "causal Poly-NL by a running Gram matrix",
            POLY_NL,
            X + "g[a,h,f] = x[e,h]*x[e,f]*[e <= a]\ns[a,d] = g[a,h,f]*w1[h,d]*w2[f,d]\ny[a,b] = s[a,d]*x[a,d]*w3[d,b]",
        ),
        Claim(
            "causal_poly_nl_pooling_first",
            "running sums of the two factors, multiplied, are something else",
            POLY_NL,
            X + "one[a,d] = x[e,h]*w1[h,d]*[e <= a]\ntwo[a,d] = x[e,f]*w2[f,d]*[e <= a]\n"
            "y[a,b] = one[a,d]*two[a,d]*x[a,d]*w3[d,b]",
            holds=False,
        ),
        Claim(
            "causal_tesa_small_similarity",
            "causal TESA's positions through its small similarity",
            TESA,
            X + "where r : R\nm[a,r,b] = x[e,f]*wk[f,r]*x[e,h]*wv[h,b]*[e <= a]\ny[a,b] = x[a,d]*wq[d,r]*m[a,r,b]",
        ),
        Claim(
            "causal_two_simplicial_by_two_states",
            "pairs of earlier positions in any order are two states",
            X + "y[a,b] = x[a,c]*x[e,c]*x[f,d]*w[d,b]*[e <= a]*[f <= a]",
            X + "one[a,c] = x[e,c]*[e <= a]\ntwo[a,d] = x[f,d]*[f <= a]\ny[a,b] = x[a,c]*one[a,c]*two[a,d]*w[d,b]",
        ),
        Claim(
            "pairs_in_order_and_the_diagonal",
            "pairs in either order, and the diagonal once",
            X + "y[a,b] = x[e,b]*x[f,b]*[e <= a]*[f <= a]",
            X + "y[a,b] = 2*x[e,b]*x[f,b]*[e < f]*[f <= a] + x[e,b]*x[e,b]*[e <= a]",
        ),
        Claim(
            "pairs_in_order_with_the_diagonal_twice",
            "twice the pairs with e at most f has the diagonal twice",
            X + "y[a,b] = x[e,b]*x[f,b]*[e <= a]*[f <= a]",
            X + "y[a,b] = 2*x[e,b]*x[f,b]*[e <= f]*[f <= a]",
            holds=False,
        ),
        Claim(
            "past_present_and_future",
            "past, present and future are all positions",
            X + "y[a,b] = x[a,c]*x[e,c]*x[e,b]*[e < a] + x[a,c]*x[a,c]*x[a,b] + x[a,c]*x[e,c]*x[e,b]*[e > a]",
            X + "y[a,b] = x[a,c]*x[e,c]*x[e,b]",
        ),
        Claim(
            "places_are_counted",
            "N counts the positions up to one, and those behind it",
            X + "y[a,b] = 1/N*x[a,b]*[e <= a] + 1/N*x[a,b]*[e > a]",
            X + "y[a,b] = x[a,b]",
        ),
        Claim(
            "pairs_of_places_are_counted",
            "ordered pairs of earlier places, twice, and the places themselves",
            X + "y[a,b] = 2*x[a,b]*[e < f]*[f < a] + x[a,b]*[e < a]",
            X + "y[a,b] = x[a,b]*[e < a]*[f < a]",
        ),
        Claim(
            "window_by_two_sums",
            "a sliding window is the difference of two running sums",
            WINDOW,
            X + "y[a,b] = x[e,b]*[e <= a] - x[e,b]*[e <= a]*[a-e >= W]",
        ),
        Claim(
            "window_off_by_one",
            "a window of one position more is another one",
            WINDOW,
            WINDOW.replace("< W", "<= W"),
            holds=False,
        ),
        Claim(
            "blocks_before_and_within",
            "block-causal: the blocks before, and the own one whole",
            BLOCKS + "y[(h m),b] = x[(h m),c]*x[(g n),c]*x[(g n),b]*[g <= h]",
            BLOCKS + "y[(h m),b] = x[(h m),c]*x[(g n),c]*x[(g n),b]*[g < h] + x[(h m),c]*x[(h n),c]*x[(h n),b]",
        ),
        Claim(
            "composites_are_ordered_outer_part_first",
            "the order of the whole is that of its blocks, and within a block that of its positions",
            BLOCKS + "y[(h m),b] = x[(g n),b]*[(g n) <= (h m)]",
            X + "y[a,b] = x[e,b]*[e <= a]",
        ),
        Claim(
            "blocks_are_not_positions",
            "block-causal is not causal",
            BLOCKS + "y[(h m),b] = x[(g n),b]*[g <= h]*I[m,m]",
            X + "y[a,b] = x[e,b]*[e <= a]",
            holds=False,
        ),
        Claim(
            "ahla_is_linear_attention_twice",
            "asymmetric HLA is causal linear attention of its own output",
            AHLA,
            QKV + "h[j,b] = q[j,s]*k[i,s]*v[i,b]*[i <= j]\ny[a,b] = q[a,r]*k[j,r]*h[j,b]*[j <= a]",
        ),
        Claim("ahla_is_not_hla", "the two second orders are different layers", AHLA, HLA, holds=False),
        Claim(
            "ahla_strictly_before",
            "linear attention of an output that leaves the position out is something else",
            AHLA,
            AHLA.replace("[i <= j]", "[i < j]"),
            holds=False,
        ),
        Claim(
            "hla_strictly_before_and_diagonal",
            "HLA is its pairs strictly in order and its diagonal",
            HLA,
            HLA.replace("[i <= j]", "[i < j]") + " + q[a,r]*k[i,r]*k[i,s]*q[i,s]*v[i,b]*[i <= a]",
        ),
        Claim(
            "two_simplicial_by_orders",
            "pairs of earlier positions are those in either order and the equal ones",
            X + "y[a,b] = x[a,c]*x[e,c]*x[f,d]*w[d,b]*[e <= a]*[f <= a]",
            X + "y[a,b] = x[a,c]*x[e,c]*x[f,d]*w[d,b]*[e < f]*[f <= a] + x[a,c]*x[e,c]*x[f,d]*w[d,b]*[f < e]*[e <= a]"
            " + x[a,c]*x[e,c]*x[e,d]*w[d,b]*[e <= a]",
        ),
        Claim(
            "window_and_what_is_older",
            "a window and what is older than it are the past",
            WINDOW + " + x[e,b]*[e <= a]*[a-e >= W]",
            X + "y[a,b] = x[e,b]*[e <= a]",
        ),
        Claim(
            "chunks_of_linear_attention",
            "in chunks: the state of the chunks before, and a mask within the own one",
            BLOCKS + "y[(h m),b] = x[(h m),c]*x[(g n),c]*x[(g n),b]*[(g n) <= (h m)]",
            BLOCKS + "s[h,c,b] = x[(g n),c]*x[(g n),b]*[g < h]\n"
            "y[(h m),b] = x[(h m),c]*s[h,c,b] + x[(h m),c]*x[(h n),c]*x[(h n),b]*[n <= m]",
        ),
        Claim(
            "blocks_without_the_own_one",
            "block-causal without the own block is something else",
            BLOCKS + "y[(h m),b] = x[(h m),c]*x[(g n),c]*x[(g n),b]*[g <= h]",
            BLOCKS + "y[(h m),b] = x[(h m),c]*x[(g n),c]*x[(g n),b]*[g < h]",
            holds=False,
        ),
        Claim(
            "decay_from_the_position_on",
            "a decay that begins with its own position is another one",
            DECAY,
            DECAY.replace("- c[e,r])", "- c[e,r] + g[e,r])"),
            holds=False,
        ),
        Claim(
            "retention_before_and_at_the_position",
            "RetNet's decay counted up to a position, and before it with its own beside",
            RETENTION,
            RETENTION.replace("g[e]*[e <= a]", "g[e]*[e < a] + g[a]"),
        ),
        Claim(
            "gated_attention_before_and_at_the_position",
            "gated linear attention is its sum over earlier positions and the own one",
            DECAY,
            DECAY.removesuffix("[e <= a]") + "[e < a] + q[a,r]*k[a,r]*v[a,b]",
        ),
        Claim(
            "a_decay_counted_before_the_position",
            "a decay counted before both positions is another one",
            DECAY,
            DECAY.replace("g[e,r]*[e <= a]", "g[e,r]*[e < a]"),
            holds=False,
        ),
    ),
)


def test_causal_layers_are_sums_over_states():
    THEOREM.settle()
