"""Do writes within the context help? Two small experiments with three seeds each, and the cost of a write.

    python -m scripts.experiments.online.run    # everything, about ten minutes on one core; writes reports/online.md
    python -m scripts.experiments.online.run --seeds 0 --steps 20 --report /tmp/online.md

1. Chains: each row is a random walk with its own successor table; attention sees 4 tokens. Trained with
   objective=online; the loss along the row shows whether the table is learned while the row is read.
2. Text read twice: a small Transformer (window 32) is trained on source code, its MLPs become two levels, and without
   further training it reads held-out rows twice; rate 0 is the plain Transformer.
3. Cost: forward and backward of one MLP block whose rows write, as a multiple of the block without writes.
"""

import argparse
import math
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.data.batch import Batch
from nested_learning.data.loader import train_batch, validation_batches
from nested_learning.data.source import Source
from nested_learning.level import Context, Level
from nested_learning.model.hope_attention import HopeAttentionConfig
from nested_learning.model.levels import ContextConfig, LevelConfig
from nested_learning.nn.cms import ContinuumMemory
from nested_learning.nn.init import initialise
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.online_updates import require_grad
from nested_learning.nn.stacking import stack
from nested_learning.objective.online import Online
from nested_learning.report.text import command_line

REPORT = Path(__file__).parents[3] / "reports" / "online.md"
SYMBOLS, JUMP, CHAIN, ROWS = 16, 0.25, 256, 16
TRAINED = {
    "rate 0": {"lr": 0.0},
    "teach, first order": {"lr": 0.05},
    "teach, through": {"lr": 0.05, "gradient": "through"},
    "local, through": {"lr": 0.03, "gradient": "through", "signal": "local"},
}
READ_TWICE = {
    "rate 0": {"rule": "gd", "lr": 0.0},
    "gd 0.003": {"rule": "gd", "lr": 0.003},
    "gd 0.01": {"rule": "gd", "lr": 0.01},
    "muon 0.01": {"rule": "muon", "lr": 0.01, "momentum": 0.0},
    "muon 0.03": {"rule": "muon", "lr": 0.03, "momentum": 0.0},
}
# width, hidden width, rows, tokens of the timed block
BLOCK = (256, 1024, 4, 2048)


def make_levels(period: int, **context: object) -> list[LevelConfig]:
    """Return a level that writes once in `period` tokens, and one that does not."""
    return [
        LevelConfig(name="fast", period=period, context=ContextConfig(**context)),  # type: ignore[arg-type]
        LevelConfig(name="slow", period=0),
    ]


def walk(rows: int, generator: torch.Generator) -> Batch:
    """Draw rows that each follow their own permutation, and jump to a random symbol with probability JUMP."""
    table = torch.stack([torch.randperm(SYMBOLS, generator=generator) for _ in range(rows)])
    tokens = torch.randint(SYMBOLS, (rows, CHAIN + 1), generator=generator)
    jumps = torch.rand(rows, CHAIN + 1, generator=generator) < JUMP
    for t in range(CHAIN):
        following = table.gather(1, tokens[:, t : t + 1])[:, 0]
        tokens[:, t + 1] = torch.where(jumps[:, t], tokens[:, t + 1], following)
    return Batch(tokens[:, :-1], tokens[:, 1:], torch.zeros_like(tokens[:, 1:]))


