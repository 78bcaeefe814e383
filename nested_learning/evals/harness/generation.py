"""Generation arguments of lm-evaluation-harness: `generation_kwargs` of a task, `--gen_kwargs` of its command line."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from nested_learning.errors import ConfigError

# tokens to generate where a task does not say; the default of lm-evaluation-harness
MAX_GENERATED = 256
# the names that tasks give the number of tokens
NUM_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# arguments of other libraries -> the values with which they change nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "no_repeat_ngram_size": (0,),
    "min_new_tokens": (0,),
    "min_p": (0,),
    "typical_p": (1,),
    "early_stopping": (False, True),
    "use_cache": (False, True),
}
ALLOWED = "until, max_gen_toks, do_sample, temperature, top_k and top_p"


class Generation(NamedTuple):
    """How a text is generated: up to the first string of `until`, at most `num_tokens` tokens, greedy or sampled."""

    until: tuple[str, ...]
    num_tokens: int
    temperature: float
    top_k: int
    top_p: float


def read_generation(arguments: Mapping[str, Any]) -> Generation:
    """Return what `arguments` mean; null is an argument that is not given.

    `do_sample` false is greedy decoding, whatever the others say. Raises ConfigError for arguments that are not
    understood, and for values that are none.
    """
    given = {key: value for key, value in arguments.items() if value is not None}
    until, num_tokens = _read_until(given.pop("until", ())), _read_num_tokens(given)
    temperature = given.pop("temperature", None)
    does_sample = given.pop("do_sample", bool(temperature))
    top_k, top_p = given.pop("top_k", 0), given.pop("top_p", 1.0)
    unknown = [f"{key}={value}" for key, value in given.items() if value not in NEUTRAL.get(key, ())]
    if unknown:
        raise ConfigError(
            f"generation_kwargs: {', '.join(unknown)}: cannot be done; change it with --gen_kwargs; understood are "
            f"{ALLOWED}"
        )
    temperature = 1.0 if temperature is None else temperature
    _require("do_sample", does_sample, "true or false", isinstance(does_sample, bool))
    is_allowed = _is_number(temperature) and (temperature == 0 or 1e-6 <= temperature < math.inf)
    _require("temperature", temperature, "0, or 1e-6 and more", is_allowed)
    # -1 keeps all tokens in other libraries
    _require("top_k", top_k, "a whole number, 0 or more", type(top_k) is int and top_k >= -1)
    _require("top_p", top_p, "above 0 and at most 1", _is_number(top_p) and 0 < top_p <= 1)
    if not does_sample:
        return Generation(until, num_tokens, 0.0, 0, 1.0)
    return Generation(until, num_tokens, float(temperature), max(top_k, 0), float(top_p))


def _read_until(until: Any) -> tuple[str, ...]:
    stops = (until,) if isinstance(until, str) else until
    is_text = isinstance(stops, list | tuple) and all(stop is None or isinstance(stop, str) for stop in stops)
    _require("until", until, "a text or a list of texts", is_text)
    return tuple(stop for stop in stops if stop)


def _read_num_tokens(given: dict[str, Any]) -> int:
    """Take the number of tokens out of `given`; raise ConfigError where two names have different values."""
    named = {name: given.pop(name) for name in NUM_TOKENS if name in given}
    for name, value in named.items():
        _require(name, value, "a whole number, 1 or more", type(value) is int and value >= 1)
    if len(set(named.values())) > 1:
        both = " and ".join(f"{name}={value}" for name, value in named.items())
        raise ConfigError(
            f"generation_kwargs: {both} contradict each other; give --gen_kwargs {NUM_TOKENS[0]}=<number>"
        )
    return next(iter(named.values()), MAX_GENERATED)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(key: str, value: Any, allowed: str, holds: bool) -> None:
    if not holds:
        raise ConfigError(f"generation_kwargs: {key}={value!r} must be {allowed}; change it with --gen_kwargs")
