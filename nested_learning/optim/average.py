"""The running average of the weights, for evaluation; training continues from the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from nested_learning.shapes import Tensor

# the averaged weights of a parameter are in the optimizer's state as <parameter>/ema
EMA = "ema"


class Average:
    """An exponential moving average of the weights over the steps, with the factor `decay`.

    Its bias towards the initial value is corrected as in Adam (arXiv 1412.6980, section 3): the average can be used
    after any step and does not include the initial weights.
    Source: Polyak and Juditsky, SIAM J. Control Optim. 30(4), 1992.
    """

    def __init__(self, decay: float, parameters: Mapping[str, Tensor]) -> None:
        self.decay = decay
        self.weights = {name: parameter.clone() for name, parameter in parameters.items()}

    def update(self, parameters: Mapping[str, Tensor], step: int) -> None:
        """Include the weights after `step` (0, 1, ...) in the average."""
        # Adam's division by (1 - decay^n), folded into the factor of the new value: the first value replaces all
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
