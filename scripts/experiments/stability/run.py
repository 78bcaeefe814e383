"""Settings that make runs diverge or memories saturate, and the values that cure it.

    python -m scripts.experiments.stability.run    # trains, evaluates, writes docs/stability_journal.md
    python -m scripts.experiments.stability.run --report-only    # only the journal, from existing runs
    python -m scripts.experiments.stability.run --seeds 0 --out runs/trial --report runs/trial/journal.md

Each case varies one setting. Runs are small (seconds of one CPU core): they show where a setting breaks, not how good a
model is. The same command resumes where it stopped.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nested_learning.command import main as cli
from scripts.experiments.stability.report import write_journal

ROOT = Path(__file__).parents[3]
SIZE = (
    "data=stdlib", "data.seq_len=128", "data.batch_size=8", "data.val_rows=32", "model.dim=32", "model.num_layers=2",
    "model.num_heads=2", "steps=80", "val_every=80", "save_every=80", "log_every=5", "sampling.num_tokens=1",
    "device=cpu",
)  # fmt: skip
LENGTH_FACTOR = 8
# what a run is asked: how well it reads on beyond the length of training, and what its memory does there
BEYOND = ("evals=[perplexity]", f"evals.perplexity.length_factor={LENGTH_FACTOR}", "evals.perplexity.num_texts=16")
NORMS = ("evals=[memory]", f"evals.memory.length_factor={LENGTH_FACTOR}", "evals.memory.num_rows=8")
STUDY = ("evals=[perplexity]", "evals.perplexity.length_factor=2", "evals.perplexity.num_texts=16", "memory=memorize")


@dataclass(frozen=True)
class Setting:
    """One value of what a case changes: its name in the tables, the overrides of its training, what it is asked."""

    name: str
    overrides: tuple[str, ...]
    questions: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Case:
    """What is changed, why it may break, and the settings; `measured` are figures beside the loss, by heading."""

    name: str
    title: str
    why: str
    settings: tuple[Setting, ...]
    measured: tuple[tuple[str, str, str], ...] = ()


LAST = f"512-{128 * LENGTH_FACTOR}"
READ_ON = (
    ("bits per byte at 32-128", "perplexity", "bpb/32-128"),
    (f"at {LAST}", "perplexity", f"bpb/{LAST}"),
)
GROWTH = (*READ_ON, ("norm at 128", "memory", "read/norm/32-128"), (f"norm at {LAST}", "memory", f"read/norm/{LAST}"))


def rates() -> Case:
    """Return the case of a deep memory whose inner steps are too large."""
    settings = [
        Setting(f"max_rate={rate}", ("model=titans_deep", "model.memory.chunk=16", f"model.memory.max_rate={rate}"))
        for rate in (0.1, 0.4, 1.6, 6.4)
    ]
    why = (
        "A memory of two layers has no closed form of its step: a chunk's gradients are taken at its start and "
        "added up, so that the step grows with the chunk, and the memory can leave the region where it learns."
    )
    return Case("rate", "The inner steps of a deep memory: `model.memory.max_rate`", why, tuple(settings))


def adding() -> Case:
    """Return the case of memories that add, forget or correct, read on beyond the length of training."""
    models = {"adds": "linear_attention", "adds and forgets": "retnet", "corrects": "deltanet"}
    settings = [
        Setting(f"{name} ({model})", (f"model={model}", "model.memory.chunk=16"), (BEYOND, NORMS))
        for name, model in models.items()
    ]
    why = (
        "What only adds has a norm that grows with the text; past the length of training its reads leave the range "
        "that the layers above know. Retention, or an objective that corrects what is there, bounds it."
    )
    return Case("adding", "Memories that add, read on", why, tuple(settings), GROWTH)


def retention() -> Case:
    """Return the case of momentum with and without retention."""
    base = ("model=titans_lmm", "model.memory.chunk=16")
    settings = [
        Setting("momentum, retention (as shipped)", base, (BEYOND, NORMS)),
        Setting("momentum, no retention", (*base, "model.memory.retention=none"), (BEYOND, NORMS)),
        Setting("neither", (*base, "model.memory.retention=none", "model.memory.momentum=none"), (BEYOND, NORMS)),
    ]
    why = "Momentum goes on writing after a surprise has passed; without retention nothing takes it back."
    return Case("retention", "Momentum without retention: `model.memory.retention`", why, tuple(settings), GROWTH)


def outer() -> Case:
    """Return the case of the optimizer's rate, with and without clipping."""
    settings = [
        Setting(
            f"lr x {factor}, {'clip=1.0' if clip else 'clip=null'}",
            (
                "model=hope", "model.memory.chunk=16", "model.generating_chunk=16",
                *(f"optim.groups.{group}.lr={lr * factor}" for group, lr in enumerate((3e-3, 1e-2, 3e-3))),
                f"optim.clip={'1.0' if clip else 'null'}",
            ),
        )
        for factor, clip in ((1, True), (10, True), (10, False), (100, True), (100, False))
    ]  # fmt: skip
    why = (
        "HOPE's memories generate what its memories write: an outer step that is too large changes what is written, "
        "and what it is written with, at once."
    )
    return Case("outer", "The optimizer's rate on HOPE: `optim.groups.<n>.lr`, `optim.clip`", why, tuple(settings))


