"""Graph layers, with the adjacency or a mask as an input."""
