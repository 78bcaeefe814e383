"""Invalid values are refused in one line that names the key, without importing torch."""

import subprocess
import sys

import pytest
from optim.shipped import SHIPPED, group, optim, shipped

from nested_learning.errors import ConfigError

MISTAKES = [
    (group(lr=-1.0), "optim.groups.0.lr=-1.0"),
    (group(lr=float("nan")), "optim.groups.0.lr=nan"),
    (group(weight_decay=-0.1), "optim.groups.0.weight_decay=-0.1"),
    (group(period=-5), "optim.groups.0.period=-5"),
    (group(min_rank=-1), "optim.groups.0.min_rank=-1"),
    (group(match="(norm"), "optim.groups.0.match='(norm' of group all is not a regular expression"),
    (group(name="a/b"), "optim.groups.0.name='a/b'"),
    (group(rule="sgd"), "optim.groups.0.rule='sgd' of group all must be one of ["),
    (group(betas=[0.9]), "optim.groups.0.betas=[0.9]"),
    (group(betas=[0.9, 1.0]), "optim.groups.0.betas=[0.9, 1.0]"),
    (group(betas=None), "optim.groups.0.betas is missing"),
    (group(rule="muon", momentum=1.0), "optim.groups.0.momentum=1.0"),
    (group(rule="muon", matrix=None), "optim.groups.0.matrix is missing"),
    (group(rule="muon", matrix="rows"), "optim.groups.0.matrix=rows of group all must be one of ['batch', 'flatten']"),
    (group(matrix="batch"), "set optim.groups.0.matrix=null"),
    (group(rule="dgd", input_decay=-1.0), "optim.groups.0.input_decay=-1.0"),
    (group(rule="delta_momentum", momentum=0.9, erase=-1.0), "optim.groups.0.erase=-1.0"),
    (group(rule="deep_momentum", retention=1.5), "optim.groups.0.retention=1.5"),
    (group(rule="m3", slow_every=0), "optim.groups.0.slow_every=0"),
    (group(rule="muon", eps=1e-8), "set optim.groups.0.eps=null"),
]


@pytest.mark.parametrize(("mistaken", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistaken_group_is_refused_by_its_key(mistaken, message):
    with pytest.raises(ConfigError) as caught:
        optim(mistaken)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_groups_cannot_share_a_name():
    with pytest.raises(ConfigError, match=r"optim.groups.1.name=all is taken"):
        optim(group(), group())


def test_there_must_be_a_group():
    with pytest.raises(ConfigError, match=r"optim.groups is empty"):
        optim()


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_a_clipping_norm_must_be_above_zero(clip):
    with pytest.raises(ConfigError, match=r"optim.clip="):
        optim(group(), clip=clip)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_complete_and_contains_its_name(name):
    assert shipped(name).name == name


def test_the_configuration_imports_no_torch():
    code = "import sys, nested_learning.optim.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
