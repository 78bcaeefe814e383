"""From text of any size to token shards: in parallel, the same in however many processes, and again after a kill.

One process reads documents and hands batches of them to the others, which encode; it writes the tokens in the order
of the text. After each shard `progress.json` says how far the text was read. Killed at any moment, the same command
goes on after the last whole shard, and ends with the same bytes; what was damaged since it makes again.
"""

import fcntl
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from nested_learning.data.source import SPLITS
from nested_learning.data.text.encoding import dtype_of, encode_all, is_kept
from nested_learning.data.text.readers import Input, Reader, find_inputs
from nested_learning.data.text.shard_writer import DRAFT, ShardWriter
from nested_learning.data.text.shards import MANIFEST, Manifest, Shard, find_damage, read_manifest
from nested_learning.data.tokenizers.choose_tokenizer import check_choice, make_tokenizer
from nested_learning.data.tokenizers.tokenizer import FILE_NAME, Tokenizer
from nested_learning.data.tokenizers.tokenizer_files import open_tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.files import sync, write_atomic

PROGRESS, LOCK = "progress.json", "lock"

# characters that are encoded at a time; together with the text they decide where shards end, so they are no option
BATCH_CHARACTERS = 1 << 20

# where reading goes on: the number of an input, and of the documents of it that were read
Position = tuple[int, int]
Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare. `jobs` is the only value that the shards do not depend on.

    `sources`: see `readers.find_inputs`. `tokenizer`: byte, bpe (of `vocab_size`, trained on the first
    `train_characters`) or a path. `val_fraction`: the share of documents kept for validation, chosen by the hash of
    their text, so that equal ones are on one side. `shard_tokens`: a shard is closed when it has so many.
    `max_documents`: read no more; None: all.
    """

    sources: list[str]
    reader: Reader = field(default_factory=Reader)
    tokenizer: str = "byte"
    vocab_size: int | None = None
    train_characters: int = 200_000_000
    val_fraction: float = 0.01
    shard_tokens: int = 1 << 27
    max_documents: int | None = None
    jobs: int = 1

    def __post_init__(self) -> None:
        check_choice(self.tokenizer, self.vocab_size, "--")
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"--val-fraction={self.val_fraction}: must lie between 0 and 1, e.g. --val-fraction=0.01")
        for name in ("train_characters", "shard_tokens", "jobs", "max_documents"):
            value = vars(self)[name]
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')}={value}: must be at least 1")


class Part(NamedTuple):
    """A stretch of the text that is done: where reading goes on, what was read so far, the shards made of it."""

    next: Position
    documents_read: int
    left_out: int
    shards: list[Shard]


class Batch(NamedTuple):
    """Documents that are encoded together; the figures are those after it."""

    texts: list[str]
    next: Position
    documents_read: int
    left_out: int


def prepare(folder: Path, plan: PrepareConfig, log: Log = print) -> Manifest:
    """Write the token shards of `plan` into `folder`, going on where an earlier call was stopped; return the manifest.

    Raises ConfigError for a source that is not there or a folder with other data, DataError for what cannot be read.
    """
    inputs = find_inputs(plan.sources)
    with _claim(folder):
        tokenizer = _prepare_tokenizer(folder, plan, inputs)
        made_with = _describe(plan, inputs, tokenizer)
        parts, is_whole = _read_parts(folder, made_with, log)
        if (folder / MANIFEST).exists():
            if is_whole:
                log(f"complete already: {folder}")
                return read_manifest(folder)
            (folder / MANIFEST).unlink()
        done = parts[-1] if parts else Part((0, 0), 0, 0, [])
        for part in _make_parts(folder, plan, inputs, tokenizer, (done, len(parts))):
            parts.append(part)
            _write_parts(folder, made_with, parts)
            log(_figures(parts))
        return _finish(folder, made_with, parts)


@contextmanager
def _claim(folder: Path) -> Iterator[None]:
    """Make the folder, keep other processes out of it while the context lasts, and clear what a kill left behind."""
    if folder.exists() and any(folder.iterdir()) and not ((folder / LOCK).exists() or (folder / MANIFEST).exists()):
        raise ConfigError(f"{folder}: exists and holds something else; give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror}); give another folder") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in [*folder.glob(f"{DRAFT}*"), *folder.glob(".*.tmp")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
    except BlockingIOError:
        raise ConfigError(f"{folder}: in use by another process; wait for it, or give another folder") from None
    finally:
        os.close(lock)


def _prepare_tokenizer(folder: Path, plan: PrepareConfig, inputs: list[Input]) -> Tokenizer:
    """Make the tokenizer, or open the one that an earlier call made."""
    if not (folder / FILE_NAME).exists():
        documents = islice(_read(inputs, plan, (0, 0)), plan.max_documents)
        texts = (text for text, _ in documents if text and not is_kept(text, plan.val_fraction))
        tokenizer = make_tokenizer(plan.tokenizer, plan.vocab_size, _first(texts, plan.train_characters), "--")
        draft = folder / f"{DRAFT}tokenizer"
        draft.mkdir()
        tokenizer.save(draft)
        sync(draft / FILE_NAME)
        (draft / FILE_NAME).replace(folder / FILE_NAME)
        draft.rmdir()
        sync(folder)
    return open_tokenizer(folder)


def _first(texts: Iterable[str], characters: int) -> Iterator[str]:
    """Yield `texts` up to so many characters; the last is cut."""
    for text in texts:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return


def _describe(plan: PrepareConfig, inputs: list[Input], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what decides about the shards; as JSON gives it back."""
    options = {name: value for name, value in asdict(plan).items() if name != "jobs"}
    described = {"tokenizer": tokenizer.fingerprint, "dtype": dtype_of(tokenizer), "options": options, "inputs": inputs}
    loaded: dict[str, Any] = json.loads(json.dumps(described))
    return loaded


