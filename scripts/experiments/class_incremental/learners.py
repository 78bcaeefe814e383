"""Tiny text classifiers that learn task after task, with known outcomes: they calibrate the continual-learning metrics.

The input is a bag of hashed words and word pairs. A classifier embeds it, applies a continuum memory (one level is the
MLP of a Transformer) and has an output for every label. A memory is not trained: it writes each text once, as key and
value, with the operators of the models' memories.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.data.tasks.classes import Classes
from nested_learning.data.tasks.labelled import LabelledText, first_of_each
from nested_learning.evals.protocol import Record
from nested_learning.level import Level
from nested_learning.nn.cms import ContinuumMemory
from nested_learning.ops.associative import associative
from nested_learning.ops.gates import Gates
from nested_learning.ops.memory import Design, Memory, Tokens, init_memory
from nested_learning.optim.build import build_optimizer

FEATURES, WIDTH, HIDDEN, BATCH = 2048, 128, 128, 32
# of texts on which the Fisher information of EWC is taken
FISHER_TEXTS = 256


@dataclass(frozen=True)
class Learner:
    """One way to learn a sequence: `optim` and its overrides; `periods` of the levels, in texts (0: every step).

    `kind`: trained; linear, where nothing but the outputs is trained, on the bags; ewc (`strength` of the
    penalty); memory, which writes by `rule` at `rate`; or attention over all texts that were read, whose logits
    are `rate` times the similarity.
    """

    optim: str = "adamw"
    overrides: tuple[str, ...] = ()
    periods: tuple[int, ...] = (0,)
    kind: str = "trained"
    epochs: int = 3
    replay: int = 0
    is_joint: bool = False
    strength: float = 0.0
    rule: str = "gd"
    rate: float = 1.0


@dataclass
class Texts:
    """The texts of one order of tasks, as tensors: of each task and split the bags, and the numbers of the labels."""

    source: Classes
    labels: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.labels = [label for task in self.source.tasks for label in task]
        self.number = {label: number for number, label in enumerate(self.labels)}

    def bags(self, texts: Sequence[LabelledText]) -> tuple[Tensor, Tensor]:
        """Return the bags [n f] of `texts`, of length 1 each, and the labels [n]."""
        rows = torch.zeros(len(texts), FEATURES)
        for row, each in zip(rows, texts, strict=True):
            row[_hashed(each.text)] = 1.0
        return F.normalize(rows, dim=-1), torch.tensor([self.number[each.label] for each in texts])

    def train(self, task: int, learner: Learner) -> tuple[Tensor, Tensor]:
        """Return what is learned in a task."""
        tasks = self.source.texts["train"]
        if learner.is_joint:
            return self.bags([each for texts in tasks for each in texts])
        replayed = [each for texts in tasks[:task] for each in first_of_each(texts, learner.replay)]
        return self.bags(tasks[task] + replayed)


class Classifier(nn.Module):
    """Bags to logits: an embedding, the levels of a continuum memory, an output for each label."""

    def __init__(self, levels: Sequence[Level], num_labels: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(FEATURES, WIDTH, bias=False)
        self.cms = ContinuumMemory(WIDTH, levels, HIDDEN)
        self.head = nn.Linear(WIDTH, num_labels, bias=False)

    def forward(self, bags: Tensor) -> Tensor:
        """Return the logits [n labels]."""
        x = F.rms_norm(self.embedding(bags), (WIDTH,))[:, None]
        return self.head(self.cms(x, self.cms.init_state(len(bags)))[0][:, 0])


class Linear(nn.Module):
    """Bags to logits: an output for each label, and nothing before it."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.head = nn.Linear(FEATURES, num_labels, bias=False)

    def forward(self, bags: Tensor) -> Tensor:
        """Return the logits [n labels]."""
        return self.head(bags)


def learn(learner: Learner, texts: Texts, seed: int) -> tuple[list[Record], float]:
    """Learn the tasks of `texts` one after the other; return the rows of `evals.transfer`, and the CPU seconds."""
    torch.manual_seed(seed)
    started = time.process_time()
    validation = [texts.bags(part) for part in texts.source.texts["validation"]]
    kinds = {"memory": memory, "attention": attention}
    make = kinds[learner.kind] if learner.kind in kinds else partial(trained, seed=seed)
    predict, memorize = make(learner, texts)
    num_tasks = len(texts.source.tasks)
    rows = [] if learner.is_joint else predict_all(predict, texts, validation, 0)
    for task in range(1 if learner.is_joint else num_tasks):
        memorize(*texts.train(task, learner))
        rows += predict_all(predict, texts, validation, num_tasks if learner.is_joint else task + 1)
    return rows, time.process_time() - started


def predict_all(
    predict: Callable[[Tensor], Tensor], texts: Texts, validation: list[tuple[Tensor, Tensor]], after: int
) -> list[Record]:
    """Predict the labels of unseen texts of all tasks so far, and of the next: the cells that the metrics need."""
    counts = [sum(len(task) for task in texts.source.tasks[:number]) for number in range(len(texts.source.tasks) + 1)]
    rows, first = [], 0
    for task, (bags, labels) in enumerate(validation, 1):
        if task <= after + 1 or after == 0:
            num_choices = counts[max(after, task)]
            right = predict(bags)[:, :num_choices].argmax(-1) == labels
            rows += [
                {"after": after, "task": task, "example": first + place, "correct": each, "num_choices": num_choices}
                for place, each in enumerate(right.int().tolist())
            ]
        first += len(labels)
    return rows


