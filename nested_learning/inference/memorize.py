"""Study: a text is read piece by piece, and what it says is written on chosen levels, after each piece has been read.

The model is never changed: what a row learns lies in its state. Nothing is written of a piece before it was predicted.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.data.batch import IGNORE
from nested_learning.errors import ConfigError, DivergedError
from nested_learning.inference.config import ALL, TITAN, MemorizeConfig
from nested_learning.level import Context
from nested_learning.nn.cms import MLPMemory
from nested_learning.nn.interpolate import MIXERS, blend
from nested_learning.nn.language_model import Block, BlockState, LanguageModel
from nested_learning.nn.level_state import LevelState, MLPWeights, norm, start
from nested_learning.nn.memory import State
from nested_learning.nn.online_updates import ask_gradients, taught, to_next, watch, write_gradients
from nested_learning.ops.memory import Memory
from nested_learning.ops.telemetry import norm as norm_of
from nested_learning.shapes import Bool, Float, Int, Tensor


class Piece(NamedTuple):
    """What one piece showed: nats, the likeliest token and whether it was right [b t], the logits after its last token.

    `surprise` is the mean of each row, `share` what is kept of the write.
    """

    nats: Float[Tensor, "b t"]
    likeliest: Int[Tensor, "b t"]
    correct: Bool[Tensor, "b t"]
    last: Float[Tensor, "b v"]
    surprise: Float[Tensor, " b"]
    share: Float[Tensor, " b"]


class MemorizeResult(NamedTuple):
    """What study read and wrote: `nats` of each target (0: none), the likeliest token, whether it was the target.

    Of the `p` pieces the `surprise` of each; `writes`: how many pieces each level wrote, of each row; `norms`: how far
    each level is from where the reading began, the root of the mean square over its layers. Everything is on the CPU.
    """

    nats: Float[Tensor, "b t"]
    likeliest: Int[Tensor, "b t"]
    correct: Bool[Tensor, "b t"]
    surprise: Float[Tensor, "b p"]
    writes: dict[str, Int[Tensor, " b"]]
    norms: dict[str, Float[Tensor, " b"]]

    def rows(self) -> list[dict[str, float]]:
        """Return the figures of each row by name, for a report: `memory/<level>/{writes,norm}`, `memory/surprise`."""
        return [
            {"memory/surprise": float(self.surprise[row].mean())}
            | {f"memory/{level}/writes": float(writes[row]) for level, writes in self.writes.items()}
            | {f"memory/{level}/norm": float(norms[row]) for level, norms in self.norms.items()}
            for row in range(len(self.surprise))
        ]


class Memorizer:
    """Studies with `model` as `how` says. Raises ConfigError for levels or layers that the model does not have.

    A level that learns inside the context does so by its own clock and rule, one that does not by gradient descent on
    the mean loss of a piece; each write is scaled as `how` says. Gradients do not reach back from a piece into the one
    before. Source: ours; the teach signal is that of Nested
    Learning, arXiv 2512.24695, equation 71, the threshold that of Titans' momentary surprise, arXiv 2501.00663, eq. 8.
    """

    def __init__(self, model: LanguageModel, how: MemorizeConfig) -> None:
        self.model, self.how = model, how
        self.chosen = choose(model, how)
        self.names = sorted({name for _, name in self.chosen})
        # what reading itself writes
        self.by_itself = {TITAN} | {
            level.level.name
            for level in tree.nodes(LevelState, model.init_state(1))
            if level.clocks[0].signal == "local"
        }

    @torch.no_grad()
    def memorize(
        self, tokens: Int[Tensor, "b t"], targets: Int[Tensor, "b t"], state: State
    ) -> tuple[MemorizeResult, State]:
        """Read a text `steps` times from its beginning, and write; `state`, which was opened, is what is memorised.

        Returns what was found, norms from `state` on, and what is memorised then: `state` where nothing may be written.
        """
        memorised, every = state, []
        for _ in range(self.how.steps):
            found, _, memorised = self.read(tokens, targets, self.model.reset_context(memorised), goes_on=False)
            every.append(found)
        norms = {name: norms_of(state, memorised, self.chosen, name).cpu() for name in self.names}
        # the clocks of levels have gone on, though they wrote nothing
        return join(every)._replace(norms=norms), memorised if self.how.writes else state

    @torch.no_grad()
    def read(
        self, tokens: Int[Tensor, "b t"], targets: Int[Tensor, "b t"], state: State, *, goes_on: bool
    ) -> tuple[MemorizeResult, Float[Tensor, "b v"], State]:
        """Read `tokens` on from `state`, which was opened, and write piece by piece.

        Of a text that `goes_on` what reading itself writes is written as ever; the other levels learn from it too.
        Returns what was found, the logits after the last token, and the state. Raises ConfigError where there are none.
        """
        names = [name for name in self.names if not (goes_on and name in self.by_itself)]
        if not names:
            raise ConfigError(
                f"memory.levels={','.join(self.how.levels)}: reading writes these by itself, a text that goes on needs "
                f"no study for it; use memory.levels=[all], or memory=online"
            )
        # states of reading were made where no gradient ever is
        before = state = tree.map(torch.clone, state)
        found = []
        for here, wanted in self._pieces(tokens, targets, state):
            piece, state = self.piece(here, wanted, state, goes_on=goes_on)
            found.append(piece)
        nats, likeliest, correct, last, surprise, shares = zip(*found, strict=True)
        written = (torch.stack(shares, 1) > 0).sum(1).cpu()
        memorized = MemorizeResult(
            torch.cat(nats, 1).cpu(),
            torch.cat(likeliest, 1).cpu(),
            torch.cat(correct, 1).cpu(),
            torch.stack(surprise, 1).cpu(),
            dict.fromkeys(names, written),
            {name: norms_of(before, state, self.chosen, name).cpu() for name in names},
        )
        return memorized, last[-1], state

    def piece(
        self, tokens: Int[Tensor, "b t"], targets: Int[Tensor, "b t"], state: State, *, goes_on: bool
    ) -> tuple[Piece, State]:
        """Read one piece and write it."""
        needs_gradient = any(level.level.name in self.names for level in taught(state))
        with torch.set_grad_enabled(needs_gradient):
            watched = watch(state) if needs_gradient else state
            hidden, after = self.model(tokens, watched, head_fn=lambda x: x)
            logits = self.model.logits(hidden)
            nats = loss_of(logits, targets)
            if needs_gradient:
                after = self._teach(nats, targets, after)
        after, hidden, logits, nats = tree.map(torch.detach, (after, hidden, logits, nats))
        refuse_infinite(logits[:, -1])
        surprise = self.surprise(hidden, nats, logits, targets)
        share = self.how.lr * (surprise >= (self.how.surprise_threshold or 0.0)).to(nats)
        likeliest = logits.argmax(-1)
        piece = Piece(nats, likeliest, likeliest == targets, logits[:, -1], surprise, share)
        all_of_it, nothing = torch.ones_like(share), torch.zeros_like(share)

        def share_of(layer: int, name: str) -> Tensor:
            if goes_on and name in self.by_itself:
                return all_of_it
            return share if (layer, name) in self.chosen else nothing

        return piece, blend(state, after, share_of, TITAN)

    def surprise(
        self,
        hidden: Float[Tensor, "b t d"],
        nats: Float[Tensor, "b t"],
        logits: Float[Tensor, "b t v"],
        targets: Int[Tensor, "b t"],
    ) -> Float[Tensor, " b"]:
        """Return the mean surprise over the targets of each row, in the units of `surprise_metric`."""
        valid = targets != IGNORE
        match self.how.surprise_metric:
            case "loss":
                each = nats
            case "entropy":
                each = torch.special.entr(exact(logits).softmax(-1)).sum(-1)
            case _:
                each = teach_signal(self.model, hidden, targets).norm(dim=-1) / hidden.shape[-1] ** 0.5
        return (each * valid).sum(1) / valid.sum(1).clamp(min=1)

    def open(self, state: State) -> State:
        """Give each chosen level that never learns inside the context a change of its own, in which it can."""
        clock = Context(1, "gd", 1.0, 0.0, (), "teach", False)
        blocks = []
        for layer, (block, before) in enumerate(zip(self.model.blocks, state, strict=True)):
            levels = []
            for module, level in zip(levels_in(block), before.cms, strict=True):
                if level is None and (layer, module.level.name) in self.chosen:
                    level = begin_level(module, clock, len(tree.leaves(before.mixer)[0]))
                levels.append(level)
            blocks.append(BlockState(before.mixer, tuple(levels)))
        return tuple(blocks)

    def _teach(self, nats: Tensor, targets: Tensor, after: State) -> State:
        """Write the gradient of the loss: the sum for levels that learned to be written so, else of the mean."""
        levels = taught(after)
        count = (targets != IGNORE).sum(1).clamp(min=1)[:, None, None]
        gradients = ask_gradients(nats.sum(), levels)
        scaled = [
            gradient if level.level.context is not None else MLPWeights(*(matrix / count for matrix in gradient))
            for level, gradient in zip(levels, gradients, strict=True)
        ]
        return write_gradients(after, scaled)

    def _pieces(self, tokens: Tensor, targets: Tensor, state: State) -> Iterator[tuple[Tensor, Tensor]]:
        """Cut a text every `chunk` tokens, and where the period of a level that learns inside the context ends."""
        levels = [level for level in taught(state) if level.level.context is not None]
        done, num_tokens = 0, tokens.shape[1]
        while done < num_tokens:
            ends = [done + to_next(clock.period, level.position + done) for level in levels for clock in level.clocks]
            until = min([*ends, done + self.how.chunk, num_tokens])
            yield tokens[:, done:until], targets[:, done:until]
            done = until


def join(found: Sequence[MemorizeResult]) -> MemorizeResult:
    """Put readings of one text together: the norm is that of the last."""
    nats, likeliest, correct, surprise, writes, _ = zip(*found, strict=True)
    summed = {name: torch.stack([each[name] for each in writes]).sum(0) for name in writes[0]}
    return MemorizeResult(
        torch.cat(nats, 1),
        torch.cat(likeliest, 1),
        torch.cat(correct, 1),
        torch.cat(surprise, 1),
        summed,
        found[-1].norms,
    )


def choose(model: LanguageModel, how: MemorizeConfig) -> set[tuple[int, str]]:
    """Return the levels that `how` names, by layer and name; raise ConfigError for what `model` does not have."""
    there = set(levels_of(model))
    names = sorted({name for _, name in there})
    wanted = names if ALL in how.levels else how.levels
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ConfigError(
            f"memory.levels={','.join(how.levels)}: this model has no level {missing[0]}; it has {', '.join(names)}; "
            f"try memory.levels=[{','.join(names)}]"
        )
    layers = list(range(len(model.blocks))) if how.layers is None else how.layers
    beyond = [layer for layer in layers if not 0 <= layer < len(model.blocks)]
    if beyond:
        raise ConfigError(
            f"memory.layers={how.layers}: there is no layer {beyond[0]}, they are 0 to {len(model.blocks) - 1}"
        )
    chosen = {(layer, name) for layer, name in there if layer in layers and name in wanted}
    if not chosen:
        raise ConfigError(
            f"memory.levels={','.join(how.levels)} memory.layers={how.layers}: no such level in these layers; "
            "use memory.layers=null"
        )
    return chosen


def levels_of(model: LanguageModel) -> Iterator[tuple[int, str]]:
    """Yield all that can be written in `model`, by layer and name."""
    for layer, (block, state) in enumerate(zip(model.blocks, model.init_state(1), strict=True)):
        if any(tree.nodes(kind, state.mixer) for kind in MIXERS):
            yield layer, TITAN
        for module in levels_in(block):
            yield layer, module.level.name


def levels_in(block: nn.Module) -> list[MLPMemory]:
    """List the levels of a block."""
    # a ModuleList does not tell what it holds
    return [cast(MLPMemory, level) for level in cast(Block, block).cms.levels.values()]


def begin_level(module: MLPMemory, clock: Context, batch: int) -> LevelState:
    """Return the state of a level on which `batch` rows have written nothing, with a clock it was not made with."""
    weights = MLPWeights(module.up.weight.detach(), module.down.weight.detach())
    return start(module.level, (clock,), weights, batch)


def teach_signal(
    model: LanguageModel, hidden: Float[Tensor, "b t d"], targets: Int[Tensor, "b t"]
) -> Float[Tensor, "b t d"]:
    """Return the gradient of the loss of each target at the model's last output. Source: Nested Learning, section 4."""
    with torch.enable_grad():
        leaf = hidden.requires_grad_()
        (signal,) = torch.autograd.grad(loss_of(model.logits(leaf), targets).sum(), leaf)
    return signal


