"""Π-net with coupled CP decomposition."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.errors import SpecError

FACTS = Facts(
    title="Π-net, coupled CP",
    source="Chrysos et al., Π-nets: Deep Polynomial Neural Networks, 2020, model CCP",
    year=2020,
    sizes={"N": 3, "C": 4, "R": 3},
    equivariant=("N",),
    symmetries=((("u2", "u3"),),),
)


def pi_net_ccp(degree: int = 3, rank: int | None = None, *, bias: bool = False, whole: bool = False) -> Spec:
    """Return a Π-net, coupled CP: `h_1 = U_1ᵀz`, `h_n = (U_nᵀz) ⊙ h_{n-1} + h_{n-1}`, `y = C h_D + β`.

    Source: Chrysos et al., Π-nets: Deep Polynomial Neural Networks, 2020, model CCP. All orders up to the degree, the
    factors of the lower ones being those of the highest: order k is the sum, over the choices of k - 1 of U_2 ... U_D,
    of a CP term with U_1.

    Prefer it to `cp_nl` where lower orders matter: D matrices hold all of them. By default z is the channels of one
    position, so that positions do not meet; `pi_net_ncp` shares less between orders.

    Args:
        degree: D, the number of steps of the recursion.
        rank: R as a number; without it R is a size to be given later.
        bias: with β, the term of order 0.
        whole: z is the whole map, as published; parameters then have the sizes of positions too.

    Raises:
        SpecError: the degree is not a whole number from 1 on.
    """
    # True is an int in Python, but not a degree.
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
        raise SpecError(f"the degree of a Π-net is a whole number from 1 on, not {degree!r}")
    z, u, at, out = ("x[e,d]", "[e,d,r]", "[r]", "[r,a,b]") if whole else ("x[a,d]", "[d,r]", "[a,r]", "[r,b]")
    lines = [f"h1{at} = {z}*u1{u}"]
    lines += [f"h{n}{at} = {z}*u{n}{u}*h{n - 1}{at} + h{n - 1}{at}" for n in range(2, degree + 1)]
    beta = "" if not bias else " + bo[a,b]" if whole else " + bo[b]"
    lines.append(f"y[a,b] = h{degree}{at}*wo{out}{beta}")
    return Spec("\n".join([f"x[N,C]; where r : {rank or 'R'}", *lines]))


def reference(x, u1, u2, u3, wo):
    """Each output as the paper's recursion, position by position."""
    y = []
    for z in x:
        h = u1.T @ z
        for u in (u2, u3):
            h = (u.T @ z) * h + h
        y.append(wo.T @ h)
    return np.array(y)
