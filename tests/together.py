"""Several processes for a test: forked from one server that knows torch already, which costs a third of torchrun."""

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

# a test must not wait for longer
PATIENCE = 120.0
STORES: list[TCPStore] = []


def start(function: Callable[..., Any], size: int, *arguments: Any) -> tuple[list[ForkServerProcess], Path]:
    """Start `size` processes that find each other as torchrun's do; each calls `function`, which a module must have.

    Returns them, and the folder where each writes what was returned, as JSON.
    """
    # as torchrun does: where they meet must outlive any of them, and one world after another
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
    """Call `function` on `size` processes that train together; return what each of them returned."""
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
