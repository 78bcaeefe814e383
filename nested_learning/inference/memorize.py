"""Memorize a text at test time: read it segment by segment and write each segment into the fast weights.

The trained weights never change: what a row learns is in its state. A segment is written only after the model has
predicted it, so no prediction has seen its own answer.
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
from nested_learning.nn.interpolate import MIXERS, interpolate
from nested_learning.nn.language_model import Block, BlockState, LanguageModel
from nested_learning.nn.level_state import LevelState, MLPWeights, init_level, norm
from nested_learning.nn.memory import State
from nested_learning.nn.online_updates import (
    level_gradients,
    require_grad,
    taught_levels,
    tokens_to_boundary,
    write_gradients,
)
from nested_learning.ops.memory import Memory
from nested_learning.ops.telemetry import norm as norm_of
from nested_learning.shapes import Bool, Float, Int, Tensor


class Segment(NamedTuple):
    """The result of reading one segment of `t` tokens.

    Per target: nats (0 without a target), the predicted token, and whether it was right. Per row: the logits after the
    last token, the mean `surprise`, and the `fraction` by which the segment's write is multiplied.
    """

    nats: Float[Tensor, "b t"]
    predictions: Int[Tensor, "b t"]
    correct: Bool[Tensor, "b t"]
    last_logits: Float[Tensor, "b v"]
    surprise: Float[Tensor, " b"]
    fraction: Float[Tensor, " b"]


class MemorizeResult(NamedTuple):
    """What memorizing read and wrote, on the CPU.

    Per target: `nats` (0 without a target), the predicted token, whether it was right. `surprise`: the mean of each of
    the `p` segments. By level: `writes`, the number of segments that each row wrote; `norms`, how far the level is from
    where it started, the root mean square over its layers.
    """

    nats: Float[Tensor, "b t"]
    predictions: Int[Tensor, "b t"]
    correct: Bool[Tensor, "b t"]
    surprise: Float[Tensor, "b p"]
    writes: dict[str, Int[Tensor, " b"]]
    norms: dict[str, Float[Tensor, " b"]]

    def records(self) -> list[dict[str, float]]:
        """Return the metrics of each row for a report: `memory/surprise`, `memory/<level>/{writes,norm}`."""
        return [
            {"memory/surprise": float(self.surprise[row].mean())}
            | {f"memory/{level}/writes": float(writes[row]) for level, writes in self.writes.items()}
            | {f"memory/{level}/norm": float(norms[row]) for level, norms in self.norms.items()}
            for row in range(len(self.surprise))
        ]


class Memorizer:
    """Memorizes with `model` as `config` says. Raises ConfigError for levels or layers that the model does not have.

    A level that learns in context is written by its own clock and update rule. Any other level takes gradient steps on
    the mean loss of a segment. `config.lr` multiplies each write. Gradients do not reach back into earlier segments.
    The teach signal is that of Nested Learning, arXiv 2512.24695, equation 71; the surprise threshold follows the
    momentary surprise of Titans, arXiv 2501.00663, equation 8.
    """

    def __init__(self, model: LanguageModel, config: MemorizeConfig) -> None:
        self.model, self.config = model, config
        self.chosen = choose_levels(model, config)
        self.names = sorted({name for _, name in self.chosen})
        # levels that a plain forward pass already updates
        self.online_levels = {TITAN} | {
            level.level.name
            for level in tree.nodes(LevelState, model.init_state(1))
            if level.clocks[0].signal == "local"
        }

    @torch.no_grad()
    def memorize(
        self, tokens: Int[Tensor, "b t"], targets: Int[Tensor, "b t"], state: State
    ) -> tuple[MemorizeResult, State]:
        """Read a text `config.steps` times from its beginning and write it into `state`.

        `state` must come from `add_fast_weights`. Returns the result, with norms measured from `state`, and the new
        state; that is `state` itself where no row wrote anything. Rows share the clocks of levels: where one row
        writes, they advance for all.
        """
        memory, results = state, []
        for _ in range(self.config.steps):
            result, _, memory = self.read(tokens, targets, self.model.reset_context(memory), continues=False)
            results.append(result)
        norms = {name: level_norms(state, memory, self.chosen, name).cpu() for name in self.names}
        result = concat_results(results)._replace(norms=norms)
        # without a write only the clocks of the levels have advanced; the old state keeps them as they were
        wrote = any(bool(writes.any()) for writes in result.writes.values())
        return result, memory if wrote else state

    @torch.no_grad()
    def read(
        self, tokens: Int[Tensor, "b t"], targets: Int[Tensor, "b t"], state: State, *, continues: bool
    ) -> tuple[MemorizeResult, Float[Tensor, "b v"], State]:
        """Read `tokens` from `state` on and write each segment after it was predicted.

        Where the text `continues`, levels that a plain forward pass updates are updated as ever; only the others are
        memorized. Returns the result, the logits after the last token, and the state. Raises ConfigError where no level
        is left to memorize, and DivergedError for logits that are not finite.
        """
        names = [name for name in self.names if not (continues and name in self.online_levels)]
        if not names:
            raise ConfigError(
                f"memory.levels={','.join(self.config.levels)}: a plain forward pass already updates these levels, so "
                "memorizing while reading has nothing to write; use memory.levels=[all], or memory=online"
            )
        # the state was made in inference mode, whose tensors autograd refuses: clones may enter a graph
        before = state = tree.map(torch.clone, state)
        segments = []
        for segment_tokens, segment_targets in self._segments(tokens, targets, state):
            segment, state = self._read_segment(segment_tokens, segment_targets, state, continues=continues)
            segments.append(segment)
        nats, predictions, correct, last_logits, surprise, fractions = zip(*segments, strict=True)
        num_writes = (torch.stack(fractions, 1) > 0).sum(1).cpu()
        result = MemorizeResult(
            torch.cat(nats, 1).cpu(),
            torch.cat(predictions, 1).cpu(),
            torch.cat(correct, 1).cpu(),
            torch.stack(surprise, 1).cpu(),
            dict.fromkeys(names, num_writes),
            {name: level_norms(before, state, self.chosen, name).cpu() for name in names},
        )
        return result, last_logits[-1], state

    def surprise(
        self,
        hidden: Float[Tensor, "b t d"],
        nats: Float[Tensor, "b t"],
        logits: Float[Tensor, "b t v"],
        targets: Int[Tensor, "b t"],
    ) -> Float[Tensor, " b"]:
        """Return the mean surprise over the targets of each row, in the units of `config.surprise_metric`."""
        valid = targets != IGNORE
        match self.config.surprise_metric:
            case "loss":
                each = nats
            case "entropy":
                each = torch.special.entr(to_float32(logits).softmax(-1)).sum(-1)
            case _:
                each = teach_signal(self.model, hidden, targets).norm(dim=-1) / hidden.shape[-1] ** 0.5
        return (each * valid).sum(1) / valid.sum(1).clamp(min=1)

    def add_fast_weights(self, state: State) -> State:
        """Return `state` with fast weights for each chosen level that never learns in context, so that it can."""
        clock = Context(1, "gd", 1.0, 0.0, (), "teach", False)
        blocks = []
        for layer, (block, block_state) in enumerate(zip(self.model.blocks, state, strict=True)):
            levels = []
            for module, level in zip(levels_in(block), block_state.cms, strict=True):
                if level is None and (layer, module.level.name) in self.chosen:
                    level = init_level_state(module, clock, len(tree.leaves(block_state.mixer)[0]))
                levels.append(level)
            blocks.append(BlockState(block_state.mixer, tuple(levels)))
        return tuple(blocks)

    def _read_segment(
        self, tokens: Int[Tensor, "b t"], targets: Int[Tensor, "b t"], state: State, *, continues: bool
    ) -> tuple[Segment, State]:
        """Read one segment, then write it."""
        needs_gradient = any(level.level.name in self.names for level in taught_levels(state))
        # (1) predict the segment; the fast weights require a gradient where a chosen level learns from the loss
        with torch.set_grad_enabled(needs_gradient):
            watched = require_grad(state) if needs_gradient else state
            hidden, after = self.model(tokens, watched, head_fn=lambda x: x)
            logits = self.model.logits(hidden)
            nats = token_nats(logits, targets)
            # (2) write every level completely; the forward pass has already written those with a local signal
            if needs_gradient:
                after = self._teach(nats, targets, after)
        after, hidden, logits, nats = tree.map(torch.detach, (after, hidden, logits, nats))
        require_finite(logits[:, -1])
        surprise = self.surprise(hidden, nats, logits, targets)
        # (3) keep a fraction of each write: per row, because each row has its own surprise
        fraction = self.config.lr * (surprise >= (self.config.surprise_threshold or 0.0)).to(nats)
        predictions = logits.argmax(-1)
        segment = Segment(nats, predictions, predictions == targets, logits[:, -1], surprise, fraction)
        everything, nothing = torch.ones_like(fraction), torch.zeros_like(fraction)

        def fraction_of(layer: int, name: str) -> Tensor:
            if continues and name in self.online_levels:
                return everything
            return fraction if (layer, name) in self.chosen else nothing

        return segment, interpolate(state, after, fraction_of, TITAN)

    def _teach(self, nats: Tensor, targets: Tensor, after: State) -> State:
        """Write the gradient of the loss: of its sum for levels trained to learn in context, of its mean for others."""
        levels = taught_levels(after)
        count = (targets != IGNORE).sum(1).clamp(min=1)[:, None, None]
        gradients = level_gradients(nats.sum(), levels)
        scaled = [
            gradient if level.level.context is not None else MLPWeights(*(matrix / count for matrix in gradient))
            for level, gradient in zip(levels, gradients, strict=True)
        ]
        return write_gradients(after, scaled)

    def _segments(self, tokens: Tensor, targets: Tensor, state: State) -> Iterator[tuple[Tensor, Tensor]]:
        """Split a text every `config.chunk` tokens, and where a period of a level that learns in context ends.

        A level changes its weights at the end of its period; a segment that crossed it would mix two versions of them.
        """
        levels = [level for level in taught_levels(state) if level.level.context is not None]
        first, num_tokens = 0, tokens.shape[1]
        while first < num_tokens:
            ends = [
                first + tokens_to_boundary(clock.period, level.position + first)
                for level in levels
                for clock in level.clocks
            ]
            end = min([*ends, first + self.config.chunk, num_tokens])
            yield tokens[:, first:end], targets[:, first:end]
            first = end


def concat_results(results: Sequence[MemorizeResult]) -> MemorizeResult:
    """Concatenate the results of consecutive readings: writes are added up, norms are those of the last."""
    nats, predictions, correct, surprise, writes, _ = zip(*results, strict=True)
    summed = {name: torch.stack([each[name] for each in writes]).sum(0) for name in writes[0]}
    return MemorizeResult(
        torch.cat(nats, 1),
        torch.cat(predictions, 1),
        torch.cat(correct, 1),
        torch.cat(surprise, 1),
        summed,
        results[-1].norms,
    )


def choose_levels(model: LanguageModel, config: MemorizeConfig) -> set[tuple[int, str]]:
    """Return the (layer, level name) pairs that `config` names; raise ConfigError for what `model` does not have."""
    available = set(levels_of(model))
    names = sorted({name for _, name in available})
    wanted = names if ALL in config.levels else config.levels
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ConfigError(
            f"memory.levels={','.join(config.levels)}: this model has no level {missing[0]}, only {', '.join(names)}; "
            f"try memory.levels=[{','.join(names)}]"
        )
    layers = list(range(len(model.blocks))) if config.layers is None else config.layers
    beyond = [layer for layer in layers if not 0 <= layer < len(model.blocks)]
    if beyond:
        raise ConfigError(
            f"memory.layers={config.layers}: there is no layer {beyond[0]}, they are 0 to {len(model.blocks) - 1}"
        )
    chosen = {(layer, name) for layer, name in available if layer in layers and name in wanted}
    if not chosen:
        raise ConfigError(
            f"memory.levels={','.join(config.levels)} memory.layers={config.layers}: no such level in these layers; "
            "use memory.layers=null"
        )
    return chosen


def levels_of(model: LanguageModel) -> Iterator[tuple[int, str]]:
    """Yield all memories of `model` that can be written, as (layer, level name)."""
    for layer, (block, state) in enumerate(zip(model.blocks, model.init_state(1), strict=True)):
        if any(tree.nodes(kind, state.mixer) for kind in MIXERS):
            yield layer, TITAN
        for module in levels_in(block):
            yield layer, module.level.name


def levels_in(block: nn.Module) -> list[MLPMemory]:
    """List the levels of a block."""
    # the type checker does not know what a ModuleList holds
    return [cast(MLPMemory, level) for level in cast(Block, block).cms.levels.values()]


def init_level_state(module: MLPMemory, clock: Context, batch: int) -> LevelState:
    """Return the state of a level before any write, for `batch` rows, with `clock` in place of the level's own."""
    weights = MLPWeights(module.up.weight.detach(), module.down.weight.detach())
    return init_level(module.level, (clock,), weights, batch)


