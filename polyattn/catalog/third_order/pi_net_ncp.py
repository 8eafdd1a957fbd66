"""Π-net with nested coupled CP decomposition."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.errors import SpecError

FACTS = Facts(
    title="Π-net, nested coupled CP",
    source="Chrysos et al., Π-nets: Deep Polynomial Neural Networks, 2020, model NCP",
    year=2020,
    sizes={"N": 3, "C": 4, "R": 3},
    equivariant=("N",),
)


def pi_net_ncp(degree: int = 3, rank: int | None = None, *, bias: bool = False, whole: bool = False) -> Spec:
    """Return a Π-net, nested coupled CP: `h_n = (A_nᵀz) ⊙ (S_nᵀh_{n-1} + B_nᵀb_n)` with `h_0 = 0`, `y = C h_D + β`.

    Source: Chrysos et al., Π-nets: Deep Polynomial Neural Networks, 2020, model NCP. Order k is the product of the last
    k of the A_nᵀz, chained by the S_n and begun by one b_n: each order has its own start, and shares the rest.

    Prefer it to `pi_net_ccp` where the orders are to differ more than a shared start allows, at one R x R matrix a
    step more. By default z is the channels of one position, so that positions do not meet.

    Args:
        degree: D, the number of steps of the recursion.
        rank: R as a number; without it R is a size to be given later. The b_n have as many entries.
        bias: with β, the term of order 0.
        whole: z is the whole map, as published; parameters then have the sizes of positions too.

    Raises:
        SpecError: the degree is not a whole number from 1 on.
    """
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
        raise SpecError(f"the degree of a Π-net is a whole number from 1 on, not {degree!r}")
    z, u, at, out = ("x[e,d]", "[e,d,r]", "[r]", "[r,a,b]") if whole else ("x[a,d]", "[d,r]", "[a,r]", "[r,b]")
    # The previous step is read at an index of its own, which S_n sums over.
    before = at.replace("r", "s")
    # h_0 = 0, so the first step has no S_1.
    lines = [f"h1{at} = {z}*u1{u}*wb1[t,r]*b1[t]"]
    lines += [
        f"h{n}{at} = {z}*u{n}{u}*(h{n - 1}{before}*ws{n}[s,r] + wb{n}[t,r]*b{n}[t])" for n in range(2, degree + 1)
    ]
    beta = "" if not bias else " + bo[a,b]" if whole else " + bo[b]"
    lines.append(f"y[a,b] = h{degree}{at}*wo{out}{beta}")
    return Spec("\n".join([f"x[N,C]; where r, s, t : {rank or 'R'}", *lines]))


def reference(x, wo, **w):
    """Each output as the paper's recursion, position by position."""
    y = []
    for z in x:
        h = (w["u1"].T @ z) * (w["wb1"].T @ w["b1"])
        for n in "23":
            h = (w[f"u{n}"].T @ z) * (w[f"ws{n}"].T @ h + w[f"wb{n}"].T @ w[f"b{n}"])
        y.append(wo.T @ h)
    return np.array(y)
