"""For tests, polyattn's own and yours: an assertion, and hypothesis strategies for specifications.

`assert_equivalent` needs torch and polyattn only. The strategies need `hypothesis`, which is not imported elsewhere in
polyattn: specifications from the whole language, sizes for them, changes to them, and pairs of equal or nearly equal
ones. All draws are valid by construction.

>>> from hypothesis import given
>>> from polyattn.testing import specification_texts
>>> @given(specification_texts(functions=False, homogeneous=True))
... def test_reversing_the_definition_is_refused(text): ...
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_MODULES = {
    "assert_computes": "assertions",
    "assert_equivalent": "assertions",
    "edited": "changes",
    "equivalent_pairs": "pairs",
    "near_misses": "pairs",
    "renamed": "changes",
    "respaced": "changes",
    "size_assignments": "strategies",
    "specification_texts": "strategies",
    "specifications": "strategies",
}

__all__ = [
    "assert_computes",
    "assert_equivalent",
    "edited",
    "equivalent_pairs",
    "near_misses",
    "renamed",
    "respaced",
    "size_assignments",
    "specification_texts",
    "specifications",
]

if TYPE_CHECKING:
    from polyattn.testing.assertions import assert_computes, assert_equivalent
    from polyattn.testing.changes import edited, renamed, respaced
    from polyattn.testing.pairs import equivalent_pairs, near_misses
    from polyattn.testing.strategies import size_assignments, specification_texts, specifications


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'polyattn.testing' has no attribute {name!r}")
    # Resolved on first use: `assert_equivalent` must not need hypothesis.
    value = getattr(import_module(f"polyattn.testing.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