def teach_signal(
    model: LanguageModel, hidden: Float[Tensor, "b t d"], targets: Int[Tensor, "b t"]
) -> Float[Tensor, "b t d"]:
    """Return the gradient of each target's loss at the model's last output (Nested Learning, section 4)."""
    with torch.enable_grad():
        leaf = hidden.requires_grad_()
        (signal,) = torch.autograd.grad(token_nats(model.logits(leaf), targets).sum(), leaf)
    return signal


def token_nats(logits: Float[Tensor, "b t v"], targets: Int[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """Return the loss of each target in nats, in float32 or wider; 0 where there is no target."""
    return F.cross_entropy(to_float32(logits).mT, targets, ignore_index=IGNORE, reduction="none")


def to_float32(logits: Float[Tensor, "b t v"]) -> Float[Tensor, "b t v"]:
    """Return `logits` in float32 or wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def require_finite(logits: Tensor) -> None:
    """Raise DivergedError where `logits` are not finite."""
    if not bool(torch.isfinite(logits).all()):
        raise DivergedError(
            "the model's logits are not finite: its weights are damaged, or what it memorized has grown without bound; "
            "try a smaller memory.lr, fewer memory.steps, memory=frozen, an earlier checkpoint, or a smaller "
            "model.memory.max_rate"
        )


def level_norms(before: State, after: State, chosen: set[tuple[int, str]], name: str) -> Float[Tensor, " b"]:
    """Return how far the level `name` moved from `before` to `after`: the root mean square over its layers."""
    squares = []
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        if (layer, name) not in chosen:
            continue
        if name == TITAN:
            pairs = [
                pair
                for kind in MIXERS
                for pair in zip(memory_tensors(kind, old), memory_tensors(kind, new), strict=True)
            ]
            squares.append(norm_of([one - other for other, one in pairs]).square())
        squares += [
            norm(MLPWeights(*(one - other for one, other in zip(now.delta(), then.delta(), strict=True)))).square()
            for then, now in zip(old.cms, new.cms, strict=True)
            if now is not None and now.level.name == name
        ]
    return torch.stack(squares).mean(0).sqrt()


def memory_tensors(kind: type, block: BlockState) -> list[Tensor]:
    """List the memories of a block's mixer, without their momentum."""
    nodes: list[Any] = tree.nodes(kind, block.mixer)
    return [leaf for node in nodes for leaf in tree.leaves(node.weight if isinstance(node, Memory) else node)]
