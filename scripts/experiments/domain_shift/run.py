"""Does memorizing a text help on its continuation, and on another domain? Byte models of prose read new books and code.

    python -m scripts.experiments.domain_shift.run    # trains, evaluates, writes reports/domain_shift.md; resumes
    python -m scripts.experiments.domain_shift.run --report-only    # only the report, from existing runs
    python -m scripts.experiments.domain_shift.run --seeds 0 --steps 4 --half 128 --out runs/trial --report /tmp/r.md

Each run is `python train.py experiment=books ...` on one thread. Its evaluation, in <out>/<run>/shift.json, measures

1. the loss by position in a new book, `evals=perplexity`, under memory=online, frozen and memorize (along the text);
2. the loss of the second half of an excerpt: alone; after the first half was read; after it was read and memorized; the
   same with the context removed, so that only the memories stay; and, as controls, after another excerpt of the same
   domain, or one of the other domain, was memorized. New books are one domain, code is the other.

The learning rate of memorizing is chosen with the first seed, on other excerpts: of a book in the validation split, and
of other code.
"""

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nested_learning.command.main import main as command
from nested_learning.data.source import IGNORE
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError
from nested_learning.evals.protocol import Record
from nested_learning.hub.open_run import open_trained
from nested_learning.inference.config import MemorizeConfig
from nested_learning.inference.session import Session
from nested_learning.nn.execution import use_backend
from nested_learning.nn.language_model import LanguageModel
from nested_learning.phase.eval import fingerprint_parameters
from nested_learning.report.text import command_line
from scripts.experiments.domain_shift.report import BASELINE, write_report

ROOT = Path(__file__).parents[3]
MODELS = {
    "transformer": ("model=transformer", "model.window=32"),
    "titans_lmm": ("model=titans_lmm",),
    "hope": ("model=hope",),
}
# validation reads pride_and_prejudice, the one that fits into data.val_fraction
TRAINED_ON = ("bleak_house", "david_copperfield", "les_miserables", "middlemarch", "federalist_papers")
VALIDATION = "pride_and_prejudice"
NEW = ("crime_and_punishment", "moby_dick")
CODE = "python_stdlib.txt"
RATES = (0.01, 0.03, 0.1, 0.3)
# excerpts of a domain for the evaluation, and for choosing the learning rate
ROWS, TRIED = 6, 2
# the fraction of the code for choosing the learning rate
TRIED_CODE = 0.1
# tokens between two writes of memorizing
CHUNK = 64
# texts of a new book for the loss by position
TEXTS = 16


def book(data: Path, name: str) -> Path:
    """Return the path of a book."""
    return data / "text" / "gutenberg" / f"{name}.txt"


