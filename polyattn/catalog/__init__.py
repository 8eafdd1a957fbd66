"""Stage 3, catalogue: attention systems from the literature, each a function that returns its `Spec`.

One file per system, with the function of that name: its equation, its source, when to prefer it. Guarantees: the
output has the input's shape, and without options the specification is a polynomial of degree 3 in `x` (the Π-nets also
have lower orders); softmax, where published and where the language says it exactly, is an option. Adding an attention
is adding a file: the folder's files are the list.

    >>> from polyattn import catalog
    >>> catalog.names()[:4]
    ('a2_net', 'axial', 'ba_transform', 'ba_transform_block')
    >>> catalog.poly_nl() == catalog.get("poly_nl")
    True
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from polyattn.algebra import Spec
from polyattn.errors import SpecError

# Sorted, so that the catalogue's order does not depend on the file system.
_ENTRIES: dict[str, Callable[..., Spec]] = {
    name: getattr(import_module(f"{__name__}.{name}"), name)
    for name in sorted(module.name for module in iter_modules(__path__))
}
globals().update(_ENTRIES)  # each function in place of the module of its name

__all__ = ["get", "names", *_ENTRIES]  # pyright: ignore[reportUnsupportedDunderAll]

# For type checkers, which cannot see the names that `globals().update` adds.
if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., Spec]: ...


def names() -> tuple[str, ...]:
    """Return the catalogue's names, sorted."""
    return tuple(_ENTRIES)


def get(name: str, **options: Any) -> Spec:
    """Return the specification of a name, as in `get("axial", axis="width")`.

    Args:
        name: one of `names()`.
        options: the options of the function of that name.

    Raises:
        SpecError: the name is unknown; the message has the nearest ones.
    """
    if name not in _ENTRIES:
        near = get_close_matches(name, _ENTRIES, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(_ENTRIES)}"
        raise SpecError(f"no attention {name!r} in the catalogue; {hint}")
    return _ENTRIES[name](**options)
