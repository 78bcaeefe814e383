"""Does `world.reduction=deterministic` give the same bytes at any number of processes, and what does it cost?

    python -m scripts.benchmarks.elastic    # about ten minutes of one core
    python -m scripts.benchmarks.elastic --models hope --kills 2 --rounds 4 --report /tmp/elastic.md

Writes reports/elastic.md and prints it.

1. transformer, titans_lmm and hope, with dropout and Muon + AdamW, are trained by 1, 2 and 4 processes, and once more
   with `--kills` SIGKILLs of a random process at a random moment; after each, a different number of processes resumes.
   The sha256 of the tensors in the last checkpoint and the bits of every loss must be equal.
2. Both reductions train in turn in one process, on the same micro-batches: the ratio of their CPU seconds per step.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.schema import Config

REPORT = Path(__file__).parents[2] / "reports" / "elastic.md"
MODELS = ("transformer", "titans_lmm", "hope")
SIZES = (1, 2, 4)
RUN = [
    *("optim=mixed_muon", "data=stdlib", "data.seq_len=64", "data.batch_size=16", "micro_batches=8", "evals=[]"),
    *("model.dim=32", "model.num_layers=2", "model.num_heads=2", "model.dropout=0.1", "world.reduction=deterministic"),
    *("steps=40", "val_every=10", "save_every=4", "log_every=1", "device=cpu", "data.val_rows=16"),
    "sampling.num_tokens=8",
]
COST = [
    *("optim=mixed_muon", "data=stdlib", "data.seq_len=128", "data.batch_size=16", "micro_batches=8", "evals=[]"),
    *("model.dim=128", "model.num_layers=4", "model.num_heads=4", "model.dropout=0.1", "steps=100000", "device=cpu"),
    "log_every=100000",
]


def configure(lines: list[str]) -> Config:
    """Compose a configuration from overrides."""
    return make_job(open_option_files(None), lines).config


def member(config: Config, rank: int, size: int, port: int) -> None:
    """Be one of `size` processes that train, as torchrun starts them."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    from nested_learning.phase.train import run

    with Path(os.devnull).open("w") as nowhere:
        # exit codes show which processes were killed
        sys.stdout = sys.stderr = nowhere
        run(config)


def train(config: Config, size: int, kill_after: float | None = None, seed: int = 0) -> int:
    """Train with `size` processes; kill one some time after the run has logged `kill_after` lines more.

    Returns the steps that were logged until then.
    """
    from torch.distributed import TCPStore

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["nested_learning.phase.train", "torch._dynamo"])
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    members = [server.Process(target=member, args=(config, rank, size, store.port)) for rank in range(size)]
    for each in members:
        each.start()
    metrics, pick = Path(config.out) / str(config.name) / "metrics.jsonl", random.Random(seed)
    if kill_after is not None:
        # lines after the last checkpoint are removed when the run resumes
        while num_lines(metrics) < kill_after and any(each.is_alive() for each in members):
            time.sleep(0.002)
        time.sleep(pick.uniform(0, 0.2))
        os.kill(members[pick.randrange(size)].pid or 0, signal.SIGKILL)
    for each in members:
        each.join()
    codes = [each.exitcode for each in members]
    assert (codes == [0] * size) == (kill_after is None), codes
    return num_lines(metrics)


def num_lines(metrics: Path) -> int:
    """Count the lines of a file that may not be there yet."""
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def digest(run: Path) -> tuple[str, str]:
    """Return the sha256 of the tensors in the last checkpoint, and of the bits of all losses."""
    latest = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    tensors = hashlib.sha256()
    for path in sorted(latest.glob("*.safetensors")):
        tensors.update(path.read_bytes())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("train/loss", "optim/grad_norm", "val/loss")
    bits = [f"{line['step']} {name} {line[name].hex()}" for line in lines for name in names if name in line]
    return tensors.hexdigest()[:16], hashlib.sha256("\n".join(bits).encode()).hexdigest()[:16]


def same_bytes(model: str, kills: int, folder: Path) -> tuple[list[str], bool]:
    """Train `model` in every way; return rows of the table, and whether all are the same."""
    results, rows = {}, []
    lines = [*RUN, f"model={model}", f"out={folder}"]
    for size in SIZES:
        train(configure([*lines, f"name={model}_{size}"]), size)
        results[f"{size}"] = digest(folder / f"{model}_{size}")
        rows.append(f"| {model} | {size} | {results[f'{size}'][0]} | {results[f'{size}'][1]} |")
    config, pick, history, done = configure([*lines, f"name={model}_killed"]), random.Random(model), [], 0
    size = 1
    for number in range(kills):
        size = pick.choice([other for other in SIZES if other != size])
        last = 44 * (number + 1) // (kills + 1)
        done = train(config, size, max(1, last + pick.randint(-2, 2)), number)
        history.append(f"{size} (killed at line {done})")
    size = pick.choice([other for other in SIZES if other != size])
    train(config, size)
    history.append(str(size))
    results["killed"] = digest(folder / f"{model}_killed")
    rows.append(f"| {model} | {' → '.join(history)} | {results['killed'][0]} | {results['killed'][1]} |")
    return rows, len(set(results.values())) == 1


