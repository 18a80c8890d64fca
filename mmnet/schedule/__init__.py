"""Schedules: the learning rate as a pure function of the optimizer step."""


def warmup(step: int, total: int, ratio: float) -> tuple[float, float]:
    """Linear warm-up over the first `ratio` of `total` steps, shared by every schedule.

    Returns (factor on the rate while warming up, progress in [0, 1) through the rest).
    Step 1 is the first; the last step still moves: progress never reaches 1.
    """
    steps = round(ratio * total)
    if step <= steps:
        return step / steps, 0.0
    return 1.0, (step - 1 - steps) / (total - steps)
