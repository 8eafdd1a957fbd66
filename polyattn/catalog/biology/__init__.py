"""Layers of structural biology: pairs of positions, and sequences beside them."""
