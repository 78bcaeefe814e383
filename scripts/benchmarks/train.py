"""Training throughput and peak memory of the models, as ratios to the Transformer of the same run.

    python -m scripts.benchmarks.train    # all models at sequence 256, 1024 and 4096
    python -m scripts.benchmarks.train --models transformer hope --sequences 1024 --steps 5

Each (model, sequence) runs in a process of its own: one warm-up step, then the median of `--steps` training steps
(forward, backward, fused AdamW) in CPU seconds, with one thread. User time is that of the program; system time that of
the kernel, which clears fresh pages for large tensors. Peak memory is the maximum resident size of the process.
Writes reports/throughput.md and prints it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from nested_learning.report.text import command_line

REPORT = Path(__file__).parents[2] / "reports" / "throughput.md"
MODELS = ["transformer", "titans_lmm", "hope", "hope_attention"]
SHAPE = {"model.dim": 256, "model.num_layers": 4, "model.num_heads": 4}
VOCAB, BATCH = 4096, 4


def measure(model_name: str, seq_len: int, steps: int, backend: str) -> dict[str, float]:
    """Train `steps` steps on random tokens in this process; return tokens per second, bytes and parameters."""
    import torch
    from torch.nn import functional as F

    from nested_learning.command.compose import make_job
    from nested_learning.config.option_files import open_option_files
    from nested_learning.nn.execution import use_backend

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    overrides = [f"model={model_name}", *(f"{key}={value}" for key, value in SHAPE.items())]
    config = make_job(open_option_files(None), overrides).config
    model = config.model.build(VOCAB, seed=0)
    print(use_backend(model, backend, torch.device("cpu")))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(VOCAB, (BATCH, seq_len + 1), generator=torch.Generator().manual_seed(0))
    user, system = [], []
    for _ in range(steps + 1):
        start = os.times()
        logits, _ = model(tokens[:, :-1], model.init_state(BATCH))
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        end = os.times()
        user.append(end.user - start.user)
        system.append(end.system - start.system)
    num_tokens = BATCH * seq_len
    return {
        "tokens_per_cpu_second": num_tokens
        / statistics.median(u + s for u, s in zip(user[1:], system[1:], strict=True)),
        "user_microseconds": 1e6 * statistics.median(user[1:]) / num_tokens,
        "system_microseconds": 1e6 * statistics.median(system[1:]) / num_tokens,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def measure_apart(model_name: str, seq_len: int, options: argparse.Namespace) -> dict[str, float]:
    """`measure` in a process of its own, so that its peak memory is the model's alone."""
    command = [sys.executable, "-m", "scripts.benchmarks.train", "--child", "--models", model_name]
    command += ["--sequences", str(seq_len), "--steps", str(options.steps), "--backend", options.backend]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(results: dict[tuple[str, int], dict[str, float]], models: list[str], sequences: list[int]) -> list[str]:
    """Return the results as Markdown, with ratios to the first model."""
    lines = [
        f"| model | parameters | sequence | tokens per CPU-second | x {models[0]} | user µs a token | "
        f"system µs a token | peak MiB | x {models[0]} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for seq_len in sequences:
        base = results[models[0], seq_len]
        for model in models:
            own = results[model, seq_len]
            speed = own["tokens_per_cpu_second"] / base["tokens_per_cpu_second"]
            memory = own["peak_mib"] / base["peak_mib"]
            lines.append(
                f"| {model} | {own['parameters']:,} | {seq_len} | {own['tokens_per_cpu_second']:,.0f} | {speed:.2f} "
                f"| {own['user_microseconds']:,.0f} | {own['system_microseconds']:,.0f} "
                f"| {own['peak_mib']:,.0f} | {memory:.2f} |"
            )
    return lines


def main() -> None:
    """Measure every model at every sequence length and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--sequences", nargs="+", type=int, default=[256, 1024, 4096])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--backend", default="auto", choices=["auto", "eager", "cpp"], help="of the memories")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.models[0], options.sequences[0], options.steps, options.backend)))
        return
    results = {}
    for seq_len in options.sequences:
        for model in options.models:
            results[model, seq_len] = measure_apart(model, seq_len, options)
            print(f"{model} {seq_len}: {results[model, seq_len]['tokens_per_cpu_second']:,.0f} tokens per CPU-second")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    lines = [
        "# Training throughput",
        "",
        f"`{command_line('scripts.benchmarks.train')}`, commit {commit}.",
        f"Width 256, 4 layers, vocabulary {VOCAB}, batch {BATCH}, one",
        f"CPU thread, float32; median of {options.steps} steps (forward, backward, AdamW) in process CPU seconds:",
        "user, of the program itself, and system, of the kernel, which clears fresh pages for large tensors.",
        "",
        *table(results, options.models, options.sequences),
        "",
    ]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines))
    print(REPORT.read_text())


if __name__ == "__main__":
    main()
