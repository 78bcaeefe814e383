"""Learn classes task after task: tiny classifiers and memories over three orders of CLINC150, and language models.

    python -m scripts.experiments.class_incremental.run --data ../shared/data    # all; reports/class_incremental.md
    python -m scripts.experiments.class_incremental.run --parts classifier --learners memory joint
    python -m scripts.experiments.class_incremental.run --report-only    # only the report, from existing results

Results are kept in <out>, one file for each learner and order; the same command resumes where it stopped.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import torch

from nested_learning.data.tasks.classes import ClassesConfig
from scripts.experiments.class_incremental.learners import Learner, Texts, learn
from scripts.experiments.class_incremental.models import MODELS, complete, evaluate_reading
from scripts.experiments.class_incremental.report import write_report

ROOT = Path(__file__).parents[3]
PARTS = ("classifier", "models", "reading")
# optimizers are those of configs/optim, at their own rates
LEARNERS = {
    "joint": Learner(is_joint=True),
    "sequential": Learner(),
    "memory": Learner(kind="memory", rate=0.03),
    "memory_fast": Learner(kind="memory", rate=0.1),
    "memory_dgd": Learner(kind="memory", rate=0.03, rule="dgd"),
    "attention": Learner(kind="attention", rate=20.0),
    "m3": Learner(optim="m3"),
    "cms": Learner(periods=(0, 512, 4096)),
    "replay": Learner(replay=5),
    "dgd": Learner(optim="dgd"),
    "linear": Learner(kind="linear"),
    "sequential_once": Learner(epochs=1),
    "ewc": Learner(kind="ewc", strength=1000.0),
}


def main() -> None:
    """Complete the selected parts, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the folder with continual/")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the order of tasks and of the weights"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "class_incremental")
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "class_incremental.md")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.report_only:
        for seed in options.seeds:
            if "classifier" in options.parts:
                classify(options, seed)
            if "models" in options.parts:
                for name in options.models:
                    complete(name, seed, options.data, options.out)
            if "reading" in options.parts:
                evaluate_reading(seed, options.out)
    write_report(options.report, options.out, options.seeds)


def classify(options: argparse.Namespace, seed: int) -> None:
    """Train every selected learner on the tasks in the order `seed`, unless its results exist."""
    folder = options.data / "continual" / "clinc150"
    texts = None
    for name in options.learners:
        file = options.out / f"classifier-{name}-{seed}.json"
        if file.exists():
            continue
        if texts is None:
            paths = {"path": str(folder / "train.jsonl"), "validation_path": str(folder / "val.jsonl")}
            texts = Texts(ClassesConfig(**paths, order=seed).build(0))
        rows, seconds = learn(LEARNERS[name], texts, seed)
        results = {"learner": repr(LEARNERS[name]), "seed": seed, "commit": commit(), "cpu_seconds": seconds}
        file.write_text(json.dumps(results | {"rows": rows}))
        print(f"{time.strftime('%X')} {file.stem}: {seconds:.0f} CPU seconds", flush=True)


def commit() -> str:
    """Return the commit that is checked out."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
