import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.gpt2 import FOLDER, needs_gpt2
from data.rows import KINDS, make_documents, write_lines, write_text

from nested_learning.data.source import SPLITS
from nested_learning.data.text import prepare as prepare_module
from nested_learning.data.text.encoding import encode_all
from nested_learning.data.text.prepare import PROGRESS, PrepareConfig, prepare
from nested_learning.data.text.readers import Reader
from nested_learning.data.text.shards import MANIFEST, Manifest, TokenStream, check, read_manifest
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.data.tokenizers.tokenizer_files import open_tokenizer
from nested_learning.errors import ConfigError, DataError, NestedLearningError

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "prepare_data.py"


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "BATCH_CHARACTERS", 500)


def plan(source: str, **values: object) -> PrepareConfig:
    given = {"sources": [source], "val_fraction": 0.2, "shard_tokens": 3000} | values
    return PrepareConfig(**given)  # type: ignore[arg-type]


def make(folder: Path, source: str, **values: object) -> Manifest:
    return prepare(folder, plan(source, **values), log=lambda _: None)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of every file of a prepared folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "lock"}


def streams(folder: Path) -> dict[str, TokenStream]:
    manifest = read_manifest(folder)
    end = open_tokenizer(folder).end
    return {split: TokenStream(folder, manifest.of(split), manifest.dtype, end) for split in SPLITS}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_lines(tmp_path_factory.mktemp("rows") / "lines", make_documents())


@pytest.fixture
def whole(tmp_path: Path, source: str) -> Path:
    make(tmp_path / "whole", source)
    return tmp_path / "whole"


def test_every_document_is_in_exactly_one_split_between_end_tokens(whole: Path) -> None:
    found = []
    for stream in streams(whole).values():
        tokens = stream[:].tolist()
        assert tokens[0] == tokens[-1] == 256
        assert stream.starts().tolist() == [i for i, token in enumerate(tokens[:-1]) if token == 256]
        found.append([bytes(document).decode() for document in split_at(tokens, 256)])
    train, validation = found
    assert sorted([*train, *validation]) == sorted(make_documents())
    assert not set(train) & set(validation)
    # the order of the text is kept
    assert train == [document for document in make_documents() if document in train]


def split_at(tokens: list[int], end: int) -> list[list[int]]:
    """Return the tokens between consecutive `end` tokens."""
    places = [i for i, token in enumerate(tokens) if token == end]
    return [tokens[a + 1 : b] for a, b in pairwise(places)]


def test_the_manifest_counts_tokens_documents_and_bytes(whole: Path) -> None:
    manifest = read_manifest(whole)
    assert sum(shard.documents for shard in manifest.shards) == manifest.documents_read == 60
    assert sum(shard.bytes for shard in manifest.shards) == sum(len(d.encode()) for d in make_documents())
    # bytes, and the end before each document
    assert all(shard.tokens == shard.bytes + shard.documents for shard in manifest.shards)
    assert len(manifest.of("train")) > 3
    assert manifest.left_out == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_in_any_file_format_give_the_same_shards(kind: str, whole: Path, tmp_path: Path) -> None:
    reader = Reader(separator="<|next|>") if kind == "separated" else Reader()
    manifest = make(tmp_path / "other", KINDS[kind](tmp_path / kind, make_documents()), reader=reader)
    assert manifest.shards == read_manifest(whole).shards
    assert manifest.fingerprint == read_manifest(whole).fingerprint


def test_any_number_of_processes_writes_the_same_bytes(whole: Path, source: str, tmp_path: Path) -> None:
    make(tmp_path / "again", source)
    make(tmp_path / "parallel", source, jobs=2)
    assert contents(tmp_path / "again") == contents(whole) == contents(tmp_path / "parallel")


class Killed(BaseException):
    """Simulates SIGKILL: no code catches it, and no clean-up touches a file."""


def test_a_kill_before_any_sync_or_rename_leads_to_the_same_bytes(source: str, tmp_path: Path) -> None:
    make(tmp_path / "whole", source, shard_tokens=8000)
    whole = contents(tmp_path / "whole")
    kill_at, was_killed = 0, True
    while was_killed:
        kill_at += 1
        folder = tmp_path / f"killed_{kill_at}"
        was_killed = run_and_kill(folder, source, kill_at)
        if kill_at % 2:
            # killed once more soon after it resumed
            run_and_kill(folder, source, 3)
        make(folder, source, shard_tokens=8000)
        assert contents(folder) == whole, f"killed at {kill_at}"
    assert kill_at > 20


