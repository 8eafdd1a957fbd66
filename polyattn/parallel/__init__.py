"""Stage 6, parallel: layers with positions sharded over devices, on `torch.distributed`.

Input: a module of `polyattn.nn` and a device mesh. Output: the same function of a map, each process holding its own
rows, forward and backward. Guarantees: the result is that of one device up to rounding, and communication
does not grow with the number of positions.
"""

from polyattn.parallel.communication import Communication, Traffic, communication
from polyattn.parallel.scale import Scale, scale
from polyattn.parallel.sharded import ShardedPositions, shard_positions
from polyattn.planning import Link

__all__ = ["Communication", "Link", "Scale", "ShardedPositions", "Traffic", "communication", "scale", "shard_positions"]
