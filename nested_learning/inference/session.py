"""Sessions: read text with a trained model, one stream per row, and score or generate what follows."""

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
from nested_learning.inference.memorize import Memorizer, MemorizeResult, require_finite
from nested_learning.inference.state_file import load_state, num_rows, save_state
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.memory import State
from nested_learning.ops.sampling import sample_token
from nested_learning.seeds import derive_seed
from nested_learning.shapes import Float, Int, Tensor

# prefill: tokens per forward pass. It bounds the memory of logits and activations for a long text; it changes no result
PREFILL_TOKENS = 1024


class Session:
    """A session reads one token stream per row with a trained model, and scores or generates what follows.

    `feed` is the prefill: it reads a prompt and keeps KV caches, convolution windows and fast weights in one state.
    The memory policy says when fast weights are written: "online", in every forward pass; "frozen", never; with a
    MemorizeConfig, as online, and `memorize` also writes a context into them before the question is read.

    The state is immutable, so `fork` copies nothing; the model's parameters never change; no call is differentiable.
    With a tokenizer every row begins with its `end` token, as every document does in training; without one, empty.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer | None = None,
        *,
        batch: int = 1,
        policy: str | MemoryConfig = "online",
    ) -> None:
        """Start a session on the model's device. Raises ConfigError for an unknown policy or a batch below 1."""
        if batch < 1:
            raise ConfigError(f"batch={batch}: a session reads at least one stream; use batch=1")
        self.model = model
        self.tokenizer = tokenizer
        self.batch = batch
        if policy == "memorize":
            raise ConfigError('policy="memorize" needs settings: give policy=MemorizeConfig(...)')
        self.policy = MemoryConfig(name=policy) if isinstance(policy, str) else policy
        self._memorizer = Memorizer(model, self.policy) if isinstance(self.policy, MemorizeConfig) else None
        self._device = next(model.parameters()).device
        self.position = 0
        self._last_logits: Tensor | None = None
        self.state: State = None
        # the state before the `end` token of the document, while nothing else was read of it; None afterwards
        self._document_start: State | None = None
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
        """Open a trained model: a run directory, or one of its `checkpoints/step_*`; `device`: as in train.py.

        `weights`: model, the trained weights, or ema, their moving average (`optim.ema`). Raises CheckpointError for a
        checkpoint that is missing, damaged or without an average, ConfigError for an unknown device or policy.
        """
        # an import from a higher floor: opening a run needs its whole configuration, which imports every folder
        from nested_learning.hub.open_run import open_trained

        trained = open_trained(Path(path), device, weights)
        return cls(trained.model, trained.tokenizer, batch=batch, policy=policy)

    def reset(self) -> None:
        """Forget everything that was read, fast weights included."""
        with torch.inference_mode():
            self._start(self._empty(self.batch))

    def reset_context(self) -> None:
        """Start a new document: keep fast weights; clear KV caches, convolution windows and the position."""
        with torch.inference_mode():
            self._start(self.model.reset_context(self.state))

    def memorize(self, text: str | Tensor) -> MemorizeResult:
        """Memorize a text, or tokens [b t] or [t], from its beginning; then start a new document.

        The policy, a MemorizeConfig, says how often the text is read and which levels are written. What the session has
        read before stays in the fast weights. Raises ConfigError under another policy, DataError for an empty text.
        """
        tokens = torch.cat([self._prefix(), *self._prefill_chunks(text)], 1).to(self._device)
        if not tokens.numel():
            raise DataError("nothing to memorize: the text is empty, and this session adds no token of its own")
        targets = F.pad(tokens[:, 1:], (0, 1), value=IGNORE)
        # `tokens` begin with the `end` token. A session that has read only this token starts again before it, so that
        # it is written once
        memory = self.state if self._document_start is None else self._document_start
        result, memory = self._require_memorizer().memorize(tokens, targets, memory)
        with torch.inference_mode():
            self._start(self.model.reset_context(memory))
        return result

    def read_and_memorize(self, tokens: Int[Tensor, "b t"], targets: Int[Tensor, "b t"]) -> MemorizeResult:
        """Read `tokens` like `read`, and memorize each segment after its `targets` (IGNORE: none) were predicted.

        The document continues afterwards. Levels that a plain forward pass updates are updated as ever, so with
        memory.lr=0 this equals `read`. Returns the nats of each target and what was written. Raises ConfigError where
        `memorize` does, and where a plain forward pass already updates every chosen level.
        """
        tokens, targets = tokens.to(self._device), targets.to(self._device)
        result, last, state = self._require_memorizer().read(tokens, targets, self.state, continues=True)
        self._advance(state, last, tokens.shape[1])
        return result

    @property
    def memorizes(self) -> bool:
        """Say whether the session can memorize: whether its policy is a MemorizeConfig."""
        return self._memorizer is not None

    def _require_memorizer(self) -> Memorizer:
        if self._memorizer is None:
            raise ConfigError(
                f"policy={self.policy.name} memorizes nothing; give policy=MemorizeConfig(...), or memory=memorize"
            )
        return self._memorizer

    def _empty(self, batch: int) -> State:
        state = self.model.init_state(batch)
        return state if self._memorizer is None else self._memorizer.add_fast_weights(state)

    def _prefix(self) -> Int[Tensor, "b p"]:
        """Return the tokens that every document begins with."""
        if self.tokenizer is None:
            return torch.empty(self.batch, 0, dtype=torch.int64)
        return torch.full((self.batch, 1), self.tokenizer.end)

    def _start(self, state: State) -> None:
        """Begin a document, whose first tokens are those of `_prefix`."""
        self.state, self._last_logits, self.position = state, None, 0
        prefix = self._prefix()
        if prefix.numel():
            self.read(prefix)
        self._document_start = state

    def _advance(self, state: State, last_logits: Tensor, num_tokens: int) -> None:
        self.state, self._last_logits, self.position = state, last_logits, self.position + num_tokens
        self._document_start = None

    def fork(self, rows: Sequence[int] | None = None) -> "Session":
        """Return a session that continues independently from here. It shares the immutable state and copies nothing.

        With `rows` it has these rows only, in this order; a row may be named more than once. Raises DataError for a row
        that does not exist.
        """
        other = copy(self)
        if rows is not None:
            if not rows or not 0 <= min(rows) <= max(rows) < self.batch:
                raise DataError(
                    f"rows={list(rows)}: this session has the rows 0 to {self.batch - 1}; name at least one"
                )
            index = torch.tensor(rows, device=self._device)
            mine = (self.state, self._document_start, self._last_logits)
            other.state, other._document_start, other._last_logits = tree.select_rows(mine, index)
            other.batch = len(rows)
        return other

    def save(self, path: str | Path) -> None:
        """Save the state to the file `path`, from which `restore` continues. The model is not in the file.

        Raises ConfigError where nothing was read.
        """
        last, start = self._next_logits(), self._document_start
        # at the beginning of a document the state before it, from which `restore` reads its first token again: the
        # state after that token is not enough, because `memorize` writes it again
        saved = (self.state, last, self.position) if start is None else (start, last, 0)
        save_state(Path(path), saved, self.model, self.batch)

    def restore(self, path: str | Path) -> None:
        """Continue where `save` was called, with all rows of that session; what was read here is dropped.

        Raises CheckpointError for a file that is missing, damaged, or of another model.
        """
        batch = num_rows(Path(path), self.model)
        with torch.inference_mode():
            last = self.model.head.weight.new_zeros(batch, self.model.vocab_size)
            state, last, position = load_state(Path(path), (self._empty(batch), last, 0), self._device)
        self.batch = batch
        if position:
            self.position = 0
            self._advance(state, last, position)
        else:
            self._start(state)

    @torch.inference_mode()
    def read(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Read `tokens` and return the logits after each of them; `feed` needs less memory for a long text.

        Raises DivergedError where the logits after the last token are not finite.
        """
        logits, state = self.model(tokens.to(self._device), self.state, write=self.policy.write)
        require_finite(logits[:, -1])
        self._advance(state, logits[:, -1], tokens.shape[1])
        return logits

    def feed(self, text: str | Tensor) -> Float[Tensor, "b v"]:
        """Prefill: read a text, or tokens [b t], or [t] for all rows. Returns the logits of the next token.

        Raises ConfigError for a text without a tokenizer, DataError for tokens outside the vocabulary.
        """
        for tokens in self._prefill_chunks(text):
            self.read(tokens)
        return self._next_logits()

    @torch.inference_mode()
    def score(self, text: str | Tensor) -> Float[Tensor, "b t"]:
        """Read like `feed` and return the loss of each token in nats, given all before it (float32).

        Raises ConfigError where nothing was read before, since the first token then has no prediction.
        """
        nats = []
        for tokens in self._prefill_chunks(text):
            # the logits after the last token read so far predict the first token of this chunk
            first = self._next_logits()[:, None]
            predictions = torch.cat([first, self.read(tokens)[:, :-1]], dim=1).float()
            nats.append(F.cross_entropy(predictions.mT, tokens.to(self._device), reduction="none"))
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
        """Sample `num_tokens` tokens, reading each before the next; they are returned on the CPU.

        The random number at a position depends on (seed, position) only: two calls give what one call gives, and no
        other generator is used. Raises ConfigError for a setting out of range, or where nothing was read before.
        """
        sampling = SamplingConfig(
            num_tokens=num_tokens, temperature=float(temperature), top_k=top_k, top_p=float(top_p)
        )
        tokens = torch.empty(self.batch, 0, dtype=torch.int64)
        for _ in range(sampling.num_tokens):
            # on the CPU, so that a seed gives the same numbers on every device
            generator = torch.Generator().manual_seed(derive_seed(seed, "sample", self.position))
            token = sample_token(
                self._next_logits().cpu(),
                temperature=sampling.temperature,
                top_k=top_k,
                top_p=sampling.top_p,
                generator=generator,
            )[:, None]
            self.read(token)
            tokens = torch.cat([tokens, token], dim=1)
        return tokens

    def text(self, tokens: Int[Tensor, "b t"]) -> list[str]:
        """Return the text of each row of `tokens`; raise ConfigError without a tokenizer."""
        return [self._require_tokenizer().decode(row) for row in tokens.tolist()]

    def _next_logits(self) -> Tensor:
        if self._last_logits is None:
            raise ConfigError("nothing was read yet, so there is no prediction; feed a first token")
        return self._last_logits

    def _require_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ConfigError("this model has no tokenizer: it was trained on data without text; feed it tokens")
        return self.tokenizer

    def _prefill_chunks(self, text: str | Tensor) -> Iterator[Tensor]:
        tokens = torch.from_numpy(self._require_tokenizer().encode(text)) if isinstance(text, str) else text
        if tokens.dim() == 1:
            tokens = tokens.expand(self.batch, -1)
        if tokens.dim() != 2 or len(tokens) != self.batch:
            raise DataError(
                f"tokens of shape {list(tokens.shape)}: this session reads [{self.batch} t], or [t] for all rows"
            )
        vocab_size = self.model.vocab_size
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
            raise DataError(
                f"tokens from {int(tokens.min())} to {int(tokens.max())}: the vocabulary is 0 to {vocab_size - 1}"
            )
        return iter(tokens.split(PREFILL_TOKENS, dim=1)) if tokens.numel() else iter(())
