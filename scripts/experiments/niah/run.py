"""A small needle in a haystack: which model finds it, at which depth, how far beyond the training length, at what cost.

    python -m scripts.experiments.niah.run --data ../shared/data    # trains, evaluates, writes reports/niah.md
    python -m scripts.experiments.niah.run --seeds 0 --only titans_lmm    # one run; the same command resumes
    python -m scripts.experiments.niah.run --report-only    # only the report, from existing runs
    python -m scripts.experiments.niah.run --quick --out runs/quick --report runs/quick/report.md

Runs are trained one after the other with one CPU thread; their output goes to <out>/<run>.log. `--data` is a folder
with text/gutenberg, for haystacks of books, and babi; without it these evaluations are skipped.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.report import SUMMARY
from nested_learning.report.runs import last_of_each_key, refuse_other_settings, use_one_thread, write_machine
from scripts.experiments.niah.report import write_report

ROOT = Path(__file__).parents[3]
MODELS = {
    "titans_lmm": ("experiment=niah", "model=titans_lmm", "model.memory.chunk=32"),
    "window": ("experiment=niah", "model=transformer", "model.window=16"),
    "babilong": (
        "experiment=babilong",
        "model=titans_lmm",
        "model.memory.chunk=32",
        "data.path={data}/babi/en-10k",
        "steps=400",
    ),
}
# trained with the first seed only, and only with --data
ONCE = ("babilong",)
STREAMS = (8192, 65536, 524288)
QUICK = ("steps=2", "val_every=2", "save_every=2", "data.val_rows=2", "data.batch_size=2")
# {data} stands for --data; evaluations with it are skipped without
BOOK = "{data}/text/gutenberg/crime_and_punishment.txt"
STORIES = "{data}/babi/en-10k"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of trained `models` and `seeds` (None: all): a pack, its overrides, and a memory policy.

    Its reports are renamed to `name`.
    """

    name: str
    pack: str
    overrides: tuple[str, ...]
    models: tuple[str, ...] = ("titans_lmm",)
    memory: str = "online"
    seeds: tuple[int, ...] | None = None


