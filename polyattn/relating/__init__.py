"""Relating: two layers to the conditions under which one is the other, and a layer to its invariants.

Input: specifications, texts, names of the catalogue, or code. Output: a `Relation`, whose equations `prove` takes, or
the size of a search without a result. Guarantees: each result is proved; the search is bounded in steps, not by a
clock.
"""

from polyattn.relating.exponents import Exponent
from polyattn.relating.invariants import Invariants, invariants
from polyattn.relating.relate import relate
from polyattn.relating.relation import Relation

__all__ = ["Exponent", "Invariants", "Relation", "invariants", "relate"]
