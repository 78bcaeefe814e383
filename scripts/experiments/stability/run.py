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
from pathlib import Path

from nested_learning.command import main as cli
from scripts.experiments.stability.report import write_journal
from scripts.experiments.stability.trials import CASES, SIZE, Case, Setting, run_name

ROOT = Path(__file__).parents[3]


def complete(case: Case, setting: Setting, seed: int, out: Path) -> None:
    """Train and evaluate a run, unless that is done; <out>/<run>.json keeps the exit status of each command."""
    name = run_name(case, setting, seed)
    note = out / f"{name}.json"
    if note.exists():
        return
    notes: dict[str, int] = {}
    trained = [*SIZE, *setting.overrides, f"seed={seed}", f"out={out}", f"name={name}"]
    notes["train"] = run(trained)
    for evaluation in setting.evaluations if notes["train"] == 0 else ():
        label = next((word.removeprefix("name=") for word in evaluation if word.startswith("name=")), evaluation[0])
        notes[label] = run(["phase=eval", f"checkpoint={out / name}", "device=cpu", *evaluation])
    note.write_text(json.dumps(notes) + "\n", encoding="utf-8")


def run(overrides: list[str]) -> int:
    """Run a command of train.py; return its exit status. An interrupt ends the script; the same command resumes."""
    status = cli.main(overrides)
    if status == cli.INTERRUPTED:
        raise KeyboardInterrupt
    return status


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
    print(write_journal(CASES, options.out, options.report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
