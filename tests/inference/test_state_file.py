"""Session states as files: those of older versions still open."""

import json

import torch
from laws.models import DIM, make_memory
from safetensors import safe_open
from safetensors.torch import save_file

from nested_learning import tree
from nested_learning.inference.state_file import RENAMED, load_state, save_state


def test_a_file_with_the_older_names_of_fields_still_opens(tmp_path):
    module = make_memory("titans_mac")
    _, state = module(torch.randn(2, 11, DIM, dtype=torch.float64), module.init_state(2))
    save_state(tmp_path / "new", state, module, rows=2)
    old = json.dumps(tree.named_integers(state)), tree.named_leaves(state)
    with safe_open(tmp_path / "new", "pt") as file:
        header = file.metadata()["state"]
        tensors = {name: file.get_tensor(name) for name in tree.named_leaves(state)}
    for before, now in RENAMED.items():
        assert now in header or any(now in name for name in tensors)
        header = header.replace(now, before)
        tensors = {name.replace(now, before): tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "old", {"state": header})
    assert tensors.keys() != old[1].keys()
    loaded = load_state(tmp_path / "old", module.init_state(2), "cpu")
    assert tree.named_integers(loaded) == json.loads(old[0])
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(loaded), tree.leaves(state), strict=True))
