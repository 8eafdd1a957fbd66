"""`insert` and `remove`: attention after named submodules of a network, and its removal.

The attention is a child of the submodule before it, so no module moves and no name changes. It runs in a forward hook,
one function for all networks, which copies and pickles with the network; an `nn.Sequential` runs its new last child by
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import copy
from difflib import get_close_matches
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from polyattn.algebra import Spec
from polyattn.errors import InsertError, SpecError
from polyattn.vision.arrangement import Arrangement, Rearranged
from polyattn.vision.make import Value, make
from polyattn.vision.trace import Example, arguments_of, run, trace
from polyattn.vision.wrapped import refuse_wrapped

Model = TypeVar("Model", bound=nn.Module)

CHILD = "attention"
"""The attention's name as a child."""

MARK = "attention_inserted"
"""Attribute that marks a child of that name as inserted by `insert`."""


def insert(
    model: Model,
    attentions: Mapping[str, Value],
    *,
    example_input: Example | None = None,
    sizes: Mapping[str, int] | None = None,
    layout: str | None = None,
    prefix_tokens: int | None = None,
) -> Model:
    """Insert attention after named submodules of any network, in place.

    Each named submodule gets the attention as its child `attention`, applied to its output. The network's own
    state-dict keys are unchanged; the new ones are `<name>.attention.*`, in other layouts than (B, C, *spatial)
    `<name>.attention.layer.*`. The channels of an output are the axis with the width of the submodule's norms or, where
    that does not tell, the axis that keeps its length as the network runs on a larger image. Tokens (B, N, C) are
    the grid of the patch embedding, or a square, behind prefix tokens, which pass the attention by.

    Args:
        model: the network.
        attentions: by the submodule's name in `model.named_modules()`, one of: a specification or its text, which
            becomes a `polyattn.nn.Attention` (the identity at the start); a module, used as it is; a class or another
            callable from the number of channels to a module, such as `polyattn.nn.PolyNL` or
            `functools.partial(polyattn.nn.Attention, spec, beta=1.0)`. Of a submodule that returns a dict, list or
            tuple, the key of the tensor stands behind its name: "fpn[0]"; that attention is `<name>.attention.<key>`.
        example_input: a tensor, or the tuple of all arguments, on which the network runs once to find channels and
            spatial shapes. Default: an image of 224 x 224 zeros, if the first convolution takes images.
        sizes: values of the specifications' remaining sizes; each specification takes its own. Spatial sizes of
            parameters (H and W of `ba_transform`) are those of the run.
        layout: layout of all the outputs, such as "BCHW", "BHWC" or "BNC", instead of the one found.
        prefix_tokens: number of tokens in front of (B, N, C) that belong to no position, such as a class token.

    Returns:
        The network. New modules have the device, the dtype and the training flag of the submodule before them. The run
        restores training flags, buffers and random states.

    Raises:
        InsertError: a name cannot be used, a module cannot be built or changes the shape, the layout is in doubt, the
            network does not run, or is compiled or wrapped by DistributedDataParallel or FSDP already.
            The network is then unchanged.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> model = insert(model, {"0": "x[N,C]; y[a,b] = 1/N * x[a,d]*w[d,f]*x[e,f] * x[e,b]"})
    >>> list(model.state_dict())
    ['0.weight', '0.bias', '0.attention.w', '0.attention.alpha', '0.attention.beta']
    """
    # All names and specifications are checked before the first run, so cheap mistakes fail early.
    refuse_wrapped(model)
    keys = _keys(model, attentions)
    targets = {name: _target(model, _without_key(name, keys)) for name in attentions}
    _refuse_aliases(targets, keys)
    values = {name: _parsed(name, value) for name, value in attentions.items()}
    _refuse_unknown(sizes or {}, values.values())
    if not values:
        return model
    arguments = arguments_of(model, example_input)
    traced = trace(model, targets, keys, arguments, layout, prefix_tokens)
    made = {name: make(name, value, targets[name], traced[name], sizes or {}) for name, value in values.items()}
    for name, one in traced.items():
        if one.arrangement != Arrangement():
            made[name] = Rearranged(made[name], one.arrangement).train(one.training)
    try:
        for name, target in targets.items():
            if name not in keys:
                _attach(target, made[name])
        for target, entries in _by_key(targets, keys, made).items():
            _attach(target, Entries(entries))
        _check_calls(model, targets, made, arguments)
    # BaseException: an interrupt must not leave the network half changed either.
    except BaseException:
        for target in targets.values():
            _detach(target)
        raise
    return model


