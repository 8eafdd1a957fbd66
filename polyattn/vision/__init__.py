"""Stage 6, vision: attention in networks that exist.

Input: any `torch.nn.Module`, the names of submodules whose output is one tensor (B, C, *spatial), and specifications
or modules. Output: the same network, in place. What holds afterwards: the network's own parameters keep their names,
so that its checkpoints load before or after; a refused call changes nothing; the network compiles, exports, copies and
pickles as before; and what comes from `remove` is what went into `insert`.
"""

from polyattn.vision.cost import Cost, cost
from polyattn.vision.insert import insert, remove

__all__ = ["Cost", "cost", "insert", "remove"]
