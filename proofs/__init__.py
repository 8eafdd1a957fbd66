"""Theorems about attention layers, one file each, and an independent checker for what the prover answers.

`python -m proofs` proves or refutes every claim again, checks each answer with `check.py` or `refute.py`, which import
nothing of polyattn (`refute.py` takes intervals from mpmath), and writes `proofs/certificates/` and `proofs/README.md`.
"""
