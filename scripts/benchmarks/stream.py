"""Read a very long stream in constant memory and at constant speed: tokens per second and bytes along the way.

    python -m scripts.benchmarks.stream    # hope and titans_lmm, 500,000 tokens each
    python -m scripts.benchmarks.stream --model hope --tokens 500000
    python -m scripts.benchmarks.stream --model titans_deep --tokens 50000 --set model.dim=64

Each model, with its initial weights, reads random tokens in a separate process with one thread, `--piece` tokens a
call. At ten marks it prints the tokens per CPU second since the last mark; the milliseconds of a token that is read
alone, on a fork of the stream; the bytes of the state; and the resident memory of the process. Several models write
reports/streaming.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nested_learning.report.text import command_line

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "reports" / "streaming.md"
MODELS = ["hope", "titans_lmm"]
VOCAB, MARKS, ALONE = 257, 10, 64


class Mark(NamedTuple):
    """What the stream cost up to `tokens`; the rates are of CPU time since the mark before."""

    tokens: int
    tokens_per_second: float
    milliseconds_alone: float
    state_bytes: int
    resident_bytes: int


def resident_bytes() -> int:
    """Return the memory that the process holds now; where the system does not say, the most it ever held."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def stream(overrides: list[str], num_tokens: int, piece: int, marks: int) -> Iterator[Mark]:
    """Read `num_tokens` random tokens with the model of a command line; say what they cost, `marks` times."""
    import torch

    from nested_learning import tree
    from nested_learning.command.compose import make_job
    from nested_learning.config.option_files import open_option_files
    from nested_learning.inference.session import Session

    model = make_job(open_option_files(None), overrides).config.model.build(VOCAB, seed=0)
    session, generator = Session(model), torch.Generator().manual_seed(0)
    for mark in range(marks):
        until, before, start = num_tokens * (mark + 1) // marks, session.position, time.process_time()
        while session.position < until:
            size = min(piece, until - session.position)
            logits = session.feed(torch.randint(VOCAB, (size,), generator=generator))
        spent = time.process_time() - start
        if not logits.isfinite().all():
            raise SystemExit(f"{overrides[0]}: not finite after {session.position} tokens")
        fork, start = session.fork(), time.process_time()
        for token in torch.randint(VOCAB, (ALONE, 1), generator=torch.Generator().manual_seed(1)):
            fork.feed(token)
        alone = (time.process_time() - start) / ALONE
        read = session.position - before
        yield Mark(session.position, read / spent, 1000 * alone, tree.nbytes(session.state), resident_bytes())


def stream_in_child(model: str, options: argparse.Namespace) -> list[Mark]:
    """`stream` in a process of its own, whose memory is the model's alone; print what it says as it says it."""
    command = [
        sys.executable,
        "-m",
        "scripts.benchmarks.stream",
        "--child",
        "--model",
        model,
        "--tokens",
        str(options.tokens),
    ]
    command += ["--piece", str(options.piece), "--set", *options.set]
    # the package of this checkout, installed or not
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    marks = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            marks.append(Mark(**json.loads(line)))
            print(
                f"{model}: {marks[-1].tokens:>9,} tokens  {marks[-1].tokens_per_second:>8,.0f} tokens/s  "
                f"{marks[-1].milliseconds_alone:.2f} ms alone  state {marks[-1].state_bytes:,} bytes  "
                f"RSS {marks[-1].resident_bytes / 2**20:.1f} MiB",
                flush=True,
            )
    if child.returncode:
        raise SystemExit(child.returncode)
    return marks


def table(model: str, marks: list[Mark]) -> list[str]:
    """Lay the marks of a model out as Markdown."""
    lines = [
        f"## {model}",
        "",
        "| tokens read | tokens per CPU-second | ms a token, read alone | state, bytes | resident memory, MiB |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {mark.tokens:,} | {mark.tokens_per_second:,.0f} | {mark.milliseconds_alone:.2f} | {mark.state_bytes:,} "
        f"| {mark.resident_bytes / 2**20:.1f} |"
        for mark in marks
    ]
    first, last = marks[0], marks[-1]
    growth = (last.resident_bytes - first.resident_bytes) / 2**20
    return [
        *lines,
        "",
        f"From the first mark to the last: state {last.state_bytes - first.state_bytes:+,} bytes, resident memory "
        f"{growth:+.1f} MiB, speed x {last.tokens_per_second / first.tokens_per_second:.2f}.",
        "",
    ]


def commit() -> str:
    """Return the commit that is checked out, and whether the files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.strip()

    changes = ", with uncommitted changes" if git("status", "--porcelain") else ""
    return git("rev-parse", "--short", "HEAD") + changes


def write_report(results: dict[str, list[Mark]], options: argparse.Namespace, measured: str) -> None:
    """Write reports/streaming.md about the commit `measured`."""
    command = command_line("scripts.benchmarks.stream")
    shape = f", with {' '.join(options.set)}" if options.set else ""
    lines = [
        "# Streaming",
        "",
        f"`{command}`, commit {measured}. Initial weights, random tokens, vocabulary {VOCAB}, one",
        f"row, one CPU thread, float32; models with their defaults{shape}. A call reads {options.piece}",
        f"tokens; the state is carried over. Single tokens are read one per call, on a fork: the mean of {ALONE}.",
        "Resident memory is that of the whole process, Python and PyTorch included.",
        "",
    ]
    for model, marks in results.items():
        lines += table(model, marks)
    REPORT.write_text("\n".join(lines), encoding="utf-8")
    print(f"written: {REPORT.relative_to(ROOT)}")


def main() -> None:
    """Stream through every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--tokens", type=int, default=500_000)
    parser.add_argument("--piece", type=int, default=1024)
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the model, such as model.dim=128")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        for mark in stream([f"model={options.model[0]}", *options.set], options.tokens, options.piece, MARKS):
            print(json.dumps(mark._asdict()), flush=True)
        return
    # before, not after: others may commit meanwhile
    measured = commit()
    results = {model: stream_in_child(model, options) for model in options.model}
    if len(results) > 1:
        write_report(results, options, measured)


if __name__ == "__main__":
    main()
