"""Import an optional dependency where it is used, and name the extra to install when it is missing."""

import importlib
from typing import Any

from anomalens.errors import MissingExtraError


def optional(module: str, extra: str) -> Any:
    """Return the imported `module`; raise MissingExtraError naming `pip install 'anomalens[extra]'` if absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs the package '{module.split('.')[0]}', which is not installed; "
            f"run: pip install 'anomalens[{extra}]'"
        ) from error