def train(model: str, seed: int, options: argparse.Namespace) -> Path:
    """Train a run unless it is done; return its directory. Raises ConfigError if the command fails."""
    run = options.out / f"{model}_{seed}"
    if (run / "summary.json").exists():
        return run
    books = ",".join(str(book(options.data, name)) for name in (*TRAINED_ON, VALIDATION))
    line = [sys.executable, str(ROOT / "train.py"), "experiment=books", f"data.path=[{books}]", *MODELS[model]]
    line += [f"seed={seed}", f"name={run.name}", f"out={options.out}", "device=cpu"]
    line += [] if options.steps is None else [f"steps={options.steps}"]
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / f"{run.name}.log").open("a", encoding="utf-8") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if subprocess.run(line, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode:
            raise ConfigError(f"{shlex.join(line)} failed, see {log.name}")
    return run


def excerpts(path: Path, number: int, length: int, span: tuple[float, float] = (0.0, 1.0)) -> list[bytes]:
    """Cut `number` evenly spaced excerpts of `length` bytes out of a span of a file, given in fractions of it."""
    data = path.read_bytes()
    first, last = (round(len(data) * each) for each in span)
    step = (last - first) // number
    assert step >= length, f"{path}: {number} excerpts of {length} bytes need more text"
    return [data[first + step * i + (step - length) // 2 :][:length] for i in range(number)]


def domains(data: Path, length: int) -> dict[str, list[bytes]]:
    """Return the excerpts of the evaluation; those of books come half from one book and half from another."""
    books = [part for name in NEW for part in excerpts(book(data, name), ROWS // 2, length)]
    return {"books": books, "code": excerpts(data / "text" / CODE, ROWS, length, (TRIED_CODE, 1.0))}


def tried(data: Path, length: int) -> list[bytes]:
    """Return the excerpts for choosing the learning rate."""
    code = excerpts(data / "text" / CODE, TRIED, length, (0.0, TRIED_CODE))
    return [*excerpts(book(data, VALIDATION), TRIED, length), *code]


def halves(texts: Sequence[bytes], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return the first and the second halves as tokens, `[b t]`; tokens are bytes, so all have the same length."""
    first, second = torch.stack([torch.from_numpy(tokenizer.encode_bytes(text)) for text in texts]).chunk(2, 1)
    return first, second


def bits(session: Session, tokens: Tensor) -> list[float]:
    """Read `tokens` after the session's context; return the bits per byte of each row."""
    return (session.score(tokens).double().mean(1) / math.log(2)).tolist()


def policy_at(rate: float) -> MemorizeConfig:
    """Return a policy that writes on every level with `rate`; memories of mixers write as when reading."""
    return MemorizeConfig(
        name="memorize", steps=1, lr=rate, chunk=CHUNK, surprise_threshold=None, surprise_metric="loss",
        levels=["all"], layers=None, reset="per_example",
    )  # fmt: skip


def open_model(run: Path) -> tuple[LanguageModel, Tokenizer]:
    """Open the model of a run and its tokenizer."""
    trained = open_trained(run, "cpu", "model")
    use_backend(trained.model, "auto", torch.device("cpu"))
    assert trained.tokenizer is not None
    return trained.model, trained.tokenizer


def memorize(model: LanguageModel, tokenizer: Tokenizer, tokens: Tensor, rate: float) -> tuple[Session, list[Record]]:
    """Read and memorize `tokens`, `[b t]`; return the session after them, and a record of the writes for each row."""
    session = Session(model, tokenizer, batch=len(tokens), policy=policy_at(rate))
    # a token is memorized as the target of the one before; the first has none
    return session, session.read_and_memorize(tokens, F.pad(tokens[:, 1:], (0, 1), value=IGNORE)).records()


def new_document(session: Session, rows: Sequence[int]) -> Session:
    """Return a fork with these rows that starts a new document: only the memories stay."""
    other = session.fork(rows)
    other.reset_context()
    return other


def try_rates(run: Path, data: Path, half: int) -> dict[str, dict[str, list[float]]]:
    """Return the loss of second halves after memorizing, by learning rate and domain, on the excerpts for choosing."""
    model, tokenizer = open_model(run)
    first, second = halves(tried(data, 2 * half), tokenizer)
    losses = {}
    for rate in RATES:
        session, _ = memorize(model, tokenizer, first, rate)
        loss = bits(session, second)
        losses[str(rate)] = {"books": loss[:TRIED], "code": loss[TRIED:]}
    return losses


def evaluate(run: Path, data: Path, half: int, rates: dict[str, float]) -> dict[str, Any]:
    """Return the loss of every second half under every condition."""
    (model, tokenizer), started = open_model(run), time.process_time()
    before = fingerprint_parameters(model)
    texts = {domain: halves(each, tokenizer) for domain, each in domains(data, 2 * half).items()}
    memorized = {domain: memorize(model, tokenizer, first, rates[domain]) for domain, (first, _) in texts.items()}
    every = range(ROWS)
    losses: dict[str, Any] = {}
    for domain, (first, second) in texts.items():
        (other,) = (session for name, (session, _) in memorized.items() if name != domain)
        session, memory = memorized[domain]
        reader = Session(model, tokenizer, batch=ROWS)
        alone = reader.fork()
        reader.feed(first)
        conditions = {
            "alone": alone,
            "read": reader.fork(),
            "read and studied": session.fork(),
            "memory of reading": new_document(reader, every),
            "memory of study": new_document(session, every),
            "memory of another": new_document(session, [*every[ROWS // 2 :], *every[: ROWS // 2]]),
            "memory of the other domain": new_document(other, every),
        }
        losses[domain] = {name: bits(each, second) for name, each in conditions.items()} | {"memory": memory}
    assert before == fingerprint_parameters(model), "memorizing changed the parameters"
    about = {"rates": rates, "half": half, "parameters_sha256": before}
    return about | {"cpu_seconds": time.process_time() - started} | losses


def by_position(run: Path, data: Path, rate: float) -> None:
    """Evaluate by position in a new book with every memory policy; the reports are in <run>/evals."""
    overrides = ["phase=eval", f"checkpoint={run}", "evals=perplexity", f"evals.perplexity.path={book(data, NEW[0])}"]
    overrides.append(f"evals.perplexity.num_texts={TEXTS}")
    policies = {
        "perplexity_frozen": ("memory=frozen",),
        "perplexity_memorize": ("memory=memorize", f"memory.lr={rate}", f"memory.chunk={CHUNK}"),
    }
    for name, policy in policies.items():
        if not (run / "evals" / f"{name}.json").exists() and command([*overrides, *policy, "device=cpu"]):
            raise ConfigError(f"{run}: {' '.join(policy)} failed")


def choose(model: str, run: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the best learning rate for each domain, chosen on `run`; all losses are kept in rates_<model>.json."""
    path = options.out / f"rates_{model}.json"
    if not path.exists():
        path.write_text(json.dumps(try_rates(run, options.data, options.half)), encoding="utf-8")
    losses = json.loads(path.read_text(encoding="utf-8"))
    return {domain: min(RATES, key=lambda rate: sum(losses[str(rate)][domain])) for domain in ("books", "code")}


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="has text/, text/gutenberg/")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/domain_shift"), help="where the runs are kept")
    parser.add_argument(
        "--report", type=Path, default=ROOT / "reports/domain_shift.md", help="figures/ goes next to it"
    )
    parser.add_argument("--half", type=int, default=4096, help="bytes of half an excerpt")
    parser.add_argument("--steps", type=int, help="fewer steps, to try the script; use another --out")
    parser.add_argument("--report-only", action="store_true", help="train and evaluate nothing")
    options = parser.parse_args()
    if BASELINE not in options.models:
        parser.error(f"--models: the others are compared with the {BASELINE}; name it too")
    return options


def main() -> int:
    """Train, evaluate, report."""
    options = read_options()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for seed, model in product(() if options.report_only else options.seeds, options.models):
        run = train(model, seed, options)
        rates = choose(model, run, options)
        by_position(run, options.data, rates["books"])
        shift = run / "shift.json"
        if not shift.exists():
            shift.write_text(json.dumps(evaluate(run, options.data, options.half, rates)), encoding="utf-8")
        print(f"done: {run}, memory.lr={rates}", flush=True)
    command = command_line("scripts.experiments.domain_shift.run")
    print(write_report(options.out, options.report, options.models, command))
    return 0


if __name__ == "__main__":
    sys.exit(main())
