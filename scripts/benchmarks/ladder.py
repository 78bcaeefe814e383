"""The plan of a run compared with measurements, at widths that a CPU can train: time of a step and memory, as ratios.

    python -m scripts.benchmarks.ladder    # writes reports/ladder.md

The smallest width measures how many operations a second this machine reaches for each model. The plan's times for the
other widths, computed from that, are compared with the measured times; the plan's memory with the growth of the
process. One thread, float32; each measurement runs in a process of its own.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODELS, DIMS, LENGTH, ROWS, VOCAB = ["transformer", "titans_lmm", "hope"], [128, 192, 256], 256, 4, 4096


def measure(name: str, dim: int, steps: int) -> dict[str, float]:
    """Plan a model, then train it `steps` steps; return seconds, bytes, and what was planned."""
    import torch

    from nested_learning.command.compose import make_job
    from nested_learning.config.option_files import open_option_files
    from nested_learning.data.batch import Batch
    from nested_learning.optim.build import build_optimizer
    from nested_learning.planning.flops import flops
    from nested_learning.planning.footprint import activations

    torch.set_num_threads(1)
    lines = [f"model={name}", f"model.dim={dim}", "model.num_layers=4", "model.num_heads=4", "optim=adamw"]
    config = make_job(open_option_files(None), lines).config
    cost = flops(config.model, config.objective, VOCAB, LENGTH).total
    kept = activations(config.model, config.objective, VOCAB, LENGTH, torch.float32).of(ROWS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    model, objective = config.model.build(VOCAB, 0), config.objective.build()
    optimizer = build_optimizer(config.optim, list(model.named_parameters()), model.levels, ROWS * LENGTH, steps)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    states = sum(tensor.nbytes for tensor in optimizer.state_dict().values())
    seconds = []
    for step in range(steps):
        tokens = torch.randint(VOCAB, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(step))
        batch = Batch(tokens[:, :-1], tokens[:, 1:], torch.zeros_like(tokens[:, 1:]))
        start = time.process_time()
        (objective(model, batch, model.init_state(ROWS)).loss / (ROWS * LENGTH)).backward()
        seconds.append(time.process_time() - start)
        optimizer.step(step)
        optimizer.zero_grad()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {
        "operations": cost * ROWS * LENGTH,
        "seconds": statistics.median(seconds[1:]),
        "planned": 2 * weights + states + kept,
        "grown": grown,
    }


def main() -> None:
    """Read the command line, measure, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.child[0], int(given.child[1]), given.steps)))
        return
    lines = [
        "# Plans compared with measurements", "",
        f"`python -m scripts.benchmarks.ladder --steps {given.steps}`. 4 layers, vocabulary {VOCAB}, {LENGTH} tokens,",
        f"{ROWS} rows, float32, one CPU thread, memories by torch's operators. The speed at the",
        "smallest width sets the plan of the others, which use the machine better. The growth of the process includes,",
        "besides the plan (weights, gradients, optimizer, activations), temporary buffers, the allocator's overhead.",
        "",
        "| model | width | CPU seconds, forward and backward | measured / planned | growth, MiB | measured / planned |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for name in MODELS:
        rate = 0.0
        for dim in DIMS:
            command = [
                sys.executable,
                "-m",
                "scripts.benchmarks.ladder",
                "--steps",
                str(given.steps),
                "--child",
                name,
                str(dim),
            ]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            measured = json.loads(done.stdout.splitlines()[-1])
            rate = rate or measured["operations"] / measured["seconds"]
            time_ratio = measured["seconds"] / (measured["operations"] / rate)
            lines.append(
                f"| {name} | {dim} | {measured['seconds']:.3f} | {time_ratio:.2f} | {measured['grown'] / 2**20:,.0f} "
                f"| {measured['grown'] / measured['planned']:.2f} |"
            )
            print(lines[-1], flush=True)
    (ROOT / "reports" / "ladder.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
