"""The functions of every rule in the table, found in the file that has the rule's name."""

from importlib import import_module

from nested_learning.ops.rules import RULES
from nested_learning.ops.rules.rule import RuleFunctions


def find_functions(name: str) -> RuleFunctions:
    """Import `ops/rules/<name>.py` and return its functions `init_<name>` and `<name>`."""
    found = vars(import_module(f"nested_learning.ops.rules.{name}"))
    return RuleFunctions(found[f"init_{name}"], found[name])


# all at once: compiled code then looks functions up in a dictionary and imports nothing
FUNCTIONS = {name: find_functions(name) for name in RULES}
