"""What a model writes after a prompt: greedily, and drawn from a generator of its own."""

from dataclasses import replace

from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.inference.config import MemoryConfig, SamplingConfig
from nested_learning.inference.session import Session
from nested_learning.nn.dropout import evaluating
from nested_learning.nn.language_model import LanguageModel

FILE = "samples.jsonl"
GREEDY, DRAWN = "greedy", "drawn"


def printable(text: str) -> str:
    """Return `text` with control characters replaced: a model that knows little must not steer the terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def continuation(session: Session, prompt: str, how: SamplingConfig, seed: int) -> str:
    """Read `prompt` with `session` and return the text that is drawn after it."""
    session.feed(prompt)
    tokens = session.generate(how.num_tokens, temperature=how.temperature, top_k=how.top_k, top_p=how.top_p, seed=seed)
    return session.text(tokens)[0]


def draw_samples(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: list[str],
    how: SamplingConfig,
    policy: str | MemoryConfig,
    seed: int,
) -> list[dict[str, str]]:
    """Let `model` go on with each prompt, greedily and as `how` says; return `prompt`, `kind` and `text` of each.

    A function of the weights and the arguments: no random number of anyone else is touched, and the model is left as
    it was. Every process of a model that is spread over several must call it.
    """
    kinds = {GREEDY: replace(how, temperature=0.0), DRAWN: how}
    with evaluating(model):
        begun = Session(model, tokenizer, policy=policy)
        return [
            {"prompt": prompt, "kind": kind, "text": continuation(begun.fork(), prompt, drawn, seed)}
            for prompt in prompts
            for kind, drawn in kinds.items()
        ]
