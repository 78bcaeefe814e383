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
NAMES = {"titans_lmm": "titans_lmm, a memory", "window": "transformer, window 16"}
# acceptance: closed-candidate accuracy at twice and at four times the rows of training, and of the baseline
LEAST, LEAST_FAR, MOST_BASELINE = 0.8, 0.6, 0.2


def write_report(out: Path, path: Path) -> Path:
    """Write the report of the runs in `out` to `path`; figures go beside it. Returns `path`."""
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
    """Say how and where the runs were made."""
    machine = json.loads((out / MACHINE).read_text(encoding="utf-8"))
    spent = {run.directory.name: run.summary["cpu_seconds"] for run in runs}
    rows, data = sorted({run.config["data"]["seq_len"] for run in runs}), runs[0].config
    return [
        "# A needle in a haystack",
        "",
        *(f"    {command}" for command in machine["commands"]),
        "",
        f"Commit {', '.join(sorted({commit_of(run.environment) for run in runs}))}. {machine['cpu']}, "
        f"{machine['cores']} cores, one "
        f"run at a time with one thread. Seeds {', '.join(map(str, sorted({run.config['seed'] for run in runs})))}; "
        "figures are means over the seeds ± their standard error, each of examples that no run was trained on.",
        "",
        f"Models of two layers, {data['model']['dim']} wide, {data['steps']} steps of {data['data']['batch_size']} "
        f"rows of {', '.join(map(str, rows))} tokens (`experiment=niah`): needles of RULER's first task, numbers of "
        "three digits, and pass keys, in noise; words are tokens. CPU seconds of training: "
        f"{', '.join(f'{name} {seconds:.0f}' for name, seconds in spent.items())}; {sum(spent.values()) / 60:.1f} "
        "minutes in all. A value is to be chosen among nine (`accuracy`, chance 11.1 %), or to be said (`exact`).",
        "",
    ]


def needle_section(runs: dict[str, list[FinishedRun]], figures: Path) -> list[str]:
    """Report on lengths and depths, with the heat maps and the judgement of A5."""
    lines = ["## Beyond the length of training", ""]
    rows = []
    for model, name in NAMES.items():
        for figure in ("accuracy", "exact"):
            cells = [cell(runs[model], place(length), f"{TASK}{figure}/{length}") for length in (*NEAR, *FAR)]
            rows.append([name, figure, *cells])
    alone = [cell(runs[model], "niah.answer", f"{TASK}accuracy_no_context") for model in NAMES]
    lines += table(["%", "", *(f"{length} tokens" for length in (*NEAR, *FAR))], rows)
    lines += ["", f"Of the question alone, without the text: {'; '.join(alone)} % (chance).", ""]
    maps = {}
    for model, name in NAMES.items():
        lengths = [length for length in (*NEAR, *FAR) if values(runs[model], place(length), f"{TASK}accuracy/{length}")]
        if lengths:
            maps[name] = Grid(
                "depth, %", DEPTHS, "tokens", lengths, [[mean(runs[model], x, y) for x in lengths] for y in DEPTHS]
            )
    if maps:
        plot_maps(figures / "niah.png", maps)
        lines += ["![Accuracy by depth and length](figures/niah.png)", ""]
        (figures / "niah.csv").write_text(as_csv(maps), encoding="utf-8")
    return [*lines, *judgements(runs), ""]


def judgements(runs: dict[str, list[FinishedRun]]) -> list[str]:
    """Judge what the models were to reach, seed by seed."""
    memory, window = ((model, runs[model]) for model in NAMES)
    lines = []
    for length, least in ((512, LEAST), (1024, LEAST_FAR)):
        found = values(memory[1], "niah.answer", f"{TASK}accuracy/{length}")
        if found:
            said = f"{memory[0]}, {length} tokens: at least {least:.0%}; lowest of {len(found)} seeds {min(found):.0%}"
            lines.append(verdict(said, min(found) >= least))
    found = values(window[1], "niah.answer", f"{TASK}accuracy")
    if found:
        error = math.sqrt(CHANCE * (1 - CHANCE) / window[1][0].metric("niah.answer", f"{TASK}accuracy")["n"])
        said = f"{window[0]}: at most {MOST_BASELINE:.0%}, the needle is always outside what two layers of 16 see; "
        said += f"highest of {len(found)} seeds {max(found):.0%} (one standard error of chance: {error:.1%})"
        lines.append(verdict(said, max(found) <= MOST_BASELINE))
    return lines


def policy_section(runs: Sequence[FinishedRun]) -> list[str]:
    """Report on what the memory does while it reads, and on study."""
    rows = []
    for title, answer in (("online, the whole prompt", "niah.answer"), ("frozen, no writes", "frozen.answer"),
                          ("memorize, studied once, asked without the text", "studied.answer")):  # fmt: skip
        cells = [cell(runs, answer, f"{TASK}accuracy/{length}") for length in (256, 1024)]
        rows.append([title, *cells])
    differences = [
        run.evaluations["studied.answer"]["difference"][f"{TASK}accuracy"]
        for run in runs
        if "studied.answer" in run.evaluations
    ]
    lines = ["## Memory policies", "", *table(["titans_lmm, accuracy, %", "256 tokens", "1024 tokens"], rows), ""]
    if differences:
        said = ", ".join(f"{each['value']:+.1%} ± {each['stderr']:.1%}" for each in differences)
        lines += [
            f"memorize - online on the same examples, paired, by seed: {said}. Who studied has no text left but its "
            "memories, and is asked at the beginning of another text, which no document of the training does; without "
            "study that is the question alone, at chance.",
            "",
        ]
    return lines


