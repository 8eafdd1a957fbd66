"""`compress`: trained layers of NL's kind replaced by cheaper members of the families.

Each candidate starts at the decomposition of the trained core in the norm of the data's second moments. It is then
fitted to the trained layer's own outputs on the data, by L-BFGS on all activations at once, and on request to the
network's.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from polyattn.errors import FittingError
from polyattn.fitting.block_terms import BLOCK_TERMS, truncated
from polyattn.fitting.compression import Candidate, Compression
from polyattn.fitting.factorise import FAMILIES, Factorisation, factorise
from polyattn.fitting.family import PAIR, relative
from polyattn.fitting.layers import TrainedLayer, layers_of
from polyattn.fitting.position_pattern import Layout
from polyattn.fitting.tuning import attention_of, error, outputs, replaced, tune
from polyattn.lowering import plan

TRUNCATION = "truncation"
HELD_OUT = 4
"""One in this many samples is withheld from the fine-tuning, to measure the error."""


def compress(
    model: nn.Module,
    data: Tensor | Iterable[Tensor],
    *,
    families: Sequence[str] = ("cp_nl", "tucker_nl", "tt_nl", "block_term_nl"),
    budgets: Sequence[float] = (1 / 6, 1 / 3, 1 / 2),
    ranks: Mapping[str, Sequence[int | tuple[int, ...]]] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    steps: int = 100,
    fit_to: str = "layer",
    truncation: bool = True,
    starts: int = 3,
    iterations: int = 60,
    seed: int = 0,
    progress: bool | None = None,
) -> Compression:
    """Replace a network's trained layers of NL's kind by cheaper ones.

    Supported are `nn.Attention` with a specification of NL's kind and `nn.NonLocal` with the dot product (heads and
    biases included, without sub-sampling). The given model is left unchanged.

    Args:
        model: the layer, or a network with such layers.
        data: inputs of the model; a tensor (B, ...), or several. One sample in four measures, the others fit.
        families: the catalogue's names.
        budgets: upper limits for the multiply-accumulates of a candidate, as fractions of the trained layer's own
            cheapest plan on one sample.
        ranks: further candidates by family.
        evaluate: the score of a model, such as its accuracy; called for the model, and for every candidate before and
            after its fine-tuning.
        steps: limit on the iterations of L-BFGS on activations; 0 leaves the decompositions unchanged.
        fit_to: "layer" fits the trained layer's outputs; "network" continues with the outputs of the whole model, in
            evaluation mode and with all its other parameters fixed, and measures the error there: later
            layers may depend on a small part of the layer's output.
        truncation: for comparison, also the layer with similarity and value cut to the rank of each budget by plain
            singular value decompositions, without weights and without fine-tuning.
        starts, iterations, seed: settings of the decompositions.
        progress: whether to show a progress bar; by default if the error stream is a terminal.

    Returns:
        Every candidate with its cost and its errors before and after, and the model with the best ones inserted.

    Raises:
        FittingError: the model has no layer of NL's kind, a family is unknown, the layers never see the data, the
            samples are too few, or the budgets are below every candidate.
    """
    unknown = [f for f in (*families, *(ranks or {})) if f not in FAMILIES]
    if unknown:
        raise FittingError(f"unknown family {unknown[0]!r}; there are {', '.join(FAMILIES)}")
    if fit_to not in ("layer", "network"):
        raise FittingError(f'fit_to is "layer" or "network", not {fit_to!r}')
    batches = [data] if isinstance(data, Tensor) else list(data)
    through = torch.cat(batches) if fit_to == "network" else None
    layers = layers_of(model)
    # One pass for all layers, before any of them is replaced.
    seen = _activations(model, layers, batches)
    score = None if evaluate is None else evaluate(model)
    found: list[Candidate] = []
    whole = len(layers) * (len(budgets) * (len(families) + truncation) + sum(map(len, (ranks or {}).values())))
    shown = sys.stderr.isatty() if progress is None else progress
    with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task("compress", total=whole)
        for name, layer in layers.items():
            x = seen[name]
            sizes = {"N": prod(x.shape[2:]), "B": 1}
            cost = plan(layer.spec, {**layer.sizes, **sizes, "C": layer.channels}).macs
            given = {
                "mean": layer.mean, "moments": _moments(x, layer.bias), "sizes": sizes, "starts": starts,
                "iterations": iterations, "seed": seed, "progress": False,
            }  # fmt: skip
            wanted: list[tuple[str, Callable[[], Factorisation]]] = []
            for most in (int(share * cost) for share in budgets):
                wanted += [(f, partial(factorise, layer.core, f, max_macs=most, **given)) for f in families]
                if truncation:
                    wanted.append((TRUNCATION, partial(_truncated, layer, sizes, most)))
            for family, several in (ranks or {}).items():
                wanted += [(family, partial(factorise, layer.core, family, rank=r, **given)) for r in several]
            for family, make in wanted:
                bar.update(task, description=f"{name} {family}")
                try:
                    made = make()
                except FittingError as error:
                    # Other errors are faults of the arguments and concern every family.
                    if "keeps to" not in str(error):
                        raise
                    bar.advance(task)
                    continue  # the family has no member that is so cheap
                of = 0 if family == TRUNCATION else steps
                found.append(_candidate(model, name, layer, family, made, x, cost, evaluate, of, through))
                bar.advance(task)
    if not found:
        raise FittingError(f"no family has a member within the budgets {tuple(budgets)} of the layers' cost")
    return _chosen(model, layers, found, score, evaluate)


def _activations(model: nn.Module, layers: Mapping[str, TrainedLayer], batches: list[Tensor]) -> dict[str, Tensor]:
    """Record the inputs of each layer."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = [layer.module.register_forward_pre_hook(_keep(seen[name])) for name, layer in layers.items()]
    training = model.training
    try:
        with torch.no_grad():
            # Evaluation mode: dropout and batch statistics would change what the layers see.
            model.eval()
            for batch in batches:
                model(batch)
    finally:
        # Hooks on the caller's model must not survive an error.
        model.train(training)
        for hook in hooks:
            hook.remove()
    for name, parts in seen.items():
        if sum(map(len, parts)) < HELD_OUT:
            raise FittingError(
                f"layer '{name}' saw {sum(map(len, parts))} samples of the data; give {HELD_OUT} or more"
            )
        if len({p.shape[1:] for p in parts}) > 1:
            raise FittingError(f"layer '{name}' saw inputs of several shapes: give data of one")
    return {name: torch.cat(parts) for name, parts in seen.items()}


