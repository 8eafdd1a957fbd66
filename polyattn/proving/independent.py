"""The independent checker, `proofs/check.py`: a program independent of polyattn, run on certificates.

It stands between every certificate and the user: `prove` says "equal" only of an accepted certificate, and
`polyattn check` runs it again on a stored one.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from polyattn.errors import ProofError

PLACES = (Path(__file__).with_name("_checker.py"), Path(__file__).parents[2] / "proofs" / "check.py")
"""Where the checker is in an installed package, and in the repository."""


@cache
def checker() -> Any:
    """Return the independent checker as a module.

    Raises:
        ProofError: the file is missing.
    """
    for path in PLACES:
        # Loaded by path: the checker is a program of its own, not a module of the package.
        spec = spec_from_file_location("polyattn_checker", path) if path.is_file() else None
        if spec is not None and spec.loader is not None:
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise ProofError("the checker, proofs/check.py, is missing; it comes with polyattn's repository and its wheel")


def refusal(certificate: dict[str, Any]) -> str:
    """Return the checker's reason for refusing a certificate; empty if it accepts it."""
    program = checker()
    try:
        # As text, so that the checker sees exactly what a stored certificate would hold.
        program.check(json.dumps(certificate))
    except program.Refused as error:
        return str(error)
    return ""