def _require_same(folder: Path, saved: dict[str, Any], made_with: dict[str, Any]) -> None:
    for name, value in made_with.items():
        if saved[name] != value:
            before, now = saved[name], value
            if isinstance(value, dict):
                changed = [key for key in value if saved[name].get(key) != value[key]]
                before, now = ({key: each.get(key) for key in changed} for each in (saved[name], value))
            raise ConfigError(
                f"{folder}: holds shards made with other {name}, {_short(before)} instead of {_short(now)}; "
                "give the same command again, or another folder"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 120 else f"{text[:117]}..."


def _read_parts(folder: Path, made_with: dict[str, Any], log: Log) -> tuple[list[Part], bool]:
    """Return the parts that are done and whole, up to the first that is not, and whether that is all of them."""
    path = folder / PROGRESS
    if not path.exists():
        return [], False
    saved = json.loads(path.read_text(encoding="utf-8"))
    _require_same(folder, saved, made_with)
    whole: list[Part] = []
    for position, read, left_out, shards in saved["parts"]:
        part = Part((position[0], position[1]), read, left_out, [Shard(**shard) for shard in shards])
        damage = next(filter(None, (find_damage(folder, shard, made_with["dtype"]) for shard in part.shards)), None)
        if damage:
            log(f"{damage}; made again from there")
            return whole, False
        whole.append(part)
    log(f"going on after {len(whole)} parts")
    return whole, True


def _write_parts(folder: Path, made_with: dict[str, Any], parts: list[Part]) -> None:
    saved = [(part.next, part.documents_read, part.left_out, list(map(asdict, part.shards))) for part in parts]
    write_atomic(folder / PROGRESS, json.dumps(made_with | {"parts": saved}) + "\n")


def _finish(folder: Path, made_with: dict[str, Any], parts: list[Part]) -> Manifest:
    """Write the manifest: from then on the folder is complete."""
    shards = [shard for part in parts for shard in part.shards]
    for split in SPLITS:
        if not any(shard.split == split for shard in shards):
            read = parts[-1].documents_read if parts else 0
            raise DataError(
                f"{folder}: none of {read} documents is for {split}; read more documents, or remove this folder and "
                "give another --val-fraction; for a few files use data=text"
            )
    manifest = Manifest(
        **made_with, documents_read=parts[-1].documents_read, left_out=parts[-1].left_out, shards=shards
    )
    write_atomic(folder / MANIFEST, manifest.to_json())
    return manifest


def _figures(parts: list[Part]) -> str:
    shards = [shard for part in parts for shard in part.shards]
    tokens, size = sum(shard.tokens for shard in shards), sum(shard.bytes for shard in shards)
    return f"{len(parts)} parts: {parts[-1].documents_read:,} documents read, {size:,} bytes, {tokens:,} tokens"


def _read(inputs: list[Input], plan: PrepareConfig, position: Position) -> Iterator[tuple[str | None, Position]]:
    """Yield the documents from `position` on, with the position after each."""
    first, skip = position
    for number in range(first, len(inputs)):
        for count, text in enumerate(plan.reader.read(inputs[number].name, skip), start=skip + 1):
            yield text, (number, count)
        skip = 0


def _batches(inputs: list[Input], plan: PrepareConfig, begin: Part) -> Iterator[Batch]:
    """Yield the documents after `begin` in batches of BATCH_CHARACTERS, which depend on nothing but the text."""
    texts, characters = [], 0
    position, read, left_out = begin.next, begin.documents_read, begin.left_out
    rest = None if plan.max_documents is None else plan.max_documents - read
    for text, position in islice(_read(inputs, plan, begin.next), rest):
        read += 1
        if text is None:
            left_out += 1
            continue
        texts.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield Batch(texts, position, read, left_out)
            texts, characters = [], 0
    if texts:
        yield Batch(texts, position, read, left_out)
    # nothing follows
    yield Batch([], position, read, left_out)


def _make_parts(
    folder: Path, plan: PrepareConfig, inputs: list[Input], tokenizer: Tokenizer, begin: tuple[Part, int]
) -> Iterator[Part]:
    """Encode and write what comes after the part and the number of parts in `begin`.

    A part has a shard of each split that it has documents of.
    """
    done, number = begin
    # batches are read ahead of what is encoded
    read: deque[Batch] = deque()
    texts = (batch.texts for batch in _keep(_batches(inputs, plan, done), read))
    writers = _open_writers(folder, number)
    for encoded in encode_all(texts, tokenizer, folder, plan.val_fraction, plan.jobs):
        batch = read.popleft()
        for split, writer in writers.items():
            writer.add(encoded[split])
        is_last = not batch.texts
        if sum(writer.tokens for writer in writers.values()) >= plan.shard_tokens or is_last:
            shards = [shard for writer in writers.values() for shard in writer.close()]
            # the last batch may have nothing to tell
            if batch.documents_read > done.documents_read:
                done = Part(batch.next, batch.documents_read, batch.left_out, shards)
                number += 1
                yield done
            writers = _open_writers(folder, number)


def _keep(batches: Iterable[Batch], kept: deque[Batch]) -> Iterator[Batch]:
    for batch in batches:
        kept.append(batch)
        yield batch


def _open_writers(folder: Path, number: int) -> dict[str, ShardWriter]:
    return {split: ShardWriter(folder, number, split) for split in SPLITS}
