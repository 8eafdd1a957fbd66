"""How much a run checks of a property: a share of the examples that the profile draws, some cases of many.

The profile "ci" repeats few examples and leaves out the cases marked `nightly`; the others draw new ones and run all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

import pytest
from hypothesis import settings

PROFILE = os.environ.get("POLYATTN_HYPOTHESIS_PROFILE", "ci")


def share(of: float) -> settings:
    """Return settings with a share of the profile's examples, three at least.

    A fixed number would be the same in continuous integration, which repeats examples, as nightly, which draws new
    ones.
    """
    return settings(max_examples=max(3, round(of * settings.default.max_examples)))


def mostly_nightly(names: Iterable[str], always: Collection[str]) -> list[Any]:
    """Return the names as parameters; those not in `always` are left to the nightly run."""
    return [name if name in always else pytest.param(name, marks=pytest.mark.nightly) for name in names]
