"""The report on needles in a haystack: tables, heat maps and verdicts, read from the runs."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nested_learning.evals.protocol import Grid
from nested_learning.report import mean_and_stderr, plot_maps
from nested_learning.report.runs import MACHINE, FinishedRun, commit_of, read_finished_run
from nested_learning.report.text import format_mean, table, verdict

CHANCE = 1 / 9
TASK = "niah_single_1/"
DEPTHS = (0, 25, 50, 75, 100)
NEAR, FAR = (256, 512, 1024, 2048), (4096, 8192)
NAMES = {"titans_lmm": "titans_lmm, memory", "window": "transformer, window 16"}
# thresholds of the accuracy: at twice and four times the training length, and of the windowed Transformer
MIN_TWICE, MIN_FOUR_TIMES, MAX_WINDOW = 0.8, 0.6, 0.2


def write_report(out: Path, path: Path) -> Path:
    """Write the report on the runs in `out` to `path`, its plots into figures/ next to it; return `path`."""
    runs = {
        model: [read_finished_run(each.parent) for each in sorted(out.glob(f"{model}-[0-9]*/summary.json"))]
        for model in (*NAMES, "babilong")
    }
    runs = {model: [run for run in each if run.evaluations] for model, each in runs.items()}
    every = [run for each in runs.values() for run in each]
    if not every:
        raise SystemExit(f"{out}: no finished run; leave --report-only out")
    figures = path.parent / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    lines = [
        *header(out, every),
        *needle_section(runs, figures),
        *policy_section(runs["titans_lmm"]),
        *passkey_section(runs),
        *other_section(runs),
        *stream_section(runs["titans_lmm"]),
    ]
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path


def header(out: Path, runs: Sequence[FinishedRun]) -> list[str]:
    """Describe how and where the runs were made."""
    machine = json.loads((out / MACHINE).read_text(encoding="utf-8"))
    spent = {run.directory.name: run.summary["cpu_seconds"] for run in runs}
    seeds = sorted({run.config["seed"] for run in runs})
    rows, data = sorted({run.config["data"]["seq_len"] for run in runs}), runs[0].config
    return [
        "# A needle in a haystack",
        "",
        *(f"    {command}" for command in machine["commands"]),
        "",
        f"Commit {', '.join(sorted({commit_of(run.environment) for run in runs}))}. {machine['cpu']}, "
        f"{machine['cores']} cores, "
        f"one run at a time with one thread. Seeds {', '.join(map(str, seeds))}; numbers are means over the seeds ± "
        "their standard error, on examples that no run was trained on.",
        "",
        f"Models have two layers of width {data['model']['dim']} and train for {data['steps']} steps of "
        f"{data['data']['batch_size']} rows of {', '.join(map(str, rows))} tokens (`experiment=niah`): needles of "
        "RULER's first task with numbers of three digits, and pass keys, in repeated noise sentences; each word is a "
        f"token. CPU seconds of training: {', '.join(f'{name} {seconds:.0f}' for name, seconds in spent.items())}; "
        f"{sum(spent.values()) / 60:.1f} minutes in total. `accuracy`: the right value has the highest likelihood of "
        "nine (chance 11.1 %); `exact`: it is generated.",
        "",
    ]


def needle_section(runs: dict[str, list[FinishedRun]], figures: Path) -> list[str]:
    """Report on lengths and depths, with heat maps and verdicts."""
    lines = ["## Beyond the training length", ""]
    rows = []
    for model, name in NAMES.items():
        for metric in ("accuracy", "exact"):
            cells = [cell(runs[model], evaluation_of(length), f"{TASK}{metric}/{length}") for length in (*NEAR, *FAR)]
            rows.append([name, metric, *cells])
    alone = [cell(runs[model], "niah.answer", f"{TASK}accuracy_no_context") for model in NAMES]
    lines += table(["%", "", *(f"{length} tokens" for length in (*NEAR, *FAR))], rows)
    lines += ["", f"Accuracy with the question alone, without the context: {'; '.join(alone)} % (chance).", ""]
    maps = {}
    for model, name in NAMES.items():
        every = (*NEAR, *FAR)
        lengths = [n for n in every if values(runs[model], evaluation_of(n), f"{TASK}accuracy/{n}")]
        if lengths:
            maps[name] = Grid(
                "depth, %", DEPTHS, "tokens", lengths, [[mean(runs[model], x, y) for x in lengths] for y in DEPTHS]
            )
    if maps:
        plot_maps(figures / "niah.png", maps)
        lines += ["![Accuracy by depth and length](figures/niah.png)", ""]
        (figures / "niah.csv").write_text(as_csv(maps), encoding="utf-8")
    return [*lines, *verdicts(runs), ""]


def verdicts(runs: dict[str, list[FinishedRun]]) -> list[str]:
    """Judge the accuracy beyond the training length; every seed must reach the threshold."""
    memory, window = ((model, runs[model]) for model in NAMES)
    lines = []
    for length, least in ((512, MIN_TWICE), (1024, MIN_FOUR_TIMES)):
        shares = values(memory[1], "niah.answer", f"{TASK}accuracy/{length}")
        if shares:
            claim = f"{memory[0]}, {length} tokens: at least {least:.0%}; lowest of "
            claim += f"{len(shares)} seeds {min(shares):.0%}"
            lines.append(verdict(claim, min(shares) >= least))
    shares = values(window[1], "niah.answer", f"{TASK}accuracy")
    if shares:
        error = math.sqrt(CHANCE * (1 - CHANCE) / window[1][0].metric("niah.answer", f"{TASK}accuracy")["n"])
        claim = f"{window[0]}: at most {MAX_WINDOW:.0%}, since the needle is always outside the two windows of 16; "
        claim += f"highest of {len(shares)} seeds {max(shares):.0%} (standard error of chance: {error:.1%})"
        lines.append(verdict(claim, max(shares) <= MAX_WINDOW))
    return lines


def policy_section(runs: Sequence[FinishedRun]) -> list[str]:
    """Compare memory=online, frozen and memorize."""
    rows = []
    for title, evaluation in (
        ("online, the whole prompt", "niah.answer"),
        ("frozen, no writes", "frozen.answer"),
        ("memorize, one pass, question without the context", "studied.answer"),
    ):
        cells = [cell(runs, evaluation, f"{TASK}accuracy/{length}") for length in (256, 1024)]
        rows.append([title, *cells])
    differences = [
        run.evaluations["studied.answer"]["difference"][f"{TASK}accuracy"]
        for run in runs
        if "studied.answer" in run.evaluations
    ]
    lines = ["## Memory policies", "", *table(["titans_lmm, accuracy, %", "256 tokens", "1024 tokens"], rows), ""]
    if differences:
        by_seed = ", ".join(f"{each['value']:+.1%} ± {each['stderr']:.1%}" for each in differences)
        lines += [
            f"memorize - online on the same examples, paired, by seed: {by_seed}. With memorize the question starts a "
            "new document, which no training document does, and only the memory knows the context. Without memorizing "
            "this is the question alone, at chance.",
            "",
        ]
    return lines


def passkey_section(runs: dict[str, list[FinishedRun]]) -> list[str]:
    """Report on pass keys."""
    lengths = (256, 1024, 4096)
    rows = [
        [name, metric, *(cell(runs[model], "passkey.answer", f"{metric}/{length}") for length in lengths)]
        for model, name in NAMES.items()
        for metric in ("accuracy", "exact")
    ]
    lines = ["## Pass keys", "", *table(["%", "", *(f"{length} tokens" for length in lengths)], rows), ""]
    about = "Depths 0, 50 and 100 %. Only at depth 100 % is the key within the window."
    return [*lines, about, ""]


def other_section(runs: dict[str, list[FinishedRun]]) -> list[str]:
    """Report on tasks that were not trained (books, many needles), and on BABILong."""
    rows = []
    for title, model, evaluation, prefix in (
        ("niah_single_2, books, not trained", "titans_lmm", "books.answer", "niah_single_2/"),
        ("niah_multikey_2, all needles, not trained", "titans_lmm", "multikey.answer", "niah_multikey_2/"),
        ("BABILong qa1, noise, trained on it", "babilong", "babilong.answer", "qa1/"),
    ):
        for run in runs[model]:
            if evaluation in run.evaluations:
                for name, metric in run.evaluations[evaluation]["metrics"].items():
                    if name.startswith(f"{prefix}accuracy/") and name.count("/") == 2:
                        error = "" if metric["stderr"] is None else f" ± {100 * metric['stderr']:.1f}"
                        length = name.rpartition("/")[2]
                        accuracy = f"{100 * metric['value']:.1f}{error}"
                        rows.append([title, length, accuracy, f"{100 * metric['chance']:.1f}", str(metric["n"])])
    if not rows:
        return []
    about = "One seed, errors over the examples. Length 0 is the facts alone. There is no threshold."
    return ["## Other tasks", "", *table(["task", "tokens", "accuracy, %", "chance, %", "n"], rows), "", about, ""]


def stream_section(runs: Sequence[FinishedRun]) -> list[str]:
    """Report on the time and memory of long prompts: both must not grow with the length."""
    streams: list[dict[str, Any]] = sorted(
        (each for run in runs[:1] for name, each in run.evaluations.items() if name.startswith("stream-")),
        key=lambda each: each["tokens"],
    )
    if len(streams) < 2:
        return []
    rows = [
        [f"{each['tokens']:,}", f"{each['peak'] / 2**20:.0f}", f"{(each['peak'] - each['before']) / 2**20:.1f}",
         f"{each['tokens'] / each['cpu_seconds']:,.0f}"]
        for each in streams
    ]  # fmt: skip
    first, lines = streams[0], []
    for other in streams[1:]:
        memory = other["peak"] / first["peak"] - 1
        speed = other["tokens"] / other["cpu_seconds"] / (first["tokens"] / first["cpu_seconds"]) - 1
        claim = f"{other['tokens']:,} compared with {first['tokens']:,} tokens: peak {memory:+.1%} (at most 10 %), "
        claim += f"tokens per CPU second {speed:+.1%} (within 25 %)"
        lines.append(verdict(claim, memory <= 0.1 and abs(speed) <= 0.25))
    head = ["tokens", "peak resident memory, MiB", "increase while reading", "tokens per CPU second"]
    about = "One prompt, read by titans_lmm in a process of its own; the peak includes the libraries."
    return ["## Streaming", "", *table(head, rows), "", about, "", *lines, ""]


def evaluation_of(length: int) -> str:
    """Return the name of the evaluation that has prompts of `length` tokens."""
    return "niah.answer" if length in NEAR else "far.answer"


def values(runs: Sequence[FinishedRun], evaluation: str, name: str) -> list[float]:
    """Return a metric of an evaluation, of every run that has it."""
    having = [run for run in runs if evaluation in run.evaluations and name in run.evaluations[evaluation]["metrics"]]
    return [run.metric(evaluation, name)["value"] for run in having]


def mean(runs: Sequence[FinishedRun], length: int, depth: int) -> float:
    """Return the mean accuracy at a length and a depth."""
    return mean_and_stderr(values(runs, evaluation_of(length), f"{TASK}accuracy/{length}/{depth}"))[0]


def cell(runs: Sequence[FinishedRun], evaluation: str, name: str) -> str:
    """Write a metric in percent, a dash if no run has it."""
    return format_mean(values(runs, evaluation, name), 1, 100)


def as_csv(maps: dict[str, Grid]) -> str:
    """Write the cells of the heat maps, one a line."""
    lines = ["model,depth,tokens,accuracy"]
    for name, grid in maps.items():
        for depth, row in zip(grid.rows, grid.values, strict=True):
            lines += [f'"{name}",{depth},{length},{value:.4f}' for length, value in zip(grid.columns, row, strict=True)]
    return "\n".join(lines) + "\n"
