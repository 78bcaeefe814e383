"""The time to save a checkpoint, compared with writing the same number of bytes: 100 M parameters with AdamW's state.

    python -m scripts.benchmarks.checkpoint
    python -m scripts.benchmarks.checkpoint --rounds 1 --set model.dim=64 --report none

Each round does three things in turn, on the disk of `--folder`: a plain loop writes the tensors to a file and syncs it;
the same loop also computes the sha256 of each file; and `checkpoint.save`. The report gives medians of wall and
processor seconds and their ratios, and the time of a load with and without verification. Writes reports/checkpoint.md.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nested_learning import checkpoint
from nested_learning.checkpoint import Progress
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.optim.build import build_optimizer
from nested_learning.report.text import command_line

REPORT = Path(__file__).parents[2] / "reports" / "checkpoint.md"
SIZE = ["model=transformer", "optim=adamw", "model.dim=768", "model.num_layers=12", "model.num_heads=12"]
VOCAB = 20000


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="on the disk to measure")
    parser.add_argument("--set", nargs="+", default=[], help="other sizes, such as model.dim=64")
    parser.add_argument("--report", default=str(REPORT), help="where the report goes; none for nowhere")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        lines = measure(folder, options)
    finally:
        shutil.rmtree(folder)
    print("\n".join(lines))
    if options.report != "none":
        Path(options.report).write_text("\n".join(lines) + "\n")


def measure(folder: Path, options: argparse.Namespace) -> list[str]:
    """Time every way to write, in turns; return the report."""
    sizes = {line.partition("=")[0]: line for line in [*SIZE, *options.set]}
    config = make_job(open_option_files(None), list(sizes.values())).config
    model = config.model.build(VOCAB, 0)
    optimizer = build_optimizer(config.optim, list(model.named_parameters()), model.levels, 1024, 100)
    # of numbers that no disk compresses, as after training
    for tensor in optimizer.local_tensors().values():
        if tensor.is_floating_point():
            tensor.normal_(generator=torch.Generator().manual_seed(0))
    files = {"model": checkpoint.model_tensors(model), "optimizer": optimizer.state_dict()}
    run = folder / "run"
    run.mkdir()
    plain = {"model": {"name": "transformer"}, "data": {"name": "none"}}

    def save() -> None:
        progress = Progress(step=1 + len(list(run.rglob("step_*"))), seed=0, source="none", tokenizer=None)
        checkpoint.save(run, model, optimizer, None, plain, progress)

    ways = {
        "write and sync": lambda: write(folder, files, hashed=False),
        "write, sync, sha256": lambda: write(folder, files, hashed=True),
        "checkpoint.save": save,
    }
    times = in_turns(ways, options.rounds)
    found = checkpoint.find(run)
    times["verify"] = [timed(lambda: checkpoint.verify(found))]
    times["load"] = [timed(lambda: load(found, model, optimizer))]
    num_bytes = sum(tensor.nbytes for tensors in files.values() for tensor in tensors.values())
    return describe(times, num_bytes, sum(tensor.numel() for tensor in files["model"].values()))


def write(folder: Path, files: Mapping[str, Mapping[str, Tensor]], *, hashed: bool) -> None:
    """Write tensors one after another, each of `files` synced at its end, in the place of what was written before."""
    for name, tensors in files.items():
        path = folder / name
        path.unlink(missing_ok=True)
        with path.open("wb", buffering=0) as file:
            for tensor in tensors.values():
                file.write(memoryview(tensor.detach().numpy()).cast("B") if tensor.dim() else bytes(8))
            os.fsync(file.fileno())
        if hashed:
            with path.open("rb") as file:
                digest = sha256()
                while block := file.read(1 << 20):
                    digest.update(block)


def load(saved: Path, model: Any, optimizer: Any) -> None:
    """Fill model and optimizer."""
    checkpoint.load_model(saved, model)
    checkpoint.load_optimizer(saved, optimizer)


def in_turns(ways: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Time each of `ways` once a round."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for first in range(rounds):
        # in another order each time: a disk that has just taken much takes less
        for name in [*ways, *ways][first % len(ways) :][: len(ways)]:
            # what others have written must not be waited for
            os.sync()
            times[name].append(timed(ways[name]))
    return times


def timed(way: Callable[[], object]) -> tuple[float, float]:
    """Return the wall and the processor seconds that `way` takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - wall, time.process_time() - cpu


def describe(times: Mapping[str, list[tuple[float, float]]], num_bytes: int, num_parameters: int) -> list[str]:
    """Lay out the report."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    medians = {name: [statistics.median(each) for each in zip(*rounds, strict=True)] for name, rounds in times.items()}
    base = medians["write and sync"][0]
    rounds = len(times["checkpoint.save"])
    lines = [
        "# Cost of a checkpoint",
        "",
        f"`{command_line('scripts.benchmarks.checkpoint')}`, commit {commit}. "
        f"{num_parameters:,} parameters with AdamW's state, "
        f"{num_bytes / 1e6:,.0f} MB; medians of {rounds} rounds.",
        "`write and sync` is a plain loop over the same tensors; `checkpoint.save` writes, hashes, syncs and renames.",
        "",
        "| | wall s | MB/s | x write and sync | CPU s |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {wall:.2f} | {num_bytes / 1e6 / wall:,.0f} | {wall / base:.2f} | {cpu:.2f} |"
        for name, (wall, cpu) in medians.items()
    ]
    return lines


if __name__ == "__main__":
    main()