def memorize() -> Case:
    """Return the case of study: how large steps at test time may be."""
    rates = ("0.01", "0.1", "1.0", "10.0", "100.0")
    kinds = {"transformer, level mlp": ("transformer", "mlp"), "hope_attention, level slow": ("hope_attention", "slow")}
    settings = []
    for name, (model, level) in kinds.items():
        asked = tuple((*STUDY, f"memory.lr={lr}", f"memory.levels=[{level}]", f"name=lr{lr}") for lr in rates)
        settings.append(Setting(name, (f"model={model}",), asked))
    why = (
        "`memory.lr` multiplies every write. Of a level that never wrote in training it is a rate of plain gradient "
        "descent on each piece of the text, and nothing bounds it."
    )
    return Case("study", "Study at test time: `memory.lr`", why, tuple(settings))


CASES = (rates(), adding(), retention(), outer(), memorize())


def complete(case: Case, setting: Setting, seed: int, out: Path) -> None:
    """Train a run and ask it, unless that is done; what diverges is noted beside the run."""
    name = run_name(case, setting, seed)
    note = out / f"{name}.json"
    if note.exists():
        return
    notes: dict[str, int] = {}
    trained = [*SIZE, *setting.overrides, f"seed={seed}", f"out={out}", f"name={name}"]
    notes["train"] = run(trained)
    for question in setting.questions if notes["train"] == 0 else ():
        label = next((word.removeprefix("name=") for word in question if word.startswith("name=")), question[0])
        notes[label] = run(["phase=eval", f"checkpoint={out / name}", "device=cpu", *question])
    note.write_text(json.dumps(notes) + "\n", encoding="utf-8")


def run(overrides: list[str]) -> int:
    """Run a command of train.py; return its status. An interrupt ends the script, which goes on when run again."""
    status = cli.main(overrides)
    if status == cli.INTERRUPTED:
        raise KeyboardInterrupt
    return status


def run_name(case: Case, setting: Setting, seed: int) -> str:
    """Name a run: always the same, so that running the script again goes on with it."""
    number = [each.name for each in case.settings].index(setting.name)
    return f"{case.name}_{number}_{seed}"


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/stability"), help="where the runs are kept")
    parser.add_argument("--report", type=Path, default=ROOT / "docs/stability_journal.md")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    return parser.parse_args(arguments)


def main() -> int:
    """Complete the runs, write the journal, return the exit status."""
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.report_only:
        for seed in options.seeds:
            for case in CASES:
                for setting in case.settings if options.cases is None or case.name in options.cases else ():
                    complete(case, setting, seed, options.out)
    print(write_journal(CASES, options.out, options.report, run_name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
