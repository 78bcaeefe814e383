"""Writing checkpoints atomically: a kill at any moment, or a full disk, leaves a whole one to resume from."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from nested_learning.checkpoint.layout import (
    ALONE,
    CARD,
    CONFIG,
    DRAFT,
    FOLDER,
    HASHES,
    LATEST,
    MODEL,
    OPTIMIZER,
    PROGRESS,
    Progress,
    find,
    has_checkpoint,
    parts_of,
    read_latest,
    steps,
    write_config,
)
from nested_learning.checkpoint.tensors import model_tensors, plain
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import CheckpointError
from nested_learning.files import hash_file, sync, write_atomic
from nested_learning.optim.optimizer import Optimizer
from nested_learning.world.storage import own_file, write_parts
from nested_learning.world.world import World

# the last checkpoint, and the one before in case the last is damaged on disk
KEPT = 2
SHA256_BYTES = 32


def save(
    run: Path,
    model: nn.Module,
    optimizer: Optimizer,
    tokenizer: Tokenizer | None,
    config: dict[str, Any],
    progress: Progress,
    world: World = ALONE,
    keep_every: int = 0,
) -> Path:
    """Write a checkpoint of `run` and make it the latest; return its directory. All processes must call it.

    A kill at any moment leaves the previous checkpoint complete and named by `latest`. Only the first process writes,
    unless parameters are sharded: then each writes its shards. All but the last two are removed, except those of every
    `keep_every` steps (0: none). Raises CheckpointError on all processes when the disk is full or fails; the incomplete
    checkpoint is then removed.
    """
    target = run / FOLDER / f"step_{progress.step:08d}"
    draft = target.with_name(f"{DRAFT}{target.name}")

    def first(do: Callable[[], None]) -> None:
        # the first process does the work; an error of its is raised on all, so that none waits for the others
        def explained() -> str:
            with _explained(run, target):
                do()
            return ""

        world.share(explained)

    first(lambda: _begin(draft))
    hashes: dict[str, str] = {}
    if world.is_sharding:
        with _explained(run, target):
            hashes = _write_parts(draft, {MODEL: model_tensors(model), OPTIMIZER: optimizer.local_tensors()}, world)
    else:
        first(lambda: hashes.update(_write_whole(draft, model_tensors(model), optimizer.state_dict())))
    card = _card(model, config, progress)
    first(lambda: _describe(draft, tokenizer, config, progress, card, hashes))
    first(lambda: _finish(draft, target, keep_every))
    return target


def is_kept(step: int, keep_every: int) -> bool:
    """Return whether `keep_every` keeps the checkpoint of `step`; step 0 is one of them."""
    return keep_every > 0 and step % keep_every == 0


def tidy(run: Path) -> None:
    """Remove the temporary files of a killed process from `run`; only the process that holds its lock may call this."""
    _remove_drafts(run / FOLDER)
    for path in run.glob(".*.tmp"):
        path.unlink()


@contextmanager
def _explained(run: Path, target: Path) -> Iterator[None]:
    """Raise a write error as CheckpointError that says how to resume once there is space."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        with suppress(OSError, CheckpointError):
            _remove_drafts(run / FOLDER)
        earlier = f"resumes from {find(run).name}" if has_checkpoint(run) else "starts again from step 0"
        raise CheckpointError(
            f"{target}: cannot be written ({reason}); free space on that disk and give the same command again with "
            f"resume={run}: the run {earlier}"
        ) from error


def _begin(draft: Path) -> None:
    """Make the directory `draft` and its folder, and remove drafts of killed processes."""
    folder = draft.parent
    if not folder.exists():
        folder.mkdir()
        # without this a power cut could lose the folder's name, and with it every checkpoint inside
        sync(folder.parent)
    _remove_drafts(folder)
    draft.mkdir()


def _finish(draft: Path, target: Path, keep_every: int) -> None:
    """Rename the complete draft to its final name, make it the latest, and remove old checkpoints."""
    folder = target.parent
    # before the draft is renamed: a kill between two renames of a checkpoint that is replaced, or before the first
    # `latest` is written, then leaves a checkpoint that can be found
    write_atomic(folder / LATEST, draft.name + "\n")
    _replace(draft, target)
    write_atomic(folder / LATEST, target.name + "\n")
    _keep_newest(folder, target, keep_every)


