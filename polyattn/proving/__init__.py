"""Stage 7, proving: two specifications to a `Verdict`, with its certificate or its counterexample.

Input: two specifications, and given equations. Output: "equal" with a certificate, checked by `proofs/check.py`
without any of this code, "different" with sizes and integers for anyone to check, or "undecided" with the reason. Holds
afterwards: "equal" and "different" are never wrong; see `prove` for their grounds. Arithmetic is exact or, after
functions in counterexamples, of enclosing intervals; `prove` does not import torch.
"""

from polyattn.proving.audit import Recheck, recheck
from polyattn.proving.prove import ask, prove
from polyattn.proving.verdict import Verdict

__all__ = ["Recheck", "Verdict", "ask", "prove", "recheck"]
