"""Π-nets' recursions are sums of CP terms of all orders, written out.

The coupled recursion multiplies out to one term for each choice of a subset of the steps after the first, the nested
one to one term for each number of last steps. At degree 3; the coupled one also for a whole map.
"""

import polyattn as pa
from proofs.theorem import Claim, Theorem

Z, HEAD = {n: f"x[a,d{n}]*u{n}[d{n},r]" for n in (1, 2, 3)}, "x[N,C]\nwhere r : R\n"
CCP = f"{HEAD}y[a,b] = " + " + ".join(
    f"{' * '.join(Z[n] for n in steps)} * wo[r,b]" for steps in ((1,), (1, 2), (1, 3), (1, 2, 3))
)
WHOLE = f"{HEAD}y[a,b] = " + " + ".join(
    f"{' * '.join(f'x[e{n},d{n}]*u{n}[e{n},d{n},r]' for n in steps)} * wo[r,a,b]"
    for steps in ((1,), (1, 2), (1, 3), (1, 2, 3))
)
NCP = """x[N,C]
where i, j, k, r, s, t : R
y[a,b] = x[a,d]*u3[d,i]*wb3[t,i]*b3[t]*wo[i,b]
       + x[a,d]*u3[d,i]*ws3[j,i]*x[a,f]*u2[f,j]*wb2[t,j]*b2[t]*wo[i,b]
       + x[a,d]*u3[d,i]*ws3[j,i]*x[a,f]*u2[f,j]*ws2[k,j]*x[a,h]*u1[h,k]*wb1[t,k]*b1[t]*wo[i,b]"""

THEOREM = Theorem(
    "Π-nets' recursions are their expansions: sums of CP terms of all orders with shared factors",
    "Chrysos et al., Π-nets, models CCP and NCP, without the constant β; Poly-NL, Eq. 3, is the polynomial that they "
    "factor.",
    (
        Claim("pi_net_ccp", "CCP at one position's channels", str(pa.catalog.pi_net_ccp()), CCP),
        Claim("pi_net_ccp_whole", "CCP of the whole map, as published", str(pa.catalog.pi_net_ccp(whole=True)), WHOLE),
        Claim("pi_net_ncp", "NCP at one position's channels", str(pa.catalog.pi_net_ncp()), NCP),
        Claim(
            "pi_net_ccp_is_not_a_product",
            "CCP is not only its highest order",
            str(pa.catalog.pi_net_ccp()),
            f"{HEAD}y[a,b] = {Z[1]}*{Z[2]}*{Z[3]}*wo[r,b]",
            holds=False,
        ),
    ),
)


def test_pi_nets():
    THEOREM.settle()
