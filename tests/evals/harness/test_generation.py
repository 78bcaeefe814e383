"""Generation arguments: those of common tasks are understood, others are refused in one line that names them."""

import math

import pytest

from nested_learning.errors import ConfigError
from nested_learning.evals.harness.generation import Generation, read_generation

GREEDY = Generation((), 256, 0.0, 0, 1.0)
DRAWN = GREEDY._replace(temperature=1.0)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({}, GREEDY),
        ({"until": None, "temperature": None, "max_gen_toks": None, "do_sample": None, "top_k": None}, GREEDY),
        ({"until": "\n"}, GREEDY._replace(until=("\n",))),
        ({"until": ["\n", "Q:", "", None]}, GREEDY._replace(until=("\n", "Q:"))),
        ({"until": []}, GREEDY),
        *(({name: 8}, GREEDY._replace(num_tokens=8)) for name in ("max_gen_toks", "max_new_tokens", "max_tokens")),
        ({"max_gen_toks": 8, "max_completion_tokens": 8}, GREEDY._replace(num_tokens=8)),
        # noreval, code_x_glue, bigbench: what Hugging Face's generate() would be told
        ({"num_beams": 1, "repetition_penalty": 1.0, "do_sample": False, "early_stopping": True}, GREEDY),
        # longbench
        ({"do_sample": False, "temperature": 1, "top_p": 0.9}, GREEDY),
        ({"temperature": 0.0}, GREEDY),
        ({"temperature": 0.8, "top_p": 0.95}, GREEDY._replace(temperature=0.8, top_p=0.95)),
        ({"do_sample": True}, DRAWN),
        ({"do_sample": True, "temperature": 0, "top_k": 5}, GREEDY._replace(top_k=5)),
        ({"do_sample": True, "top_k": -1, "top_p": 1}, DRAWN),
    ],
)
def test_arguments_of_common_tasks_are_understood(arguments: dict[str, object], expected: Generation) -> None:
    assert read_generation(arguments) == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_beams": 10}, "num_beams=10: cannot be done"),
        ({"repetition_penalty": 1.2, "seed": 0}, "repetition_penalty=1.2, seed=0: cannot be done"),
        ({"max_gen_toks": 8, "max_new_tokens": 9}, "max_gen_toks=8 and max_new_tokens=9 contradict"),
        *(
            ({"max_gen_toks": value}, "max_gen_toks=.* must be a whole number")
            for value in (0, -1, 2.5, "8", True, [8])
        ),
        *(
            ({"temperature": value}, "temperature=.* must be 0, or 1e-6 and more")
            for value in (-1, 1e-9, math.nan, math.inf, "hot", [1])
        ),
        *(({"top_k": value}, "top_k=.* must be a whole") for value in (-2, 0.5, "5")),
        *(({"top_p": value}, "top_p=.* must be above 0") for value in (0, 1.1, math.nan, "all")),
        *(({"do_sample": value}, "do_sample=.* must be true or false") for value in (1, "yes")),
        *(({"until": value}, "until=.* must be a text") for value in (3, [1], {"a": 1})),
    ],
)
def test_others_are_refused_in_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^generation_kwargs: {message}") as refused:
        read_generation(arguments)
    assert "\n" not in str(refused.value) and "--gen_kwargs" in str(refused.value)
