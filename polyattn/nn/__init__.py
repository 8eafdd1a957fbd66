"""Stage 5, nn: specifications as trainable modules.

Input: a specification and the sizes that its parameters need. Output: `torch.nn.Module`s that take (B, C, *spatial).
What holds afterwards: the module computes the specification on the plan for the shape at hand, works under
`torch.compile(fullgraph=True)`, `torch.export`, autocast, `torch.func`, `deepcopy` and pickling.
"""

from polyattn.nn.attention import Attention
from polyattn.nn.non_local import NonLocal

__all__ = ["Attention", "NonLocal"]
