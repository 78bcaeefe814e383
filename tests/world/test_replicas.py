"""Replicas that are no longer equal are found and named."""

import pytest
import torch
from tiny import tiny
from together import together
from world.members import find_what_differs

from nested_learning.world.replicas import CHUNK, hash_bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8])
def test_a_hash_changes_with_any_bit_and_with_the_order(dtype):
    tensor = torch.arange(1, 102).to(dtype)
    before = int(hash_bits(tensor))
    assert int(hash_bits(tensor.clone())) == before
    bits = tensor.view(torch.uint8)
    for place in (0, 7, len(bits) - 1):
        for bit in range(8):
            bits[place] ^= 1 << bit
            assert int(hash_bits(tensor)) != before, (place, bit)
            bits[place] ^= 1 << bit
    assert int(hash_bits(tensor.flip(0))) != before


def test_a_hash_covers_more_than_one_chunk():
    tensor = torch.zeros(CHUNK + 1)
    before = int(hash_bits(tensor))
    tensor[-1] = 1
    after = int(hash_bits(tensor))
    tensor[-1], tensor[0] = 0, 1
    assert len({before, after, int(hash_bits(tensor))}) == 3
    assert int(hash_bits(torch.tensor(3))) != int(hash_bits(torch.tensor(4)))


def test_every_process_names_the_tensor_that_differs_of_the_model_of_the_optimizer_and_of_a_part(tmp_path):
    for found in together(find_what_differs, 4, tiny(tmp_path)):
        assert found["ddp"] == ""
        assert found["ddp, weights"].startswith("blocks.0.mixer.query.weight is not the same on processes 0 and 3")
        assert found["ddp, state"].startswith("embedding.weight/mean is not the same on processes 0 and 1")
        assert found["hsdp"] == ""
        # of two copies of two parts, processes 1 and 3 hold the second
        assert found["hsdp, part"].startswith("blocks.0.mixer.query.weight is not the same on processes 1 and 3")
