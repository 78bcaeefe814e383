"""The training loop compared with a plain PyTorch loop and with nanochat's model: speed, memory, overhead, start-up.

    python -m scripts.benchmarks.core                          # writes reports/training_core.md
    python -m scripts.benchmarks.core --nanochat ~/nanochat    # also a checkout of github.com/karpathy/nanochat

Width 256, 4 layers, 4 heads, vocabulary 4096, 256 tokens, 4 rows a step, float32, one CPU thread. Each loop runs in
processes of its own, in turn over --rounds rounds, so that other load on the machine affects all of them alike: compare
the ratios. The time of a step is that of the whole loop, from one step's start to the next, in CPU seconds; ours is
`Trainer` with its logs, checks and loader. Peak memory is the maximum resident size of the process.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "reports" / "training_core.md"
DIM, LAYERS, HEADS, VOCAB, LENGTH, ROWS = 256, 4, 4, 4096, 256, 4
# hidden width of the MLP, as model=transformer has it
HIDDEN = 688
LOOPS = ["plain, AdamW", "ours, AdamW", "ours, Muon and AdamW", "nanochat, its optimizer"]
START = ["model=transformer", "model=transformer data=copy", "model=hope"]


# CPU seconds of this process, all threads
cpu = time.process_time


def ours(optim: str, steps: int) -> dict[str, Any]:
    """Train by `Trainer` on random tokens; return CPU seconds of steps, and where the time of the run went."""
    import numpy as np

    from nested_learning.command.compose import make_job
    from nested_learning.config.option_files import open_option_files
    from nested_learning.data.source import Row
    from nested_learning.phase.train import run
    from nested_learning.train.trainer import Trainer

    class Tokens:
        """Random rows."""

        vocab_size, seq_len, tokenizer, fingerprint = VOCAB, LENGTH, None, "random"

        def num_rows(self, split: str) -> int:
            """Count the rows of an epoch."""
            return 4096

        def row(self, split: str, epoch: int, index: int) -> Row:
            """Draw a row."""
            tokens = np.random.default_rng(index).integers(0, VOCAB, LENGTH + 1)
            return Row(tokens[:-1], tokens[1:], np.zeros(LENGTH, np.int64))

    shape = [f"model.dim={DIM}", f"model.num_layers={LAYERS}", f"model.num_heads={HEADS}"]
    rhythm = [f"steps={steps}", "val_every=1000000", "save_every=1000000", "data.val_rows=1"]
    with tempfile.TemporaryDirectory() as out:
        lines = ["model=transformer", f"optim={optim}", "data=copy", f"data.batch_size={ROWS}", "device=cpu"]
        config = make_job(open_option_files(None), [*lines, *shape, *rhythm, f"out={out}", "name=x"]).config
        config.data.build = lambda *_: Tokens()
        starts, kernels = [], [0.0]
        Trainer.train_step = timed(Trainer.train_step, lambda before, _: starts.append(before))
        for name in ("backward", "update"):
            method = timed(vars(Trainer)[name], lambda before, after: kernels.append(after - before))
            setattr(Trainer, name, method)
        run(config)
        summary = json.loads((Path(out) / "x" / "summary.json").read_text())
    # of the steps that are counted, from the beginning of one to that of the next
    counted = steps - 3
    added = [starts[-1] - starts[2], -sum(kernels[1 + 2 * 2 : 1 + 2 * (steps - 1)])]
    return {"starts": starts, "parameters": summary["parameters"], "overhead": sum(added) / counted}


def timed(function: Callable[..., Any], note: Callable[[float, float], None]) -> Callable[..., Any]:
    """Return `function`, which passes its start and end to `note`."""

    def called(*given: Any, **named: Any) -> Any:
        before = cpu()
        result = function(*given, **named)
        note(before, cpu())
        return result

    return called


def plain(steps: int) -> dict[str, Any]:
    """Train the same architecture in a plain loop: forward, backward, clip, fused AdamW; the loss is read each step."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_flush_denormal(True)
    angle = torch.outer(torch.arange(LENGTH), 10000 ** (-torch.arange(0, DIM // HEADS, 2) / (DIM // HEADS)))
    cos, sin = angle.cos(), angle.sin()

    def rotate(x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.RMSNorm(DIM) for _ in range(2))
            self.query_norm, self.key_norm = nn.RMSNorm(DIM // HEADS), nn.RMSNorm(DIM // HEADS)
            self.qkv, self.output = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM, bias=False)
            self.up, self.down = nn.Linear(DIM, 2 * HIDDEN, bias=False), nn.Linear(HIDDEN, DIM, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(self.norms[0](x)).view(ROWS, LENGTH, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            q, k = rotate(self.query_norm(q)), rotate(self.key_norm(k))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.output(y.transpose(1, 2).flatten(2))
            gate, value = self.up(self.norms[1](x)).chunk(2, -1)
            return x + self.down(F.silu(gate) * value)

    embedding = nn.Embedding(VOCAB, DIM)
    nn.init.normal_(embedding.weight, std=1 / DIM)
    body = nn.Sequential(*(Block() for _ in range(LAYERS)), nn.RMSNorm(DIM))
    parameters = [*embedding.parameters(), *body.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def step(tokens: torch.Tensor) -> None:
        x = embedding(tokens[:, :-1])
        logits = F.linear(body(F.rms_norm(x, x.shape[-1:])), embedding.weight)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return loop(step, steps) | {"parameters": sum(parameter.numel() for parameter in parameters)}


def nanochat(checkout: Path, steps: int) -> dict[str, Any]:
    """Train nanochat's model by its optimizer, as its script does for one process; what it compiles stays eager."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    sys.path.insert(0, str(checkout))
    import torch
    from nanochat.gpt import GPT, GPTConfig

    torch.set_flush_denormal(True)
    sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_kv_head": HEADS, "n_embd": DIM}
    model = GPT(GPTConfig(sequence_len=LENGTH, vocab_size=VOCAB, **sizes))
    model.init_weights()
    made = model.setup_optimizer() if "setup_optimizer" in dir(GPT) else model.setup_optimizers()
    optimizers = list(made) if isinstance(made, list | tuple) else [made]

    def step(tokens: torch.Tensor) -> None:
        loss = model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        loss.item()

    return loop(step, steps) | {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def loop(step: Callable[[Any], None], steps: int) -> dict[str, Any]:
    """Make `steps` steps on random tokens; return when each began."""
    import torch

    generator, starts = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        starts.append(cpu())
        step(torch.randint(VOCAB, (ROWS, LENGTH + 1), generator=generator))
    return {"starts": starts}


def start(lines: list[str]) -> dict[str, Any]:
    """Train one step as the command does; return the CPU seconds from the beginning of the process to its end."""
    from nested_learning.command import main as cli
    from nested_learning.errors import NestedLearningError

    def patch(config: Any) -> Any:
        from nested_learning.train.trainer import Trainer

        step, validate, spent = Trainer.train_step, Trainer.validate, []

        def measured(self: Trainer) -> None:
            before = cpu()
            validate(self)
            spent.append(cpu() - before)

        def first(self: Trainer, *given: Any) -> Any:
            before = cpu()
            step(self, *given)
            print(json.dumps({"start": cpu(), "step": cpu() - before, "validation": spent[0]}), flush=True)
            os._exit(0)

        Trainer.train_step, Trainer.validate = first, measured
        return run_phase(config)

    run_phase, cli.run_phase = cli.run_phase, patch
    with tempfile.TemporaryDirectory() as out:
        cli.main([*lines, f"out={out}", "device=cpu"])
    raise NestedLearningError("the run ended before its first step")


def child(given: argparse.Namespace) -> None:
    """Measure one loop in this process; print the result as JSON."""
    if given.child == "start":
        start(given.lines)
    import torch

    torch.set_num_threads(1)
    match given.child:
        case "plain, AdamW":
            result = plain(given.steps)
        case "ours, AdamW":
            result = ours("adamw", given.steps)
        case "ours, Muon and AdamW":
            result = ours("mixed_muon", given.steps)
        case _:
            result = nanochat(given.nanochat, given.steps)
    starts = result.pop("starts")
    # the first steps warm caches up, and the last has no beginning after it
    seconds = [after - before for before, after in itertools.pairwise(starts[2:])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result | {"step": statistics.median(seconds), "peak_mib": peak}), flush=True)


def run_child(given: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Measure in a separate process."""
    command = [sys.executable, "-m", "scripts.benchmarks.core", "--steps", str(given.steps), *more]
    if given.nanochat is not None:
        command += ["--nanochat", str(given.nanochat)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lay out speed and memory, each next to its ratio to the first loop of the same round."""
    first = results[LOOPS[0]]
    lines = [
        "| | parameters | tokens per CPU-second | x plain loop | peak MiB | x plain loop |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        rate = statistics.median(ROWS * LENGTH / each["step"] for each in result)
        faster = statistics.median(base["step"] / each["step"] for base, each in zip(first, result, strict=True))
        peak = statistics.median(each["peak_mib"] for each in result)
        larger = statistics.median(
            each["peak_mib"] / base["peak_mib"] for base, each in zip(first, result, strict=True)
        )
        lines.append(
            f"| {name} | {result[0]['parameters']:,} | {rate:,.0f} | {faster:.2f} | {peak:,.0f} | {larger:.2f} |"
        )
    return lines


def overhead(result: list[dict[str, Any]]) -> str:
    """Say what is neither forward, backward nor optimizer: the loader, counting, checks, the norm, logs."""
    milliseconds = 1000 * statistics.median(each["overhead"] for each in result)
    return (
        f"Loader, counting, the norm of the gradient, finite checks, clocks and logs to console and file take "
        f"{milliseconds:.2f} CPU ms a step: {milliseconds / 100:.1%} of a step of 100 ms."
    )


def start_row(line: str, result: dict[str, Any]) -> str:
    """Write one start-up as a row of the table."""
    return f"| `{line}` | {result['start']:.2f} | {result['validation']:.2f} | {result['step']:.2f} |"


def main() -> None:
    """Read the command line, measure, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nanochat", type=Path, help="a checkout; left out without one")
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("--child", choices=[*LOOPS, "start"], help=argparse.SUPPRESS)
    parser.add_argument("lines", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given)
        return
    loops = [name for name in LOOPS if given.nanochat is not None or not name.startswith("nanochat")]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in loops}
    for _ in range(given.rounds):
        for name in loops:
            results[name].append(run_child(given, "--child", name))
            print(name, {key: value for key, value in results[name][-1].items() if key != "phases"}, flush=True)
    starts = {
        line: [run_child(given, "--child", "start", *line.split()) for _ in range(given.rounds)] for line in START
    }
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    text = [
        "# The training loop", "",
        f"`python -m scripts.benchmarks.core --steps {given.steps} --rounds {given.rounds}"
        f"{' --nanochat <checkout>' if given.nanochat else ''}`, commit {commit.stdout.strip()}. Width {DIM},",
        f"{LAYERS} layers, {HEADS} heads, vocabulary {VOCAB}, {LENGTH} tokens, {ROWS} rows a step, float32, one CPU",
        f"thread; median of {given.rounds} rounds in which the loops take turns. A step is the whole loop; ours",
        "includes its logs (every tenth step, the default), checks and loader.", "",
        "## Speed and memory", "", *rows_of(results), "",
        "## Overhead of the loop", "", overhead(results["ours, AdamW"]), "",
        "## Start-up: from the command to the end of the first step", "",
        "| `python train.py ...` | CPU seconds, lowest of the rounds | of it validation | of it the first step |",
        "|---|---|---|---|",
        *(start_row(line, min(result, key=lambda each: each["start"])) for line, result in starts.items()), "",
    ]  # fmt: skip
    given.report.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
