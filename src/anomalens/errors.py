"""Every error a user can meet on purpose. Each message says what was expected, what was found and what to do."""


class AnomalensError(Exception):
    """Base of all errors this package raises deliberately."""


class InputError(AnomalensError):
    """An image, mask or data folder that cannot be used; the run goes on without it."""


class WeightsError(AnomalensError):
    """Weights that are missing, damaged, of another shape, or made for another backbone."""


class ConfigError(AnomalensError):
    """An option that does not exist or does not fit the others."""


class MissingExtraError(AnomalensError):
    """An optional dependency is not installed; the message names the extra that brings it."""
