"""Proves or refutes every claim again, checks each answer, writes the certificates and README.md, prints the table."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import polyattn as pa
from proofs.theorem import CERTIFICATES, Claim, Theorem

HERE = Path(__file__).parent
MACHINERY = {"__main__", "check", "refute", "terms", "theorem"}


def theorems() -> dict[str, Theorem]:
    """Every theorem, by the name of its file."""
    names = sorted(module.name for module in iter_modules([str(HERE)]) if module.name not in MACHINERY)
    return {name: import_module(f"proofs.{name}").THEOREM for name in names}


def main() -> int:
    found = theorems()
    rows, failed = [], 0
    for name, theorem in found.items():
        for claim in theorem.claims:
            start = time.perf_counter()
            status = claim.verdict.status
            seconds = time.perf_counter() - start
            try:
                claim.store()
                checked = "accepted"
            except Exception as error:
                checked, failed = f"refused: {error}", failed + 1
            print(f"{claim.name:34} {status:10} {1000 * seconds:7.0f} ms  {checked:9} {sizes_text(claim.verdict)}")
            rows.append((name, claim))
    for stale in {p.name for p in CERTIFICATES.glob("*.json")} - {c.path.name for _, c in rows}:
        (CERTIFICATES / stale).unlink()
    (HERE / "README.md").write_text(readme(found), encoding="utf-8")
    print(f"{len(rows)} claims in {len(found)} theorems, {failed} failed")
    return 1 if failed else 0


def sizes_text(verdict: pa.Verdict) -> str:
    if verdict.counterexample is None:
        return ""
    sizes = {size: n for size, n in verdict.counterexample["sizes"].items() if n > 1}
    return ", ".join(f"{size} = {n}" for size, n in sizes.items()) or "all sizes 1"


def readme(found: dict[str, Theorem]) -> str:
    lines = [
        "# Theorems",
        "",
        "Written by `python -m proofs`, which proves or refutes every claim and checks each answer by programs that",
        "need nothing of polyattn: `check.py` for certificates of equality, `refute.py` for counterexamples. Each",
        "claim's answer is in `certificates/`, under its name; `python proofs/check.py --certificate FILE` reads one",
        "of equality. Equal means: for all tensors, at every size. Sizes of a counterexample that are not mentioned",
        "are 1.",
        "",
    ]
    for name, theorem in found.items():
        lines += [f"## {theorem.title}", "", f"{theorem.words} [`{name}.py`]({name}.py)", ""]
        lines += ["| claim | given | verdict |", "| --- | --- | --- |"]
        lines += [f"| `{c.name}`: {c.words} | {given_text(c)} | {verdict_text(c.verdict)} |" for c in theorem.claims]
        lines += ["", *(line for c in theorem.claims for line in equations(c)), ""]
    return "\n".join(lines).rstrip() + "\n"


def given_text(claim: Claim) -> str:
    return "<br>".join(f"`{equation}`" for equation in claim.given)


def verdict_text(verdict: pa.Verdict) -> str:
    if verdict.counterexample is None:
        return f"{verdict.status}{', if defined' if verdict.where else ''}"
    left, right = verdict.counterexample["left"], verdict.counterexample["right"]
    return f"{verdict.status}: {left} and {right} at {sizes_text(verdict)}"


def equations(claim: Claim) -> list[str]:
    left, right = claim.verdict.left, claim.verdict.right
    return [
        f"<details><summary><code>{claim.name}</code></summary>",
        "",
        "```",
        left,
        "",
        right,
        "```",
        "",
        "</details>",
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
