"""Worlds of gloo processes, one after the other: runs all cases in each, once, and writes what they measured as JSON.

    python world.py FOLDER [PROCESSES ...] [PART ...]

What all processes need is made before they are forked: imports, and plans, which are kept.
"""

from __future__ import annotations

import copy
import datetime
import gc
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.utils._python_dispatch import TorchDispatchMode

import polyattn as pa
import polyattn.parallel
from tests.parallel.cases import CHANNELS, SHAPE, VIDEO, layers_of, made, of
from tests.parallel.joined import joined_batch

CUTS = {
    2: [((5, 2), torch.float32)],
    3: [((3, 0, 4), torch.float64)],
    4: [((2, 0, 4, 1), torch.float32)],
}


class Sent(TorchDispatchMode):
    """Counts the bytes of values that are really given to all-reduces, and to all-to-alls."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.dealt = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if "c10d" in name and "wait_tensor" not in name and "_wrap_" not in name:
            if args[0].dtype == torch.int64:  # with which processes agree before the layer runs
                return func(*args, **(kwargs or {}))
            size = args[0].numel() * args[0].element_size()
            if "all_to_all" in name:
                self.dealt += size
            else:
                assert "all_reduce" in name, name
                self.bytes += size
        return func(*args, **(kwargs or {}))


def worst(value: float) -> float:
    """The largest of all processes' values; not a number counts as infinite."""
    found = torch.tensor(value, dtype=torch.float64).nan_to_num(torch.inf)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return float(found)


def together(value: int) -> int:
    """The sum of all processes' values."""
    found = torch.tensor(value)
    dist.all_reduce(found)
    return int(found)


def apart(mine: Tensor, theirs: Tensor, scale: float) -> float:
    return float((mine - theirs).abs().max()) / scale if mine.numel() else 0.0


def compared(
    layer: nn.Module, counts: tuple[int, ...], mesh: DeviceMesh, dim: int = 2, given: Sequence[int] = SHAPE
) -> dict[str, Any]:
    """A layer on pieces beside itself on the whole, forward, backward and in its running statistics."""
    dtype = next(layer.parameters()).dtype
    generator = torch.Generator().manual_seed(3)
    shape = list(given)
    shape[dim] = sum(counts)
    x, seed = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    channels = getattr(layer, "channels", 8)
    x = x[:, :channels].clone()
    torch.manual_seed(8)  # of dropout
    alone, spread = copy.deepcopy(layer), copy.deepcopy(layer)
    whole = x.clone().requires_grad_()
    wanted = alone(whole)
    seed = seed[:, : wanted.shape[1]]
    wanted.backward(seed)
    rank = mesh.get_local_rank()
    piece = (dim, sum(counts[:rank]), counts[rank])
    own = x.narrow(*piece).clone().requires_grad_()
    sharded = pa.parallel.shard_positions(spread, mesh, dim=dim, counts=counts)
    torch.manual_seed(8)
    with Sent() as forward:
        y = sharded(own)
    with Sent() as backward:
        y.backward(seed.narrow(*piece))
    gradients = [(p.grad, q.grad) for p, q in zip(spread.parameters(), alone.parameters(), strict=True)]
    assert all(g is not None for pair in gradients for g in pair)
    largest = max(float(g.abs().max()) for g in (whole.grad, *(q for _, q in gradients)))
    wrong = [apart(own.grad, whole.grad.narrow(*piece), largest), *(apart(p, q, largest) for p, q in gradients)]
    statistics = [apart(a, b, 1.0) for a, b in zip(spread.buffers(), alone.buffers(), strict=True)]
    planned = sharded.communication()
    return {
        "rounding": _rounding(layer, x, seed, largest) if dtype == torch.float32 else (0.0, 0.0),
        "forward": worst(apart(y, wanted.narrow(*piece), float(wanted.abs().max()))),
        "backward": worst(max(wrong)),
        "statistics": worst(max(statistics, default=0.0)),
        "sent": [forward.bytes, backward.bytes, together(forward.dealt), together(backward.dealt)],
        "planned": [planned.forward, planned.backward, *planned.dealt],
    }


