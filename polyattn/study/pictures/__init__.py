"""Pictures of layers: each function returns one matplotlib figure, neither shown nor saved.

The colours are safe for colour-blind readers, and every distinction is repeated in a line's style, a marker or a hatch,
so a print in grey reads the same. `save` writes a figure as svg, pdf or png.
"""

from polyattn.study.pictures.curves import cost_curves
from polyattn.study.pictures.heat import heat_map
from polyattn.study.pictures.network import tensor_network
from polyattn.study.pictures.pareto import pareto
from polyattn.study.pictures.roofline import roofline
from polyattn.study.pictures.saving import check_path, save, svg
from polyattn.study.pictures.sparsity import sparsity
from polyattn.study.pictures.tree import contraction_tree

__all__ = [
    "check_path",
    "contraction_tree",
    "cost_curves",
    "heat_map",
    "pareto",
    "roofline",
    "save",
    "sparsity",
    "svg",
    "tensor_network",
]
