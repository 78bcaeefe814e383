"""Speed, FLOPs and peak memory of the memories, compared with attention and common implementations in the same run.

    python -m scripts.benchmarks.memory    # everything; writes reports/performance.md
    python -m scripts.benchmarks.memory --only matrix --sequences 1024 --rounds 1 --no-report

Batch 4, 4 heads of 64, chunks of 64, float32, one thread. Each (case, sequence length) runs in a process of its own,
`--rounds` times with the others in between. Times are medians of process CPU time, user and system together (the kernel
clears fresh pages for large tensors). The peak speed of matrix products is measured in the same processes, between the
repetitions. A second part measures the cost of a token far into a sequence: streamed, trained, and one at a time.
`titans-pytorch` is measured if it is installed, the C++ operators if they can be built.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from nested_learning.ops import cpp
from nested_learning.report.text import command_line
from scripts.benchmarks import memory_cases
from scripts.benchmarks import memory_streams as bench_streams

REPORT = Path(__file__).parents[2] / "reports" / "performance.md"
BATCH, PRODUCT = 4, 1024
SEQUENCES = [256, 1024, 4096]
# tokens read before: what a token costs there
DEPTHS = [1024, 4096, 16384, 65536]
DECODE_BATCHES, DECODED = [1, 32], 64
# trained on in one row
LONG = {"matrix, token-exact, momentum, C++": DEPTHS, "matrix, token-exact, momentum, torch": DEPTHS[:3]}
LONG |= {"depth 2, chunk-start, momentum, torch": DEPTHS[:3], "self-modifying, C++": DEPTHS[:3]}
LONG |= {"attention core (SDPA)": DEPTHS[:3]}

Case = tuple[str, int, bool]


def clock(run: Callable[[], object]) -> dict[str, float]:
    """Run once; return the seconds of the program, of the kernel, and of the wall."""
    before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    after, end = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    return {"user": after.ru_utime - before.ru_utime, "system": after.ru_stime - before.ru_stime, "wall": end - wall}


def peak_mib() -> float:
    """Return the most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def repeat(run: Callable[[], object], seconds: float) -> Iterator[dict[str, float]]:
    """Run at least twice, and until the time is over."""
    until, done = time.perf_counter() + seconds, 0
    while done < 2 or time.perf_counter() < until:
        yield clock(run)
        done += 1


def run_once(case: memory_cases.MemoryCase, train: bool) -> None:
    """Run forward, and backward if it trains."""
    with torch.set_grad_enabled(train):
        y = case.forward()
        if train:
            torch.autograd.grad(y, case.leaves, torch.ones_like(y), allow_unused=True)


def measure(name: str, batch: int, seq_len: int, train: bool, seconds: float) -> dict[str, float]:
    """Measure one case in this process; the first run is not counted."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    # what is loaded once does not count as memory of the case
    run_once(memory_cases.CASES[name][0](1, 2 * memory_cases.CHUNK), train)
    empty = peak_mib()
    case = memory_cases.CASES[name][0](batch, seq_len)
    run = partial(run_once, case, train)
    run()
    peak = peak_mib() - empty
    a, b = torch.randn(2, PRODUCT, PRODUCT).unbind(0)
    times, products = [], []
    for each in repeat(run, seconds):
        times.append(each)
        products.append(clock(lambda: a @ b)["user"])
    median = {key: statistics.median(each[key] for each in times) for key in ("user", "system", "wall")}
    cpu = statistics.median(each["user"] + each["system"] for each in times)
    flops = case.flops * (3 if train else 1)
    rate = 2 * PRODUCT**3 / statistics.median(products)
    return median | {"cpu": cpu, "flops": flops, "peak": rate, "mib": peak}


def measure_stream(name: str) -> dict[str, float]:
    """Read on and on in calls of 1,024 tokens; return the microseconds of a token in the call before each depth."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    bench_streams.STREAMS[name](1).read(bench_streams.CALL)
    stream, recent, costs = bench_streams.STREAMS[name](1), [], {}
    for done in range(bench_streams.CALL, DEPTHS[-1] + 1, bench_streams.CALL):
        each = clock(lambda: stream.read(bench_streams.CALL))
        # attention's cost grows, and a machine is noisy: the median of the last eight calls
        recent = [*recent, each["user"] + each["system"]][-8:]
        if done in DEPTHS:
            costs[str(done)] = 1e6 * statistics.median(recent) / bench_streams.CALL
    return costs


def measure_decode(name: str, batch: int) -> dict[str, float]:
    """Read one token at a time; return the microseconds of a token of one row after each depth, and the state's KiB."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    costs = {}
    for depth in (DEPTHS[0], DEPTHS[2]):
        stream = bench_streams.STREAMS[name](batch)
        for _ in range(depth // bench_streams.CALL):
            stream.read(bench_streams.CALL)
        times = [clock(partial(stream.read, 1)) for _ in range(DECODED)]
        costs[f"{depth} us"] = 1e6 * statistics.median(each["user"] + each["system"] for each in times) / batch
        costs[f"{depth} KiB"] = stream.state_bytes() / batch / 1024
    return costs


def run_child(arguments: list[str]) -> dict[str, float]:
    """Run this script in a separate process with one thread; return what it prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "scripts.benchmarks.memory", "--child", *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def cases(options: argparse.Namespace) -> list[Case]:
    """List what to measure: (case, sequence, whether it trains)."""
    missing = [] if importlib.util.find_spec("titans_pytorch") else ["titans-pytorch"]
    missing += [] if cpp.missing(torch.device("cpu")) is None else ["C++"]
    return [
        (name, seq_len, train)
        for name, (_, longest, trains) in memory_cases.CASES.items()
        for seq_len in options.sequences
        for train in (True, False)
        if options.only in name and seq_len <= longest and trains >= train
        if not any(word in name for word in missing)
    ]


def middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each metric over the rounds."""
    return {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}


def row(case: Case, own: dict[str, float], attention: dict[str, float] | None) -> str:
    """Lay one case out as a row of Markdown."""
    name, seq_len, train = case
    tokens = BATCH * seq_len
    share = f"{own['flops'] / 1e9:.2f} | {own['flops'] / own['cpu'] / own['peak']:.0%}" if own["flops"] else "- | -"
    ratio = f"{attention['cpu'] / own['cpu']:.2f}" if attention else "-"
    return (
        f"| {name} | {seq_len} | {'forward + backward' if train else 'forward'} | {tokens / own['cpu']:,.0f} | {ratio} "
        f"| {1e6 * own['user'] / tokens:,.1f} | {1e6 * own['system'] / tokens:,.1f} "
        f"| {1e6 * own['wall'] / tokens:,.1f} | {share} | {own['mib']:,.0f} |"
    )


def report(results: dict[Case, dict[str, float]]) -> str:
    """Write the results as Markdown."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    peaks = [own["peak"] / 1e9 for own in results.values()]
    lines = [
        "# Speed and memory of the memories",
        "",
        f"`{command_line('scripts.benchmarks.memory')}`, commit {commit}, torch {torch.__version__}.",
        f"Batch {BATCH}, 4 heads of 64,",
        "chunks of 64, float32, one CPU thread; medians of process CPU time, each case in processes of its own.",
        f"Products of {PRODUCT} x {PRODUCT} matrices in the same processes: {statistics.median(peaks):.0f} GFLOP/s",
        f"(median of {min(peaks):.0f} to {max(peaks):.0f}). FLOPs are those of the matrix products of the formulas:",
        "the backward pass is counted twice, what is computed again is not. Peak memory is above that of the process",
        "after 128 tokens. `C++`: backend=cpp; `torch`: backend=eager.",
        "",
        "| case | tokens | pass | tokens per CPU-second | x attention | user µs a token | system µs a token "
        "| wall µs a token | GFLOP | share of peak | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case, own in results.items():
        # a layer does more than the core of attention
        attention = ("", *case[1:]) if "layer" in case[0] else ("attention core (SDPA)", *case[1:])
        lines.append(row(case, own, results.get(attention)))
    return "\n".join([*lines, ""])


def far_tables(options: argparse.Namespace) -> list[str]:
    """Measure what a token costs far into a sequence; return the tables, none where `--only` picks cases."""
    if options.only:
        return []
    has_cpp = cpp.missing(torch.device("cpu")) is None
    names = [name for name in bench_streams.STREAMS if has_cpp or "C++" not in name]
    heads = [f"{depth:,}" for depth in DEPTHS]
    lines = [
        "",
        "## Far into a sequence",
        "",
        "One row, 4 heads: CPU-microseconds of a token, without gradients, after",
    ]
    lines += ["so many tokens, read in calls of 1,024.", "", f"| case | {' | '.join(heads)} |", "|---" * 5 + "|"]
    for name in names:
        costs = middle([run_child(["--case", "stream", name]) for _ in range(options.rounds)])
        lines.append(f"| {name} | {' | '.join(f'{cost:,.1f}' for cost in costs.values())} |")
        print(lines[-1], flush=True)
    lines += ["", "Trained on, forward and backward, as one row of so many tokens: microseconds of a token (peak MiB)."]
    lines += ["", f"| case | {' | '.join(heads)} |", "|---" * 5 + "|"]
    for name, depths in LONG.items():
        if has_cpp or "C++" not in name:
            found = [run_child(["--seconds", "0", "--case", "long", name, str(depth)]) for depth in depths]
            cells = [f"{1e6 * x['cpu'] / d:,.1f} ({x['mib']:,.0f})" for x, d in zip(found, depths, strict=True)]
            lines.append(f"| {name} | {' | '.join(cells + ['-'] * (len(DEPTHS) - len(cells)))} |")
            print(lines[-1], flush=True)
    lines += [
        "",
        "One token at a time: microseconds of a token of one row, and KiB of state a row, after so many tokens.",
    ]
    lines += ["", "| case | rows | 1,024: µs | KiB | 16,384: µs | KiB |", "|---|---|---|---|---|---|"]
    for name in names:
        # the keys of many long rows fill the machine
        for batch in DECODE_BATCHES[:1] if "attention" in name else DECODE_BATCHES:
            costs = run_child(["--case", "decode", name, str(batch)])
            lines.append(f"| {name} | {batch} | {' | '.join(f'{cost:,.0f}' for cost in costs.values())} |")
            print(lines[-1], flush=True)
    return [*lines, ""]


def answer(case: list[str], seconds: float) -> dict[str, float]:
    """Measure in this process what the arguments of `--case` name."""
    kind, name, *rest = case
    if kind == "core":
        return measure(name, BATCH, int(rest[0]), rest[1] == "True", seconds)
    if kind == "long":
        return measure(name, 1, int(rest[0]), True, seconds)
    return measure_stream(name) if kind == "stream" else measure_decode(name, int(rest[0]))


def main() -> None:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--sequences", nargs="+", type=int, default=SEQUENCES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--no-report", action="store_true", help="print only")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--case", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(answer(options.case, options.seconds)))
        return
    rounds: dict[Case, list[dict[str, float]]] = {case: [] for case in cases(options)}
    for number in range(options.rounds):
        for case, done in rounds.items():
            done.append(run_child(["--seconds", str(options.seconds), "--case", "core", *map(str, case)]))
            print(number + 1, row(case, done[-1], None), flush=True)
    text = report({case: middle(done) for case, done in rounds.items()}) + "\n".join(far_tables(options))
    print(text)
    if not options.no_report:
        REPORT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
