"""A run that does not fit into the memory of this machine is refused before its model is built."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny

from nested_learning.checkpoint.layout import ALONE
from nested_learning.command.main import last_door
from nested_learning.errors import ConfigError
from nested_learning.phase import fit
from nested_learning.phase.fit import require_fit
from nested_learning.planning.machine import free_bytes

FIX = r"use more micro_batches, a smaller model\.dim, .*recompute=block"


def require(config: Any) -> None:
    require_fit(config, config.data.build(config.seed), ALONE)


@pytest.mark.parametrize(
    "sizes",
    [
        {"model__dim": 2**20},
        {"model__dim": 2**14, "model": "hope"},
        {"model__num_layers": 10_000, "model__dim": 65536},
        {"model__expansion": 1e8},
        {"data__batch_size": 10**10},
    ],
    ids=str,
)
def test_sizes_that_cannot_fit_are_refused_at_once(tmp_path: Path, sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"not enough memory: the run needs at least .* GB are free; {FIX}"):
        require(tiny(tmp_path, **sizes))


def test_what_probably_does_not_fit_is_refused_and_what_may_fit_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(tmp_path, model__num_layers=1)
    estimate: list[float] = []
    real = fit.memory_of
    monkeypatch.setattr(fit, "memory_of", lambda *given: (estimate.append(real(*given).total), real(*given))[1])
    monkeypatch.setattr(fit, "free_bytes", lambda _: 10**5)
    with pytest.raises(ConfigError, match=rf"the run needs about 0\.0 GB .*{FIX}"):
        require(config)
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(fit, "free_bytes", lambda _: 0.8 * estimate[0])
    require(config)
    assert "warning: not enough memory: the run needs about" in caplog.text
    caplog.clear()
    monkeypatch.setattr(fit, "free_bytes", lambda _: 1.1 * estimate[0])
    require(config)
    assert not caplog.records


@pytest.mark.parametrize("size", [(2**45,), (2**40, 2**40)])
def test_an_allocation_that_fails_is_one_line_that_names_what_to_change(size: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"not enough memory \(.*\); {FIX}"), last_door():
        torch.empty(size)
    with pytest.raises(ConfigError, match=rf"not enough memory \(MemoryError\); {FIX}"), last_door():
        bytes(2**62)


def test_the_free_memory_of_a_cpu_is_known_and_that_of_other_devices_may_be_unknown() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is None or free > 10**7
    assert free_bytes(torch.device("meta")) is None
