"""Kill one worker of a training under torchrun, at random moments, and compare the weights that it ends with.

torchrun starts two processes on the CPU, with its elastic restart. Once a training is under way, one of them gets
SIGKILL after a random time: in a forward pass, in an exchange of gradients, in the middle of writing a checkpoint,
wherever that falls. The times are drawn so that the kills spread over the training. torchrun starts both again, and
they go on from the last whole checkpoint. At the end every tensor of the last checkpoint (parameters, momentum,
average, running values of the batch norms) is compared with an undisturbed run's, bit for bit.

    python benchmarks/kills.py --kills 30 --out benchmarks/results/kills.json
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _common import resumed, show
from torch import Tensor, nn

from polyattn.nn import PolyNL
from polyattn.training import Evaluating, Schedule, Settings, Task, fit, started

WORKERS = 2


class Images:
    """Noise with a class, and augmentation."""

    def __len__(self) -> int:
        return 240

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        fixed = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(index))
        return fixed + 0.1 * torch.randn(3, 12, 12), index % 5


class Marked(Task):
    """A small network with Poly-NL, batch norm and dropout; each process leaves a file once it trains."""

    samples = Images()

    def __init__(self, marks: Path):
        self.marks = marks

    def network(self) -> nn.Module:
        def convolution(inner: int, outer: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inner, outer, 3), nn.BatchNorm2d(outer), nn.ReLU(), nn.Dropout(0.1))

        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))
        return nn.Sequential(convolution(3, 16), PolyNL(16), convolution(16, 32), *head)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        (self.marks / str(os.getpid())).touch()
        inputs, labels = batch
        return {"cross_entropy": nn.functional.cross_entropy(model(inputs), labels)}

    def evaluate(self, now: Evaluating) -> dict[str, float]:
        return {"samples": float(len(self.samples))}


def worker(out: Path, epochs: int, parallel: Any) -> None:
    """What torchrun starts."""
    torch.set_num_threads(1)
    settings = Settings(
        out=out, epochs=epochs, batch=24, micro=6, rate=0.05, ema=0.99, checkpoint_every=3, log_every=1,
        schedule=Schedule("cosine"), device="cpu", parallel=parallel, evaluate_every=epochs,
    )  # fmt: skip
    with started("cpu") as processes:
        fit(Marked(out / "marks"), settings, processes)


def trained(out: Path, epochs: int, parallel: str, moments: list[float]) -> tuple[list[dict[str, Any]], float]:
    """Train under torchrun, killing a worker so many seconds after each (re)start of the training; what was killed, and
    the seconds from the first step or the last kill to the end."""
    marks = out / "marks"
    marks.mkdir(parents=True)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(WORKERS),
        "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--max-restarts", str(len(moments) + 1),
        "--monitor-interval", "0.1", __file__, "--worker", str(out), "--epochs", str(epochs), "--parallel", parallel,
    ]  # fmt: skip
    kills: list[dict[str, Any]] = []
    with (out / "output.txt").open("w") as output:
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environ)
        try:
            for number, moment in enumerate(moments):
                pids = _training(running, marks)
                if pids is None:
                    break  # it ended before the next kill
                time.sleep(moment)
                kills += _kill(pids, number, out, moment)
                for mark in marks.iterdir():
                    mark.unlink()
            _training(running, marks)
            clock = time.perf_counter()
            code = running.wait(timeout=1800)
        finally:
            running.kill()
    if code:
        raise SystemExit(f"torchrun ended with {code}:\n{(out / 'output.txt').read_text()[-4000:]}")
    return kills, time.perf_counter() - clock


def _training(running: subprocess.Popen[bytes], marks: Path) -> list[int] | None:
    """The processes, once all of them train; None if torchrun ends before that."""
    while running.poll() is None:
        # One that outlived a killed one for a moment may have left a file.
        pids = sorted(pid for pid in (int(p.name) for p in marks.iterdir()) if _alive(pid))
        if len(pids) == WORKERS:
            return pids
        time.sleep(0.002)
    return None


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _kill(pids: list[int], number: int, out: Path, moment: float) -> list[dict[str, Any]]:
    partial = [p.name for p in out.glob(".*")]
    last = max((p.name for p in out.glob("step-*")), default="none")
    try:
        os.kill(pids[number % WORKERS], signal.SIGKILL)
    except ProcessLookupError:
        return []  # the training had ended
    kind = "a checkpoint" if any("partial" in name for name in partial) else "a removal" if partial else "a step"
    return [{"worker": number % WORKERS, "seconds_after_start": round(moment, 4), "last": last, "during": kind}]


def final(out: Path) -> dict[str, Tensor]:
    """Every tensor of the last checkpoint."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    last = max(out.glob("step-*"))
    dcp_to_torch_save(last, out / "final.pt")
    return _flat(torch.load(out / "final.pt"))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Tensor):
            found[prefix + key] = value
    return found


def compared(folder: Path, parallel: str, kills: int, epochs: int, seed: int) -> dict[str, Any]:
    """An undisturbed training and one that is killed, at moments that the seed draws."""
    rng = random.Random(seed)
    _, seconds = trained(folder / "undisturbed", epochs, parallel, [])
    longest = 1.5 * seconds / kills  # a quarter of the training is left for the end, and for what is lost
    made, _ = trained(folder / "killed", epochs, parallel, [rng.uniform(0, longest) for _ in range(kills)])
    one, other = final(folder / "undisturbed"), final(folder / "killed")
    differing = sorted(k for k in one if k not in other or not torch.equal(one[k], other[k]))
    return {
        "parallel": parallel, "steps": epochs * 10, "kills": made, "tensors": len(one),
        "differing": differing + sorted(other.keys() - one.keys()), "undisturbed_seconds": round(seconds, 1),
    }  # fmt: skip


KINDS = ("a step", "a checkpoint", "a removal")


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Kills in all, during what they came, and whether all bits are the same."""
    kills = [k for r in runs for k in r["kills"]]
    during = {kind: sum(k["during"] == kind for k in kills) for kind in KINDS}
    return {"kills": len(kills), "during": during, "same_bits": not any(r["differing"] for r in runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how often, in each training")
    parser.add_argument("--epochs", type=int, default=20, help="of 10 steps")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--quick", action="store_true", help="2 kills")
    parser.add_argument("--only", default="", help="ddp or fsdp")
    parser.add_argument("--most-minutes", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path, help="where to write the results as JSON")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--parallel", default="ddp", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        worker(args.worker, args.epochs, args.parallel)
        return
    kills, epochs = (2, 3) if args.quick else (args.kills, args.epochs)
    with tempfile.TemporaryDirectory(prefix="polyattn-kills-") as folder:
        cases = {
            parallel: lambda parallel=parallel: compared(Path(folder) / parallel, parallel, kills, epochs, args.seed)
            for parallel in ("ddp", "fsdp")
        }
        runs = resumed(args, cases, summary)
    rows = [
        (r["parallel"], len(r["kills"]), *(sum(k["during"] == d for k in r["kills"]) for d in KINDS),
         r["tensors"], len(r["differing"]))
        for r in runs
    ]  # fmt: skip
    show("kills under torchrun", ("", "kills", *KINDS, "tensors compared", "differing"), rows)
    if any(r["differing"] or len(r["kills"]) < kills for r in runs):
        sys.exit(1)


if __name__ == "__main__":
    main()
