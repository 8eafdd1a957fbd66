"""`bilinear`: block matrices applied to every group's maps from left and right, in one pass over X."""

from polyattn.kernels.bilinear.op import MOST_BLOCKS, bilinear, block_cross, block_mix

__all__ = ["MOST_BLOCKS", "bilinear", "block_cross", "block_mix"]