def run_and_kill(folder: Path, source: str, kill_at: int) -> bool:
    """Prepare until just before the `kill_at`th sync or rename; return whether there was one."""
    left = kill_at

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return function(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", dying(os.fsync))
        patch.setattr(Path, "replace", dying(Path.replace))
        try:
            make(folder, source, shard_tokens=8000)
        except Killed:
            return True
    return False


def test_the_killed_script_resumes_and_writes_the_same_bytes(tmp_path: Path) -> None:
    # the script has batches of the real size, so it needs long documents
    words = [f"{i} {document * 40}" for i, document in enumerate(make_documents() * 8)]
    lines = write_lines(tmp_path / "many", words)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "killed"), lines, "--val-fraction", "0.1"]
    command += ["--shard-tokens", "400000", "--jobs", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while child.poll() is None and not (tmp_path / "killed" / PROGRESS).exists():
        time.sleep(0.005)
    child.kill()
    child.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    prepare_module.BATCH_CHARACTERS = 1 << 20
    prepare(tmp_path / "whole", plan(lines, val_fraction=0.1, shard_tokens=400_000), log=lambda _: None)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(read_manifest(tmp_path / "whole").of("train")) > 1
    assert "next: python train.py data=tokens" in done.stdout
    checked = subprocess.run([*command[:2], "--check", command[2]], env=environment, capture_output=True, text=True)
    assert checked.returncode == 0


def test_a_flipped_byte_is_detected_and_its_shard_written_again(whole: Path, source: str) -> None:
    before, manifest = contents(whole), read_manifest(whole)
    for name in (f"{manifest.of('train')[1].name}.tokens", f"{manifest.of('validation')[0].name}.documents"):
        data = bytearray(before[name])
        data[len(data) // 2] ^= 1
        (whole / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"{name}: its contents have changed .* replaces damaged shards"):
            check(whole, manifest)
        check(whole, manifest, by_hash=False)
        make(whole, source)
        assert contents(whole) == before
    (whole / name).write_bytes(before[name][:-8])
    with pytest.raises(DataError, match=rf"{name}: \d+ bytes instead of"):
        check(whole, manifest, by_hash=False)
    (whole / name).unlink()
    with pytest.raises(DataError, match=f"{name}: missing"):
        check(whole, manifest, by_hash=False)


def test_different_options_are_refused_and_named(whole: Path, source: str, tmp_path: Path) -> None:
    for values, message in (
        ({"val_fraction": 0.3}, r'other options, \{"val_fraction": 0.2\} instead of \{"val_fraction": 0.3\}'),
        ({"reader": Reader(field="body")}, '"field": "body"'),
        ({"sources": [write_text(tmp_path / "text", ["a"])]}, "other options"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(whole, source, **values)
    path = Path(source).parent / "a.jsonl"
    before = path.read_bytes()
    path.write_bytes(before + b'{"text": "more"}\n')
    with pytest.raises(ConfigError, match="other inputs"):
        make(whole, source)
    path.write_bytes(before)
    make(whole, source, jobs=2)


def test_a_folder_with_other_files_or_in_use_is_refused(source: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="holds other files"):
        make(tmp_path / "mine", source)
    assert list((tmp_path / "mine").iterdir()) == [tmp_path / "mine" / "letter.txt"]
    with prepare_module._lock_folder(tmp_path / "used"), pytest.raises(ConfigError, match="in use by another process"):
        make(tmp_path / "used", source)


def test_text_for_one_split_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 1 documents is in the (validation|train) split; .* use data=text"):
        make(tmp_path / "one", write_text(tmp_path / "text", ["only this"]))
    assert not (tmp_path / "one" / MANIFEST).exists()


def test_max_documents_limits_the_documents_read(source: str, tmp_path: Path) -> None:
    assert make(tmp_path / "some", source, max_documents=40).documents_read == 40


def test_documents_that_are_not_text_are_left_out_and_counted(tmp_path: Path) -> None:
    documents = [json.dumps({"text": text}) for text in [*make_documents(), ""]] + ['{"text": null}'] * 2
    (tmp_path / "a.jsonl").write_text("\n".join(documents))
    manifest = make(tmp_path / "shards", str(tmp_path / "a.jsonl"))
    assert (manifest.documents_read, manifest.left_out) == (63, 3)
    assert sum(shard.documents for shard in manifest.shards) == 60


def test_a_tokenizer_is_trained_on_training_text_and_kept_with_the_shards(tmp_path: Path) -> None:
    documents = make_documents(300)
    kept = [prepare_module.is_kept(document, 0.2) for document in documents]
    source = write_lines(tmp_path / "lines", documents)
    manifest = make(tmp_path / "shards", source, tokenizer="bpe", vocab_size=300)
    tokenizer = open_tokenizer(tmp_path / "shards")
    assert (tokenizer.vocab_size, tokenizer.fingerprint) == (300, manifest.tokenizer)
    from nested_learning.data.tokenizers.bpe import train_bpe

    train = [document for document, is_kept in zip(documents, kept, strict=True) if not is_kept]
    assert train_bpe(train, 300).fingerprint == manifest.tokenizer
    assert 0 < len(train) < len(documents)


@needs_gpt2
def test_bytes_of_gpt2s_tokens_add_up_to_the_text(source: str, tmp_path: Path) -> None:
    manifest = make(tmp_path / "shards", source, tokenizer=str(FOLDER))
    assert manifest.dtype == "<u2"
    assert sum(shard.bytes for shard in manifest.shards) == sum(len(d.encode()) for d in make_documents())


def test_a_stream_slices_like_one_array(whole: Path) -> None:
    stream = streams(whole)["train"]
    flat = np.concatenate([*(np.fromfile(path, "<u2") for path in sorted(whole.glob("train*.tokens"))), [256]])
    assert len(stream) == len(flat)
    bounds = [0, 1, *np.cumsum([shard.tokens for shard in read_manifest(whole).of("train")]).tolist(), len(flat)]
    for start in {max(0, bound + i) for bound in bounds for i in (-2, -1, 0, 1)}:
        for stop in {bound + i for bound in bounds for i in (-1, 0, 1)}:
            assert np.array_equal(stream[start:stop], flat[start:stop]), (start, stop)
    assert np.array_equal(stream.starts(), np.flatnonzero(flat == 256)[:-1])


# Python 3.11's pool sometimes waits for ever when a process is killed while it takes work
@pytest.mark.slow
def test_a_killed_encoding_process_is_an_error_with_its_fix(tmp_path: Path) -> None:
    make(tmp_path / "shards", write_lines(tmp_path / "lines", make_documents()))
    texts = make_documents()[:5]

    def batches() -> object:
        yield texts
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)
        yield texts

    with pytest.raises(DataError, match=r"was killed.* fewer --jobs"):
        list(encode_all(batches(), ByteTokenizer(), tmp_path / "shards", 0.2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"val_fraction": 0.0}, "--val-fraction=0.0"),
        ({"shard_tokens": 0}, "--shard-tokens=0: must be from 1 to"),
        ({"jobs": 0}, "--jobs=0"),
        ({"tokenizer": "bpe"}, "--tokenizer=bpe: needs a vocabulary size"),
        ({"vocab_size": 300}, "--vocab_size=300: the byte tokenizer"),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan("x", **values)


def test_text_in_another_encoding_is_named_as_such_and_what_is_read_is_counted(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes(b"caf\xe9")
    lines: list[str] = []
    with pytest.raises(DataError, match="all 1 documents are empty or not utf-8; convert it: iconv"):
        prepare(tmp_path / "out", plan(str(tmp_path / "texts")), log=lines.append)
    (tmp_path / "texts" / "b.md").write_text("text")
    with pytest.raises(DataError, match="none of 2 documents is in the"):
        prepare(tmp_path / "other", plan(str(tmp_path / "texts")), log=lines.append)
    assert lines[0] == "reading 1 .txt"
    assert "reading 1 .md, 1 .txt" in lines


def test_an_empty_source_is_not_the_working_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        make(tmp_path / "out", "")


@pytest.mark.parametrize(
    ("folder", "values", "message"),
    [
        ("file", {}, "file: cannot be created"),
        ("x" * 300, {}, "cannot be created"),
        ("new", {"sources": ["x" * 300]}, "cannot be read"),
        ("new", {"sources": ["hf:"]}, "hf:: names no data set"),
        ("new", {"tokenizer": "none.json"}, "--tokenizer=none.json: must be"),
        ("new", {"reader": Reader(field="body")}, "no key 'body'"),
        ("new", {"jobs": 10**11}, "--jobs=100000000000: must be from 1 to 1,024"),
        ("new", {"shard_tokens": 2**63}, "--shard-tokens=9223372036854775808: must be from 1 to"),
    ],
)
def test_what_cannot_be_prepared_leaves_no_folder(
    tmp_path: Path, source: str, folder: str, values: dict[str, object], message: str
) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(NestedLearningError, match=message):
        make(tmp_path / folder, source, **values)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_tokenizer_than_that_of_a_killed_call_is_made_or_refused(tmp_path: Path, source: str) -> None:
    make(tmp_path / "byte", source)
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "lock").touch()
    # a kill after the tokenizer was written and before anything else was
    (killed / "tokenizer.json").write_bytes((tmp_path / "byte" / "tokenizer.json").read_bytes())
    manifest = make(killed, source, tokenizer="bpe", vocab_size=300)
    assert open_tokenizer(killed).vocab_size == 300
    assert open_tokenizer(killed).fingerprint == manifest.tokenizer
