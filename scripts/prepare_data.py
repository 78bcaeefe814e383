"""Tokenize text of any size into token shards for `data=tokens`.

    python scripts/prepare_data.py shards/notes notes/ more/*.jsonl.zst --tokenizer bpe --vocab-size 32768
    python scripts/prepare_data.py shards/edu hf:HuggingFaceFW/fineweb-edu:sample-10BT --tokenizer gpt2/tokenizer.json
    python scripts/prepare_data.py --check shards/edu
    python train.py data=tokens data.path=shards/edu

Sources: text files (one document each, or several with --separator), JSON lines, CSV, parquet and Arrow files; text,
JSON lines and CSV also as .gz and .zst; folders and globs of these, and folders of datasets.save_to_disk; Hugging Face
data sets, streamed. After a kill, the same
command resumes and writes the same bytes. --jobs changes only the time it takes.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from nested_learning.data.text.prepare import PrepareConfig, prepare
from nested_learning.data.text.readers import Reader
from nested_learning.data.text.shards import Manifest, check, read_manifest
from nested_learning.errors import NestedLearningError
from nested_learning.streams import run_process


def main() -> int:
    """Prepare or check a folder; print what it holds. Bad input is one line. Return the exit code."""
    given = parse(sys.argv[1:])
    start = time.monotonic()
    try:
        if given.check:
            manifest = read_manifest(given.folder)
            check(given.folder, manifest)
        else:
            manifest = prepare(given.folder, read_config(given), log=lambda line: print(line, flush=True))
    except NestedLearningError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(*summary(manifest), sep="\n")
    print(f"{time.monotonic() - start:.1f} s; next: python train.py data=tokens data.path={given.folder}")
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the shards")
    parser.add_argument("sources", nargs="*", help="files, folders, globs, hf:<data set>[@revision][:config][:split]")
    parser.add_argument("--check", action="store_true", help="only compare every file with its hash")
    parser.add_argument(
        "--tokenizer", default="byte", help="byte, bpe (trained on the text), or a path (default: byte)"
    )
    parser.add_argument("--vocab-size", "--vocab_size", type=int, help="size of the vocabulary of --tokenizer bpe")
    parser.add_argument(
        "--train-characters", type=int, default=PrepareConfig.train_characters, help="characters that bpe trains on"
    )
    parser.add_argument("--field", default="text", help="column or key that holds the text (default: text)")
    parser.add_argument("--separator", help="text between the documents of a text file")
    parser.add_argument(
        "--val-fraction", type=float, default=PrepareConfig.val_fraction, help="share of documents kept for validation"
    )
    parser.add_argument(
        "--shard-tokens", type=int, default=PrepareConfig.shard_tokens, help="tokens at which a shard is closed"
    )
    parser.add_argument("--max-documents", type=int, help="stop after this many documents")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: all)")
    given = parser.parse_args(arguments)
    if bool(given.sources) == given.check:
        parser.error("give sources to prepare, or --check alone")
    return given


def read_config(given: argparse.Namespace) -> PrepareConfig:
    """Return the configuration that the command line describes."""
    return PrepareConfig(
        sources=given.sources,
        reader=Reader(field=given.field, separator=given.separator),
        tokenizer=given.tokenizer,
        vocab_size=given.vocab_size,
        train_characters=given.train_characters,
        val_fraction=given.val_fraction,
        shard_tokens=given.shard_tokens,
        max_documents=given.max_documents,
        jobs=given.jobs,
    )


def summary(manifest: Manifest) -> list[str]:
    """Return one line per split, and one that counts the documents left out."""
    lines = []
    for split in ("train", "validation"):
        shards = manifest.of(split)
        tokens, size = sum(shard.tokens for shard in shards), sum(shard.bytes for shard in shards)
        documents = sum(shard.documents for shard in shards)
        lines.append(f"{split}: {documents:,} documents, {size:,} bytes, {tokens:,} tokens in {len(shards)} shards")
    return [*lines, f"left out (empty or not utf-8): {manifest.left_out:,} of {manifest.documents_read:,}"]


if __name__ == "__main__":
    run_process(main, "interrupted; the same command resumes it")
