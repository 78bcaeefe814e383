"""Floor 3: the optimizer of the outer weights: named groups of parameters, their rules, clocks and learning rates."""