def _replace(draft: Path, target: Path) -> None:
    """Replace the directory `target` by `draft`; called again after a kill, it completes the remaining renames."""
    replaced = target.with_name(f"{DRAFT}replaced")
    if target.exists():
        _remove(replaced)
        target.rename(replaced)
    draft.rename(target)
    sync(target.parent)


def _write_whole(draft: Path, model: dict[str, Tensor], optimizer: dict[str, Tensor]) -> dict[str, str]:
    """Write model and optimizer as one file each, synced to disk; return the sha256 of the files."""
    with ThreadPoolExecutor() as pool:
        done = []
        for path, tensors in ((draft / MODEL, model), (draft / OPTIMIZER, optimizer)):
            save_file(plain(tensors), path)
            # safetensors makes files private to their owner; give them the permissions of the run's other files
            path.chmod(draft.stat().st_mode & 0o666)
            # one file is synced while the next is written, and hashing overlaps with both
            done.append((path.name, pool.submit(sync, path), pool.submit(hash_file, path)))
        for _, synced, _ in done:
            synced.result()
        return {name: hashed.result() for name, _, hashed in done}


def _write_parts(draft: Path, files: dict[str, dict[str, Tensor]], world: World) -> dict[str, str]:
    """Write each of `files` as a folder with one file of each process; return the sha256 of all of them."""
    own: list[float] = []
    for name, tensors in files.items():
        file = write_parts(parts_of(draft / name), tensors, world.rank)
        # a process without shards (few parameters, many processes) has no file and sends 32 zero bytes
        own += bytes(SHA256_BYTES) if file is None else bytes.fromhex(hash_file(file))
    hashes = {}
    for rank, digests in enumerate(world.gather(own)):
        for index, name in enumerate(files):
            digest = bytes(int(byte) for byte in digests[index * SHA256_BYTES : (index + 1) * SHA256_BYTES])
            if any(digest):
                hashes[own_file(parts_of(draft / name), rank).relative_to(draft).as_posix()] = digest.hex()
    return hashes


def _describe(
    draft: Path,
    tokenizer: Tokenizer | None,
    config: dict[str, Any],
    progress: Progress,
    card: str,
    hashes: dict[str, str],
) -> None:
    """Write all other files and the sha256 of all files (`hashes` has those of the tensors), synced to disk."""
    write_config(draft, config)
    if tokenizer is not None:
        tokenizer.save(draft)
    (draft / PROGRESS).write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
    (draft / CARD).write_text(card, encoding="utf-8")
    others = [path for path in sorted(draft.iterdir()) if path.is_file() and path.name not in hashes]
    hashes |= {path.name: hash_file(path) for path in others}
    (draft / HASHES).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")
    for path in [*draft.iterdir(), draft]:
        sync(path)


def _keep_newest(folder: Path, newest: Path, keep_every: int) -> None:
    """Remove all checkpoints but `newest`, those just before it, and those before it of every `keep_every` steps.

    Later ones were made before the run resumed from an older checkpoint.
    """
    older = [path for path in steps(folder) if path.name < newest.name]
    kept = {path for path in older if is_kept(int(path.name.removeprefix("step_")), keep_every)}
    for path in set(steps(folder)) - {newest, *older[-(KEPT - 1) :]} - kept:
        # renamed first, so that a partly removed directory never looks like a checkpoint
        path.rename(folder / f"{DRAFT}{path.name}")
    _remove_drafts(folder)


def _remove_drafts(folder: Path) -> None:
    """Remove drafts and temporary files; a draft that `latest` names is complete and gets its final name first."""
    named = read_latest(folder)
    if named is not None and named.name.startswith(DRAFT) and named.is_dir():
        _replace(named, named.with_name(named.name.removeprefix(DRAFT)))
    for path in folder.glob(f"{DRAFT}*"):
        _remove(path)
    for path in folder.glob(".*.tmp"):
        path.unlink()


def _remove(path: Path) -> None:
    """Remove a directory if it is there; of a link only the link, since what it names may be of another run."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _card(model: nn.Module, config: dict[str, Any], progress: Progress) -> str:
    rows = "".join(f"| {name} | {value:.6g} |\n" for name, value in sorted(progress.metrics.items()))
    return (
        f"# {config['model']['name']}, step {progress.step}\n\n"
        f"{sum(p.numel() for p in model.parameters())} parameters, trained on {progress.tokens} tokens of "
        f"data={config['data']['name']} (sha256 {progress.source[:12]}) with seed {progress.seed}. "
        f"The whole configuration is in `{CONFIG}`.\n\n| metric | value |\n| --- | --- |\n{rows}"
    )
