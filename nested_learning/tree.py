"""Operations on states: nested tuples whose leaves are tensors (batch first), integers and None."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Tree = Any
Node = TypeVar("Node")


def map(fn: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Return `tree` with `fn` applied to every tensor; integers and None stay as they are."""
    return pytree.tree_map_only(Tensor, fn, tree)


def leaves(tree: Tree) -> list[Tensor]:
    """Return the tensors of `tree`, in a fixed order."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def named_leaves(tree: Tree) -> dict[str, Tensor]:
    """Return every tensor of `tree` under its path, such as `.blocks[0].memory.weight`."""
    pairs, _ = pytree.tree_flatten_with_path(tree)
    return {pytree.keystr(path): leaf for path, leaf in pairs if isinstance(leaf, Tensor)}


def named_integers(tree: Tree) -> dict[str, int]:
    """Return every integer of `tree` under its path, such as `.blocks[0].position`."""
    pairs, _ = pytree.tree_flatten_with_path(tree)
    return {pytree.keystr(path): leaf for path, leaf in pairs if isinstance(leaf, int)}


def rebuild(template: Tree, named: Mapping[str, Tensor | int]) -> Tree:
    """Return `template` with its tensors replaced by those of `named` (keys as in `named_leaves`).

    Integers are replaced where `named` has them.
    """

    def chosen(path: tuple[Any, ...], leaf: Any) -> Any:
        name = pytree.keystr(path)
        return named[name] if isinstance(leaf, Tensor) or name in named else leaf

    return pytree.tree_map_with_path(chosen, template)


def nbytes(tree: Tree) -> int:
    """Count the bytes that the tensors of `tree` hold."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(tree))


def select_rows(tree: Tree, index: Tensor) -> Tree:
    """Keep the rows `index` (int64, any number, repeats allowed) of every tensor of `tree`."""
    return map(lambda leaf: torch.index_select(leaf, 0, index), tree)


def nodes(kind: type[Node], tree: Tree) -> list[Node]:
    """Return the subtrees of `tree` of the class `kind`, such as a NamedTuple, in a fixed order."""
    leaves_and_nodes = pytree.tree_leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in leaves_and_nodes if isinstance(node, kind)]


def map_nodes(kind: type[Node], fn: Callable[[Node], Node], tree: Tree) -> Tree:
    """Return `tree` with `fn` applied to every subtree of the class `kind`; everything else stays as it is."""
    return pytree.tree_map(
        lambda node: fn(node) if isinstance(node, kind) else node, tree, is_leaf=lambda node: isinstance(node, kind)
    )
