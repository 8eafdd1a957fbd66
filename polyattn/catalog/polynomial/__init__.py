"""Polynomial networks, fusions of two vectors, and perceptrons along positions."""
