"""Do zeroshot and core give chance for models with random weights, and what do they cost?

    python -m scripts.experiments.harness.run --data ../shared/data/icl    # evaluates, writes reports/harness.md
    python -m scripts.experiments.harness.run --data icl --seeds 0 --out runs/trial --report runs/trial/report.md

Nothing is trained. Next to each accuracy the report gives that of always choosing the shortest, the longest or the
first answer, since random weights prefer certain lengths.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.schema import Config
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.evals.harness.core import Core
from nested_learning.evals.harness.zeroshot import ZeroShot
from nested_learning.evals.protocol import EvalContext, Record
from nested_learning.evals.runner import evaluate
from nested_learning.report import mean_and_stderr
from nested_learning.report.text import command_line
from nested_learning.train.environment import describe_environment

SIZES = ["model.dim=32", "model.num_layers=2", "model.num_heads=2"]
# how many standard errors of n random guesses an accuracy may be from chance
MAX_ERRORS = 3.0
# how far the mean of centred accuracies may be from 0
MAX_CORE = 0.03


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate models of every seed, and write the report; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with piqa.jsonl, arc_easy.jsonl, ...")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", default="titans_lmm")
    parser.add_argument("--limit", type=int, default=100, help="documents of each zero-shot task")
    parser.add_argument("--core-limit", type=int, default=30, help="questions of each task of CORE")
    parser.add_argument("--out", type=Path, default=Path("runs/harness"), help="where results are kept")
    parser.add_argument("--report", type=Path, default=Path("reports/harness.md"))
    given = parser.parse_args(arguments)
    config = make_job(open_option_files(None), [f"model={given.model}", *SIZES]).config
    packs: dict[str, ZeroShot | Core] = {
        "zeroshot": ZeroShot(given.data, None, 16, given.limit, None),
        "core": Core(given.data, None, 8, given.core_limit),
    }
    results = {
        name: [evaluate_random(pack, name, config, seed, given.out) for seed in given.seeds]
        for name, pack in packs.items()
    }
    command = command_line("scripts.experiments.harness.run")
    lines = [*heading(command, config, given.seeds), *zeroshot_section(packs["zeroshot"], results["zeroshot"])]
    lines += core_section(results["core"])
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written: {given.report}")
    return 0


def evaluate_random(pack: ZeroShot | Core, name: str, config: Config, seed: int, out: Path) -> dict[str, Any]:
    """Evaluate a model with the random weights of `seed`, unless its results exist."""
    kept = out / f"{config.model.name}_{name}_{pack.limit}_{seed}.json"
    if kept.exists():
        stored: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return stored
    tokenizer, policy = ByteTokenizer(), config.memory
    model = config.model.build(tokenizer.vocab_size, seed).eval()
    context = EvalContext(model=model, tokenizer=tokenizer, data=config.data, seed=seed, policy=policy, run=out)
    started = time.process_time()
    report = evaluate(pack, context, kept.with_suffix(".draft.jsonl"), {"seed": seed})
    metrics = {key: metric._asdict() for key, metric in report.metrics.items()}
    results = {"metrics": metrics, "rows": report.records, "cpu_seconds": time.process_time() - started}
    kept.write_text(json.dumps(results), encoding="utf-8")
    return results


def heading(command: str, config: Config, seeds: Sequence[int]) -> list[str]:
    """Describe the evaluation."""
    commit = (describe_environment("cpu")["git"] or {"commit": "unknown"})["commit"][:9]
    return [
        "# Zero-shot and CORE: random weights score at chance",
        "",
        f"`{command}`, commit {commit}. model={config.model.name}, random weights of seeds "
        f"{', '.join(map(str, seeds))}, bytes as",
        "tokens; nothing is trained. An evaluation that confused labels, choices or their order would not give chance.",
        "`tests/evals` checks that a model that knows all answers scores 1 and one that avoids them 0 (`-m slow`: "
        "every",
        "task).",
        "",
    ]


def zeroshot_section(pack: ZeroShot | Core, results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of accuracies, and the list of those that are far from chance."""
    assert isinstance(pack, ZeroShot)
    rows = [
        "## Zero-shot",
        "",
        "| metric | chance | 1/choices | accuracy | n | distance, standard errors | shortest | longest | first |",
    ]
    rows += ["|---|---|---|---|---|---|---|---|---|"]
    far = []
    for name, metric in results[0]["metrics"].items():
        task, _, kind = name.partition("/")
        if not kind.startswith("acc"):
            continue
        guess, others = strategies(pack.tasks[task], [row for row in results[0]["rows"] if row["task"] == task])
        mean, stderr = mean_and_stderr([each["metrics"][name]["value"] for each in results])
        error = math.sqrt(guess * (1 - guess) / metric["n"])
        away = (mean - guess) / error if error else 0.0
        far += [name] if abs(away) > MAX_ERRORS else []
        cells = [
            name,
            *(f"{each:.3f}" for each in (metric["chance"], guess)),
            plus_minus(mean, stderr),
            str(metric["n"]),
        ]
        rows.append(f"| {' | '.join([*cells, f'{away:+.1f}', *others])} |")
    seconds = fmean(each["cpu_seconds"] for each in results)
    return [
        *rows,
        "",
        "`chance` as in the reports: the accuracy of the most frequent answer if all questions have the same choices,",
        "else 1/choices. The distance is from 1/choices, in standard errors of n questions. `shortest`, `longest` (in",
        "bytes) and `first`: the accuracy of always choosing that choice. Random weights prefer short choices by the",
        "sum of log probabilities (`acc`), and long ones by the sum divided by the number of letters (`acc_norm`),",
        "because the space before a choice adds to the sum but not to the number.",
        "",
        f"Within {MAX_ERRORS:g} standard errors: all{f' but {len(far)}: ' + ', '.join(far) if far else ''}.",
        f"CPU seconds of one model, all tasks: {seconds:.0f}; no question was skipped.",
        "",
    ]


