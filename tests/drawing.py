"""How many examples a property is held against: a share of what the profile draws."""

from hypothesis import settings


def share(of: float) -> settings:
    """Return settings with a share of the profile's examples, three at least.

    A fixed number would be the same in continuous integration, which repeats examples, as nightly, which draws new
    ones.
    """
    return settings(max_examples=max(3, round(of * settings.default.max_examples)))
