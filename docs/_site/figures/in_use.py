"""Tables of the library in use: a newcomer's path, killed workers, hostile requests."""

from __future__ import annotations

from records import load, table


def hostile() -> str:
    """What the live page's server answered to random and hostile requests, kind by kind."""
    record = load("hostile")
    rows = []
    for kind, found in record["kinds"].items():
        answers = [f"{outcome}: {count:,}" for outcome, count in sorted(found.items(), key=lambda f: -f[1])]
        rows.append([kind, f"{sum(found.values()):,}", "; ".join(answers)])
    wrong, longest = len(record["faults"]), record["longest wait in seconds"]
    said = (
        f"{wrong or 'None'} hung, crashed the server or came back as markup. With {record['connections']} requests at"
    )
    ends = f"{said} once\nthe longest wait was {longest:.1f} s."
    return f"{table(['kind', 'requests', 'statuses of the answers'], rows)}\n\n{ends}"


def newcomer() -> str:
    """The newcomer's path, step by step."""
    record = load("newcomer")
    rows = [[r["step"], f"{r['s']:.1f} s"] for r in record["runs"]]
    return table(["step", "time"], [*rows, ["in all", f"{record['summary']['minutes']:.1f} minutes"]])


def kills() -> str:
    """A worker killed again and again, and the bits at the end."""
    rows = [
        [
            {"ddp": "DDP", "fsdp": "FSDP2"}[r["parallel"]],
            r["steps"],
            len(r["kills"]),
            sum(k["during"] != "a step" for k in r["kills"]),
            r["tensors"],
            len(r["differing"]),
        ]
        for r in load("kills")["runs"]
    ]
    head = ["two processes under torchrun", "steps", "kills", "of these while checkpoints were written or removed",
            "tensors compared", "tensors with another bit"]  # fmt: skip
    return table(head, rows)


TABLES = (hostile, newcomer, kills)
