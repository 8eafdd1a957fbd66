"""Imported once, by the process that workers are forked from: what the first request of each would else wait for.

The heavy libraries, the templates, matplotlib's fonts and sympy's tables are there before a worker is; a killed worker
is replaced at once.
"""

from contextlib import suppress

import torch

from polyattn import catalog
from polyattn.errors import PolyattnError
from polyattn.study.serve.jobs import answer

torch.set_num_threads(1)  # no threads before a fork
for _job in ("layer", "proof"):
    with suppress(PolyattnError):
        answer({"job": _job, "text": str(catalog.poly_nl()), "against": "nl"})
