"""Top-1 and top-5 accuracy by torchmetrics, over all processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from polyattn.optional import need
from polyattn.training.loading import Samples
from polyattn.training.task import Evaluating


def accuracy(
    now: Evaluating, samples: Samples, classes: int, batch: int, scores: Callable[[Any], Tensor] | None = None
) -> dict[str, float]:
    """Compute the accuracy on samples (input, class).

    Args:
        now: the network and the processes.
        samples: samples for evaluation.
        classes: number of classes; with fewer than 5, "top5" is top-`classes`.
        batch: samples of one forward pass.
        scores: (B, classes) from a batch of inputs; by default the network's output.

    Returns:
        "top1" and "top5", each between 0 and 1.
    """
    metrics = need("torchmetrics.classification", "train")
    top = {"top1": 1, "top5": min(5, classes)}
    found = {
        name: metrics.MulticlassAccuracy(classes, top_k=k, average="micro").to(now.processes.device)
        for name, k in top.items()
    }
    for numbers, (inputs, labels) in now.batches(samples, batch):
        output = (scores or now.model)(inputs)
        for metric in found.values():
            # A process without samples left still runs the network, but its batch is a filler.
            if numbers:
                # `numbers` may be shorter than the last batch.
                metric.update(output[: len(numbers)].float(), labels[: len(numbers)])
    return {name: float(metric.compute()) for name, metric in found.items()}
