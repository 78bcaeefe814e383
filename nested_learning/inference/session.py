"""The one reader of text: a trained model, one stream per row, and what it remembers as a value."""

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path

import torch
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.data.batch import IGNORE
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.inference.config import MemorizeConfig, MemoryConfig, SamplingConfig
from nested_learning.inference.memorize import Memorizer, MemorizeResult, refuse_infinite
from nested_learning.inference.state_file import load_state, num_rows, save_state
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.memory import State
from nested_learning.ops.sampling import sample_token
from nested_learning.seeds import derive_seed
from nested_learning.shapes import Float, Int, Tensor

# tokens that are read in one pass: bounds the memory that logits and activations of a long text take, changes no result
SEGMENT = 1024


class Session:
    """Reads one stream per row of `batch`, token after token, and answers: feed, score, generate; fork, save, reset.

    With a tokenizer every row begins with its `end` token, as every document does in training; without one it begins
    empty. `policy` "online" lets memories write as they read, "frozen" does not; with a MemorizeConfig texts can be
    studied. What was read lives in an immutable state, so that `fork()` copies nothing, and the model is never changed.
    Nothing here is differentiable.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer | None = None,
        *,
        batch: int = 1,
        policy: str | MemoryConfig = "online",
    ) -> None:
        """Begin to read with `model` where it is; raise ConfigError for an unknown policy or a batch below 1."""
        if batch < 1:
            raise ConfigError(f"batch={batch}: a session reads at least one stream, use batch=1")
        self.model = model
        self.tokenizer = tokenizer
        self.batch = batch
        if policy == "memorize":
            raise ConfigError('policy="memorize" needs to know how: give policy=MemorizeConfig(...)')
        self.policy = MemoryConfig(name=policy) if isinstance(policy, str) else policy
        self._memorizer = Memorizer(model, self.policy) if isinstance(self.policy, MemorizeConfig) else None
        self._device = next(model.parameters()).device
        self.position = self._opening = 0
        self._last: Tensor | None = None
        self.state: State = None
        self.reset()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        batch: int = 1,
        policy: str | MemoryConfig = "online",
        weights: str = "model",
    ) -> "Session":
        """Open what was trained: a run directory, or one of its `checkpoints/step_*`; `device`: auto, cpu, cuda or mps.

        `weights`: model, those that were trained, or ema, the averages that `optim.ema` made. Raises CheckpointError
        for a checkpoint that is missing or damaged, or has no averages, ConfigError for a device or policy.
        """
        # the one import that goes up: a run is opened by its whole configuration, which knows every part
        from nested_learning.hub.open_run import open_trained

        trained = open_trained(Path(path), device, weights)
        return cls(trained.model, trained.tokenizer, batch=batch, policy=policy)

    def reset(self) -> None:
        """Forget everything that was read."""
        with torch.inference_mode():
            self._start(self._empty(self.batch))

    def reset_context(self) -> None:
        """Begin another text: what was memorised stays; windows, caches and the position are those of the beginning."""
        with torch.inference_mode():
            self._start(self.model.reset_context(self.state))

    def memorize(self, text: str | Tensor) -> MemorizeResult:
        """Study a text, or tokens [b t] or [t], from its beginning; then begin another text with what was learned.

        How often it is read, and what of it is written where, says the policy, a MemorizeConfig; raises ConfigError
        for another one, DataError where there is nothing to read. What was read of the text that is interrupted counts
        as memorised.
        """
        opening = torch.full((self.batch, self._opening), 0 if self.tokenizer is None else self.tokenizer.end)
        tokens = torch.cat([opening, *self._pieces(text)], 1).to(self._device)
        if not tokens.numel():
            raise DataError("nothing to study: the text is empty, and this session adds no token of its own")
        targets = F.pad(tokens[:, 1:], (0, 1), value=IGNORE)
        # the beginning of a text is no part of what is studied: it is read again
        memorised = self._begun if self.position == self._opening else self.state
        found, memorised = self._require_memorizer().memorize(tokens, targets, memorised)
        with torch.inference_mode():
            self._start(self.model.reset_context(memorised))
        return found

    def read_and_memorize(self, tokens: Int[Tensor, "b t"], targets: Int[Tensor, "b t"]) -> MemorizeResult:
        """Read `tokens` on like `read`, and study each piece of them once its `targets` (IGNORE: none) were predicted.

        What reading itself writes is written as ever, so that without a write of study this is `read`. Returns what
        each target cost and what was written; the text goes on. Raises ConfigError where `memorize` does, and for
        levels of which there is nothing to study so.
        """
        tokens, targets = tokens.to(self._device), targets.to(self._device)
        found, self._last, self.state = self._require_memorizer().read(tokens, targets, self.state, goes_on=True)
        self.position += tokens.shape[1]
        return found

    @property
    def memorizes(self) -> bool:
        """Say whether texts can be studied: whether the policy is a MemorizeConfig."""
        return self._memorizer is not None

    def _require_memorizer(self) -> Memorizer:
        if self._memorizer is None:
            raise ConfigError(
                f"policy={self.policy.name} studies nothing; give a MemorizeConfig, which is what memory=memorize makes"
            )
        return self._memorizer

    def _empty(self, batch: int) -> State:
        state = self.model.init_state(batch)
        return state if self._memorizer is None else self._memorizer.open(state)

    def _start(self, state: State) -> None:
        self.state = self._begun = state
        self._last = None
        self.position = self._opening = 0
        if self.tokenizer is not None:
            self.read(torch.full((self.batch, 1), self.tokenizer.end))
            self._opening = self.position

    def fork(self, rows: Sequence[int] | None = None) -> "Session":
        """Return a session that goes on from here by itself; it shares the state, which nothing ever changes.

        With `rows` it reads these streams alone, in this order, a stream as often as it is named. Raises DataError for
        a row that there is not.
        """
        other = copy(self)
        if rows is not None:
            if not rows or not 0 <= min(rows) <= max(rows) < self.batch:
                raise DataError(f"rows={list(rows)}: this session reads the streams 0 to {self.batch - 1}; name some")
            index = torch.tensor(rows, device=self._device)
            mine = (self.state, self._begun, self._last)
            other.state, other._begun, other._last = tree.select_rows(mine, index)
            other.batch = len(rows)
        return other

    def save(self, path: str | Path) -> None:
        """Write what was read to the file `path`, from which `restore` goes on; the model is not in it.

        Raises ConfigError when nothing was read.
        """
        save_state(Path(path), (self.state, self._next(), self.position), self.model, self.batch)

    def restore(self, path: str | Path) -> None:
        """Go on where `save` was called, with all its streams, in place of what was read here.

        Raises CheckpointError for a file that is missing, damaged, or of another model.
        """
        batch = num_rows(Path(path), self.model)
        with torch.inference_mode():
            last = self.model.head.weight.new_zeros(batch, self.model.vocab_size)
            template = (self._empty(batch), last, 0)
            self.state, self._last, self.position = load_state(Path(path), template, self._device)
            self._begun = self.model.reset_context(self.state)
        self.batch = batch

    @torch.inference_mode()
    def read(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Read `tokens` and return the logits after each of them; `feed` needs less memory for a long text.

        Raises DivergedError when the logits after the last of them are not finite.
        """
        logits, self.state = self.model(tokens.to(self._device), self.state, write=self.policy.write)
        refuse_infinite(logits[:, -1])
        self._last = logits[:, -1]
        self.position += tokens.shape[1]
        return logits

    def feed(self, text: str | Tensor) -> Float[Tensor, "b v"]:
        """Read a text, or tokens [b t] or [t]; one text is read by every row. Returns the logits of the next token.

        Raises ConfigError for a text without a tokenizer, DataError for tokens that the model does not know.
        """
        for piece in self._pieces(text):
            self.read(piece)
        return self._next()

    @torch.inference_mode()
    def score(self, text: str | Tensor) -> Float[Tensor, "b t"]:
        """Read like `feed` and return the nats that each token cost, given all before it (natural log, float32).

        Raises ConfigError when nothing was read before, since the first token then has no prediction.
        """
        nats = []
        for piece in self._pieces(text):
            before = self._next()[:, None]
            predictions = torch.cat([before, self.read(piece)[:, :-1]], dim=1).float()
            nats.append(F.cross_entropy(predictions.mT, piece.to(self._device), reduction="none"))
        return torch.cat(nats, dim=1)

    @torch.inference_mode()
    def generate(
        self,
        num_tokens: int,
        *,
        temperature: float | int = 1.0,
        top_k: int = 0,
        top_p: float | int = 1.0,
        seed: int = 0,
    ) -> Int[Tensor, "b n"]:
        """Draw `num_tokens` tokens, each read before the next is drawn; they are returned on the CPU.

        The draw at a position is keyed by (seed, position): drawing in two calls gives what one call gives, and no
        other random number is touched. Raises ConfigError for a setting out of range, or when nothing was read before.
        """
        drawn = SamplingConfig(num_tokens=num_tokens, temperature=float(temperature), top_k=top_k, top_p=float(top_p))
        tokens = torch.empty(self.batch, 0, dtype=torch.int64)
        for _ in range(drawn.num_tokens):
            # on the CPU, so that a seed draws the same numbers on every device
            generator = torch.Generator().manual_seed(derive_seed(seed, "sample", self.position))
            token = sample_token(
                self._next().cpu(), temperature=drawn.temperature, top_k=top_k, top_p=drawn.top_p, generator=generator
            )[:, None]
            self.read(token)
            tokens = torch.cat([tokens, token], dim=1)
        return tokens

    def text(self, tokens: Int[Tensor, "b t"]) -> list[str]:
        """Return the text of each row of `tokens`; raise ConfigError without a tokenizer."""
        return [self._words().decode(row) for row in tokens.tolist()]

    def _next(self) -> Tensor:
        if self._last is None:
            raise ConfigError("nothing was read yet, so nothing is predicted: feed a first token")
        return self._last

    def _words(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ConfigError("this model has no tokenizer: it was trained on tokens that are no text; feed it tokens")
        return self.tokenizer

    def _pieces(self, text: str | Tensor) -> Iterator[Tensor]:
        tokens = torch.from_numpy(self._words().encode(text)) if isinstance(text, str) else text
        if tokens.dim() == 1:
            tokens = tokens.expand(self.batch, -1)
        if tokens.dim() != 2 or len(tokens) != self.batch:
            raise DataError(
                f"tokens of shape {list(tokens.shape)}: this session reads [{self.batch} t], or [t] for all rows"
            )
        vocab_size = self.model.vocab_size
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
            raise DataError(
                f"tokens from {int(tokens.min())} to {int(tokens.max())}: the model knows 0 to {vocab_size - 1}"
            )
        return iter(tokens.split(SEGMENT, dim=1)) if tokens.numel() else iter(())
