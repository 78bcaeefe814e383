"""The letters of tensor shapes, one meaning each in the whole project.

`b` rows of a batch, `t` tokens, `d` model width, `h` heads, `k` key width, `v` value width (of logits: vocabulary),
`c` tokens of a chunk, `n` chunks, `w` short-convolution width.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor"]