def trained(learner: Learner, texts: Texts, seed: int) -> tuple[Callable[..., Tensor], Callable[..., None]]:
    """Return a classifier, and what trains it on the texts of one more task."""
    levels = [
        Level(f"level_{place}", period, rf"cms\.levels\.level_{place}\.")
        for place, period in enumerate(learner.periods)
    ]
    is_linear = learner.kind == "linear"
    model = Linear(len(texts.labels)) if is_linear else Classifier(levels, len(texts.labels))
    lines = [
        "data=copy",
        f"optim={learner.optim}",
        "optim.schedule.kind=constant",
        "optim.schedule.warmup=0",
        *learner.overrides,
    ]
    how = make_job(open_option_files(None), lines).config.optim
    if is_linear:
        # the group of embedding and head is all that there is
        how, levels = replace(how, groups=how.groups[:1]), []
    parameters = list(model.named_parameters())
    optimizer = build_optimizer(how, parameters, levels, BATCH, 10**6)
    optimizer.record_inputs(model)
    order = torch.Generator().manual_seed(seed)
    anchor = Anchor(model)
    step = 0

    def memorize(bags: Tensor, labels: Tensor) -> None:
        nonlocal step
        for _ in range(learner.epochs):
            for here in torch.randperm(len(bags), generator=order).split(BATCH):
                loss = F.cross_entropy(model(bags[here]), labels[here])
                if anchor.is_set:
                    loss = loss + learner.strength * anchor.penalty()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), how.clip)
                optimizer.step(step)
                optimizer.zero_grad()
                step += 1
        if learner.kind == "ewc":
            anchor.add(bags, labels)

    return torch.no_grad()(model), memorize


class Anchor:
    """The penalty for leaving the weights that a model had after each task (EWC, Kirkpatrick et al., arXiv 1612.00796).

    A sum of quadratics, one for each task, is one quadratic: `1/2 sum F w^2 - (F w*) w`, up to a constant.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.is_set = model, False
        self.fisher = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
        self.pull = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}

    def add(self, bags: Tensor, labels: Tensor) -> None:
        """Hold on to the weights of now, by their Fisher information on some of the texts."""
        here = torch.randperm(len(bags))[:FISHER_TEXTS].tolist()
        found = {name: torch.zeros_like(each) for name, each in self.fisher.items()}
        for place in here:
            self.model.zero_grad()
            F.cross_entropy(self.model(bags[place : place + 1]), labels[place : place + 1]).backward()
            for name, parameter in self.model.named_parameters():
                found[name] += parameter.grad.square() / len(here)
        self.model.zero_grad()
        for name, parameter in self.model.named_parameters():
            self.fisher[name] += found[name]
            self.pull[name] += found[name] * parameter.detach()
        self.is_set = True

    def penalty(self) -> Tensor:
        """Return the penalty of the weights of now."""
        parts = [
            (self.fisher[name] / 2 * each.square() - self.pull[name] * each).sum()
            for name, each in self.model.named_parameters()
        ]
        return torch.stack(parts).sum()


def memory(learner: Learner, texts: Texts) -> tuple[Callable[..., Tensor], Callable[..., None]]:
    """Return a matrix memory of bag to label, and what writes the texts of one more task, each once, in any order."""
    design = Design("l2", learner.rule == "dgd", "token", "token", residual=False, norm=False, chunk=64, backend="cpp")
    state: list[Memory] = [init_memory((torch.zeros(1, 1, FEATURES, len(texts.labels)),), momentum=False)]

    @torch.no_grad()
    def memorize(bags: Tensor, labels: Tensor) -> None:
        here = torch.randperm(len(bags))
        keys, values = bags[here][None, None], F.one_hot(labels[here], len(texts.labels)).float()[None, None]
        rate = torch.full(keys.shape[:3], learner.rate)
        gates = Gates(rate, torch.zeros_like(rate), None)
        state[0] = associative(Tokens(keys, keys, values, gates), state[0], None, design)[1]

    return lambda bags: bags @ state[0].weight[0][0, 0], memorize


def attention(learner: Learner, texts: Texts) -> tuple[Callable[..., Tensor], Callable[..., None]]:
    """Return what answers by attention over every text that was read, the whole context in its window."""
    keys, values = [torch.zeros(0, FEATURES)], [torch.zeros(0, len(texts.labels))]

    def memorize(bags: Tensor, labels: Tensor) -> None:
        keys[0] = torch.cat([keys[0], bags])
        values[0] = torch.cat([values[0], F.one_hot(labels, len(texts.labels)).float()])

    return lambda bags: (learner.rate * bags @ keys[0].T).softmax(-1) @ values[0], memorize


def _hashed(text: str) -> list[int]:
    """Return the numbers of the words of a text, and of pairs of neighbours."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    ngrams: list[Any] = [*words, *map(" ".join, pairwise(words))]
    return [int.from_bytes(blake2b(ngram.encode(), digest_size=8).digest()) % FEATURES for ngram in ngrams]
