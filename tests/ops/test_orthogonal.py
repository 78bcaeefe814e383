"""Newton-Schulz moves singular values towards 1 and does not change singular vectors."""

import pytest
import torch

from nested_learning.ops.orthogonal import newton_schulz


def matrix_with(values: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator, dtype=values.dtype))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=values.dtype))
    rank = len(values)
    return left[:, :rank] @ torch.diag(values) @ right[:, :rank].mT


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8), (1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_singular_values_end_between_0_6_and_1_2_at_any_scale(shape, scale):
    values = torch.linspace(0.1, 1.0, min(shape)) if min(shape) > 1 else torch.ones(1)
    actual = torch.linalg.svdvals(newton_schulz(scale * matrix_with(values, *shape)))
    assert actual.min() > 0.6
    assert actual.max() < 1.2


def test_singular_vectors_do_not_change():
    x = matrix_with(torch.linspace(0.2, 1.0, 6, dtype=torch.float64), 6, 9)
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    rotated = left.mT @ newton_schulz(x) @ right.mT
    torch.testing.assert_close(rotated, torch.diag(rotated.diagonal()), atol=1e-10, rtol=0)


def test_a_batch_equals_its_matrices_one_by_one():
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    alone = torch.stack([torch.stack([newton_schulz(matrix) for matrix in row]) for row in x])
    torch.testing.assert_close(newton_schulz(x), alone, atol=1e-6, rtol=1e-5)


def test_a_tall_matrix_is_the_transpose_of_a_wide_one():
    x = torch.randn(4, 11, 5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(newton_schulz(x), newton_schulz(x.mT).mT)


def test_zero_stays_zero():
    assert torch.equal(newton_schulz(torch.zeros(3, 4, 4)), torch.zeros(3, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_result_has_the_dtype_of_the_matrix(dtype):
    assert newton_schulz(torch.ones(3, 4, dtype=dtype)).dtype == dtype


def test_more_steps_raise_smaller_singular_values():
    x = matrix_with(torch.tensor([1.0, 1e-4]), 4, 4)
    few, many = (torch.linalg.svdvals(newton_schulz(x, steps))[1] for steps in (2, 12))
    assert few < 0.01
    assert many > 0.6
