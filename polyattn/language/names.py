"""The grammar's rule for names, applied to names from other sources than a text."""

from __future__ import annotations

import re
from collections.abc import Collection

from polyattn.errors import SpecError
from polyattn.language.functions import RESERVED
from polyattn.language.syntax import IDENTITY, is_size_name

NAME = r"[A-Za-z][A-Za-z0-9_]*"
"""The grammar's NAME."""
NAME_RULE = "names are ASCII letters, digits and underscores, and start with a letter"
KEYWORDS = ("where",)


def is_name(name: object) -> bool:
    """Return whether a text of the language could contain this name."""
    return isinstance(name, str) and re.fullmatch(NAME, name) is not None and name not in KEYWORDS


def no_name(name: object, what: str) -> SpecError:
    """Return the error for an invalid name: the thing to be named, and the rule."""
    if isinstance(name, str) and name in KEYWORDS:
        return SpecError(f"{what} cannot be called {name!r}, a word of the language; choose another name")
    if not isinstance(name, str):
        return SpecError(f"{what} has a name that is text, not {type(name).__name__}")
    return SpecError(f"{what} cannot be called {name!r}: {NAME_RULE}")


def no_case(name: str, what: str, size: bool) -> SpecError:
    """Return the error for a name in the wrong case: a size's without a capital, or another's with one."""
    return SpecError(
        f"{what} cannot be called {name!r}: it has to start with a {'capital' if size else 'small letter'}"
    )


def check_tensor_name(name: object, what: str, taken: Collection[str], *, scalar: bool = False) -> None:
    """Raise a SpecError unless `name` can name one more tensor.

    Args:
        name: the name.
        what: the named thing, for the message.
        taken: the names of other tensors.
        scalar: whether the tensor is a scalar, so that a capital would make it a size.
    """
    if not isinstance(name, str) or not is_name(name):
        raise no_name(name, what)
    if name in RESERVED or name == IDENTITY:
        kind = "the identity" if name == IDENTITY else "a function"
        raise SpecError(f"{what} cannot be called {name!r}, which is {kind}; choose another name")
    if scalar and is_size_name(name):
        raise SpecError(f"{what} is a scalar and cannot be called {name!r}, like a size: start with a small letter")
    if name in taken:
        raise SpecError(f"{what}'s name {name!r} is taken; choose another")
