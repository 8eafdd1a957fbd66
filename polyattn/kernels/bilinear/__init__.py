"""`bilinear`: block matrices from the left and from the right of every group's maps, in one pass over X."""

from polyattn.kernels.bilinear.op import bilinear, block_cross, block_mix

__all__ = ["bilinear", "block_cross", "block_mix"]
