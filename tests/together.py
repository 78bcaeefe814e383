"""Several processes for a test, forked from one server that has imported torch: a third of the cost of torchrun."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tiny import server
from torch.distributed import TCPStore

# seconds that a test waits at most
PATIENCE = 120.0
STORES: list[TCPStore] = []


def start(function: Callable[..., Any], size: int, *arguments: Any) -> tuple[list[ForkServerProcess], Path]:
    """Start `size` processes that form a group as under torchrun; each calls `function`, which must be importable.

    Returns the processes, and the folder where each writes its result as JSON.
    """
    # as in torchrun, the store must outlive every process and every group
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    STORES.append(store)
    folder, number = Path(tempfile.mkdtemp()), store.port
    members = [
        server().Process(target=_join, args=(rank, size, number, folder, function, arguments)) for rank in range(size)
    ]
    for member in members:
        member.start()
    return members, folder


def together(function: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
    """Call `function` in `size` processes of one group; return the result of each."""
    members, folder = start(function, size, *arguments)
    codes = wait(members)
    assert codes == [0] * size, f"exit codes {codes}"
    return [json.loads((folder / str(rank)).read_text()) for rank in range(size)]


def wait(members: list[ForkServerProcess], patience: float = PATIENCE) -> list[int | None]:
    """Wait until all have ended and return their exit codes; None for those that had to be killed."""
    deadline = time.monotonic() + patience
    for member in members:
        member.join(max(0.0, deadline - time.monotonic()))
    codes = [member.exitcode for member in members]
    for member in members:
        member.kill()
        member.join()
    return codes


def _join(rank: int, size: int, port: int, folder: Path, function: Callable[..., Any], arguments: Any) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    (folder / str(rank)).write_text(json.dumps(function(*arguments)))
