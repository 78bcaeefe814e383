"""`model=hope_attention`: softmax attention, then a continuum memory system."""

from dataclasses import dataclass

from nested_learning.model.transformer import TransformerConfig


@dataclass(kw_only=True)
class HopeAttentionConfig(TransformerConfig):
    """HOPE-Attention (Nested Learning, arXiv 2512.24695, section 8.3): a Transformer whose MLP is a chain of levels.

    A Transformer is the case of one level of period 0, so the two differ in `levels` alone.
    """
