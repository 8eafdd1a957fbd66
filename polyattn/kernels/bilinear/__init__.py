"""`bilinear`: block matrices from the left and from the right of every group's maps, in one pass over X."""

from polyattn.kernels.bilinear.op import MOST_BLOCKS, bilinear, block_cross, block_mix

__all__ = ["MOST_BLOCKS", "bilinear", "block_cross", "block_mix"]
