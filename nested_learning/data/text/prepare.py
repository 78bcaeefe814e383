"""Prepare text of any size as token shards: in parallel, with the same bytes for any number of processes.

One process reads documents and sends batches of them to the others, which encode them; it writes the tokens in the
order of the text. `progress.json` records each finished part and how far the text was read. After a kill at any moment
the same command resumes after the last intact part and ends with the same bytes. Damaged shards are written again.
"""

import json
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from nested_learning.data.source import SPLITS
from nested_learning.data.text.documents import CONVERT
from nested_learning.data.text.encoding import dtype_of, encode_all, is_kept
from nested_learning.data.text.readers import Input, Reader, find_inputs
from nested_learning.data.text.shard_writer import DRAFT, ShardWriter
from nested_learning.data.text.shards import MANIFEST, Manifest, Shard, find_damage, read_manifest
from nested_learning.data.tokenizers.choose_tokenizer import check_choice, make_tokenizer
from nested_learning.data.tokenizers.tokenizer import FILE_NAME, Tokenizer
from nested_learning.data.tokenizers.tokenizer_files import open_tokenizer
from nested_learning.errors import ConfigError, DataError, NestedLearningError
from nested_learning.files import sync, write_atomic

PROGRESS, LOCK = "progress.json", "lock"

# characters encoded at a time. Shards end where a batch ends, so as an option it would change the bytes of the shards
BATCH_CHARACTERS = 1 << 20

# processes; more would be of no use, and far more cannot be started
MOST_JOBS = 1024

# where reading resumes: the index of an input, and how many of its documents were read
Position = tuple[int, int]
Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare. The shards depend on every value except `jobs`, the number of processes.

    `sources`: see `readers.find_inputs`. `tokenizer`: byte, bpe (of `vocab_size` tokens, trained on the first
    `train_characters`) or a path. `val_fraction`: fraction of documents kept for validation, chosen by the hash of
    their text, so that equal documents are in the same split. `shard_tokens`: a shard is closed when it has this many.
    `max_documents`: stop after this many; None: read all.
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
            most = MOST_JOBS if name == "jobs" else 2**63 - 1
            if value is not None and not 1 <= value <= most:
                raise ConfigError(f"--{name.replace('_', '-')}={value}: must be from 1 to {most:,}")


class Part(NamedTuple):
    """A finished part of the text: where reading resumes, documents read and left out so far, and its own shards."""

    next: Position
    documents_read: int
    left_out: int
    shards: list[Shard]


class TextBatch(NamedTuple):
    """Documents encoded together; position and counts are those after the last of them."""

    texts: list[str]
    next: Position
    documents_read: int
    left_out: int


def prepare(folder: Path, config: PrepareConfig, log: Log = print) -> Manifest:
    """Write the token shards of `config` into `folder`, or resume an earlier call; return the manifest.

    Raises ConfigError for a missing source or a folder with other contents, DataError for text that cannot be read. A
    folder that is new is then gone again, unless a part was finished.
    """
    inputs = find_inputs(config.sources)
    log(f"reading {_describe_inputs(inputs)}")
    parts: list[Part] = []
    with _lock_folder(folder) as is_new:
        try:
            return _prepare_locked(folder, config, inputs, parts, log)
        except NestedLearningError:
            if is_new and not parts:
                shutil.rmtree(folder)
            raise


def _prepare_locked(folder: Path, config: PrepareConfig, inputs: list[Input], parts: list[Part], log: Log) -> Manifest:
    """Write or complete the shards; the finished parts are added to `parts`, which is empty."""
    tokenizer = _prepare_tokenizer(folder, config, inputs)
    made_with = _describe(config, inputs, tokenizer)
    finished, is_intact = _read_parts(folder, made_with, log)
    parts += finished
    if (folder / MANIFEST).exists():
        if is_intact:
            log(f"already complete: {folder}")
            return read_manifest(folder)
        # the folder must not look complete while damaged shards are written again
        (folder / MANIFEST).unlink()
    # from here on the folder says what its tokenizer was made with
    _write_parts(folder, made_with, parts)
    done = parts[-1] if parts else Part((0, 0), 0, 0, [])
    # recorded part by part: a kill loses at most the part that was being written
    for part in _make_parts(folder, config, inputs, tokenizer, (done, len(parts))):
        parts.append(part)
        _write_parts(folder, made_with, parts)
        log(_progress_line(parts))
    return _finish(folder, made_with, parts)


