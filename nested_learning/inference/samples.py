"""Samples: the continuation of a prompt, greedy and sampled."""

from dataclasses import replace

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
    session.feed(prompt)
    tokens = session.generate(
        sampling.num_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=seed,
    )
    return session.text(tokens)[0]


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
