"""`hadamard_mean`: the mean over positions of the product of two projections, without writing either to memory."""

from polyattn.kernels.hadamard_mean.op import hadamard_mean

__all__ = ["hadamard_mean"]
