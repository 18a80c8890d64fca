"""What went wrong, in words the user can act on. Shown without a traceback."""

import difflib
from collections.abc import Collection, Iterable


class UserError(Exception):
    """Something the user can mend; its text is one clear line."""

    exit_code = 2  # nothing was started; 1 where training had begun, see mmnet.session


class ConfigError(UserError):
    """Everything that is wrong with a config, all at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def nearest(got: str, valid: Iterable[str], prefix: str = "") -> str:
    """'; did you mean 'x'?' for the closest valid name, `prefix` before it, or nothing."""
    match = difflib.get_close_matches(got, list(valid), n=1)
    return f"; did you mean '{prefix}{match[0]}'?" if match else ""


def refuse_other_names(
    key: str, what: str, weights: Collection[str], names: Collection[str]
) -> None:
    """Raise UserError unless the weights at `key` are those of `names`, each of a `what`."""
    lacking = [name for name in names if name not in weights]
    strange = [name for name in weights if name not in names]
    if lacking:
        raise UserError(f"{key}: no weight for the {what} {', '.join(lacking)}")
    if strange:
        raise UserError(
            f"{key}.{strange[0]}: no such {what}{nearest(strange[0], names)}; there are "
            f"{', '.join(names)}"
        )


def first_line(error: BaseException) -> str:
    """What another library's error says, without its further pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def reason(error: OSError) -> str:
    """Why, without the path: "no such file or directory"."""
    return str(error.strerror).lower()


def report(error: UserError) -> str:
    """The words for standard error: one line a problem."""
    problems = error.problems if isinstance(error, ConfigError) else [str(error)]
    if len(problems) == 1:
        return f"mmnet: error: {problems[0]}"
    lines = "".join(f"\n  - {problem}" for problem in problems)
    return f"mmnet: error: {len(problems)} problems in the configuration:{lines}"