def remove(model: Model, names: str | Iterable[str] | None = None) -> Model:
    """Remove inserted attention again, in place.

    Args:
        model: the network.
        names: submodules before the attention; default all.

    Returns:
        The network.

    Raises:
        InsertError: no attention was inserted after a name. The network is then unchanged.
    """
    have = inserted(model)
    wanted = list(have) if names is None else [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in have:
            known = ", ".join(map(repr, have)) or "nothing"
            raise InsertError(f"no attention was inserted after {name!r}, but after {known}")
    for name in wanted:
        _detach(have[name])
    return model


def inserted(model: nn.Module) -> dict[str, nn.Module]:
    """Find the submodules with inserted attention, by name."""
    return {name: module for name, module in model.named_modules(remove_duplicate=False) if MARK in vars(module)}


def attend(module: nn.Module, _: Any, output: Tensor) -> Tensor:
    """Apply the inserted attention to a module's output, as its forward hook."""
    return cast(nn.Module, module.attention)(output)


def _target(model: nn.Module, name: str) -> nn.Module:
    modules = dict(model.named_modules(remove_duplicate=False))
    if name == "":
        raise InsertError("'' is the whole model: to put attention after that, use nn.Sequential(model, attention)")
    if name not in modules:
        near = " or ".join(map(repr, get_close_matches(name, modules)))
        hint = f"; did you mean {near}?" if near else ""
        raise InsertError(f"the model has no submodule {name!r} among its {len(modules) - 1}{hint}")
    target = modules[name]
    if MARK in vars(target):
        raise InsertError(f"{name!r} has an inserted attention already; polyattn.vision.remove takes it out")
    if isinstance(target, nn.ModuleList | nn.ModuleDict) or type(target).forward is nn.Module.forward:
        children = [f"{name}.{child}" for child, _ in target.named_children()]
        inside = f" or inside it, such as {children[-1]!r}" if children else ""
        kind = type(target).__name__
        raise InsertError(f"{name!r} is a {kind}, which holds modules and is none; name a module around it{inside}")
    if hasattr(target, CHILD):
        raise InsertError(f"{name!r} has an attribute '{CHILD}' of its own; name a module inside or around it")
    return target


class Entries(nn.Module):
    """Attention on entries of a dict, list or tuple; the other entries pass.

    Args:
        layers: the attention by the entry's key.
    """

    def __init__(self, layers: Mapping[str, nn.Module]):
        super().__init__()
        self.keys = {key: key.replace(".", "_") for key in layers}
        for key, layer in layers.items():
            self.add_module(self.keys[key], layer)

    def forward(self, output: Any) -> Any:
        """Return the same kind of container with new entries; the given one stays as it is."""
        if isinstance(output, Mapping):
            new: Any = copy(output)
            for own, entry in output.items():
                if str(own) in self.keys:
                    new[own] = self._layer(str(own))(entry)
            return new
        fields = getattr(output, "_fields", ())
        entries = [
            self._layer(key)(entry) if (key := self._key(k, fields)) else entry for k, entry in enumerate(output)
        ]
        return type(output)(*entries) if fields else type(output)(entries)

    def _layer(self, key: str) -> nn.Module:
        return self.get_submodule(self.keys[key])

    def _key(self, number: int, fields: tuple[str, ...]) -> str | None:
        return next((key for key in (str(number), *fields[number : number + 1]) if key in self.keys), None)


def _keys(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Return the keys of entries, by name, of names such as "fpn[0]"."""
    modules = dict(model.named_modules(remove_duplicate=False))
    found = ((name, re.fullmatch(r".+\[([^\[\]]+)\]", name)) for name in names if name not in modules)
    return {name: match[1] for name, match in found if match}


def _without_key(name: str, keys: Mapping[str, str]) -> str:
    return name.removesuffix(f"[{keys[name]}]") if name in keys else name


def _by_key(
    targets: Mapping[str, nn.Module], keys: Mapping[str, str], made: Mapping[str, nn.Module]
) -> dict[nn.Module, dict[str, nn.Module]]:
    found: dict[nn.Module, dict[str, nn.Module]] = {}
    for name, key in keys.items():
        found.setdefault(targets[name], {})[key] = made[name]
    return found


def _refuse_aliases(targets: Mapping[str, nn.Module], keys: Mapping[str, str]) -> None:
    # Two names of one module would attach two attentions to it, unless each is for an entry of its own.
    first: dict[tuple[nn.Module, str | None], str] = {}
    for name, target in targets.items():
        if first.setdefault((target, keys.get(name)), name) != name:
            raise InsertError(
                f"{first[target, keys.get(name)]!r} and {name!r} are one module, which takes one attention"
            )


def _parsed(name: str, value: Value) -> Value:
    try:
        return Spec(value) if isinstance(value, str) else value
    except SpecError as error:
        raise InsertError(f"the specification for {name!r}: {error}") from error


def _refuse_unknown(sizes: Mapping[str, int], values: Iterable[Value]) -> None:
    known = dict.fromkeys(size for spec in values if isinstance(spec, Spec) for size in spec.sizes.names)
    for size in sizes:
        if size not in known:
            raise InsertError(f"no specification here has a size {size!r}; the sizes are: {', '.join(known) or 'none'}")


def _runs_its_children(module: nn.Module) -> bool:
    # A subclass or an instance with its own forward may not run an appended child.
    return type(module).forward is nn.Sequential.forward and "forward" not in vars(module)


def _attach(target: nn.Module, attention: nn.Module) -> None:
    # A mark in the instance, not the class: it copies and pickles with the network.
    setattr(target, MARK, True)
    target.add_module(CHILD, attention)
    # A hook on an nn.Sequential would apply the attention twice.
    if not _runs_its_children(target):
        target.register_forward_hook(attend)


def _detach(target: nn.Module) -> None:
    """Undo `_attach`, as far as it went."""
    if vars(target).pop(MARK, False):
        target._modules.pop(CHILD, None)
        # By function, not by handle: a copied or unpickled network has hooks, but no handles.
        for number in [number for number, hook in target._forward_hooks.items() if hook is attend]:
            del target._forward_hooks[number]


def _check_calls(
    model: nn.Module, targets: Mapping[str, nn.Module], made: Mapping[str, nn.Module], arguments: tuple[Any, ...]
) -> None:
    """Run the network with its attention, and check that each attention runs as often as its submodule.

    A module with a `forward` over all its children would call the new child more often.
    """
    calls: dict[nn.Module, int] = {}

    def count(module: nn.Module, *_: Any) -> None:
        calls[module] = calls.get(module, 0) + 1

    try:
        run(model, *arguments, hooks=dict.fromkeys((*targets.values(), *made.values()), count))
    except Exception as error:
        raise InsertError(f"the model does not run with the attention in it: {error}") from error
    for name, attention in made.items():
        # One attention may follow several submodules: its calls are the sum of theirs.
        if calls[attention] != sum(calls[targets[other]] for other in made if made[other] is attention):
            raise InsertError(
                f"{name!r} runs each of its children, and the attention with them; name a module around it"
            )
