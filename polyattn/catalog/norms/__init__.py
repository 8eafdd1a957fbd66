"""Norms along the channels."""
