"""The running average of the weights, for evaluation; training continues from the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from nested_learning.shapes import Tensor

# what the averaged weights of a parameter are called in the state of an optimizer: <parameter>/ema
EMA = "ema"


class Average:
    """An exponential moving average of the weights over the steps, with the factor `decay`.

    The bias of an average that starts at zero is corrected as in Adam (arXiv 1412.6980, section 3), here in the weight
    of each new value: the average is usable after any step and holds nothing of the initial weights.
    Source: Polyak and Juditsky, SIAM J. Control Optim. 30(4), 1992.
    """

    def __init__(self, decay: float, parameters: Mapping[str, Tensor]) -> None:
        self.decay = decay
        self.weights = {name: parameter.clone() for name, parameter in parameters.items()}

    def add(self, parameters: Mapping[str, Tensor], step: int) -> None:
        """Add the weights after `step` (0, 1, ...)."""
        fraction = (1 - self.decay) / (1 - self.decay ** (step + 1))
        for name, parameter in parameters.items():
            self.weights[name].lerp_(parameter, fraction)

    @contextmanager
    def in_place_of(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """Let `parameters` hold the averaged weights while the context lasts."""
        trained = {name: parameter.clone() for name, parameter in parameters.items()}
        _fill(parameters, self.weights)
        try:
            yield
        finally:
            _fill(parameters, trained)


def _fill(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