def overhead(model: str, rounds: int, folder: Path) -> dict[str, float]:
    """Train with both reductions in turns; return milliseconds of processor time a step, and the median ratio."""
    import torch

    from nested_learning.checkpoint import Progress
    from nested_learning.logger.protocol import Fanout
    from nested_learning.phase.train import build
    from nested_learning.train.run import RunContext, prepare_process
    from nested_learning.train.trainer import Trainer
    from nested_learning.world.world import World

    trainers: dict[str, Any] = {}
    for kind in ("fast", "deterministic"):
        config = configure([*COST, f"model={model}", f"world.reduction={kind}"])
        world = World(0, 1, 0, torch.device("cpu"), "gloo", config.world)
        prepare_process(0, world.device, is_elastic=True)
        parts = build(config, world)
        progress = Progress(seed=0, source="", tokenizer=None)
        ctx = RunContext(folder, config, 0, world.device, torch.float32, world, Fanout())
        trainers[kind] = Trainer(ctx, parts.feed, parts.model, parts.objective, parts.optimizer, progress)
        trainers[kind].train_step(lambda: False)
    seconds: dict[str, list[float]] = {kind: [] for kind in trainers}
    for number in range(rounds):
        for kind in sorted(trainers, reverse=bool(number % 2)):
            start = time.process_time()
            trainers[kind].train_step(lambda: False)
            seconds[kind].append(time.process_time() - start)
    ratios = [a / b for a, b in zip(seconds["deterministic"], seconds["fast"], strict=True)]
    results = {kind: 1000 * statistics.median(times) for kind, times in seconds.items()}
    quarters = statistics.quantiles(ratios, n=4)
    count = sum(parameter.numel() for parameter in trainers["fast"].model.parameters())
    return results | {"ratio": quarters[1], "low": quarters[0], "high": quarters[2], "parameters": count}


def write(args: argparse.Namespace, tables: list[str], costs: dict[str, dict[str, float]], all_same: bool) -> None:
    """Write the report and print it."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    lines = [
        "# The same bytes at any number of processes",
        "",
        f"Commit {commit.strip()}, `python -m scripts.benchmarks.elastic --kills {args.kills} --rounds {args.rounds}`, "
        "seed 0, CPU and gloo, one thread per process.",
        "",
        "`world.reduction=deterministic`, Muon + AdamW, dropout 0.1, 40 steps of 8 micro-batches. A killed run resumes "
        "with another number of processes, from its last checkpoint (every 4 steps). The table shows the first 16 "
        "digits of the sha256 of all tensors in the last checkpoint, and of all losses and gradient norms in "
        "hexadecimal.",
        "",
        "| model | processes | model and optimizer | losses and gradient norms |",
        "| --- | --- | --- | --- |",
        *tables,
        "",
        f"All runs of a model end with the same bytes: **{'yes' if all_same else 'NO'}**.",
        "",
        "## Cost in one process",
        "",
        f"Both reductions take turns, {args.rounds} steps each; batch 16 x 128 in 8 micro-batches, width 128, 4 "
        "layers; CPU milliseconds per step (median), and the median and quartiles of the ratio of neighbouring steps. "
        "Limit: 1.10.",
        "",
        "| model | parameters | fast | deterministic | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for model, cost in costs.items():
        spread = f"{cost['ratio']:.3f} ({cost['low']:.3f} to {cost['high']:.3f})"
        lines.append(
            f"| {model} | {cost['parameters']:,.0f} | {cost['fast']:.1f} | {cost['deterministic']:.1f} | {spread} |"
        )
    args.report.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Compare the bytes, measure the cost, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--kills", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--report", type=Path, default=REPORT)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    tables, is_same, costs = [], [], {}
    with tempfile.TemporaryDirectory() as name:
        for model in args.models:
            rows, same = same_bytes(model, args.kills, Path(name))
            print("\n".join(rows), flush=True)
            tables += rows
            is_same.append(same)
        for model in args.models:
            costs[model] = overhead(model, args.rounds, Path(name))
    write(args, tables, costs, all(is_same))
    sys.exit(0 if all(is_same) else 1)


if __name__ == "__main__":
    main()
