"""Hypothesis strategies: specifications from the whole language, sizes for them, and changes to them.

For polyattn's own tests and for yours; needs `hypothesis`, which nothing else in polyattn imports. Whatever these
strategies draw is valid by construction: nothing is filtered out.

>>> from hypothesis import given
>>> @given(specification_texts(functions=False, homogeneous=True))
... def test_reversing_the_definition_is_refused(text): ...
"""

from polyattn.testing.changes import edited, renamed, respaced
from polyattn.testing.strategies import size_assignments, specification_texts, specifications

__all__ = ["edited", "renamed", "respaced", "size_assignments", "specification_texts", "specifications"]
