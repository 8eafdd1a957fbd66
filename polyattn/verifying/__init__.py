"""Stage 5, verifying: does a lowered graph compute its specification, at given sizes?

Input: a specification and graphs for it and its gradients. Output: a `Verification`. Guarantees: the graphs agree
with the explicit interaction tensor exactly ("symbolic"), modulo a prime with a stated chance of error ("modular"), or
in floating point within a bound for their roundings ("numeric").
"""

from polyattn.verifying.verification import Verification
from polyattn.verifying.verify import verify

__all__ = ["Verification", "verify"]
