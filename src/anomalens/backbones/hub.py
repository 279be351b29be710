"""Locate the files of a set of weights: in the user's folder, in the hub's cache and, last and only if allowed, on
the Hugging Face hub."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from anomalens.backbones.registry import Published, find, find_image_tower
from anomalens.backbones.weight_files import (
    HUGGING_FACE_CONFIG,
    HUGGING_FACE_FILES,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_FILES,
    PREPROCESSOR_CONFIG,
    shards_of,
)
from anomalens.downloads import TIME_LIMIT, is_offline, mirrored, refuse_unreachable, time_limit
from anomalens.errors import WeightsError
from anomalens.extras import quiet_logger
from anomalens.files import cache_folder

_CONFIG_SECONDS, _WEIGHTS_SECONDS = 60.0, 3600.0
_HUB = "https://huggingface.co"

HUB_PREFIX = "hf-hub:"
"""What may stand before a hub id, to tell it from a name or a path."""


def is_available(name: str, cache_dir: str | Path | None = None) -> bool:
    """Return whether the weights of a name in the table can be loaded without the network. Raises as `find`."""
    backbone = find_image_tower(name) or find(name)
    return backbone.name == "bundled" or find_local(backbone, cache_dir) is not None


def weights_folder(backbone: Published, cache_dir: str | Path | None = None) -> Path:
    """Return the folder where a user may put the files of a backbone known by name."""
    return (Path(cache_dir) if cache_dir else cache_folder() / "weights") / (backbone.same_files_as or backbone.name)


def find_local(backbone: Published, cache_dir: str | Path | None = None) -> Path | None:
    """Return the file of a backbone known by name on this machine, in its folder or in the hub's cache, if any."""
    folder = weights_folder(backbone, cache_dir)
    names = [file.name for file in backbone.files] + ([backbone.archive[0]] if backbone.archive else [])
    for name in names:
        # `Path.is_file` fails where a folder may not be entered.
        if os.path.isfile(folder / name):
            return folder / name
    return _get(backbone.hub, backbone.files[0].name, cache_dir, cached_only=True) if backbone.hub else None


def fetch(backbone: Published, *, offline: bool, cache_dir: str | Path | None = None) -> Path:
    """Return the file of a backbone known by name, from this machine or from the hub.

    Raises:
        WeightsError: it is not on this machine and cannot be fetched; names the file, its size, and where to put it.
    """
    local = find_local(backbone, cache_dir)
    if local is not None:
        return local
    file = backbone.files[0]
    remedy = (
        f"put {file.name} ({file.size}, from {mirrored(f'{_HUB}/{backbone.hub}/resolve/main/{file.name}')}) into "
        f"{weights_folder(backbone, cache_dir)}, or give its path as the backbone"
    )
    if is_offline(offline):
        raise WeightsError(
            f"the weights {backbone.name!r} are not on this machine, and offline nothing is fetched: {remedy}"
        )
    hub = backbone.hub or ""
    try:
        _refuse_unreachable(hub)
        for config in (OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG, PREPROCESSOR_CONFIG):
            _get(hub, config, cache_dir)
        path = _get(hub, file.name, cache_dir)
    except WeightsError as error:
        raise WeightsError(f"{error}; {remedy}") from error
    if path is None:
        raise WeightsError(f"the hub repository {backbone.hub} has no {file.name} any more; {remedy}")
    return path


def fetch_repository(hub_id: str, *, offline: bool, cache_dir: str | Path | None = None) -> Path:
    """Return the file of weights of any hub repository, cached or fetched, with its config files in the same folder.

    Raises:
        WeightsError: no such repository, no weights in it, or not on this machine while offline.
    """
    path = _collect(lambda name: _get(hub_id, name, cache_dir, cached_only=True))
    if path is None and is_offline(offline):
        folder = cached_folder(hub_id, cache_dir)
        raise WeightsError(
            f"the hub repository {hub_id} is not in the cache {folder}, and offline nothing is fetched: "
            "run once without offline mode, or download the repository and give the folder as the backbone"
        )
    if path is None:
        _refuse_unreachable(hub_id)
        path = _collect(lambda name: _get(hub_id, name, cache_dir))
    if path is None:
        names = ", ".join((*HUGGING_FACE_FILES, *OPEN_CLIP_FILES))
        raise WeightsError(f"the hub repository {hub_id} holds none of {names}; give one with CLIP weights")
    return path


