"""Fused kernels in Triton for operations missing in torch, beside their definitions in torch.

Each folder is one kernel: `naive.py` defines it in a few lines, `triton.py` computes it on a GPU (or in Triton's
interpreter), `cost.py` counts its MACs and bytes, `op.py` registers it with torch, with gradients, so that
`torch.compile` and `torch.export` keep it as one operation. On other devices, other dtypes or without Triton the
definition runs.
"""

from polyattn.kernels.attention import attention
from polyattn.kernels.bilinear import MOST_BLOCKS, bilinear
from polyattn.kernels.cost import Cost
from polyattn.kernels.cross_gram import cross_gram
from polyattn.kernels.gram import gram
from polyattn.kernels.hadamard_mean import hadamard_mean
from polyattn.kernels.linear_attention import linear_attention, linear_context, linear_query
from polyattn.kernels.project import project, project_pair
from polyattn.kernels.projected_attention import projected_context, projected_query

__all__ = [
    "MOST_BLOCKS",
    "Cost",
    "attention",
    "bilinear",
    "cross_gram",
    "gram",
    "hadamard_mean",
    "linear_attention",
    "linear_context",
    "linear_query",
    "project",
    "project_pair",
    "projected_context",
    "projected_query",
]
