"""Causal layers: linear attention, decays, higher orders, windows, and softmax with the past kept."""
