"""Sessions: read text with a trained model, one stream per row, and score or generate what follows."""

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.data.batch import IGNORE
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.inference.config import MemorizeConfig, MemoryConfig, SamplingConfig
from nested_learning.inference.inputs import describe, to_indices, to_path, to_policy, to_rows, to_targets, to_tokens
from nested_learning.inference.memorize import Memorizer, MemorizeResult, require_finite
from nested_learning.inference.state_file import load_state, num_rows, save_state
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.memory import MemoryModule, State
from nested_learning.ops.sampling import sample_token
from nested_learning.seeds import derive_seed
from nested_learning.shapes import Float, Int, Tensor
from nested_learning.typed import check_one_of, convert

# prefill: tokens per forward pass. It bounds the memory of logits and activations for a long text; it changes no result
PREFILL_TOKENS = 1024
# which weights of a checkpoint are opened: the trained ones, or their moving average
WEIGHTS = ("model", "ema")


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
        """Start a session on the model's device.

        Raises ConfigError for an unknown policy, a batch below 1, and a tokenizer of another vocabulary.
        """
        if not isinstance(model, MemoryModule):
            raise ConfigError(
                f"model: {describe(model)} is no language model; a run is opened by Session.open(path), an export by "
                "NestedModel.from_pretrained(path).session()"
            )
        if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
            raise ConfigError(f"tokenizer: {describe(tokenizer)} is no tokenizer; give that of the run, or None")
        if tokenizer is not None and tokenizer.vocab_size != model.vocab_size:
            raise ConfigError(
                f"tokenizer: it has {tokenizer.vocab_size} tokens and the model {model.vocab_size}; give the tokenizer "
                "that the model was trained with"
            )
        if convert(batch, int, "batch") < 1:
            raise ConfigError(f"batch={batch}: a session reads at least one stream; use batch=1")
        self.model = model
        self.tokenizer = tokenizer
        self.batch = batch
        self.policy = to_policy(policy)
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
        checkpoint that is missing, damaged or without an average, ConfigError for an unknown device, policy or weights.
        """
        # an import from a higher floor: opening a run needs its whole configuration, which imports every folder
        from nested_learning.hub.open_run import open_trained

        check_one_of("weights", convert(weights, str, "weights"), WEIGHTS)
        trained = open_trained(to_path(path), convert(device, str, "device"), weights)
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
        tokens = torch.cat([self._prefix(), *self._prefill_chunks(text)], 1)
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
        `memorize` does, and where a plain forward pass already updates every chosen level; DataError as `read`, for
        targets that do not fit the tokens, and for no tokens.
        """
        tokens = self._rows(tokens)
        targets = to_targets(targets, self.model.vocab_size, tokens.shape).to(self._device)
        if not tokens.numel():
            raise DataError("nothing to memorize: there are no tokens")
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
        ends = [] if self.tokenizer is None else [self.tokenizer.end]
        return torch.tensor(ends, dtype=torch.int64, device=self._device).expand(self.batch, -1)

    def _start(self, state: State) -> None:
        """Begin a document, whose first tokens are those of `_prefix`."""
        self.state, self._last_logits, self.position = state, None, 0
        with torch.inference_mode():
            self._read(self._prefix())
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
            chosen = to_indices(rows, self.batch)
            index = torch.tensor(chosen, device=self._device)
            mine = (self.state, self._document_start, self._last_logits)
            other.state, other._document_start, other._last_logits = tree.select_rows(mine, index)
            other.batch = len(chosen)
        return other

    def save(self, path: str | Path) -> None:
        """Save the state to the file `path`, from which `restore` continues. The model is not in the file.

        Raises ConfigError where nothing was read, or the file cannot be written.
        """
        last, start = self._next_logits(), self._document_start
        # at the beginning of a document the state before it, from which `restore` reads its first token again: the
        # state after that token is not enough, because `memorize` writes it again
        saved = (self.state, last, self.position) if start is None else (start, last, 0)
        save_state(to_path(path), saved, self.model, self.batch)

    def restore(self, path: str | Path) -> None:
        """Continue where `save` was called, with all rows of that session; what was read here is dropped.

        Raises CheckpointError for a file that is missing, damaged, or of another model.
        """
        file = to_path(path)
        batch = num_rows(file, self.model)
        with torch.inference_mode():
            last = self.model.head.weight.new_zeros(batch, self.model.vocab_size)
            state, last, position = load_state(file, (self._empty(batch), last, 0), self._device)
        self.batch = batch
        if position:
            self.position = 0
            self._advance(state, last, position)
        else:
            self._start(state)

    @torch.inference_mode()
    def read(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Read `tokens` and return the logits after each of them; `feed` needs less memory for a long text.

        Raises DataError for tokens outside the vocabulary, DivergedError where the logits after the last token are not
        finite.
        """
        return self._read(self._rows(tokens))

    def _read(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Read rows of tokens of the vocabulary."""
        if not tokens.numel():
            return self.model.head.weight.new_empty(*tokens.shape, self.model.vocab_size)
        logits, state = self.model(tokens, self.state, write=self.policy.write)
        require_finite(logits[:, -1])
        self._advance(state, logits[:, -1], tokens.shape[1])
        return logits

    def feed(self, text: str | Tensor) -> Float[Tensor, "b v"]:
        """Prefill: read a text, or tokens [b t], or [t] for all rows. Returns the logits of the next token.

        Raises ConfigError for a text without a tokenizer, DataError for tokens outside the vocabulary.
        """
        with torch.inference_mode():
            for tokens in self._prefill_chunks(text):
                self._read(tokens)
        return self._next_logits()

    @torch.inference_mode()
    def score(self, text: str | Tensor) -> Float[Tensor, "b t"]:
        """Read like `feed` and return the loss of each token in nats, given all before it (float32).

        Raises ConfigError where nothing was read before, since the first token then has no prediction.
        """
        nats = [torch.empty(self.batch, 0, device=self._device)]
        for tokens in self._prefill_chunks(text):
            # the logits after the last token read so far predict the first token of this chunk
            first = self._next_logits()[:, None]
            predictions = torch.cat([first, self._read(tokens)[:, :-1]], dim=1).float()
            nats.append(F.cross_entropy(predictions.mT, tokens, reduction="none"))
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
        given = {"num_tokens": num_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        sampling = convert(given, SamplingConfig, "sampling")
        convert(seed, int, "seed")
        tokens = torch.empty(self.batch, 0, dtype=torch.int64)
        for _ in range(sampling.num_tokens):
            # on the CPU, so that a seed gives the same numbers on every device
            generator = torch.Generator().manual_seed(derive_seed(seed, "sample", self.position))
            token = sample_token(
                self._next_logits().cpu(),
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                generator=generator,
            )[:, None]
            self._read(token.to(self._device))
            tokens = torch.cat([tokens, token], dim=1)
        return tokens

    def text(self, tokens: Int[Tensor, "b t"]) -> list[str]:
        """Return the text of each row of `tokens`, [b t] or [t].

        Raises ConfigError without a tokenizer, DataError for tokens outside the vocabulary.
        """
        tokenizer, rows = self._require_tokenizer(), to_tokens(tokens, self.model.vocab_size)
        return [tokenizer.decode(row) for row in (rows if rows.dim() == 2 else rows[None]).tolist()]

    def _next_logits(self) -> Tensor:
        if self._last_logits is None:
            raise ConfigError("nothing was read yet, so there is no prediction; feed a first token")
        return self._last_logits

    def _require_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ConfigError("this model has no tokenizer: it was trained on data without text; feed it tokens")
        return self.tokenizer

    def _rows(self, tokens: Any) -> Int[Tensor, "b t"]:
        return to_rows(tokens, self.model.vocab_size, self.batch).to(self._device)

    def _prefill_chunks(self, text: str | Tensor) -> Iterator[Tensor]:
        tokens = torch.from_numpy(self._require_tokenizer().encode(text)) if isinstance(text, str) else text
        rows = self._rows(tokens)
        return iter(rows.split(PREFILL_TOKENS, dim=1)) if rows.numel() else iter(())
