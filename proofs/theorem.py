"""What a file of proofs holds: a theorem with its claims, each proved or refuted by `polyattn.prove`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polyattn as pa
from proofs import check, refute

CERTIFICATES = Path(__file__).parent / "certificates"


@dataclass(frozen=True)
class Claim:
    """Two texts that are equal at every size under the given equations, or are not.

    Attributes:
        name: of its certificate, unique.
        words: the claim in a line.
        holds: whether it is true; if not, the certificate is a counterexample.
    """

    name: str
    words: str
    left: str
    right: str
    given: tuple[str, ...] = ()
    holds: bool = True

    @property
    def path(self) -> Path:
        return CERTIFICATES / f"{self.name}.json"

    @cached_property
    def verdict(self) -> pa.Verdict:
        return pa.prove(self.left, self.right, given=self.given)

    def settle(self) -> pa.Verdict:
        """The verdict, which has to be what the claim says and to pass the independent check."""
        wanted = "equal" if self.holds else "different"
        assert self.verdict.status == wanted, f"{self.name} should be {wanted}:\n{self.verdict}"
        _check(self.verdict)
        return self.verdict

    def assert_stored(self) -> None:
        """The stored certificate is about this claim and passes the independent check."""
        stored = pa.Verdict.from_json(self.path.read_text(encoding="utf-8"))
        asked = self.verdict
        assert (stored.status, stored.left, stored.right) == (asked.status, asked.left, asked.right), self.path.name
        assert stored.given == asked.given, self.path.name
        _check(stored)

    def store(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(self.settle().to_json(indent=1) + "\n", encoding="utf-8")


def _check(verdict: pa.Verdict) -> None:
    if verdict.certificate is not None:
        check.check(json.dumps(verdict.certificate))
    else:
        refute.check(verdict.to_json())


@dataclass(frozen=True)
class Theorem:
    """A fact, with the claims that establish it.

    Attributes:
        title: the fact in a line.
        words: what it says, where it is from, and what it needs.
    """

    title: str
    words: str
    claims: tuple[Claim, ...]

    def settle(self) -> None:
        """Prove or refute every claim, and check the stored certificates, with the independent checkers."""
        for claim in self.claims:
            claim.settle()
            claim.assert_stored()
