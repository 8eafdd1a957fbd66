"""`gram`: XᵀX of a tall X, every position read for its upper tiles only."""

from polyattn.kernels.gram.op import gram

__all__ = ["gram"]