def _keep(parts: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda _, args: parts.append(args[0].detach())


def _moments(x: Tensor, bias: bool) -> np.ndarray:
    """Compute E[x xᵀ] over samples and positions."""
    rows = x.flatten(2).transpose(1, 2).flatten(0, 1).double()
    # The constant 1 of the biases is one more feature.
    if bias:
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
    return (rows.T @ rows / len(rows)).cpu().numpy()


def _truncated(layer: TrainedLayer, sizes: dict[str, int], most: int) -> Factorisation:
    """Cut the layer's similarity and value to the largest rank within a budget, by plain SVDs."""
    target = torch.from_numpy(np.ascontiguousarray(layer.core.transpose(1, 2, 3, 0)))
    known, fitting = {**sizes, "C": layer.channels}, None
    # Costs rise with the rank, so the first one above the budget ends the search.
    for rank in range(1, layer.channels + 1):
        spec = BLOCK_TERMS.spec((1, rank, rank), layer.mean, layer.bias, False)
        made = plan(spec, known)
        if made.macs > most:
            break
        fitting = (1, rank, rank), made
    if fitting is None:
        raise FittingError(f"no truncation keeps to {most:,} MACs")
    ranks, made = fitting
    factors, parameters = truncated(target, ranks, layer.bias)
    rebuilt = BLOCK_TERMS.rebuild(factors)
    error = relative(rebuilt - target, target, PAIR)
    kept = tuple(f.numpy() for f in factors)
    layout = Layout(powers=(("N", -1),) if layer.mean else ())
    return Factorisation(
        BLOCK_TERMS.name, ranks, made.spec, parameters, error, made, layer.core, kept, "none", layout, ()
    )


def _candidate(
    model: nn.Module,
    name: str,
    layer: TrainedLayer,
    family: str,
    made: Factorisation,
    x: Tensor,
    cost: int,
    evaluate: Callable[[nn.Module], float] | None,
    steps: int,
    through: Tensor | None,
) -> Candidate:
    module = layer.replaced_by(made)
    own, whole = attention_of(module), replaced(model, {name: module})
    goal = layer.attend(x)
    aims: list[tuple[Callable[[Tensor], Tensor], nn.Module, Tensor, Tensor]] = [(own.attend, own, x, goal)]
    # The layer's own outputs come first: a start near the goal for the harder fit to the network's.
    if through is not None:
        aims.append((whole.eval(), whole, through, outputs(copy.deepcopy(model).eval(), through)))

    def measured() -> tuple[float, float | None]:
        run, _, given, wanted = aims[-1]
        # Every fourth sample, not the last quarter: data are often sorted.
        held = torch.arange(len(given)) % HELD_OUT == 0
        return error(run, given[held], wanted[held]), None if evaluate is None else evaluate(whole)

    before, score = measured()
    after, tuned = before, score
    if steps:
        for run, of, given, wanted in aims:
            fitted = torch.arange(len(given)) % HELD_OUT != 0
            tune(module, of, run, given[fitted], wanted[fitted], steps)
        # Measured again, since tuning may have kept the old parameters.
        after, tuned = measured()
    module.train(layer.module.training)
    return Candidate(
        name, family, made, module, cost, sum(p.numel() for p in layer.module.parameters()), before, after, score, tuned
    )


def _chosen(
    model: nn.Module,
    layers: Mapping[str, TrainedLayer],
    found: list[Candidate],
    score: float | None,
    evaluate: Callable[[nn.Module], float] | None,
) -> Compression:
    """Insert, for each layer, the candidate with the smallest error of its output, truncations excluded."""
    best: dict[str, Candidate] = {}
    for name in layers:
        own = [c for c in found if c.layer == name and c.family != TRUNCATION]
        if own:
            best[name] = min(own, key=lambda c: c.after)
    found = [replace(c, chosen=c is best.get(c.layer)) for c in found]
    made = replaced(model, {name: c.module for name, c in best.items()})
    return Compression(tuple(found), made, score, None if evaluate is None else evaluate(made))
