"""`compress`: trained layers of NL's kind replaced by cheaper members of the families.

Each candidate starts at the decomposition of the trained core in the norm of the data's second moments. It is then
fitted to the trained layer's own outputs on the data, by L-BFGS on all activations at once, and on request to the
network's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, Unpack

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from polyattn.errors import FittingError
from polyattn.fitting.batches import Forward, batches_of, call, in_double, outputs_of
from polyattn.fitting.block_terms import BLOCK_TERMS, truncated
from polyattn.fitting.compression import Candidate, Compression
from polyattn.fitting.factorise import FAMILIES, Factorisation, factorise, is_antisymmetric
from polyattn.fitting.family import PAIR, relative
from polyattn.fitting.layers import TrainedLayer, layers_of
from polyattn.fitting.options import CompressOptions, filled
from polyattn.fitting.position_pattern import Layout
from polyattn.fitting.scaling import exponent
from polyattn.fitting.selection import nearest, shared_budget, timed
from polyattn.fitting.surgery import (
    attention_of,
    evaluating,
    in_float64,
    polynomial_parameters,
    random_state_kept,
    replaced,
    tied,
)
from polyattn.fitting.tuning import error, in_parts, tune
from polyattn.lowering import whole_plan as plan

TRUNCATION = "truncation"
DEFAULTS: CompressOptions = {
    "steps": 100, "fit_to": "layer", "ranks": None, "truncation": True,
    "starts": 3, "iterations": 60, "seed": 0, "progress": None,
}  # fmt: skip
HELD_OUT = 4
"""One in this many samples is withheld from the fine-tuning, to measure the error."""


def compress(
    model: nn.Module,
    data: Any,
    *,
    families: Sequence[str] = ("cp_nl", "tucker_nl", "tt_nl", "block_term_nl"),
    budgets: Sequence[float] = (1 / 6, 1 / 3, 1 / 2),
    total: float | None = None,
    max_params: float | None = 1.0,
    max_time: float | None = None,
    choose: Callable[[Candidate], float] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    **options: Unpack[CompressOptions],
) -> Compression:
    """Replace a network's trained layers of NL's kind by cheaper ones.

    Supported are `nn.Attention` with a specification of NL's kind and `nn.NonLocal` with the dot product (heads and
    biases included, without sub-sampling). The given model and the global random state are left unchanged. In the copy
    a layer is replaced wherever the model has it; it keeps its hooks, mode and norm, and stays frozen. A layer that is
    zero on the data, or has a weight that another module shares, is kept; `skipped` of the result says why.

    Args:
        model: the layer, or a network with such layers.
        data: inputs of the model: a tensor or an array (B, ...), a dict of keyword arguments, or an iterable of
            batches, such as a loader: of a tuple (x, y) the model gets x. One sample in four measures, the others fit.
        families: the catalogue's names.
        budgets: upper limits for the multiply-accumulates of a candidate, as fractions of the trained layer's own
            cheapest plan on one sample.
        total: one budget for all layers together, as a fraction of the sum of their own: those candidates of all
            budgets go into the model that keep to it with the least sum of squared errors; a layer may stay as it is.
        max_params: upper limit for the parameters of a candidate within a budget, as a fraction of those that it
            replaces; None for any number.
        max_time: upper limit for the measured time of a candidate in the model, as a fraction of the trained layer's;
            candidates above it are in the table only.
        choose: a number for a candidate, such as `lambda c: c.after + 0.1 * c.speed`; those with the smallest go into
            the model. By default their error, `after`.
        forward: calls the model on a batch of `data`, where it does not take the batch alone.
        evaluate: the score of a model, such as its accuracy; called for the model, and for every candidate before and
            after its fine-tuning.
        options: `fit_to`, "layer" for the trained layer's outputs or "network" for those of the whole model, by at most
            100 `steps` of L-BFGS; further `ranks` by family; `truncation`, for comparison also plain truncated
            singular value decompositions; `starts`, `iterations` and `seed` of the decompositions; `progress`. See
            `CompressOptions`.

    Returns:
        Every candidate with its cost and its errors before and after, and the model with the best ones inserted.

    Raises:
        FittingError: the model has no layer of NL's kind, a family is unknown, all layers are skipped (they never see
            the data, or too few samples), or the budgets are below every candidate.
    """
    own = filled(options, DEFAULTS, "compress")
    ranks, steps, fit_to, truncation = own["ranks"], own["steps"], own["fit_to"], own["truncation"]
    unknown = [f for f in (*families, *(ranks or {})) if f not in FAMILIES]
    if unknown:
        raise FittingError(f"unknown family {unknown[0]!r}; there are {', '.join(FAMILIES)}")
    if fit_to not in ("layer", "network"):
        raise FittingError(f'fit_to is "layer" or "network", not {fit_to!r}')
    run = forward or call
    # One state for all: loaders, layers and `evaluate` may draw numbers.
    with random_state_kept(model):
        batches = batches_of(data, model)
        layers = layers_of(model)
        # One pass for all layers, before any of them is replaced.
        seen = _activations(model, layers, batches, run)
        ready, skipped = _ready(model, layers, seen)
        if not ready:
            raise FittingError(
                "no layer can be replaced: " + "; ".join(f"{n or 'the model'} {w}" for n, w in skipped.items())
            )
        network = None
        if fit_to == "network":
            with evaluating(model), torch.no_grad():
                network = outputs_of(model, batches, run)
        score = _scored(evaluate, model)
        found: list[Candidate] = []
        whole = len(ready) * (len(budgets) * (len(families) + truncation) + sum(map(len, (ranks or {}).values())))
        shown = sys.stderr.isatty() if own["progress"] is None else own["progress"]
        with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
            task = bar.add_task("compress", total=whole)
            for name, (layer, x, goal) in ready.items():
                sizes = {"N": prod(x.shape[2:]), "B": 1}
                cost = plan(layer.spec, {**layer.sizes, **sizes, "C": layer.channels}).macs
                given = {
                    "mean": layer.mean, "moments": _moments(x, layer.bias), "sizes": sizes, "starts": own["starts"],
                    "iterations": own["iterations"], "seed": own["seed"], "progress": False,
                }  # fmt: skip
                largest = None
                if max_params is not None:
                    largest = int(max_params * sum(p.numel() for p in polynomial_parameters(layer.module)))
                wanted: list[tuple[str, Callable[[], Factorisation]]] = []
                for most in (int(share * cost) for share in budgets):
                    wanted += [
                        (f, partial(factorise, layer.core, f, max_macs=most, max_params=largest, **given))
                        for f in families
                    ]
                    if truncation:
                        wanted.append((TRUNCATION, partial(_truncated, layer, sizes, most, largest)))
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
                    trial = replaced(model, {name: layer.replaced_by(made)})
                    aims = [_layer_aim(trial, name, x, goal)]
                    # The layer's own outputs come first: a start near the goal for the harder fit to the network's.
                    if network is not None:
                        aims.append(_network_aim(trial, batches, run, network))
                    of = 0 if family == TRUNCATION else steps
                    found.append(_candidate(trial, name, layer, family, made, cost, aims, evaluate, of))
                    bar.advance(task)
                mine = [c for c in found if c.layer == name]
                if mine:
                    sample = seen[name][0][:1].to(next(layer.module.parameters()).dtype)
                    again = timed(mine, layer.module, sample)
                    found = [c for c in found if c.layer != name] + again
        if not found:
            raise FittingError(f"no family has a member within the budgets {tuple(budgets)} of the layers' cost")
        best = _best(found, total, max_time, choose or (lambda c: c.after), skipped)
        found = [replace(c, chosen=c is best.get(c.layer)) for c in found]
        made = replaced(model, {name: c.module for name, c in best.items()})
        return Compression(tuple(found), made, score, _scored(evaluate, made), skipped)


def _activations(
    model: nn.Module, layers: Mapping[str, TrainedLayer], batches: list[Any], run: Forward
) -> dict[str, list[Tensor]]:
    """Record the inputs of each layer."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = [
        layer.module.register_forward_pre_hook(_keep(seen[name]), with_kwargs=True) for name, layer in layers.items()
    ]
    try:
        # Evaluation mode: dropout and batch statistics would change what the layers see.
        with torch.no_grad(), evaluating(model):
            for batch in batches:
                run(model, batch)
    finally:
        # Hooks on the caller's model must not survive an error.
        for hook in hooks:
            hook.remove()
    return seen