def strategies(task: Any, rows: Sequence[Record]) -> tuple[float, list[str]]:
    """Return 1/choices, and the accuracy of always choosing the shortest, the longest and the first choice."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return 0.0, ["", "", ""]
    documents = [task.eval_docs[row["document"]] for row in rows]
    choices = [[len(each.encode()) for each in task.doc_to_choice(document)] for document in documents]
    golds = [document["gold"] for document in documents]
    picks: list[Callable[[list[int]], int]] = [lambda each: each.index(min(each)), lambda each: each.index(max(each))]
    shares = [fmean(pick(each) == gold for each, gold in zip(choices, golds, strict=True)) for pick in picks]
    shares.append(fmean(gold == 0 for gold in golds))
    return fmean(1 / len(each) for each in choices), [f"{each:.2f}" for each in shares]


def core_section(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of centred accuracies, and whether their mean is near zero."""
    rows = ["## CORE", "", "| metric | chance | value | n |", "|---|---|---|---|"]
    for name, metric in results[0]["metrics"].items():
        if name.endswith("/centered"):
            continue
        mean, stderr = mean_and_stderr([each["metrics"][name]["value"] for each in results])
        rows.append(f"| {name} | {metric['chance']:.3f} | {plus_minus(mean, stderr)} | {metric['n']} |")
    (core,) = (name for name in results[0]["metrics"] if name.startswith("CORE"))
    each = [one["metrics"][core] for one in results]
    worst = max(abs(one["value"]) for one in each)
    fixed = [name for name in ("boolq", "commonsense_qa") if f"{name}/centered" in results[0]["metrics"]]
    rest = fmean(
        fmean(metric["value"] for name, metric in one["metrics"].items() if is_plain(name, fixed)) for one in results
    )
    seconds = fmean(one["cpu_seconds"] for one in results)
    values = ", ".join(f"{one['value']:+.3f} (se {one['stderr']:.3f})" for one in each)
    return [
        *rows,
        "",
        f"{core} of the seeds: {values}; within {MAX_CORE} of 0: {'yes' if worst <= MAX_CORE else 'no'}.",
        f"The baselines of {' and '.join(fixed)} are those of the most frequent answer, which random weights",
        f"do not know, so their values are below 0; the mean of the other tasks is {rest:+.3f}.",
        f"CPU seconds of one model, all tasks: {seconds:.0f}.",
    ]


def is_plain(name: str, fixed: Sequence[str]) -> bool:
    """Return whether a metric is the centred accuracy of a task whose baseline is 1/choices."""
    return name.endswith("/centered") and name.removesuffix("/centered") not in fixed


def plus_minus(mean: float, stderr: float | None) -> str:
    """Write a mean over seeds with its error."""
    return f"{mean:.3f}" if stderr is None else f"{mean:.3f} ± {stderr:.3f}"


if __name__ == "__main__":
    sys.exit(main())