def sizes(pack: str, lengths: str, depths: str, num_examples: int, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the overrides of a pack of needles whose values are numbers of three digits."""
    given = ("digits=3", "num_generated=4", "batch_size=5", f"lengths=[{lengths}]", f"depths=[{depths}]")
    return tuple(f"evals.{pack}.{line}" for line in (*given, f"num_examples={num_examples}", *more))


EVALUATIONS = [
    Evaluation("niah", "niah", sizes("niah", "256,512,1024,2048", "0,25,50,75,100", 12), ("titans_lmm", "window")),
    Evaluation("far", "niah", sizes("niah", "4096,8192", "0,25,50,75,100", 4)),
    Evaluation("frozen", "niah", sizes("niah", "256,1024", "0,25,50,75,100", 8), memory="frozen"),
    Evaluation(
        "studied", "niah", (*sizes("niah", "256,1024", "0,25,50,75,100", 8), "memory.levels=[titan]"), memory="memorize"
    ),
    Evaluation("passkey", "passkey", sizes("passkey", "256,1024,4096", "0,50,100", 8), ("titans_lmm", "window")),
    Evaluation(
        "books", "niah", sizes("niah", "512", "0,50,100", 20, ("tasks=[niah_single_2]", f"path={BOOK}")), seeds=(0,)
    ),
    Evaluation("multikey", "niah", sizes("niah", "256,512", "0,50,100", 20, ("tasks=[niah_multikey_2]",)), seeds=(0,)),
    Evaluation(
        "babilong",
        "babilong",
        (
            f"evals.babilong.path={STORIES}",
            "evals.babilong.tasks=[qa1]",
            "evals.babilong.lengths=[0,256,512,1024]",
            "evals.babilong.num_examples=64",
            "evals.babilong.num_generated=2",
            "evals.babilong.batch_size=16",
        ),
        ("babilong",),
        seeds=(0,),
    ),
]


def complete(model: str, seed: int, options: argparse.Namespace) -> None:
    """Train <out>/<model>-<seed> and run the missing evaluations; the output goes to <out>/<model>-<seed>.log."""
    name, out = f"{model}-{seed}", options.out
    overrides = [line.format(data=options.data) for line in MODELS[model]]
    quick = QUICK if options.quick else ()
    given = (*overrides, *quick, f"seed={seed}", f"name={name}", f"out={out}", "device=cpu", "evals=[]")
    config = make_job(open_option_files(None), last_of_each_key(given)).config
    with (out / f"{name}.log").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        if (out / name / SUMMARY).exists():
            refuse_other_settings(config, out / name)
        else:
            from nested_learning.phase import train

            train.run(config)
        for evaluation in EVALUATIONS:
            lacks_data = options.data is None and any("{data}" in line for line in evaluation.overrides)
            if model in evaluation.models and seed in (evaluation.seeds or options.seeds) and not lacks_data:
                evaluate(out / name, evaluation, options)
    if model == "titans_lmm" and seed == options.seeds[0]:
        for length in STREAMS[:1] if options.quick else STREAMS:
            stream(out / name, length)


def evaluate(run: Path, evaluation: Evaluation, options: argparse.Namespace) -> None:
    """Evaluate the trained model, and keep the reports under the name of the evaluation."""
    from nested_learning.phase import eval as phase

    folder = run / "evals"
    if (folder / f"{evaluation.name}.answer.json").exists():
        return
    overrides = [line.format(data=options.data) for line in evaluation.overrides]
    if options.quick:
        overrides.append(f"evals.{evaluation.pack}.num_examples=1")
    data = ["data=needles"] if evaluation.pack != "babilong" else []
    lines = [
        "phase=eval",
        f"checkpoint={run}",
        f"evals=[{evaluation.pack}]",
        "device=cpu",
        f"memory={evaluation.memory}",
    ]
    phase.run(make_job(open_option_files(None), last_of_each_key([*lines, *data, *overrides])).config)
    label = evaluation.pack + ("" if evaluation.memory == "online" else f"_{evaluation.memory}")
    written = [
        path for path in folder.iterdir() if path.name.startswith((f"{evaluation.pack}.", f"{evaluation.pack}_"))
    ]
    for path in sorted(written):
        is_answer = path.name.startswith(label)
        rest = path.name.removeprefix(label if is_answer else evaluation.pack)
        if not rest.startswith((".answer", ".baseline")):
            path.rename(folder / f"{evaluation.name}{'.answer' if is_answer else '.baseline'}{rest}")


def stream(run: Path, length: int) -> None:
    """Measure a prompt of `length` tokens in a process of its own; keep the result with the run's reports."""
    path = run / "evals" / f"stream-{length}.json"
    if not path.exists():
        command = [sys.executable, "-m", "scripts.experiments.niah.run", "--stream", str(run), str(length)]
        path.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(run: Path, length: int) -> str:
    """Read one prompt of `length` tokens; return the CPU seconds and the peak memory as JSON."""
    import numpy as np
    import torch

    from nested_learning import Session
    from nested_learning.data.tasks.needle_tasks import TASKS
    from nested_learning.data.tasks.prompts import Prompts
    from nested_learning.train.stopwatch import peak_memory_bytes

    session = Session.open(run, device="cpu")
    assert session.tokenizer is not None
    prompt = Prompts(TASKS["niah_single_1"], session.tokenizer).make(np.random.default_rng(0), length, 0.5, 0)
    tokens = torch.from_numpy(np.concatenate([prompt.context, prompt.question]))
    # warm up: the first call allocates buffers and builds caches
    session.fork().feed(tokens[:1024])
    before, started = peak_memory_bytes(torch.device("cpu")), time.process_time()
    session.feed(tokens)
    seconds = time.process_time() - started
    return json.dumps(
        {"tokens": length, "cpu_seconds": seconds, "before": before, "peak": peak_memory_bytes(torch.device("cpu"))}
    )


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder with text/gutenberg and babi")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/niah"), help="where the runs are kept")
    parser.add_argument("--report", type=Path, default=ROOT / "reports/niah.md", help="figures/ goes next to it")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to try the script; use another --out")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    parser.add_argument("--stream", nargs=2, metavar=("RUN", "TOKENS"), help="measure the time and memory of a prompt")
    return parser.parse_args()


def main() -> int:
    """Complete the runs seed by seed, so that the first results come early; write the report."""
    options = read_options()
    use_one_thread()
    if options.stream:
        print(measure(Path(options.stream[0]), int(options.stream[1])))
        return 0
    if not options.report_only:
        options.out.mkdir(parents=True, exist_ok=True)
        write_machine(options.out, "scripts.experiments.niah.run", jobs=1)
        for seed in options.seeds:
            for model in options.only:
                if model not in ONCE or (options.data is not None and seed == options.seeds[0]):
                    complete(model, seed, options)
                    print(f"done: {model}-{seed}", flush=True)
    print(write_report(options.out, options.report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
