"""The processes that train together, and what they say to each other: the only importer of torch.distributed."""

from nested_learning.world.joining import open_world, pick_backend, pick_device
from nested_learning.world.plan import Plan
from nested_learning.world.world import World

__all__ = ["Plan", "World", "open_world", "pick_backend", "pick_device"]
