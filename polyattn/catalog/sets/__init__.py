"""Layers of sets: pooling, and equivariant maps."""