def _collect(get: Callable[[str], Path | None]) -> Path | None:
    """Get config, preprocessing and weights by their usual names; return the file of weights, None where none is."""
    for config, names in ((OPEN_CLIP_CONFIG, OPEN_CLIP_FILES), (HUGGING_FACE_CONFIG, HUGGING_FACE_FILES)):
        if get(config) is None:
            continue
        get(PREPROCESSOR_CONFIG)
        for name in names:
            path = get(name)
            if path is None:
                continue
            if path.name.endswith(".index.json") and any(get(shard) is None for shard in shards_of(path)):
                continue
            return path
    return None


def cached_folder(hub_id: str, cache_dir: str | Path | None = None) -> Path:
    """Return the folder in which the client keeps what it fetched of a hub repository."""
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"


def _refuse_unreachable(hub_id: str) -> None:
    """Raise WeightsError where the hub does not answer; its own client would try again for half a minute."""
    label = f"hub repository {hub_id}: it is not in the cache and the hub cannot be reached"
    refuse_unreachable(mirrored(f"{_HUB}/"), label)


def _in_time(work: Callable[[], str], seconds: float) -> str:
    """Return what `work` gives. Raises TimeoutError where it takes longer, and what `work` raises.

    The client begins again for as long as some bytes arrive, however few, so the time is measured from outside. A
    thread that is left behind ends with the process.
    """
    result: Future[str] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="anomalens-fetch", daemon=True).start()
    return result.result(timeout=seconds)


def _get(hub_id: str, name: str, cache_dir: str | Path | None, *, cached_only: bool = False) -> Path | None:
    """Return a file of a hub repository, fetched unless the cache has its newest version; None where there is none.

    With `cached_only` the network is not touched, and None means that the file was not fetched before.

    Raises:
        WeightsError: no such repository, no access, no network, a transfer that broke off or takes too long, a full
            disk.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    label = f"hub repository {hub_id}"
    # The client reads its own variable at import; a mirror set later must count as well.
    mirror = os.environ.get("HF_ENDPOINT") or None
    fetch = partial(hf_hub_download, hub_id, name, cache_dir=cache_dir, endpoint=mirror, local_files_only=cached_only)
    seconds = time_limit(_CONFIG_SECONDS if name.endswith(".json") else _WEIGHTS_SECONDS)
    try:
        with quiet_logger("huggingface_hub"):  # of every try that fails; what comes of all of them is told below
            return Path(fetch() if cached_only else _in_time(fetch, seconds))
    except TimeoutError as error:
        raise WeightsError(
            f"{label}: {name} did not arrive in {seconds:.0f} seconds; try again, or set {TIME_LIMIT} to more"
        ) from error
    except HFValidationError as error:
        raise WeightsError(f"{hub_id!r} is no hub id (org/name)") from error
    except GatedRepoError as error:
        raise WeightsError(f"{label}: access is by permission; accept its terms and run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(f"{label}: does not exist, or is private (then run `hf auth login`)") from error
    except LocalEntryNotFoundError as error:
        if cached_only:
            return None
        raise WeightsError(f"{label}: {name} is not in the cache and the hub cannot be reached") from error
    except EntryNotFoundError:
        return None
    except PermissionError as error:
        if cached_only:
            return None
        raise WeightsError(f"{label}: the client's folder is closed ({error}); name another, with HF_HOME") from error
    except Exception as error:  # the client lets through the errors of whichever HTTP library it uses
        # The first line alone: the client's further lines name arguments of its own functions.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{label}: fetching {name} failed ({reason}); try again") from error
