"""Choose what computes: the shipped graph wherever it does all that is asked for, else PyTorch.

Nothing above this file imports PyTorch, and neither does this one before it is needed.
"""

import ctypes
import importlib.util
import sys
from functools import cache

from anomalens.engines import light
from anomalens.engines.loaded import Loaded
from anomalens.errors import ConfigError
from anomalens.extras import torch_needed
from anomalens.options import LoadOptions


def load_engine(options: LoadOptions) -> Loaded:
    """Build the engine that `options` ask for; arguments and errors as `load_detector`.

    Raises ConfigError where an engine is named that cannot do what else is asked for.
    """
    if options.engine == "torch":
        return _load_torch(options, "the engine 'torch'")
    graph = light.graph_for(options)
    if options.engine != "auto":
        if isinstance(graph, str):
            raise ConfigError(
                f"the engine {options.engine!r} runs the graph shipped with the bundled backbone, which does not serve "
                f"{graph}; leave the engine out, or take 'torch'"
            )
        return light.load(options, graph, options.engine)
    if isinstance(graph, str):
        return _load_torch(options, graph)
    if options.device == "auto" and _has_gpu_for_torch():
        return _load_torch(options, "a GPU")
    return light.load(options, graph, "onnx")


def load_rehearsal(options: LoadOptions) -> Loaded:
    """Build the engine that `options` ask for, with random weights; see `rehearsal.load`."""
    with torch_needed(f"the method {options.method!r}"):
        from anomalens.engines import rehearsal
    return rehearsal.load(options)


def words_method(options: LoadOptions) -> tuple[str, tuple[str, ...]]:
    """Return the zero-shot method that `options` ask for, and the names of its options; no weights are loaded.

    Raises ConfigError for an unknown method.
    """
    graph = light.graph_for(options.replace(method_options={}))
    if not isinstance(graph, str):
        return graph.method, tuple(graph.options)
    with torch_needed(graph):
        from anomalens.engines.torch_engine import words_entry
    entry = words_entry(options)
    return entry.name, entry.options


def _load_torch(options: LoadOptions, purpose: str) -> Loaded:
    """Build the engine in PyTorch. Raises MissingExtraError, which names the purpose, where that is not installed."""
    with torch_needed(purpose):
        from anomalens.engines import image_engine, torch_engine
    return image_engine.load(options) if image_engine.can_load(options.backbone) else torch_engine.load(options)


@cache
def _has_gpu_for_torch() -> bool:
    """Tell whether PyTorch is installed and a driver for its GPUs is, without importing it, which takes seconds."""
    if importlib.util.find_spec("torch") is None:
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
