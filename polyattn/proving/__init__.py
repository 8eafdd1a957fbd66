"""Stage 7, proving: two specifications to a `Verdict`, with its certificate or its counterexample.

Input: two specifications, and equations that may be taken for granted. Output: "equal" with a certificate that
`proofs/check.py` checks without any of this code, "different" with sizes and integers at which anyone can see it, or
"undecided" with the reason. What holds afterwards: "equal" and "different" are never wrong; see `prove` for what each
rests on. Arithmetic is exact or, after softmax and sigmoid in counterexamples, of enclosing intervals; `prove` knows no
torch.
"""

from polyattn.proving.audit import Recheck, recheck
from polyattn.proving.prove import ask, prove
from polyattn.proving.verdict import Verdict

__all__ = ["Recheck", "Verdict", "ask", "prove", "recheck"]
