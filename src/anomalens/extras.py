"""Import an optional dependency where it is used, name the extra to install when it is missing, and quieten it."""

import importlib
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anomalens._version import __version__
from anomalens.errors import MissingExtraError

# Variables by which packages are told to report nothing; ONNX Runtime, left to itself, also keeps a data base of what
# it reports in the user's cache.
_REPORTS_OFF = {"HF_HUB_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0", "ORT_DISABLE_TELEMETRY": "1"}
# Packages of the extra [torch].
_TORCH = ("torch", "tokenizers", "huggingface_hub")


def optional(module: str, extra: str) -> Any:
    """Return the imported `module`; raise MissingExtraError naming `pip install 'anomalens[extra]'` if absent.

    What is imported here reports to nobody.
    """
    _silence_reports()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs the package '{module.split('.')[0]}', which is not installed; "
            f"run: pip install 'anomalens[{extra}]'"
        ) from error


@contextmanager
def torch_needed(purpose: str) -> Iterator[None]:
    """Raise MissingExtraError where what is imported in this context needs PyTorch, and that is not installed.

    purpose: what needs it, as the message begins: "the method 'winclip'".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _TORCH:
            raise
        raise MissingExtraError(
            f"{purpose} needs PyTorch, which is not installed; run: pip install 'anomalens[torch]'"
        ) from error


def quiet_import(module: str) -> Any:
    """Return the imported `module`, which is always installed, and keep it from reporting to its makers."""
    _silence_reports()
    return importlib.import_module(module)


def _silence_reports() -> None:
    """Keep packages from reporting to their makers that they are used."""
    # OpenVINO does without this package where it is missing. With it, an import looks up a host and writes a number
    # into the user's home folder.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    os.environ.update(_REPORTS_OFF)


@contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """Drop what another package's logger `name`, and those below it, say short of an error; no other logger."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def versions() -> dict[str, str]:
    """Return the versions of anomalens, Python, and whatever of numpy and the runtimes has been imported, by name."""
    imported = [name for name in ("numpy", "torch", "onnxruntime", "openvino") if sys.modules.get(name)]
    own = {"anomalens": __version__, "python": platform.python_version()}
    return own | {name: str(sys.modules[name].__version__) for name in imported}
