"""The memory of this machine that is free."""

from pathlib import Path

import torch


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of `device` in bytes; None where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if device.type != "cpu" or not info.exists():
        return None
    lines = dict(line.split(":") for line in info.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    return min([free, *_free_in_group()])


def _free_in_group() -> list[int]:
    """Return the bytes left under the memory limit of the process's control group, if it has a limit."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if not limit.exists() or not used.exists() or limit.read_text().strip() == "max":
        return []
    return [int(limit.read_text()) - int(used.read_text())]
