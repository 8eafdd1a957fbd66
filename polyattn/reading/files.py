"""Code in files, as the command line names it: `path/to/file.py:Class`, `file.py:Class(dim=64)@2x5x64`."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polyattn.errors import PolyattnError, ReadingError
from polyattn.reading.reading import Reading, read

FORM = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)(?P<call>\(.*\))?(@(?P<shapes>[0-9x,\s]+))?")


def is_reference(source: str) -> bool:
    """Return whether a text names code in a file."""
    return FORM.fullmatch(source) is not None


def read_file(source: str) -> Reading:
    """Return the reading of a class, a module or a function in a file; `source` and errors as for `load_file`."""
    return read(*load_file(source))


def load_file(source: str) -> tuple[Any, tuple[torch.Tensor, ...]]:
    """Return a module in evaluation mode, or a function, in a file, and inputs for it.

    Args:
        source: the file and the name; for a class, its arguments in brackets as Python literals; and the shapes of the
            inputs behind an @, such as "@2x5x64". Without shapes they are guessed from the first layer of weights.

    Raises:
        ReadingError: the file or the name does not exist, the class needs arguments, or no shape is known.
    """
    match = FORM.fullmatch(source)
    if match is None:
        raise ReadingError(f"`SPEC`: got {source!r}, expected a file and a name such as block.py:Attention")
    found = getattr(_loaded(Path(match["file"])), match["name"], None)
    if found is None:
        raise ReadingError(f"`SPEC`: {match['file']} has no {match['name']!r}")
    if isinstance(found, type):
        found = _made(found, match["call"] or "()")
    if isinstance(found, nn.Module):
        found = found.eval()
    shapes = match["shapes"]
    args = _drawn([[int(n) for n in s.split("x")] for s in shapes.split(",")]) if shapes else _guessed(found)
    return found, args


def _loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ReadingError(f"`SPEC`: there is no file {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    # A file may import its neighbours, as it does when it is run.
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except PolyattnError:
        raise
    except Exception as error:
        raise ReadingError(f"`SPEC`: {path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return module


def _made(kind: type, call: str) -> Any:
    try:
        tree = ast.parse(f"f{call}", mode="eval").body
        assert isinstance(tree, ast.Call)
        args = [ast.literal_eval(a) for a in tree.args]
        kwargs = {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise ReadingError(f"`SPEC`: got the arguments {call!r}, expected literals such as (64, heads=8)") from None
    try:
        return kind(*args, **kwargs)
    except Exception as error:
        raise ReadingError(
            f"`SPEC`: {kind.__name__}{call} cannot be made: {error}; give its arguments, such as {kind.__name__}(64)"
        ) from error


def _drawn(shapes: list[list[int]]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _guessed(found: Any) -> tuple[torch.Tensor, ...]:
    """Return an input for the first layer of weights of a module."""
    for layer in found.modules() if isinstance(found, nn.Module) else ():
        if isinstance(layer, nn.Linear):
            return _drawn([[2, 5, layer.in_features]])
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return _drawn([[2, layer.in_channels, *(6, 5, 4)[: len(layer.kernel_size)]]])
        if isinstance(layer, nn.LayerNorm):
            return _drawn([[2, 5, *layer.normalized_shape]])
    raise ReadingError(
        "`SPEC`: the shape of the input is not known; give it behind an @, such as block.py:attend@2x5x64"
    )
