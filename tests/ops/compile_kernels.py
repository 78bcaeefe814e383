"""Compile every kernel for several GPUs, without one: nothing runs, but the use of registers and memory is known.

python tests/ops/compile_kernels.py
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget

from nested_learning.ops.gates import Gates
from nested_learning.ops.triton import gates, scans, systems

# compute capability: A100, RTX 4090, H100; what a block of each may take of shared memory
SHARED_BYTES = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}
DUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class Driver:
    """A driver for compiling without a GPU."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiled:
    """A kernel whose launch only compiles it."""

    def __init__(self, kernel) -> None:
        self.kernel, self.last = kernel, None

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: object, **options: object) -> None:
            self.last = self.kernel.run(*args, grid=grid, warmup=True, **options)

        return launch

    def spilled_bytes(self) -> int:
        """Return the bytes of a thread's stack: values that did not fit into registers."""
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            Path(file.name).write_bytes(self.last.asm["cubin"])
            command = [DUMP, "--dump-resource-usage", file.name]
            usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(usage.split("STACK:")[1].split()[0])


class Report:
    """Prints the resources of each kernel, and whether any uses too much."""

    def __init__(self) -> None:
        self.failed = False

    def add(self, kernel: Compiled, name: str) -> None:
        """Read what the last launch compiled."""
        capability = triton.runtime.driver.active.get_current_device()
        shared, spilled = kernel.last.metadata.shared, kernel.spilled_bytes()
        self.failed |= shared > SHARED_BYTES[capability] or spilled > 0
        print(f"sm_{capability} {name}: shared {shared}, spilled {spilled}", flush=True)


def compile_scans(kernel: Compiled, report: Report) -> None:
    """Launch scans over chunks of 64 tokens, of every precision."""
    for precision in scans.PRODUCTS:
        torch.set_float32_matmul_precision(precision)
        for dim, momentum, back in ((64, True, False), (128, True, False), (128, True, True), (64, False, True)):
            dim_state, num_gates = (2 * dim, 3) if momentum else (dim, 1)
            rows, constant = torch.zeros(2, 2, 64, dim_state), torch.zeros(2, 2, 64, dim)
            states = torch.zeros(2, 2, dim_state, dim)
            given = scans.ScanInputs(
                rows, constant, rows, torch.zeros(num_gates, 2, 2), states[0], states if back else None
            )
            scans.launch(given, back=back)
            report.add(kernel, f"scan {precision} {dim=} {momentum=} {back=}")
    torch.set_float32_matmul_precision("highest")


def compile_others(solver: Compiled, kernel: Compiled, backward: Compiled, report: Report) -> None:
    """Launch the systems and the gates of chunks of 64 and 128 tokens."""
    for size in (64, 128):
        for back in (False, True):
            systems.launch(torch.zeros(2, size, size), torch.zeros(2, size, 192), back=back)
            report.add(solver, f"solve {size=} {back=}")
        decays = gates.unroll(Gates(*(torch.zeros(2, size, requires_grad=True) for _ in range(3))))
        report.add(kernel, f"gates {size=}")
        decays.written.sum().backward()
        report.add(backward, f"gates {size=} back=True")


def main() -> None:
    """Compile all kernels; exit with an error if one uses too much."""
    scans._scan, systems._solve = Compiled(scans._scan), Compiled(systems._solve)
    gates._kernel, gates._backward = Compiled(gates._kernel), Compiled(gates._backward)
    report = Report()
    for capability in SHARED_BYTES:
        triton.runtime.driver.set_active(Driver(capability))
        compile_scans(scans._scan, report)
        compile_others(systems._solve, gates._kernel, gates._backward, report)
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
