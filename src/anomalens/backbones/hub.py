"""Where the files of a set of weights are: the user's folder, the hub's cache, and last, only if asked, the hub."""

import os
from pathlib import Path
from typing import Any

from anomalens.backbones.registry import Backbone
from anomalens.backbones.weight_files import (
    HUGGING_FACE_CONFIG,
    HUGGING_FACE_FILES,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_FILES,
    shards_of,
)
from anomalens.errors import WeightsError

CONFIGS = (OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG, "preprocessor_config.json")


def weights_folder(backbone: Backbone, cache_dir: str | Path | None = None) -> Path:
    """Where a user may put the files of a backbone known by name."""
    from anomalens.backbones.prompt_encoder import cache_folder

    return (Path(cache_dir) if cache_dir else cache_folder() / "weights") / backbone.name


def find_local(backbone: Backbone, cache_dir: str | Path | None = None) -> Path | None:
    """The file of a backbone known by name on this machine: in its folder, else in the hub's cache."""
    folder = weights_folder(backbone, cache_dir)
    named = [file.name for file in backbone.files] + ([backbone.archive[0]] if backbone.archive else [])
    for name in named:
        if (folder / name).is_file():
            return folder / name
    return Repository(backbone.hub, cache_dir).cached(backbone.files[0].name) if backbone.hub else None


def fetch(backbone: Backbone, *, offline: bool, cache_dir: str | Path | None = None) -> Path:
    """The file of a backbone known by name, from this machine or from the hub.

    Raises:
        WeightsError: not here and not to be had; names the file, its size, and where to put it.
    """
    here = find_local(backbone, cache_dir)
    if here is not None:
        return here
    wanted = backbone.files[0]
    remedy = (
        f"put {wanted.name} ({wanted.size}, from the hub repository {backbone.hub}) into "
        f"{weights_folder(backbone, cache_dir)}, or give its path as the backbone"
    )
    if is_offline(offline):
        raise WeightsError(f"the weights {backbone.name!r} are not here, and offline nothing is fetched: {remedy}")
    repository = Repository(backbone.hub or "", cache_dir)
    try:
        for name in CONFIGS:
            repository.get(name)
        path = repository.get(wanted.name)
    except WeightsError as error:
        raise WeightsError(f"{error}; {remedy}") from error
    if path is None:
        raise WeightsError(f"the hub repository {backbone.hub} has no {wanted.name} any more; {remedy}")
    return path


def fetch_repository(hub_id: str, *, offline: bool, cache_dir: str | Path | None = None) -> Path:
    """The file of weights of any hub repository, cached or fetched, its config files beside it.

    Raises:
        WeightsError: no such repository, no weights in it, or not here and offline.
    """
    repository = Repository(hub_id, cache_dir)
    here = _collect(repository, repository.cached)
    if here is not None:
        return here
    if is_offline(offline):
        raise WeightsError(
            f"the hub repository {hub_id} is not in the cache {repository.folder}, and offline nothing is fetched: "
            "run once without offline mode, or download the repository and give the folder as the backbone"
        )
    found = _collect(repository, repository.get)
    if found is None:
        looked_for = ", ".join((*HUGGING_FACE_FILES, *OPEN_CLIP_FILES))
        raise WeightsError(f"the hub repository {hub_id} holds none of {looked_for}; give one with CLIP weights")
    return found


def _collect(repository: "Repository", get: Any) -> Path | None:
    """Config, preprocessing and weights by their usual names, through `get` (cached only, or from the hub)."""
    for config, names in ((OPEN_CLIP_CONFIG, OPEN_CLIP_FILES), (HUGGING_FACE_CONFIG, HUGGING_FACE_FILES)):
        if get(config) is None:
            continue
        get("preprocessor_config.json")
        for name in names:
            path: Path | None = get(name)
            if path is None:
                continue
            if path.name.endswith(".index.json") and any(get(shard) is None for shard in shards_of(path)):
                continue
            return path
    return None


def is_offline(asked: bool) -> bool:
    """Whether the network is forbidden, by the caller or by the hub client's own variable."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


class Repository:
    """One repository on the hub, through its own client."""

    def __init__(self, hub_id: str, cache_dir: str | Path | None) -> None:
        self.hub_id = hub_id
        self._cache_dir = Path(cache_dir) if cache_dir else None

    @property
    def folder(self) -> Path:
        """Where the client keeps it."""
        from huggingface_hub import constants

        name = f"models--{self.hub_id.replace('/', '--')}"
        return (self._cache_dir or Path(constants.HF_HUB_CACHE)) / name

    def cached(self, name: str) -> Path | None:
        """A file that was fetched before; the network is not touched."""
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            found = try_to_load_from_cache(self.hub_id, name, cache_dir=self._cache_dir)
        except HFValidationError:
            return None
        return Path(found) if isinstance(found, str) else None

    def get(self, name: str) -> Path | None:
        """A file, fetched unless the cache has its newest version; None where the repository has no such file.

        Raises WeightsError: no such repository, no access, no network, a transfer that broke off, a full disk.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )

        where = f"hub repository {self.hub_id}"
        try:
            # The client reads its own variable at import; a mirror set later must count as well.
            mirror = os.environ.get("HF_ENDPOINT") or None
            return Path(hf_hub_download(self.hub_id, name, cache_dir=self._cache_dir, endpoint=mirror))
        except HFValidationError as error:
            raise WeightsError(f"{self.hub_id!r} is no hub id (org/name)") from error
        except GatedRepoError as error:
            raise WeightsError(f"{where}: access is by permission; accept its terms and run `hf auth login`") from error
        except RepositoryNotFoundError as error:
            raise WeightsError(f"{where}: does not exist, or is private (then run `hf auth login`)") from error
        except LocalEntryNotFoundError as error:
            raise WeightsError(f"{where}: {name} is not in the cache and the hub cannot be reached") from error
        except EntryNotFoundError:
            return None
        except Exception as error:  # the client lets through the errors of whichever HTTP library it uses
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsError(f"{where}: fetching {name} failed ({reason}); try again") from error
