"""Stage 5, nn: specifications as trainable modules.

Input: a specification and the sizes of its parameters. Output: `torch.nn.Module`s, `Layer` on (B, *axes) of any
inputs and the others on (B, C, *spatial). Guarantees: the module computes the specification on the plan for the input's
shape, works under `torch.compile(fullgraph=True)`, `torch.export`, autocast, `torch.func`, `deepcopy` and pickling.
"""

from polyattn.nn.attention import Attention
from polyattn.nn.blocks.a2 import A2
from polyattn.nn.blocks.axial import Axial
from polyattn.nn.blocks.bat_block import BATBlock
from polyattn.nn.blocks.bat_transform import BATransform
from polyattn.nn.blocks.cgnl import CGNL
from polyattn.nn.blocks.criss_cross import CrissCross
from polyattn.nn.blocks.efficient_nl import EfficientNL
from polyattn.nn.blocks.glore import GloRe
from polyattn.nn.blocks.latent_gnn import LatentGNN
from polyattn.nn.blocks.non_local import NonLocal
from polyattn.nn.blocks.poly_nl import PolyNL
from polyattn.nn.blocks.tesa import TESA
from polyattn.nn.chunked import Chunked, chunked
from polyattn.nn.layer import Layer
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
    "Layer",
    "NonLocal",
    "PolyNL",
    "chunked",
    "load_weights",
]