def _rounding(layer: nn.Module, x: Tensor, seed: Tensor, largest: float) -> tuple[float, float]:
    """How far the output and the gradients of one process are from the exact ones, in float32."""
    outputs, found = [], []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(8)
        alone, own = copy.deepcopy(layer).to(dtype), x.to(dtype).requires_grad_()
        outputs.append(alone(own))
        found.append(torch.autograd.grad(outputs[-1], (own, *alone.parameters()), seed.to(dtype)))
    forward = apart(*outputs, float(outputs[-1].abs().max()))
    return forward, max(apart(a, b, largest) for a, b in zip(*found, strict=True))


def every_layer(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    for name in layers_of(mesh.size()):
        for cut, dtype in CUTS[mesh.size()]:
            row = compared(made(name, dtype), cut, mesh)
            yield {"layer": name, "cut": cut, "dtype": str(dtype), **row}


def warm(size: int) -> None:
    """Make the plans of `every_layer`. No gradients: autograd's threads would not outlive a fork."""
    for name in layers_of(size):
        for cut, dtype in CUTS[size]:
            layer = made(name, dtype)
            whole = (*SHAPE[:2], sum(cut), *SHAPE[3:])
            first = next((m.in_channels for m in layer.modules() if isinstance(m, nn.Conv2d)), 8)
            pa.parallel.communication(layer, whole, size)
            layer(torch.zeros(whole[0], first, *whole[2:], dtype=dtype, requires_grad=True))


def columns(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    """Cut along the second axis of positions."""
    if mesh.size() == 3:
        some = ("poly_nl", "e_nl softmax", "axial height", "CrissCross", "EfficientNL", "BATBlock")
        for name in (*some, "BATransform downsample"):
            yield {"layer": name, **compared(made(name, torch.float64), (2, 0, 3), mesh, dim=3)}


def video(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    """Cut along frames, rows and columns."""
    if mesh.size() == 3:
        for name in VIDEO:
            for dim, counts in ((2, (3, 0, 2)), (3, (1, 4, 0)), (4, (2, 1, 1))):
                layer = made(name, torch.float64, VIDEO)
                yield {"layer": name, "dim": dim, **compared(layer, counts, mesh, dim, (1, 16, 5, 5, 4))}


def channels(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    """Cut along channels, in whole groups."""
    if mesh.size() == 2:
        for name, width in CHANNELS.items():
            counts = (4, 4) if width == 4 else (5, 3)
            layer = of(name)().double()
            yield {"layer": name, **compared(layer, counts, mesh, dim=1)}


def agreed(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    """Counts that nobody passed; an input without a gradient; no gradient at all."""
    layer, rank = made("poly_nl", torch.float64), mesh.get_local_rank()
    x = torch.randn(1, 8, 3 * mesh.size() - 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    sharded = pa.parallel.shard_positions(layer, mesh)
    start = 0 if rank == 0 else 3 * rank - 1
    own = x[:, :, start : 3 * rank + 2]
    with torch.no_grad():
        yield {"error": worst(apart(sharded(own), layer(x)[:, :, start : 3 * rank + 2], 1.0))}
    whole = torch.autograd.grad(layer(x).square().sum(), tuple(layer.parameters()))
    mine = torch.autograd.grad(sharded(own).square().sum(), tuple(layer.parameters()))
    yield {"error": worst(max(apart(a, b, float(b.abs().max())) for a, b in zip(mine, whole, strict=True)))}


def distributed_tensors(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    """DTensors in and out, of a length that the devices do not divide."""
    layer = made("e_nl softmax", torch.float64)
    x = torch.randn(2, 8, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    whole = x.clone().requires_grad_()
    layer(whole).square().sum().backward()
    spread = dist.tensor.distribute_tensor(x, mesh, [Shard(2)]).requires_grad_()
    y = pa.parallel.shard_positions(layer, mesh)(spread)
    assert isinstance(y, DTensor)
    assert y.shape == x.shape
    (y * y).sum().backward()
    yield {
        "error": worst(max(apart(y.full_tensor(), layer(x), 1.0), apart(spread.grad.full_tensor(), whole.grad, 1.0)))
    }


def compiled(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    if mesh.size() > 2:
        return
    layer, counts = made("e_nl softmax", torch.float64), (3, 1)
    x = torch.randn(1, 8, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    rank = mesh.get_local_rank()
    own = x[:, :, 3 * rank : 3 + rank].clone().requires_grad_()
    whole = x.clone().requires_grad_()
    layer(whole).square().sum().backward()
    sharded = pa.parallel.shard_positions(layer, mesh, counts=counts)
    y = torch.compile(sharded, fullgraph=True, backend="aot_eager")(own)
    y.square().sum().backward()
    errors = (
        apart(y, layer(x)[:, :, 3 * rank : 3 + rank], 1.0),
        apart(own.grad, whole.grad[:, :, 3 * rank : 3 + rank], 1.0),
    )
    yield {"error": worst(max(errors))}


def refused(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    """Processes that do not call a layer alike: the error of each, and whether the next call is right."""
    if mesh.size() > 2:
        return
    rank, generator = mesh.get_local_rank(), torch.Generator().manual_seed(7)
    layer, off = nn.Sequential(nn.BatchNorm2d(8), made("poly_nl", torch.float32)), rank == 1
    x = torch.randn(2, 8, 4, 3, generator=generator)
    sharded = pa.parallel.shard_positions(layer, mesh)
    wanted = copy.deepcopy(layer).eval()(torch.cat([x, x], 2))[:, :, :4]

    def mode() -> Tensor:
        layer.train(off)
        return sharded(x)

    def counted(*counts: int) -> Tensor:
        return pa.parallel.shard_positions(layer, mesh, counts=counts)(x)

    def without_gradient() -> Tensor:
        with torch.set_grad_enabled(off):
            return sharded(x)

    cases: dict[str, Callable[[], Tensor]] = {
        "x.shape": lambda: sharded(x[: 1 + rank]),
        "x.shape ": lambda: sharded(x[..., : 2 + rank]),
        "x.dtype": lambda: sharded(x.double() if off else x),
        "x.requires_grad": lambda: sharded(x.clone().requires_grad_(off)),
        "is_grad_enabled": without_gradient,
        "mode": mode,
        "counts": lambda: counted(4, 4 + rank) if rank == 0 else counted(3, 4),
        "counts ": lambda: counted(4, 4) if off else sharded(x),
        "refused its piece|floating": lambda: sharded(x.long() if off else x),
        "refused its piece|axis 2": lambda: sharded(x[0, 0] if off else x),
        "refused its piece|says 5": lambda: counted(4, 5) if off else counted(4, 4),
    }
    for name, call in cases.items():
        layer.eval()
        try:
            call()
            message = "no error"
        except pa.PolyattnError as error:
            message = str(error)
        right = re.search(name.strip(), message) is not None
        layer.eval()
        yield {"case": name, "message": message, "error": worst(0.0 if right else 1.0)}
        yield {"case": f"after {name}", "error": worst(apart(sharded(x), wanted, 1e6))}


def called_by_its_hook(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    """A call within a call, on a map of another shape, as a hook of the layer may make it."""
    if mesh.size() > 2:
        return
    rank, generator = mesh.get_local_rank(), torch.Generator().manual_seed(7)
    layer = made("a small network", torch.float64)
    x, other = (torch.randn(1, 8, n, 3, dtype=torch.float64, generator=generator) for n in (6, 4))
    wanted = [copy.deepcopy(layer).eval()(m) for m in (x, other)]
    sharded, inner = pa.parallel.shard_positions(layer.eval(), mesh), list[Tensor]()

    def again(*_: object) -> None:
        if not inner:
            inner.append(other)
            inner[0] = sharded(other[:, :, 2 * rank : 2 * rank + 2])

    handle = layer[1].register_forward_hook(again)
    y = sharded(x[:, :, 3 * rank : 3 * rank + 3])
    handle.remove()
    yield {"error": worst(apart(y, wanted[0][:, :, 3 * rank : 3 * rank + 3], 1.0))}
    yield {"error": worst(apart(inner[0], wanted[1][:, :, 2 * rank : 2 * rank + 2], 1.0))}


def compiled_in_evaluation(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    """A layer that is put into evaluation after `shard_positions` and compiled then."""
    if mesh.size() > 2:
        return
    layer = nn.Sequential(nn.BatchNorm2d(8), made("poly_nl", torch.float64)).double()
    x = torch.randn(1, 8, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    sharded = pa.parallel.shard_positions(layer, mesh, counts=(3, 1))
    layer.eval()
    rank = mesh.get_local_rank()
    own = x[:, :, 3 * rank : 3 + rank]
    y = torch.compile(sharded, fullgraph=True, backend="aot_eager")(own)
    yield {"error": worst(apart(y, layer(x)[:, :, 3 * rank : 3 + rank], 1.0))}


def trained(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    """A training step of a small network with DDP: what it really reduces, and the memory that it takes."""
    size = mesh.size()
    if size == 3:
        return
    before, shape = anonymous(), (4, 3, 64, 64)
    torch.manual_seed(0)
    model = pa.vision.resnet18(attention="poly_nl", num_classes=10)
    predicted = pa.parallel.scale(model, shape, size, device="cpu")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(mesh.get_local_rank()))
    spread = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer, sent = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), [0]

    def counted(state, bucket):  # DDP reads annotations, and takes none or its own classes, not their names
        sent[0] += bucket.buffer().numel() * bucket.buffer().element_size()
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        assert work is not None
        return work.get_future().then(lambda done: done.value()[0])

    spread.register_comm_hook(None, counted)
    loss = spread(x).square().mean()
    peak = anonymous()
    loss.backward()
    optimizer.step()
    peak = max(peak, anonymous())
    yield {
        "sent": [sent[0]],
        "planned": [predicted.exchanged],
        "memory": (peak - before) / predicted.memory,
    }


def anonymous() -> int:
    """Bytes of this process's memory that are no pages of files."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return 1024 * int(found[1])


PARTS: tuple[Callable[[DeviceMesh], Iterator[dict[str, Any]]], ...] = (
    every_layer,
    columns,
    video,
    channels,
    agreed,
    distributed_tensors,
    compiled,
    compiled_in_evaluation,
    called_by_its_hook,
    refused,
    joined_batch,
    trained,
)


def process(rank: int, size: int, folder: str, parts: Sequence[str]) -> None:
    limit = datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", f"file://{folder}/meeting-{size}", rank=rank, world_size=size, timeout=limit)
    mesh = init_device_mesh("cpu", (size,))
    try:
        rows: dict[str, list[dict[str, Any]]] = {}
        for part in PARTS:
            if not parts or part.__name__ in parts:
                rows[part.__name__] = list(part(mesh))
        if rank == 0:
            Path(folder, f"{size}.json").write_text(json.dumps(rows))
    except Exception:
        traceback.print_exc()
        os._exit(1)  # the others wait for this process, and are ended with it
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, *words = sys.argv[1:]
    parts = [word for word in words if not word.isdigit()]
    for size in [int(word) for word in words if word.isdigit()] or CUTS:
        if not parts or "every_layer" in parts:
            warm(size)
        gc.collect()
        gc.freeze()  # or each process copies the pages of all modules when it looks for garbage
        mp.start_processes(process, (size, folder, parts), nprocs=size, start_method="fork")