def passkey_section(runs: dict[str, list[FinishedRun]]) -> list[str]:
    """Report on pass keys."""
    lengths = (256, 1024, 4096)
    rows = [
        [name, figure, *(cell(runs[model], "passkey.answer", f"{figure}/{length}") for length in lengths)]
        for model, name in NAMES.items()
        for figure in ("accuracy", "exact")
    ]
    lines = ["## Pass keys", "", *table(["%", "", *(f"{length} tokens" for length in lengths)], rows), ""]
    about = "Depths 0, 50 and 100 %. At the last the key is within the reach of a window; nowhere else."
    return [*lines, about, ""]


def other_section(runs: dict[str, list[FinishedRun]]) -> list[str]:
    """Report on what was not trained: books, many needles; and on bAbI."""
    rows = []
    for title, model, answer, prefix in (
        ("niah_single_2, books, not trained", "titans_lmm", "books.answer", "niah_single_2/"),
        ("niah_multikey_2, all needles, not trained", "titans_lmm", "multikey.answer", "niah_multikey_2/"),
        ("BABILong qa1, noise, trained on it", "babilong", "babilong.answer", "qa1/"),
    ):
        for run in runs[model]:
            if answer in run.evaluations:
                for name, metric in run.evaluations[answer]["metrics"].items():
                    if name.startswith(f"{prefix}accuracy/") and name.count("/") == 2:
                        error = "" if metric["stderr"] is None else f" ± {100 * metric['stderr']:.1f}"
                        length = name.rpartition("/")[2]
                        found = f"{100 * metric['value']:.1f}{error}"
                        rows.append([title, length, found, f"{100 * metric['chance']:.1f}", str(metric["n"])])
    if not rows:
        return []
    about = "One seed, errors over the examples. Length 0 is the facts alone. Nothing was demanded here."
    return ["## Reported only", "", *table(["task", "tokens", "accuracy, %", "chance, %", "n"], rows), "", about, ""]


def stream_section(runs: Sequence[FinishedRun]) -> list[str]:
    """Report on what reading takes, with the judgement of A6."""
    found: list[dict[str, Any]] = sorted(
        (each for run in runs[:1] for name, each in run.evaluations.items() if name.startswith("stream-")),
        key=lambda each: each["tokens"],
    )
    if len(found) < 2:
        return []
    rows = [
        [f"{each['tokens']:,}", f"{each['peak'] / 2**20:.0f}", f"{(each['peak'] - each['before']) / 2**20:.1f}",
         f"{each['tokens'] / each['cpu_seconds']:,.0f}"]
        for each in found
    ]  # fmt: skip
    first, lines = found[0], []
    for other in found[1:]:
        memory = other["peak"] / first["peak"] - 1
        speed = other["tokens"] / other["cpu_seconds"] / (first["tokens"] / first["cpu_seconds"]) - 1
        said = f"{other['tokens']:,} against {first['tokens']:,} tokens: peak {memory:+.1%} (at most 10 %), "
        said += f"tokens a CPU second {speed:+.1%} (within 25 %)"
        lines.append(verdict(said, memory <= 0.1 and abs(speed) <= 0.25))
    head = ["tokens", "peak resident, MiB", "of it while reading", "tokens a CPU second"]
    about = "One prompt, read by titans_lmm in a process of its own; the peak includes the libraries."
    return ["## Streaming", "", *table(head, rows), "", about, "", *lines, ""]


def place(length: int) -> str:
    """Return the answer in which a length is."""
    return "niah.answer" if length in NEAR else "far.answer"


def values(runs: Sequence[FinishedRun], answer: str, name: str) -> list[float]:
    """Return a figure of every run that has it."""
    found = [run for run in runs if answer in run.evaluations and name in run.evaluations[answer]["metrics"]]
    return [run.metric(answer, name)["value"] for run in found]


def mean(runs: Sequence[FinishedRun], length: int, depth: int) -> float:
    """Return the mean accuracy of a cell."""
    return mean_and_stderr(values(runs, place(length), f"{TASK}accuracy/{length}/{depth}"))[0]


def cell(runs: Sequence[FinishedRun], answer: str, name: str) -> str:
    """Write a figure in percent, a dash where there is none."""
    found = values(runs, answer, name)
    return format_mean(found, 1, 100) if found else "-"


def as_csv(maps: dict[str, Grid]) -> str:
    """Write the cells of the heat maps, one a line."""
    lines = ["model,depth,tokens,accuracy"]
    for name, grid in maps.items():
        for depth, row in zip(grid.rows, grid.values, strict=True):
            lines += [f'"{name}",{depth},{length},{value:.4f}' for length, value in zip(grid.columns, row, strict=True)]
    return "\n".join(lines) + "\n"
