"""The command line of a recipe: its named configurations, each with every field as an option."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TypeVar

from polyattn.optional import need

Config = TypeVar("Config")


def configured(configs: Mapping[str, tuple[str, Config]], argv: Sequence[str] | None = None) -> Config:
    """Read a configuration from the command line, `NAME --option value ...`; the first one without arguments.

    Args:
        configs: purpose and values of each; frozen dataclasses, whose docstrings are the help.
        argv: the arguments; by default the program's own.
    """
    tyro = need("tyro", "train")
    given = list(sys.argv[1:] if argv is None else argv) or [next(iter(configs))]
    return tyro.extras.overridable_config_cli(dict(configs), args=given, config=(tyro.conf.OmitArgPrefixes,))
