"""`gram`: XᵀX of a tall X, with upper tiles only."""

from polyattn.kernels.gram.op import gram

__all__ = ["gram"]
