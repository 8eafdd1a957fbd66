"""What Poly-NL keeps for the backward pass, planned and in the paper's form, against the size of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _common import arguments, show, tensors_of, write
from _papers import poly_nl
from torch import Tensor

from polyattn import catalog, plan
from polyattn.lowering import training_function

POINTS = ((3136, 256), (12544, 64))


def kept(layer: Callable[..., Tensor], tensors: list[Tensor]) -> int:
    """Bytes of the distinct storages that a forward pass saves, the parameters' left out."""
    parameters = {t.untyped_storage().data_ptr() for t in tensors[1:]}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)  # so that no storage is freed and its address used again
        return tensor

    held: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = layer(*(t.detach().requires_grad_() for t in tensors))
    assert output.requires_grad
    return sum(size for pointer, size in found.items() if pointer not in parameters)


def main() -> None:
    args = arguments(__doc__)
    spec, runs = catalog.poly_nl(), []
    for positions, channels in POINTS[1:] if args.quick else POINTS:
        for batch in (1, 8):
            sizes = {"N": positions, "C": channels}
            planned = plan(spec, {"B": batch, **sizes}, "training")
            tensors = tensors_of(spec, sizes, batch)
            own = tensors[0].numel() * tensors[0].element_size()
            run: dict[str, Any] = {"N": positions, "C": channels, "B": batch, "input bytes": own}
            run["planned"] = kept(training_function(planned), tensors)
            run["paper"] = kept(poly_nl, tensors)
            run |= {f"{k} / input": run[k] / own for k in ("planned", "paper")}
            runs.append(run)
    show("bytes kept for the backward pass", list(runs[0]), [list(r.values()) for r in runs])
    write(args, {"most, planned / input": max(r["planned / input"] for r in runs)}, runs)


if __name__ == "__main__":
    main()
