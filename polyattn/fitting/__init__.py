"""Stage 6, fitting: from an explicit tensor or a trained layer to a factored layer within a budget or an error.

Input: an interaction tensor, a channel core `T[b,d,f,h]`, or modules with data. Output: a `Factorisation`, a Spec of
one of the catalogue's families with its parameters, error and plan; a `FactoredPolynomial`, the sum of one for each
order and pattern; or a `Compression` of layers. Guarantees: the error is that of the function, so over the core's
symmetric part for exchangeable x's, and `Factorisation.bound` bounds the output's error on any data. tensorly is loaded
on first use.
"""

from polyattn.fitting.compress import compress
from polyattn.fitting.compression import Candidate, Compression
from polyattn.fitting.factorise import Factorisation, factorise
from polyattn.fitting.layers import trained_layer
from polyattn.fitting.polynomial import FactoredPolynomial, factorise_polynomial
from polyattn.fitting.recognise import Recognition, recognise

__all__ = [
    "Candidate",
    "Compression",
    "FactoredPolynomial",
    "Factorisation",
    "Recognition",
    "compress",
    "factorise",
    "factorise_polynomial",
    "recognise",
    "trained_layer",
]
