"""A memory layer compared with attention on a GPU: time and memory, forward and backward, at 4k, 8k and 32k tokens.

    python -m scripts.benchmarks.cuda    # without a GPU it prints "not measured" and stops

One row, width 1024, heads of 64. Norm, projections and output around attention and memory are the same. Inputs are
bfloat16 by autocast, states and gates float32, matrix products of the memory as `--precision` says. Attention is
torch's SDPA, restricted to its FlashAttention kernel. Medians of `--rounds` rounds after three warm-up rounds.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from nested_learning.nn.associative import AssociativeMemory
from nested_learning.ops.backend import missing
from nested_learning.ops.gates import GateKinds
from nested_learning.ops.memory import Design

DIM, HEADS, CHUNK = 1024, 16, 64
SEQUENCES = [4096, 8192, 32768]


class Attention(nn.Module):
    """Causal attention by FlashAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.output = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend to `[b t d]`."""
        q, k, v = self.inputs(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(y.transpose(1, 2).flatten(2))


class Memory(nn.Module):
    """Titans' matrix memory, exact for every token, with momentum or without, computed by a backend."""

    def __init__(self, backend: str, momentum: str) -> None:
        super().__init__()
        design = Design("l2", False, "token", "token", False, False, CHUNK)
        kinds = GateKinds("gate", "gate", momentum, 1.0)
        self.layer = AssociativeMemory(DIM, HEADS, 4, replace(design, backend=backend), kinds, 1, DIM // HEADS, "zero")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Read and write `[b t d]`."""
        return self.layer(x, self.layer.init_state(len(x)))[0]


SUBJECTS: dict[str, Callable[[], nn.Module]] = {
    "attention": Attention,
    "eager": lambda: Memory("eager", "gate"),
    "triton": lambda: Memory("triton", "gate"),
    "eager, no momentum": lambda: Memory("eager", "none"),
    "triton, no momentum": lambda: Memory("triton", "none"),
    "fla, no momentum": lambda: Memory("fla", "none"),
}


def measure(layer: nn.Module, seq_len: int, rounds: int) -> tuple[float, float]:
    """Return milliseconds forward and backward, and the MiB they took at most."""
    x = torch.randn(1, seq_len, DIM, device="cuda", requires_grad=True)
    times = []
    torch.cuda.reset_peak_memory_stats()
    empty = torch.cuda.memory_allocated()
    for _ in range(rounds + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            y = layer(x)
        torch.autograd.grad(y.float().mean(), [x, *layer.parameters()])
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[3:]), (torch.cuda.max_memory_allocated() - empty) / 2**20


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="high", choices=("highest", "high", "medium"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sequences", type=int, nargs="+", default=SEQUENCES)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("not measured: there is no GPU")
        return
    torch.set_float32_matmul_precision(arguments.precision)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, precision {arguments.precision}")
    print("| layer | " + " | ".join(f"{t} tokens, ms | MiB" for t in arguments.sequences) + " |")
    print("|---" * (1 + 2 * len(arguments.sequences)) + "|")
    for name, make in SUBJECTS.items():
        backend = name.partition(",")[0]
        wrong = missing(backend, torch.device("cuda")) if backend in ("triton", "fla") else None
        if wrong is not None:
            print(f"| {name} | not measured: {wrong} |")
            continue
        layer = make().cuda()
        cells = [measure(layer, seq_len, arguments.rounds) for seq_len in arguments.sequences]
        print(f"| {name} | " + " | ".join(f"{ms:.1f} | {mib:.0f}" for ms, mib in cells) + " |")


if __name__ == "__main__":
    main()
