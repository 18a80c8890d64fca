"""When the controller decides: often at first, then at a share of the run, whatever its length."""


def decisions(steps: int, longest: int | None = None) -> list[int]:
    """The optimizer steps, counted from 0, before which the controller acts.

    Each step up to the 16th, then an eighth of the steps done, at most a hundredth of the run (5
    at least) or `longest`. So runs of 300 steps and of 100,000 have 77 and 163 decisions, and the
    policy sees sequences of the length that it was trained on.
    """
    most = max(5, round(steps / 100))
    if longest is not None:
        most = min(most, longest)
    found, step = [], 0
    while step < steps:
        found.append(step)
        step += min(most, max(1, step // 8))
    return found
