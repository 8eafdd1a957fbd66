"""Stage 3, catalogue: attention systems from the literature, each a function that returns its `Spec`.

One file per system, in a folder for each family: the function of that name with its equation, its source and when to
prefer it; the facts about it; a reference in loops. Softmax and other options of a published layer are options of the
function. An entry is imported when it is first asked for. Adding an attention is adding a file: the files are the list.

    >>> from polyattn import catalog
    >>> catalog.names("third_order")[:4]
    ('a2_net', 'axial', 'ba_transform', 'ba_transform_block')
    >>> catalog.poly_nl() == catalog.get("poly_nl")
    True
    >>> catalog.entry("poly_nl").facts.year
    2021
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from polyattn.algebra import Spec
from polyattn.errors import SpecError

if TYPE_CHECKING:
    from polyattn.catalog.facts import Entry, Facts

# Sorted, so that the catalogue's order does not depend on the file system.
_FAMILIES: dict[str, str] = dict(
    sorted(
        (module.name, folder.name)
        for folder in iter_modules(__path__)
        if folder.ispkg
        for module in iter_modules([f"{path}/{folder.name}" for path in __path__])
    )
)
"""The family of each name."""

__all__ = ["Entry", "Facts", "entry", "families", "get", "names", *_FAMILIES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _FAMILIES:
        return _function(name)
    if name in ("Entry", "Facts"):
        return getattr(import_module(f"{__name__}.facts"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def families() -> tuple[str, ...]:
    """Return the families' names, sorted."""
    return tuple(sorted({*_FAMILIES.values()}))


def names(family: str | None = None) -> tuple[str, ...]:
    """Return the catalogue's names, sorted.

    Args:
        family: only those of this family.

    Raises:
        SpecError: the family is unknown.
    """
    if family is None:
        return tuple(_FAMILIES)
    if family not in families():
        raise SpecError(f"`family` is {family!r}; expected one of {', '.join(families())}")
    return tuple(name for name, own in _FAMILIES.items() if own == family)


def get(name: str, **options: Any) -> Spec:
    """Return the specification of a name, as in `get("axial", axis="width")`.

    Args:
        name: one of `names()`.
        options: the options of the function of that name.

    Raises:
        SpecError: the name is unknown; the message has the nearest ones.
    """
    return _function(name)(**options) if options else entry(name).spec


@cache
def entry(name: str) -> Entry:
    """Return the entry of a name: its facts, specification and reference.

    Args:
        name: one of `names()`.

    Raises:
        SpecError: the name is unknown; the message has the nearest ones.
    """
    from polyattn.catalog.facts import Entry

    function = _function(name)
    module = import_module(function.__module__)
    return Entry(name, _FAMILIES[name], module.FACTS, function, module.reference)


def _function(name: str) -> Callable[..., Spec]:
    if name not in _FAMILIES:
        near = get_close_matches(name, _FAMILIES, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(_FAMILIES)}"
        raise SpecError(f"no attention {name!r} in the catalogue; {hint}")
    return getattr(import_module(f"{__name__}.{_FAMILIES[name]}.{name}"), name)