def train(model: LanguageModel, batches: Callable[[int], Batch], steps: int) -> None:
    """Train with AdamW under objective=online, which is next_token where no level writes."""
    optimizer, objective = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01), Online()
    for step in range(steps):
        batch = batches(step)
        done = objective(model, batch, model.init_state(len(batch.tokens)))
        (done.loss / done.num_targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def nats(model: LanguageModel, batch: Batch) -> Tensor:
    """Return the loss of each position, with the writes that `model` makes."""
    return Online()(model, batch, model.init_state(len(batch.tokens))).nats


def chains(context: dict[str, object], seed: int, steps: int) -> list[float]:
    """Train on chains; return the loss on new ones in the first period, and in each quarter of the row."""
    model = HopeAttentionConfig(
        name="hope_attention", dim=32, num_layers=2, num_heads=2, expansion=2.0, tie_embedding=False, window=4,
        levels=make_levels(16, rule="gd", **context),
    ).build(SYMBOLS, seed)  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    train(model, lambda _: walk(ROWS, generator), steps)
    losses = nats(model, walk(64, torch.Generator().manual_seed(1000 + seed)))
    return [losses[:, :16].mean().item(), *(part.mean().item() for part in losses.chunk(4, dim=1))]


def base(seed: int, steps: int) -> tuple[LanguageModel, Source]:
    """Train a small Transformer on source code; return it and its data."""
    overrides = ["model=transformer", "model.dim=64", "model.num_layers=2", "model.window=32", "data=stdlib"]
    overrides += ["data.batch_size=8", f"seed={seed}"]
    config = make_job(open_option_files(None), overrides).config
    source = config.data.build(seed)
    model = config.model.build(source.vocab_size, seed)
    train(model, lambda step: train_batch(source, seed, step, 0, 1, 8), steps)
    return model, source


def read_twice(trained: LanguageModel, source: Source, context: dict[str, object]) -> list[float]:
    """Stack `trained`, and read 32 held-out rows twice; return the loss of the first and of the second reading."""
    model = HopeAttentionConfig(
        name="hope_attention", dim=64, num_layers=2, num_heads=4, expansion=2.6875, tie_embedding=True, window=32,
        levels=make_levels(32, **context),
    ).build(source.vocab_size, 0)  # fmt: skip
    stack(model, trained)
    tokens = torch.cat([batch.tokens for batch in validation_batches(source, 32, 32)])
    twice = torch.cat([tokens, tokens], dim=1)
    losses = nats(model, Batch(twice[:, :-1], twice[:, 1:], torch.zeros_like(twice[:, 1:])))
    # without the first token of the second reading, which has no prediction
    return [losses[:, : tokens.shape[1] - 1].mean().item(), losses[:, tokens.shape[1] :].mean().item()]


def cost(rule: str, period: int | None, *, is_through: bool) -> float:
    """Return the CPU seconds of forward and backward of one block whose rows write; None: the block does not write."""
    dim, hidden, rows, num_tokens = BLOCK
    options = {"gd": (), "momentum": (("momentum", 0.9),)}[rule]
    clock = None if period is None else Context(period, rule, 1e-3, 0.0, options, "teach", is_through)
    block = ContinuumMemory(dim, [Level("mlp", 0, "", clock)], hidden)
    initialise(block, num_layers=1, seed=0)
    x = torch.randn(rows, num_tokens, dim, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.randn(rows, num_tokens, dim, generator=torch.Generator().manual_seed(1))
    objective, spent = Online(), []
    for _ in range(4):
        start = time.process_time()
        state, losses, done = block.init_state(rows), [], 0
        while done < num_tokens:
            until = min(done + (period or num_tokens), num_tokens)
            state = require_grad(state)
            y, state = block(x[:, done:until], state)
            losses.append(F.mse_loss(y, target[:, done:until], reduction="sum"))
            state = objective.write(losses[-1], state)
            done = until
        torch.stack(losses).sum().backward()
        spent.append(time.process_time() - start)
    return statistics.median(spent[1:])


def row(name: str, runs: list[list[float]]) -> str:
    """Write means and, with two seeds or more, standard errors."""
    cells = []
    for values in zip(*runs, strict=True):
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        cells.append(f"{statistics.mean(values):.3f} ± {error:.3f}")
    return f"| {name} | {' | '.join(cells)} |"


def report(seeds: list[int], steps: int) -> list[str]:
    """Run everything; return the lines of the report."""
    lines = ["## Chains, each row with its own table: nats per token along the row", ""]
    lines += ["| level | first 16 tokens | 1st quarter | 2nd | 3rd | 4th |", "|---|---|---|---|---|---|"]
    for name, context in TRAINED.items():
        lines.append(row(name, [chains(context, seed, steps) for seed in seeds]))
        print(lines[-1], flush=True)
    models = [base(seed, steps) for seed in seeds]
    lines += ["", "## Text read twice, with untrained writes: nats per byte", ""]
    lines += ["| level | first reading | second reading |", "|---|---|---|"]
    for name, context in READ_TWICE.items():
        lines.append(row(name, [read_twice(*model, context) for model in models]))
        print(lines[-1], flush=True)
    plain = cost("gd", None, is_through=False)
    lines += ["", "## Cost: forward and backward of one block, as a multiple of the block without writes", ""]
    lines += ["| period | gd, first order | momentum, first order | gd, through |", "|---|---|---|---|"]
    for period in (64, 256, 512):
        cells = [("gd", False), ("momentum", False), ("gd", True)]
        spent = [cost(rule, period, is_through=through) / plain for rule, through in cells]
        lines.append(f"| {period} | {' | '.join(f'{each:.2f}' for each in spent)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run the experiments and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    dim, hidden, rows, num_tokens = BLOCK
    lines = [
        "# Levels that write within the context",
        "",
        f"`{command_line('scripts.experiments.online.run')}`, commit {commit}; mean and standard error over",
        f"{len(options.seeds)} seeds, {options.steps} training steps, one CPU thread.",
        f"Chains: {SYMBOLS} symbols, {CHAIN} tokens, a jump with",
        f"probability {JUMP}; with a known table the loss is 1.179",
        f"nats, with random guessing {math.log(SYMBOLS):.3f}.",
        "Attention sees 4 tokens there and 32 in the text, of 256 bytes a row; a level writes every 16 and 32 tokens.",
        f"Cost: width {dim}, hidden width {hidden}, {rows} rows of {num_tokens} tokens, process CPU time, median of 3.",
        "",
        *report(options.seeds, options.steps),
        "",
    ]
    options.report.parent.mkdir(exist_ok=True)
    options.report.write_text("\n".join(lines), encoding="utf-8")
    print(f"written: {options.report}")


if __name__ == "__main__":
    main()
