"""The learning rate of the papers, with an optional warm-up."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("keras_mhe_experiments")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Divides the rate by ten after 20,000, 30,000 and 37,500 of 42,500 steps, as the papers do.

    Args:
        rate: initial learning rate.
        steps: number of training steps; the boundaries are at the same fractions of it.
        warmup: number of first steps in which the rate rises linearly.
    """

    def __init__(self, rate: float, steps: int, warmup: int = 0) -> None:
        super().__init__()
        self.rate, self.steps, self.warmup = rate, steps, warmup
        self.decay = keras.optimizers.schedules.PiecewiseConstantDecay(
            [round(steps * k / 42.5) for k in (20, 30, 37.5)],
            [rate, rate / 10, rate / 100, rate / 1000],
        )

    def __call__(self, step: Any) -> Any:
        rate = self.decay(step)
        if not self.warmup:
            return rate
        rise = (keras.ops.cast(step, "float32") + 1) / self.warmup
        return rate * keras.ops.minimum(rise, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "steps": self.steps, "warmup": self.warmup}
