"""Sweep the costs of some layers over the number of positions: a table, a figure, and where one overtakes another.

The figure goes to a folder, by default demo-results/.
"""

import sys
from pathlib import Path

import polyattn as pa

NL = pa.Spec("x[N,C]; y[a,b] = 1/N * x[a,d]*wf[d,f]*x[e,f] * x[e,h]*wg[h,b]")
mine = pa.Spec("""
    x[N,C]; where r : R
    k[e,r] = relu(x[e,c]*wk[c,r])
    g[r] = 1/N * k[e,r]    # one pooled vector, which gates a map of R channels
    y[a,b] = x[a,c]*wq[c,r]*g[r] * wo[r,b]
""")
layers = {"NL": NL, "linear attention": pa.catalog.linear_attention(), "mine": mine}
study = pa.study.complexity(layers, N=[196, 3136], C=128, D=32, R=32, orders=["as written", "planned"])
print(study)

print("\nwhere one layer overtakes another on a map of 4 x 4:")
print(" ", pa.study.layer_crossover("poly_nl", "e_nl", "C", up_to=16, N=16, R=8, V=8))

out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results")
out.mkdir(parents=True, exist_ok=True)
figure = study.plot(orders=["as written", "planned"])
(out / "costs.svg").write_text(pa.study.pictures.svg(figure), encoding="utf-8")
print(f"\nfigure: {out}/costs.svg")