def _keep(parts: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def kept(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        parts.append((args[0] if args else kwargs["x"]).detach())

    return kept


def _ready(
    model: nn.Module, layers: Mapping[str, TrainedLayer], seen: Mapping[str, list[Tensor]]
) -> tuple[dict[str, tuple[TrainedLayer, Tensor, Tensor]], dict[str, str]]:
    """Return the layers that can be replaced with their inputs and outputs in float64, and why the others cannot."""
    ready, skipped = {}, {}
    for name, layer in layers.items():
        parts, other = seen[name], tied(model, layer)
        count = sum(map(len, parts))
        if other is not None:
            skipped[name] = f"has a weight that is also '{other}': a replacement would untie them"
        elif count < HELD_OUT:
            skipped[name] = f"saw {count} samples of the data; give {HELD_OUT} or more"
        elif len({p.shape[1:] for p in parts}) > 1:
            skipped[name] = "saw inputs of several shapes: give data of one"
        else:
            x = torch.cat(parts).double()
            if not layer.bias:
                # Of degree 3 exactly: at magnitude one, neither squares nor cubes leave the range of floats.
                k = exponent(x.cpu())
                x = x * 2.0 ** -(k // 2) * 2.0 ** -(k - k // 2)
            goal = in_parts(layer.attend, x)
            if not goal.isfinite().all():
                skipped[name] = "has inputs, weights or outputs that are not finite"
            elif not goal.any() or is_antisymmetric(layer.core):
                skipped[name] = "is zero on the data"
            else:
                ready[name] = (layer, x, goal)
    return ready, skipped


def _scored(evaluate: Callable[[nn.Module], float] | None, model: nn.Module) -> float | None:
    """Evaluate a model, and put its modules back into their modes."""
    if evaluate is None:
        return None
    modes = [(m, m.training) for m in model.modules()]
    score = evaluate(model)
    for module, training in modes:
        module.training = training
    return score


def _moments(x: Tensor, bias: bool) -> np.ndarray:
    """Compute E[x xᵀ] over samples and positions."""
    rows = x.flatten(2).transpose(1, 2).flatten(0, 1).double()
    # The constant 1 of the biases is one more feature.
    if bias:
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
    return (rows.T @ rows / len(rows)).cpu().numpy()


def _truncated(layer: TrainedLayer, sizes: dict[str, int], most: int, largest: int | None) -> Factorisation:
    """Cut the layer's similarity and value to the largest rank within a budget, by plain SVDs."""
    target = torch.from_numpy(np.ascontiguousarray(layer.core.transpose(1, 2, 3, 0)))
    known, fitting = {**sizes, "C": layer.channels}, None
    # Costs rise with the rank, so the first one above the budget ends the search.
    for rank in range(1, layer.channels + 1):
        spec = BLOCK_TERMS.spec((1, rank, rank), layer.mean, layer.bias, False)
        made = plan(spec, known)
        count = sum(prod(layer.channels if s == "C" else int(s) for s in shape) for shape in spec.parameters.values())
        if made.macs > most or (largest is not None and count > largest):
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


@dataclass(frozen=True, eq=False)
class Aim:
    """Outputs that a candidate is fitted to and measured by: the layer's, or the network's.

    Attributes:
        whole: the module that computes them, in evaluation mode.
        run: computes them in float64.
        wanted: those of the trained layer.
    """

    whole: nn.Module
    run: Callable[[], Tensor]
    wanted: Tensor

    def error(self) -> float:
        # Every fourth sample, not the last quarter: data are often sorted.
        held = torch.arange(len(self.wanted)) % HELD_OUT == 0
        with torch.no_grad(), evaluating(self.whole), in_float64(self.whole):
            return error(self.run()[held], self.wanted[held])

    def tune(self, module: nn.Module, steps: int) -> None:
        fitted = torch.arange(len(self.wanted)) % HELD_OUT != 0
        with evaluating(self.whole):
            tune(module, self.whole, lambda: self.run()[fitted], self.wanted[fitted], steps)


def _layer_aim(trial: nn.Module, name: str, x: Tensor, goal: Tensor) -> Aim:
    own = attention_of(trial.get_submodule(name))
    return Aim(own, lambda: own.attend(x), goal)


def _network_aim(trial: nn.Module, batches: list[Any], run: Forward, wanted: Tensor) -> Aim:
    doubled = [in_double(batch) for batch in batches]
    return Aim(trial, lambda: outputs_of(trial, doubled, run), wanted.double())


def _candidate(
    trial: nn.Module,
    name: str,
    layer: TrainedLayer,
    family: str,
    made: Factorisation,
    cost: int,
    aims: list[Aim],
    evaluate: Callable[[nn.Module], float] | None,
    steps: int,
) -> Candidate:
    module = trial.get_submodule(name)
    before, score = aims[-1].error(), _scored(evaluate, trial)
    after, tuned = before, score
    if steps:
        for aim in aims:
            aim.tune(module, steps)
        # Measured again, since tuning may have kept the old parameters.
        after, tuned = aims[-1].error(), _scored(evaluate, trial)
    return Candidate(
        name, family, made, module, cost, sum(p.numel() for p in layer.module.parameters()), before, after, score, tuned
    )


def _best(
    found: list[Candidate],
    total: float | None,
    max_time: float | None,
    choose: Callable[[Candidate], float],
    skipped: dict[str, str],
) -> dict[str, Candidate]:
    """Return the candidates that go into the model, truncations excluded, and note the layers that have none."""
    costs = {c.layer: c.trained_macs for c in found}
    own = [c for c in found if c.family != TRUNCATION]
    own = [c for c in own if max_time is None or c.speed is None or c.speed <= max_time]
    if total is None:
        best = nearest(own, choose)
        for name in costs.keys() - best.keys():
            skipped[name] = "has no candidate" + (f" within max_time={max_time:g}" if max_time is not None else "")
        return best
    shared = shared_budget(own, costs, total, choose)
    if shared is None:
        least = sum(min((c.macs for c in own if c.layer == name), default=cost) for name, cost in costs.items())
        raise FittingError(
            f"no candidates keep to total={total:g}: the cheapest of each layer take {least / sum(costs.values()):.3g} "
            "of the layers' cost; give smaller `budgets`"
        )
    for name in costs.keys() - shared.keys():
        skipped[name] = "keeps to the shared budget as it is"
    return shared
