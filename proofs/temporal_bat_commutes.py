"""The temporal matrix of 3D BAT commutes with the spatial ones, provided that all frames share P and Q.

3D BAT (Chi et al., section 3.4, Eq. 7) applies P and Q to each frame, then mixes frames by T. If P and Q are one pair
for the clip, mixing first gives the same. If each frame has its own pair, the order matters.
"""

from proofs.theorem import Claim, Theorem

HEAD = "x[T,H,W,C]\nwhere C = G*M\n"
SPACE_FIRST = (
    HEAD + "inside[u,i,j,(g n)] = p[g,i,k]*x[u,k,l,(g n)]*q[g,l,j]\ny[t,i,j,(g n)] = mix[g,t,u]*inside[u,i,j,(g n)]"
)
TIME_FIRST = (
    HEAD + "mixed[t,k,l,(g n)] = mix[g,t,u]*x[u,k,l,(g n)]\ny[t,i,j,(g n)] = p[g,i,k]*mixed[t,k,l,(g n)]*q[g,l,j]"
)
OWN_SPACE_FIRST = SPACE_FIRST.replace("p[g,i,k]", "p[g,u,i,k]").replace("q[g,l,j]", "q[g,u,l,j]")
OWN_TIME_FIRST = TIME_FIRST.replace("p[g,i,k]", "p[g,t,i,k]").replace("q[g,l,j]", "q[g,t,l,j]")

THEOREM = Theorem(
    "The temporal matrix of 3D BAT commutes with the spatial ones",
    "Chi et al., section 3.4. Condition: P and Q are the same for all frames.",
    (
        Claim("temporal_bat_commutes", "with one P and Q for all frames", SPACE_FIRST, TIME_FIRST),
        Claim("temporal_bat_per_frame", "with a pair for each frame", OWN_SPACE_FIRST, OWN_TIME_FIRST, holds=False),
        Claim(
            "per_frame_that_are_equal",
            "with a pair for each frame, all equal",
            OWN_SPACE_FIRST,
            OWN_TIME_FIRST,
            ("p[g,t,i,k] = ps[g,i,k]", "q[g,t,l,j] = qs[g,l,j]"),
        ),
    ),
)


def test_temporal_bat_commutes():
    THEOREM.settle()