def _describe_inputs(inputs: list[Input]) -> str:
    """Return how many files of each suffix there are, so that one which was not meant, such as README.md, is seen."""
    kinds = Counter("data sets" if each.size is None else Path(each.name).suffix or "files" for each in inputs)
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))


@contextmanager
def _lock_folder(folder: Path) -> Iterator[bool]:
    """Create the folder, lock it against other processes within the context, and remove unfinished files of a kill.

    The context is whether the folder is new.
    """
    try:
        is_new = not folder.exists()
        # drafts are deleted below, so refuse any folder that was not created by an earlier call
        if not is_new and any(folder.iterdir()) and not ((folder / LOCK).exists() or (folder / MANIFEST).exists()):
            raise ConfigError(f"{folder}: exists and holds other files; give another folder")
        folder.mkdir(parents=True, exist_ok=True)
        # the system releases this lock when the process dies, so a kill leaves no stale lock behind
        lock = FileLock(folder / LOCK)
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(
            f"{folder}: in use by another process; wait until it has finished, or give another folder"
        ) from None
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be created ({error.strerror}); give another folder") from error
    try:
        for path in [*folder.glob(f"{DRAFT}*"), *folder.glob(".*.tmp")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield is_new
    finally:
        lock.release()


def _prepare_tokenizer(folder: Path, config: PrepareConfig, inputs: list[Input]) -> Tokenizer:
    """Make the tokenizer, or open the one that an earlier call made: training it again would read the text again.

    Without a record of what it was made with, it may be another than the one that is wanted now.
    """
    if not ((folder / FILE_NAME).exists() and (folder / PROGRESS).exists()):
        documents = islice(_read_documents(inputs, config, (0, 0)), config.max_documents)
        # validation text must not influence the vocabulary
        texts = (text for text, _ in documents if text and not is_kept(text, config.val_fraction))
        tokenizer = make_tokenizer(config.tokenizer, config.vocab_size, _first(texts, config.train_characters), "--")
        # write, sync, then rename: the final name exists only with complete contents
        draft = folder / f"{DRAFT}tokenizer"
        draft.mkdir()
        tokenizer.save(draft)
        sync(draft / FILE_NAME)
        (draft / FILE_NAME).replace(folder / FILE_NAME)
        draft.rmdir()
        sync(folder)
    return open_tokenizer(folder)


def _first(texts: Iterable[str], characters: int) -> Iterator[str]:
    """Yield the first `characters` of `texts`; the last text is cut."""
    for text in texts:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return


def _describe(config: PrepareConfig, inputs: list[Input], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return everything that determines the shards, as it reads back from JSON, to compare it with `progress.json`."""
    options = {name: value for name, value in asdict(config).items() if name != "jobs"}
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
    """Return the finished parts up to the first damaged one, and whether none is damaged."""
    path = folder / PROGRESS
    if not path.exists():
        return [], False
    saved = json.loads(path.read_text(encoding="utf-8"))
    _require_same(folder, saved, made_with)
    intact: list[Part] = []
    # later parts are dropped after a damaged one, intact or not: writing resumes at one position and goes on from there
    for position, read, left_out, shards in saved["parts"]:
        part = Part((position[0], position[1]), read, left_out, [Shard(**shard) for shard in shards])
        damage = next(filter(None, (find_damage(folder, shard, made_with["dtype"]) for shard in part.shards)), None)
        if damage:
            log(f"{damage}; preparing again from this part on")
            return intact, False
        intact.append(part)
    log(f"resuming after {len(intact)} parts")
    return intact, True


def _write_parts(folder: Path, made_with: dict[str, Any], parts: list[Part]) -> None:
    saved = [(part.next, part.documents_read, part.left_out, list(map(asdict, part.shards))) for part in parts]
    write_atomic(folder / PROGRESS, json.dumps(made_with | {"parts": saved}) + "\n")


def _finish(folder: Path, made_with: dict[str, Any], parts: list[Part]) -> Manifest:
    """Write the manifest, which marks the folder as complete."""
    shards = [shard for part in parts for shard in part.shards]
    for split in SPLITS:
        if not any(shard.split == split for shard in shards):
            read, left_out = (parts[-1].documents_read, parts[-1].left_out) if parts else (0, 0)
            if read == left_out:
                raise DataError(f"{folder}: no text, all {read} documents are empty or not utf-8; {CONVERT}")
            raise DataError(
                f"{folder}: none of {read} documents is in the {split} split; read more documents, or remove this "
                "folder and give another --val-fraction; for a few files use data=text"
            )
    manifest = Manifest(
        **made_with, documents_read=parts[-1].documents_read, left_out=parts[-1].left_out, shards=shards
    )
    write_atomic(folder / MANIFEST, manifest.to_json())
    return manifest


def _progress_line(parts: list[Part]) -> str:
    shards = [shard for part in parts for shard in part.shards]
    tokens, size = sum(shard.tokens for shard in shards), sum(shard.bytes for shard in shards)
    return f"{len(parts)} parts: {parts[-1].documents_read:,} documents read, {size:,} bytes, {tokens:,} tokens"


def _read_documents(
    inputs: list[Input], config: PrepareConfig, position: Position
) -> Iterator[tuple[str | None, Position]]:
    """Yield the documents from `position` on, with the position after each."""
    first, skip = position
    for i in range(first, len(inputs)):
        for count, text in enumerate(config.reader.read(inputs[i].name, skip), start=skip + 1):
            yield text, (i, count)
        skip = 0


def _batches(inputs: list[Input], config: PrepareConfig, begin: Part) -> Iterator[TextBatch]:
    """Yield the documents after `begin` in batches of BATCH_CHARACTERS, and an empty batch at the end of the text."""
    texts, characters = [], 0
    position, read, left_out = begin.next, begin.documents_read, begin.left_out
    remaining = None if config.max_documents is None else config.max_documents - read
    for text, position in islice(_read_documents(inputs, config, begin.next), remaining):
        read += 1
        if text is None:
            left_out += 1
            continue
        texts.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield TextBatch(texts, position, read, left_out)
            texts, characters = [], 0
    if texts:
        yield TextBatch(texts, position, read, left_out)
    yield TextBatch([], position, read, left_out)


def _make_parts(
    folder: Path, config: PrepareConfig, inputs: list[Input], tokenizer: Tokenizer, begin: tuple[Part, int]
) -> Iterator[Part]:
    """Encode and write the text after `begin`, the last finished part and the number of finished parts.

    A part has one shard for each split that has documents in it.
    """
    done, number = begin
    # Encoding runs in parallel, so batches are read well before their tokens come back. `pending` keeps the position
    # and counts of each, in the same order, so that a part records what was written and not what was read.
    pending: deque[TextBatch] = deque()
    texts = (batch.texts for batch in _remember(_batches(inputs, config, done), pending))
    writers = _open_writers(folder, number)
    for encoded in encode_all(texts, tokenizer, folder, config.val_fraction, config.jobs):
        batch = pending.popleft()
        for split, writer in writers.items():
            writer.add(encoded[split])
        is_last = not batch.texts
        # shards end only where a batch ends, which the text alone determines: so kills and `jobs` change no byte
        if sum(writer.tokens for writer in writers.values()) >= config.shard_tokens or is_last:
            shards = [shard for writer in writers.values() for shard in writer.close()]
            # the empty last batch makes no part where nothing was read since the last one
            if batch.documents_read > done.documents_read:
                done = Part(batch.next, batch.documents_read, batch.left_out, shards)
                number += 1
                yield done
            writers = _open_writers(folder, number)


def _remember(batches: Iterable[TextBatch], pending: deque[TextBatch]) -> Iterator[TextBatch]:
    for batch in batches:
        pending.append(batch)
        yield batch


def _open_writers(folder: Path, number: int) -> dict[str, ShardWriter]:
    return {split: ShardWriter(folder, number, split) for split in SPLITS}
