"""The papers' blocks by name, as values for `insert`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import nn

import polyattn.nn as blocks
from polyattn import catalog
from polyattn.algebra import Spec
from polyattn.errors import InsertError
from polyattn.vision.make import Value

NAMES: Mapping[str, str] = {
    "bat": "BATBlock",
    "nl": "NonLocal",
    "poly_nl": "PolyNL",
    "e_nl": "EfficientNL",
    "tesa": "TESA",
    "latent_gnn": "LatentGNN",
    "a2_net": "A2",
    "glore": "GloRe",
    "cgnl": "CGNL",
    "criss_cross": "CrissCross",
    "axial": "Axial",
}
"""The blocks' names and their classes in `polyattn.nn`."""


def attention_value(attention: Value, dim: int = 2, **options: Any) -> Value:
    """Return an insertable value from a block's name, a specification, a module or a callable.

    Args:
        attention: a name of `NAMES`; a catalogue name or equation text; a specification; a module, used as it is; or
            a callable from the number of channels and the options to a module.
        dim: number of spatial axes, passed to blocks with this argument.
        options: further keyword arguments of the block's constructor, such as `groups=4`.

    Raises:
        InsertError: the name is unknown, or the block's constructor does not accept an option.

    >>> attention_value("glor")
    Traceback (most recent call last):
    polyattn.errors.InsertError: there is no attention 'glor'; did you mean 'glore'?
    """
    value = _by_name(attention) if isinstance(attention, str) else attention
    if isinstance(value, Spec | nn.Module):
        if options:
            kind = "specification" if isinstance(value, Spec) else "module that is made already"
            raise InsertError(f"a {kind} takes no options, but got: {', '.join(options)}")
        return value
    _refuse_unknown(value, options)
    if "dim" in _words(value):
        options.setdefault("dim", dim)
    return partial(value, **options) if options else value


def block_words(attention: str) -> tuple[str, ...]:
    """Return the keyword arguments of a block's constructor, by the block's name, without the channels."""
    return tuple(_words(_by_name(attention)))[1:]


def _by_name(name: str) -> Spec | Callable[..., nn.Module]:
    if name in NAMES:
        return getattr(blocks, NAMES[name])
    if name in catalog.names():
        return catalog.get(name)
    # Names have no brackets, and every equation has some.
    if "[" in name:
        return Spec(name)
    known = [*NAMES, *(n for n in catalog.names() if n not in NAMES)]
    near = get_close_matches(name, known)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"the names are: {', '.join(known)}"
    raise InsertError(f"there is no attention {name!r}; {hint}")


def _words(make: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(make).parameters
    except (TypeError, ValueError):  # a callable of C has no signature to read
        return {}


def _refuse_unknown(make: Any, options: Mapping[str, Any]) -> None:
    words = _words(make)
    # A callable with **kwargs, or without a signature, checks its options itself.
    if not words or any(p.kind is p.VAR_KEYWORD for p in words.values()):
        return
    unknown = [option for option in options if option not in words]
    if unknown:
        known = ", ".join(list(words)[1:]) or "none"
        name = getattr(make, "__name__", type(make).__name__)
        raise InsertError(f"{name} has no option {', '.join(map(repr, unknown))}; its options are: {known}")
