"""Stage 5, nn: specifications as trainable modules.

Input: a specification and the sizes that its parameters need. Output: `torch.nn.Module`s that take (B, C, *spatial).
What holds afterwards: the module computes the specification on the plan for the shape at hand, works under
`torch.compile(fullgraph=True)`, `torch.export`, autocast, `torch.func`, `deepcopy` and pickling.
"""

from polyattn.nn.a2 import A2
from polyattn.nn.attention import Attention
from polyattn.nn.axial import Axial
from polyattn.nn.bat_block import BATBlock
from polyattn.nn.bat_transform import BATransform
from polyattn.nn.cgnl import CGNL
from polyattn.nn.chunked import Chunked, chunked
from polyattn.nn.criss_cross import CrissCross
from polyattn.nn.efficient_nl import EfficientNL
from polyattn.nn.glore import GloRe
from polyattn.nn.latent_gnn import LatentGNN
from polyattn.nn.non_local import NonLocal
from polyattn.nn.poly_nl import PolyNL
from polyattn.nn.tesa import TESA
from polyattn.nn.weights import load_weights

__all__ = [
    "A2",
    "CGNL",
    "TESA",
    "Attention",
    "Axial",
    "BATBlock",
    "BATransform",
    "Chunked",
    "CrissCross",
    "EfficientNL",
    "GloRe",
    "LatentGNN",
    "NonLocal",
    "PolyNL",
    "chunked",
    "load_weights",
]
