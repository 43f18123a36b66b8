"""The errors a person can meet. Each says what was given, what is needed and what to do.

`InputError` and its children are mistakes that the user can mend; the command line prints them as one
clear line and exits with status 2, without a traceback. Everything else is a defect of ours.
"""


class OnePriorError(Exception):
    """Base of every error that OnePrior raises on purpose."""


class InputError(OnePriorError, ValueError):
    """Something the user gave cannot be used: a file, an option, a value."""


class ShapeError(InputError):
    """A tensor or file has another shape than the one that is needed."""

    def __init__(self, what: str, given: object, needed: object, remedy: str = "") -> None:
        message = f"{what}: got shape {_shape(given)}, needed {_shape(needed)}"
        super().__init__(f"{message}. {remedy}" if remedy else message)


class IncompatiblePrior(InputError):
    """A method was asked of a prior (or a likelihood) that cannot serve it."""


class DivergedError(OnePriorError, ArithmeticError):
    """A loss or a chain became non-finite; names the step and the term."""


class BadRunError(InputError):
    """A run folder is missing, truncated, or not ours."""


def _shape(value: object) -> str:
    return value if isinstance(value, str) else f"({', '.join(map(str, value))})"  # type: ignore[arg-type]
