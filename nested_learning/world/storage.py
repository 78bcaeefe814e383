"""Sharded tensors as files: each process writes its own shards, and any number of processes reads them.

The files are safetensors, made by torch.distributed.checkpoint; their headers hold the offset of each shard. No pickle.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

# imports of torch.distributed are inside the functions: they take a second, and only sharded checkpoints need them


def write_parts(directory: Path, tensors: dict[str, Tensor], rank: int) -> Path | None:
    """Write the parts of `tensors` that this process holds into `directory`, synced; all processes must call it.

    Replicated parts are written by one process. Returns the file of this process, None where it has nothing to write.
    Raises OSError, on all processes, when a file of one cannot be written. Equal tensors give equal bytes.
    """
    from torch.distributed import checkpoint

    writer = checkpoint.HuggingFaceStorageWriter(str(directory), save_distributed=True)
    with _plain_errors():
        checkpoint.save(dict(tensors), storage_writer=writer)
    file = own_file(directory, rank)
    if not file.exists():
        return None
    _order_header(file)
    return file


def _order_header(file: Path) -> None:
    """Sort the metadata in the header of a safetensors file, which is written in random order."""
    with file.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        # only the order changes, so the header keeps its length and every tensor its offset
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        assert len(ordered) == length, f"the header of {file} is not compact JSON"
        stream.seek(8)
        stream.write(ordered)
        stream.flush()
        os.fsync(stream.fileno())


def own_file(directory: Path, rank: int) -> Path:
    """Return the file in `directory` that the process `rank` writes its parts to, if it has any."""
    return directory / f"shard-{rank + 1:05d}-model-00001-of-00001.safetensors"


def describe_parts(directory: Path) -> dict[str, Tensor]:
    """Return the tensors that the files in `directory` hold together, with whole shapes, on the meta device."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    metadata = HuggingFaceStorageReader(str(directory)).read_metadata().state_dict_metadata
    return {
        name: torch.empty(each.size, dtype=each.properties.dtype, device="meta")
        for name, each in metadata.items()
        if isinstance(each, TensorStorageMetadata)
    }


def read_parts(directory: Path, tensors: dict[str, Tensor]) -> None:
    """Fill `tensors`, whole or sharded in any way, from the files in `directory`; nothing is sent.

    Names and whole shapes must be those of `describe_parts`. Raises OSError when a file cannot be read.
    """
    from torch.distributed import checkpoint

    reader = checkpoint.HuggingFaceStorageReader(str(directory))
    with _plain_errors(), torch.no_grad():
        checkpoint.load(dict(tensors), storage_reader=reader, no_dist=True)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise an error of any process as an OSError, and silence the library's log and warnings."""
    from torch.distributed.checkpoint.api import CheckpointException

    before = logging.getLogger("torch.distributed").level
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CheckpointException as error:
        # it is no Exception to Python, but a BaseException
        cause, _ = next(iter(error.failures.values()))
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror) from cause
        raise OSError(str(cause)) from cause
    finally:
        logging.getLogger("torch.distributed").setLevel(before)
