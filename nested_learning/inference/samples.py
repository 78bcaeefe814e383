"""Samples: the continuation of a prompt, greedy and sampled."""

from codecs import getincrementaldecoder
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.inference.config import MemoryConfig, SamplingConfig
from nested_learning.inference.session import Session
from nested_learning.nn.dropout import evaluating
from nested_learning.nn.language_model import LanguageModel

FILE = "samples.jsonl"
GREEDY, DRAWN = "greedy", "drawn"


def printable(text: str) -> str:
    """Return `text` with control characters replaced, so that a generated text cannot control the terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def continuation(session: Session, prompt: str, sampling: SamplingConfig, seed: int) -> str:
    """Read `prompt` with `session` and return the generated continuation."""
    return "".join(stream(session, prompt, sampling, seed))


def stream(session: Session, prompt: str, sampling: SamplingConfig, seed: int) -> Iterator[str]:
    """Read `prompt` with `session` and yield the generated continuation in parts of whole letters, as they come."""
    session.feed(prompt)
    assert session.tokenizer is not None, "a prompt was read"
    # a letter may have several tokens
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    for _ in range(sampling.num_tokens):
        (token,) = session.generate(
            1, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, seed=seed
        )
        yield decoder.decode(session.tokenizer.decode_bytes(token.tolist()))
    yield decoder.decode(b"", final=True)


def print_continuation(
    session: Session, prompt: str, sampling: SamplingConfig, seed: int, *, is_shown: bool = True
) -> None:
    """Print `prompt`, and the generated continuation as it comes; a process where it is not shown generates it too."""
    try:
        for part in chain([prompt], stream(session, prompt, sampling, seed)):
            if is_shown:
                print(printable(part), end="", flush=True)
    finally:
        # what comes next begins on a line of its own, after Ctrl-C too
        if is_shown:
            print(flush=True)


def draw_samples(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: list[str],
    sampling: SamplingConfig,
    policy: str | MemoryConfig,
    seed: int,
) -> list[dict[str, str]]:
    """Continue each prompt with greedy decoding and as `sampling` says; return `prompt`, `kind` and `text` of each.

    The result depends on the weights and the arguments only: no global generator is used, and the model is unchanged.
    Where the model is sharded over processes, every process must call this function.
    """
    kinds = {GREEDY: replace(sampling, temperature=0.0), DRAWN: sampling}
    with evaluating(model):
        # every prompt starts from a fork of one session, which has read the `end` token only
        start = Session(model, tokenizer, policy=policy)
        return [
            {"prompt": prompt, "kind": kind, "text": continuation(start.fork(), prompt, settings, seed)}
            for prompt in prompts
            for kind, settings in kinds.items()
        ]
