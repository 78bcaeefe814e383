"""The optimizer of the trained weights: named groups of parameters, their rules, clocks and learning rates."""
