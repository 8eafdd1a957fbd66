"""Imported once, by the process that forks the workers: the slow parts of a worker's first request.

The heavy libraries, the templates, matplotlib's fonts and sympy's tables are loaded before a worker starts; so a killed
worker is replaced at once.
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
