"""Agent attention."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend

FACTS = Facts(
    title="Agent attention",
    source="Han et al., Agent Attention: On the Integration of Softmax and Linear Attention, 2023, section 3",
    year=2023,
    sizes={"N": 5, "C": 4, "D": 3, "M": 2},
    degree=None,
    reach={"N": "all"},
)


def agent() -> Spec:
    """Return agent attention: M agents gather from all positions, and each position reads from the agents.

    Source: Han et al., Agent Attention: On the Integration of Softmax and Linear Attention, 2023, section 3.

    Prefer it to `multi_head` where N is large: two maps of N x M. Agents are pooled queries; the published biases and
    the depthwise convolution are left out.
    """
    return Spec("""
        x[N,C]; where d : D; where m : M
        q[a,d] = x[a,c]*wq[c,d]
        k[e,d] = x[e,c]*wk[c,d]
        agent[m,d] = pool[m,a]*q[a,d]
        g[m,e] = softmax[e](1/sqrt(D) * agent[m,d]*k[e,d])
        s[a,m] = softmax[m](1/sqrt(D) * q[a,d]*agent[m,d])
        y[a,b] = s[a,m]*g[m,e]*x[e,c]*wv[c,b]
    """)


def reference(x, wq, wk, pool, wv):
    """Agents read from positions, positions from agents."""
    agents = pool @ (x @ wq)
    return attend(x @ wq, agents, attend(agents, x @ wk, x @ wv))
