"""Define every error a user can meet on purpose. Each message says what was expected, what was found and what to do.

Each error is also one of Python's own kinds, so code that knows nothing of anomalens can still catch it.
"""

import re


class AnomalensError(Exception):
    """Catch every error that this package raises deliberately: the base of them all."""


class InputError(AnomalensError, ValueError):
    """Refuse an image, mask or data folder that cannot be used; the run goes on without it."""


class WeightsError(AnomalensError, RuntimeError):
    """Refuse weights that are missing, damaged, of another shape, or made for another backbone."""


class ConfigError(AnomalensError, ValueError):
    """Refuse an option that does not exist or does not fit the others."""


class TrainingError(AnomalensError, RuntimeError):
    """Stop a training run that cannot go on, for instance because its loss is no longer a number."""


class MissingExtraError(AnomalensError, ImportError):
    """Say that an optional dependency is not installed; the message names the extra that brings it."""


_LONGEST = 300  # characters of a foreign message


def one_line(error: BaseException) -> str:
    """Return the error's message as one line. A foreign error keeps its type's name in front, so that it explains
    itself; a foreign error without a message is its type's name alone. What a foreign message repeats of a damaged file
    can be long, and is cut."""
    text = " ".join(str(error).split())
    if isinstance(error, AnomalensError):
        return text
    if text.startswith("Exceeds the limit"):
        # Python's own words advise to lift the limit.
        return "a number of too many digits"
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    name = type(error).__name__
    return f"{name}: {text}" if text else name


_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|bad_alloc", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there is no memory, of the machine or of a GPU; libraries say it variously."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None
