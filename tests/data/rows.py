"""The same documents in every file format that can be read."""

import gzip
import json
import random
from pathlib import Path

import pytest

WORDS = ("def", "return", "self", "étage", "memory", "<|end|>", "漢字", "🙂", "in", "1234", "\n    ")


def make_documents(number: int = 60) -> list[str]:
    """Return documents of one to eighty words, the same at every call; two of them are equal."""
    pick = random.Random(0)
    documents = [f"{i} " + " ".join(pick.choices(WORDS, k=pick.randrange(1, 80))).strip() for i in range(number)]
    return [*documents[:-1], documents[0]]


def write_text(folder: Path, documents: list[str]) -> str:
    folder.mkdir()
    for i, document in enumerate(documents):
        (folder / f"{i:04d}.txt").write_bytes(document.encode())
    return str(folder)


def write_separated(folder: Path, documents: list[str]) -> str:
    folder.mkdir()
    (folder / "all.txt").write_bytes("\n<|next|>\n".join(documents).encode())
    return str(folder / "all.txt")


def lines_of(documents: list[str]) -> list[bytes]:
    return [json.dumps({"id": i, "text": document}).encode() + b"\n" for i, document in enumerate(documents)]


def write_lines(folder: Path, documents: list[str]) -> str:
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"\n".join(lines_of(documents)))
    return str(folder / "*.jsonl")


def write_gzip(folder: Path, documents: list[str]) -> str:
    folder.mkdir()
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b"".join(lines_of(documents))))
    return str(folder)


def write_zstandard(folder: Path, documents: list[str]) -> str:
    """Write two files, the second in several frames, as programs that compress in parallel write them."""
    zstandard = pytest.importorskip("zstandard")
    folder.mkdir()
    lines, press = lines_of(documents), zstandard.ZstdCompressor()
    (folder / "a.jsonl.zst").write_bytes(press.compress(b"".join(lines[:10])))
    (folder / "b.jsonl.zst").write_bytes(b"".join(press.compress(line) for line in lines[10:]))
    return str(folder)


def write_parquet(folder: Path, documents: list[str]) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder.mkdir()
    table = pyarrow.table({"id": range(len(documents)), "text": documents})
    parquet.write_table(table, folder / "a.parquet", row_group_size=7)
    return str(folder)


def write_arrow(folder: Path, documents: list[str]) -> str:
    """Write half as a file and half as a stream of Arrow."""
    pyarrow = pytest.importorskip("pyarrow")
    folder.mkdir()
    halves = (documents[:25], documents[25:])
    for name, half, open_file in zip("ab", halves, (pyarrow.ipc.new_file, pyarrow.ipc.new_stream), strict=True):
        table = pyarrow.table({"text": half})
        with open_file(str(folder / f"{name}.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=4)
    return str(folder)


def write_hub(folder: Path, documents: list[str]) -> str:
    pytest.importorskip("datasets")
    return f"hf:{write_parquet(folder, documents)}"


KINDS = {
    "text": write_text,
    "separated": write_separated,
    "lines": write_lines,
    "gzip": write_gzip,
    "zstandard": write_zstandard,
    "parquet": write_parquet,
    "arrow": write_arrow,
    "hub": write_hub,
}
