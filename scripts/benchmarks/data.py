"""The speed of the data pipeline: reading, tokenizing and serving, in tokens per CPU second of one process.

    python -m scripts.benchmarks.data    # tokenizers that need no download
    python -m scripts.benchmarks.data --tokenizer <folder of GPT-2's encoder.json and vocab.bpe>

The text is the Python standard library, the same on every machine with this Python version, prepared into shards as
scripts/prepare_data.py does it. CPU seconds are user and system time of the process. The best of `--repeats` counts,
because other processes can only slow a measurement down. Writes reports/data.md and prints it.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nested_learning.data.loader import train_batch
from nested_learning.data.text.prepare import PrepareConfig, prepare
from nested_learning.data.text.readers import Reader, find_inputs
from nested_learning.data.text.shards import check, read_manifest
from nested_learning.data.text.stdlib import StdlibConfig, read_sources
from nested_learning.data.text.tokens import TokensConfig
from nested_learning.data.tokenizers.bpe import BpeTokenizer, train_bpe
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer, Tokenizer
from nested_learning.data.tokenizers.tokenizer_files import read_tokenizer
from nested_learning.report.text import command_line

REPORT = Path(__file__).parents[2] / "reports" / "data.md"
BATCH, SERVED = 16, 2_000_000
Table = list[list[str]]


def main() -> None:
    """Measure everything, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="one more tokenizer, from a file or folder")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    documents = read_sources(Path(json.__file__).parents[1])
    tokenizers: dict[str, Tokenizer] = {
        "byte": ByteTokenizer(),
        "bpe, 4096": train_bpe(documents, 4096),
    }
    if given.tokenizer:
        tokenizers[Path(given.tokenizer).name] = read_tokenizer(given.tokenizer, "--tokenizer")
    with tempfile.TemporaryDirectory() as folder:
        sections = {
            "Tokenizing": tokenizing(tokenizers, "\n".join(documents)[:4_000_000], given.repeats),
            "Reading and preparing": preparing(documents, Path(folder), given.repeats),
            "Serving": serving(Path(folder) / "shards", given.repeats),
        }
    size = sum(len(document.encode()) for document in documents)
    text = report(sections, f"{len(documents)} documents, {size:,} bytes")
    REPORT.write_text(text, encoding="utf-8")
    print(text)


def best(work: Callable[[], object], repeats: int) -> float:
    """Return the least CPU seconds that `work` took."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def tokenizing(tokenizers: dict[str, Tokenizer], text: str, repeats: int) -> Table:
    """Encode the whole text with each tokenizer, and part of it with the slower library."""
    rows = [["tokenizer", "M tokens / CPU-s", "MB / CPU-s", "bytes a token"]]
    for name, tokenizer in tokenizers.items():
        rows.append(rate(name, lambda part, of=tokenizer: of.encode(part), text, repeats))
    for name, tokenizer in tokenizers.items():
        if isinstance(tokenizer, BpeTokenizer):
            slow = tokenizer._slow
            rows.append(
                rate(f"{name}, by `tokenizers`", lambda part, of=slow: of.encode(part).ids, text[:1_000_000], 1)
            )
    return rows


def rate(name: str, encode: Callable[[str], object], text: str, repeats: int) -> list[str]:
    """Return a row of the table: how fast `encode` is on `text`."""
    num_tokens = len(encode(text))  # type: ignore[arg-type]
    seconds, size = best(lambda: encode(text), repeats), len(text.encode())
    return [name, f"{num_tokens / seconds / 1e6:.2f}", f"{size / seconds / 1e6:.1f}", f"{size / num_tokens:.2f}"]


def preparing(documents: list[str], folder: Path, repeats: int) -> Table:
    """Read the documents from JSON lines, prepare shards of them, check the shards."""
    lines = folder / "all.jsonl"
    lines.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    size = sum(len(document.encode()) for document in documents)
    [each] = find_inputs([str(lines)])
    reading = best(lambda: sum(map(len, filter(None, Reader().read(each.name)))), repeats)
    config = PrepareConfig(
        sources=[str(lines)], tokenizer="bpe", vocab_size=4096, val_fraction=0.05, shard_tokens=1 << 21
    )
    start = time.process_time()
    manifest = prepare(folder / "shards", config, log=lambda _: None)
    whole = time.process_time() - start
    num_tokens = sum(shard.tokens for shard in manifest.shards)
    checking = best(lambda: check(folder / "shards", manifest), repeats)
    return [
        ["step", "CPU-s", "MB of text / CPU-s"],
        ["read JSON lines", f"{reading:.2f}", f"{size / reading / 1e6:.0f}"],
        ["train bpe of 4096, encode, write and hash, one process", f"{whole:.2f}", f"{size / whole / 1e6:.1f}"],
        [f"check every hash of {num_tokens:,} tokens", f"{checking:.3f}", f"{size / checking / 1e6:.0f}"],
    ]


def serving(folder: Path, repeats: int) -> Table:
    """Read rows in a random order, and batches in the order of training, from shards and from text in memory."""
    assert read_manifest(folder).of("train")
    rows = [["data", "packing", "tokens a row", "rows, M tokens / CPU-s", f"batches of {BATCH}, M tokens / CPU-s"]]
    for name, packing in (("tokens", "concat"), ("tokens", "best_fit")):
        for seq_len in (256, 1024, 2048):
            config = (
                TokensConfig(path=str(folder), seq_len=seq_len, packing=packing)
                if name == "tokens"
                else StdlibConfig(seq_len=seq_len, packing=packing)
            )
            source = config.build(0)
            indices = np.random.default_rng(0).integers(source.num_rows("train"), size=SERVED // seq_len).tolist()
            steps = SERVED // (seq_len * BATCH)
            single = best(lambda s=source, i=indices: [s.row("train", 0, each) for each in i], repeats)
            batches = best(lambda s=source, n=steps: [train_batch(s, 0, k, 0, 1, BATCH) for k in range(n)], repeats)
            rates = (len(indices) * seq_len / single, steps * BATCH * seq_len / batches)
            rows.append([name, packing, str(seq_len), *(f"{each / 1e6:.0f}" for each in rates)])
    return rows


def report(sections: dict[str, Table], text: str) -> str:
    """Write the tables as Markdown, with the command and the commit they come from."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    command = command_line("scripts.benchmarks.data")
    lines = [
        "# Speed of the data path",
        "",
        f"`{command}`, commit {commit}. Text: the Python standard library, {text}.",
        "One process, its CPU seconds, the best of several runs; others on the same cores slow a CPU second down:",
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}.",
    ]
    for title, (head, *rows) in sections.items():
        table = [head, ["---"] * len(head), *rows]
        lines += ["", f"## {title}", "", *(f"| {' | '.join(row)} |" for row in table)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
