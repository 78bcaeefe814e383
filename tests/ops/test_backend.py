"""The backend of the memories is the requested one, and the log says which."""

import importlib.machinery
import importlib.util

import pytest
import torch

from nested_learning.config.schema import MEMORY_BACKENDS
from nested_learning.errors import ConfigError
from nested_learning.ops.backend import BACKENDS, resolve

CUDA = torch.device("cuda")


def installed(monkeypatch, *names: str) -> None:
    specs = {name: importlib.machinery.ModuleSpec(name, None) for name in names}
    monkeypatch.setattr(importlib.util, "find_spec", specs.get)


def test_on_cuda_auto_is_triton_if_it_is_installed(monkeypatch):
    installed(monkeypatch, "triton", "fla")
    assert resolve("auto", CUDA) == ("triton", "memories are computed by kernels in Triton")
    installed(monkeypatch)
    assert resolve("auto", CUDA) == (
        "eager",
        "memories are computed by torch: triton is not installed (pip install triton)",
    )


def test_a_backend_requested_by_name_is_used_or_refused(monkeypatch):
    installed(monkeypatch, "triton", "fla")
    assert resolve("fla", CUDA)[0] == "fla"
    assert resolve("eager", CUDA)[0] == "eager"
    with pytest.raises(ConfigError, match=r"backend=cpp: .* not cuda; use backend=eager"):
        resolve("cpp", CUDA)
    with pytest.raises(ConfigError, match=r"backend=triton: .* not cpu; use backend=eager"):
        resolve("triton", torch.device("cpu"))
    installed(monkeypatch)
    with pytest.raises(ConfigError, match=r"backend=fla: fla is not installed \(pip install -e '\.\[fla\]'\)"):
        resolve("fla", CUDA)


def test_the_configuration_knows_every_backend():
    assert MEMORY_BACKENDS == BACKENDS
