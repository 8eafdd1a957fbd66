"""Layers of neighbourhoods of a map: convolutions whose kernels or factors depend on the map."""
