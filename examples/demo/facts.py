"""Part one of the demo: the lowered forms against the explicit order-8 polynomial, and forms against each other."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from polyattn.algebra import Spec
from polyattn.proving import prove
from polyattn.verifying import verify

SMALL = {"N": 2, "C": 2, "R": 1, "V": 2, "H": 2, "W": 2, "G": 1, "K": 1}

GRAM_FORM = """
    x[N,C]
    gram[h,f] = 1/N * x[e,h]*x[e,f]
    scale[d] = gram[h,f]*w1[h,d]*w2[f,d]
    y[a,b] = x[a,d]*(scale[d]*w3[d,b])
"""
KEYS_FIRST = "x[N,C]; context[f,b] = x[e,f]*x[e,h]*wg[h,b]; y[a,b] = x[a,d]*wf[d,f]*context[f,b]"
COLUMNS_FIRST = """
    x[H,W,C]; where C = G*M; where m : K
    row[i,m] = 1/W * x[i,j,c]*wf[c,m]
    col[j,m] = 1/H * x[i,j,c]*wf[c,m]
    right[k,j,g,n] = x[k,l,(g n)] * col[v,m]*wq[g,l,j,v,m]
    y[i,j,(g n)] = row[u,m]*wp[g,i,k,u,m] * right[k,j,g,n]
"""


def check_facts(specs: dict[str, Spec], console: Console) -> list[dict[str, Any]]:
    """Check every layer's lowered graphs, and the identities; print and return one row for each."""
    from polyattn import catalog

    checks: list[tuple[str, str, Any]] = []
    for name, spec in specs.items():
        sizes = {s: SMALL[s] for s in spec.sizes.names if s in SMALL}
        for objective in ("as_written", "forward"):
            label = f"{name}, lowered {objective.replace('_', ' ')}, = explicit order-8 tensor"
            checks.append(
                # Default arguments, since a closure would see the last layer only.
                (label, f"symbolic at {_text(sizes)}", lambda s=spec, z=sizes, o=objective: verify(s, z, objective=o))
            )
    nl, poly_nl, e_nl, ba = (catalog.get(n) for n in ("nl", "poly_nl", "e_nl", "ba_transform"))
    given = ["wf[d,f] = wq[d,r]*wk[f,r]", "wg[h,b] = 1/N*wv[h,s]*wo[s,b]"]
    checks += [
        ("NL: similarities first = keys and values first", "every size", lambda: prove(nl, KEYS_FIRST)),
        ("Poly-NL: Hadamard form = Gram form", "every size", lambda: prove(poly_nl, GRAM_FORM)),
        ("E-NL = NL with wf = wq wk', wg = wv wo / N", "every size", lambda: prove(nl, e_nl, given=given)),
        ("BA-Transform: (P X) Q = P (X Q)", "every size", lambda: prove(ba, COLUMNS_FIRST)),
    ]
    rows, verdicts = [], []
    for label, where, check in track(checks, description="checking", console=console, transient=True):
        start = time.perf_counter()
        verdict = check()
        rows.append({"fact": label, "where": where, "holds": bool(verdict), "seconds": time.perf_counter() - start})
        verdicts.append(verdict)
    table = Table("fact", "where", "verdict", "time")
    for row in rows:
        table.add_row(row["fact"], row["where"], "holds" if row["holds"] else "FAILS", f"{1e3 * row['seconds']:.0f} ms")
    console.print(table)
    for row, verdict in zip(rows, verdicts, strict=True):
        if not row["holds"]:
            console.print(f"[bold]{row['fact']}[/bold] fails:\n{verdict}", markup=True)
    return rows


def _text(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in sizes.items())
