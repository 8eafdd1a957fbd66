"""Softmax attention and its kin: shares of positions by the similarity of queries and keys."""