def loss_of(logits: Float[Tensor, "b t v"], targets: Int[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """Return the nats of each target in float32 or better, 0 where there is none."""
    return F.cross_entropy(exact(logits).mT, targets, ignore_index=IGNORE, reduction="none")


def exact(logits: Float[Tensor, "b t v"]) -> Float[Tensor, "b t v"]:
    """Return `logits` in float32 or better."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def refuse_infinite(numbers: Tensor) -> None:
    """Raise DivergedError when `numbers` of a reading are not finite."""
    if not bool(torch.isfinite(numbers).all()):
        raise DivergedError(
            "the model's logits are not finite: its weights are damaged, or what it memorised has grown without bound; "
            "try a smaller memory.lr, fewer memory.steps, memory=frozen, or an earlier checkpoint"
        )


def norms_of(before: State, after: State, chosen: set[tuple[int, str]], name: str) -> Float[Tensor, " b"]:
    """Return how far the level `name` moved from `before` to `after`, the root of the mean square over its layers."""
    squares = []
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        if (layer, name) not in chosen:
            continue
        if name == TITAN:
            pairs = [pair for kind in MIXERS for pair in zip(written(kind, old), written(kind, new), strict=True)]
            squares.append(norm_of([one - other for other, one in pairs]).square())
        squares += [
            norm(MLPWeights(*(one - other for one, other in zip(now.delta(), then.delta(), strict=True)))).square()
            for then, now in zip(old.cms, new.cms, strict=True)
            if now is not None and now.level.name == name
        ]
    return torch.stack(squares).mean(0).sqrt()


def written(kind: type, block: BlockState) -> list[Tensor]:
    """List what mixers of a block have written, without their momentum."""
    nodes: list[Any] = tree.nodes(kind, block.mixer)
    return [leaf for node in nodes for leaf in tree.leaves(node.weight if isinstance(node, Memory) else node)]
