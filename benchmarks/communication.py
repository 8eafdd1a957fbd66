"""What layers on spread maps exchange, beside what DTensor's own propagation sends for the same expressions.

    python benchmarks/communication.py --out benchmarks/results/communication.json

Every layer runs forward and backward on 2 gloo processes, on a map cut by positions: by `shard_positions`, counted from
the collectives that it really makes and from its plan, and as the author's einsum of DTensors, counted by
`CommDebugMode`. A second table has the plan's figures at a million positions, where nothing is run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from _common import arguments, show, write
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.utils._python_dispatch import TorchDispatchMode

import polyattn as pa

LAYERS = {"poly_nl": {}, "e_nl": {"R": 16, "V": 16}, "nl": {}, "latent_gnn": {"R": 16}}


class Payload(TorchDispatchMode):
    """Bytes that are given to collectives."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(t is DTensor for t in types):
            return NotImplemented
        name = str(func)
        if "c10d" in name and not any(word in name for word in ("wait_tensor", "_wrap_", "broadcast", "scatter_")):
            first = args[0][0] if isinstance(args[0], list | tuple) else args[0]
            self.bytes += first.numel() * first.element_size()
        return func(*args, **(kwargs or {}))


def written(name: str, x: Tensor, p: dict[str, Tensor]) -> Tensor:
    """The layer as its author writes it, on (N, C)."""
    if name == "poly_nl":
        return (((x @ p["w1"]) * (x @ p["w2"])).mean(0, keepdim=True) * x) @ p["w3"]
    if name == "e_nl":
        query, key, value = x @ p["wq"], x @ p["wk"], x @ p["wv"]
        return query @ (key.T @ value / x.shape[0]) @ p["wo"]
    if name == "nl":
        return (x @ p["wf"] @ x.T) @ (x @ p["wg"])
    nodes = (x @ p["wphi"]).T @ (x @ p["wg"]) / x.shape[0]
    return (x @ p["wpsi"]) @ (p["adj"] @ nodes)


def process(rank: int, size: int, length: int, channels: int, meeting: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=size)
    mesh = init_device_mesh("cpu", (size,))
    rows: list[dict[str, Any]] = []
    for name, sizes in LAYERS.items():
        torch.manual_seed(0)
        layer = pa.nn.Attention(pa.catalog.get(name), channels, sizes=sizes, residual=False)
        x = torch.randn(1, channels, length)
        sharded = pa.parallel.shard_positions(layer, mesh, counts=[length // size] * size)
        own = x.chunk(size, 2)[rank].clone().requires_grad_()
        with Payload() as mine:
            sharded(own).square().sum().backward()
        row = {"layer": name, "N": length, "C": channels, "devices": size, "sent": mine.bytes}
        planned = sharded.communication()
        row |= {"planned": planned.forward + planned.backward, "map_bytes": planned.map_bytes}
        try:
            spread = distribute_tensor(x[0].T.contiguous(), mesh, [Shard(0)]).requires_grad_()
            p = {n: distribute_tensor(w.detach(), mesh, [Replicate()]) for n, w in layer.named_parameters()}
            p = {n: w.requires_grad_() for n, w in p.items()}
            with CommDebugMode() as debug, Payload() as theirs:
                y = written(name, spread, p).redistribute(mesh, [Shard(0)])
                (y * y).sum().redistribute(mesh, [Replicate()]).backward()
            counts = {str(k).rsplit(".", 1)[-1]: n for k, n in debug.get_comm_counts().items()}
            kinds = {n: str(w.grad.placements[0]) for n, w in p.items() if w.grad is not None}
            row |= {"dtensor": theirs.bytes, "dtensor_collectives": counts, "dtensor_gradients": kinds}
        except Exception as error:
            row |= {"dtensor": None, "dtensor_error": f"{type(error).__name__}: {error}"[:300]}
        rows.append(row)
    if rank == 0:
        torch.save(rows, out)
    dist.destroy_process_group()


def large() -> list[dict[str, Any]]:
    """The plan's figures at a million positions on 8 devices."""
    found = []
    for name, sizes in LAYERS.items():
        layer = pa.nn.Attention(pa.catalog.get(name), 64, sizes=sizes)
        known = pa.parallel.communication(layer, (1, 64, 1000, 1000), 8)
        row = {"layer": name, "N": 10**6, "C": 64, "devices": 8, "planned": known.forward + known.backward}
        found.append(row | {"sent": known.sent, "gathering": known.gathering, "share": known.sent / known.gathering})
    return found


def main() -> None:
    args = arguments(__doc__)
    length, channels = (64, 8) if args.quick else (4096, 64)
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder, "rows.pt"))
        given = (2, length, channels, f"{folder}/meeting", out)
        mp.start_processes(process, given, nprocs=2, start_method="fork")
        small = torch.load(out, weights_only=True)
    rows = small + large()
    columns = ["layer", "N", "C", "devices", "sent", "planned", "dtensor", "share"]
    show("bytes reduced or gathered, forward and backward", columns, [[r.get(c, "") for c in columns] for r in rows])
    write(args, {"largest_share_of_gathering": max(r["share"] for r in rows if "share" in r)}, rows)


if __name__ == "__main__":
    main()
