"""The short convolution equals torch's own, continued from a window."""

import torch
from torch.nn import functional as F

from nested_learning.nn.conv import ShortConv


def test_it_equals_a_depthwise_causal_conv1d():
    conv = ShortConv(3, 4).double()
    conv.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y, window = conv(x, conv.init_state(2))
    kernel = conv.weight.flip(0).T[:, None]
    assert torch.allclose(y, F.conv1d(F.pad(x.mT, (3, 0)), kernel, groups=3).mT)
    assert torch.equal(window, x[:, -3:])


def test_it_starts_as_the_identity():
    conv = ShortConv(3, 4)
    x = torch.randn(2, 9, 3)
    assert torch.equal(conv(x, conv.init_state(2))[0], x)
