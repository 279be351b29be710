"""Read tensors from files: safetensors, or `torch.load` in the mode that unpickles nothing but tensors."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from anomalens.errors import WeightsError

OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG = "open_clip_config.json", "config.json"
PREPROCESSOR_CONFIG = "preprocessor_config.json"
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
HUGGING_FACE_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


class TorchScriptError(WeightsError):
    """Refuse a TorchScript archive, which holds code besides the tensors."""


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all tensors of a file, or of the files a sharded index names, and the safetensors header if any.

    Raises:
        WeightsError: missing, unreadable, truncated, damaged, or holding more than tensors.
    """
    if path.name.endswith(".index.json"):
        return _read_shards(path), {}
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not head:
        raise WeightsError(f"{path}: the file is empty; get it again")
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: only a Git LFS pointer, not the weights; run `git lfs pull` or download the file")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path)
    return _state_dict_in(load_torch(path), path), {}


def load_torch(path: Path, device: str | torch.device = "cpu") -> Any:
    """Return what `torch.save` wrote: tensors, numbers, text and containers of these. No other object is unpickled.

    Raises:
        WeightsError: missing, unreadable, damaged, or holding other objects. It never repeats torch's own message,
            whose advice is to unpickle everything.
    """
    if _is_torchscript(path):
        raise TorchScriptError(
            f"{path}: a TorchScript archive, which holds code and is not opened here; convert it once with\n"
            f'  python -c "import torch; from safetensors.torch import save_file; '
            f"state = torch.jit.load('{path.name}', map_location='cpu').state_dict(); "
            f"save_file({{k: v.contiguous() for k, v in state.items()}}, '{path.stem}.safetensors')\"\n"
            "and give the .safetensors file"
        )
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds more than tensors, or is damaged; it is not unpickled, because that can run code; "
            "save the state dict alone, best as .safetensors"
        ) from error
    except Exception as error:  # bytes that are no pickle can raise anything
        raise WeightsError(f"{path}: damaged, cut off or not a file of weights; get it again") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            # Copied, because these tensors are views of the file: unaligned, and changing with it.
            tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118
            return tensors, dict(stream.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: damaged or cut off ({error}); get the file again") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _state_dict_in(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the weights of a state dict, or of a training checkpoint that holds it among other things."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path}: holds no dictionary of tensors; save model.state_dict()")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _read_shards(index: Path) -> dict[str, Tensor]:
    shards = shards_of(index)
    state: dict[str, Tensor] = {}
    for number, shard in enumerate(shards, start=1):
        if not (index.parent / shard).is_file():
            raise WeightsError(f"{index}: part {number} of {len(shards)}, {shard}, is missing in its folder")
        state |= read_tensors(index.parent / shard)[0]
    return state


def shards_of(index: Path) -> list[str]:
    """Return the names of the files an index stands for, all in its own folder.

    Raises:
        WeightsError: missing, no index, or naming files elsewhere.
    """
    try:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted({str(name) for name in table.values()})
    except FileNotFoundError as error:
        raise WeightsError(f"{index}: no such file") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: not an index of weight files ({error!r}); get it again") from error
    for shard in shards:
        if Path(shard).name != shard or "\\" in shard or shard.endswith(".index.json"):
            raise WeightsError(f"{index}: names {shard!r}, which is no file of weights in its folder")
    return shards


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a config file of weights; None where there is no such file. Raises WeightsError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path.name} in its folder cannot be read ({error}); get it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path.name} in its folder is no JSON object; get it again")
    return content


def pick_file(folder: Path) -> Path:
    """Return the file of weights in a folder: the one of a usual name, else the only one.

    Raises:
        WeightsError: none, or several without a usual name; the message lists them and says what is looked for.
    """
    # A folder of open_clip's may hold a bare image tower under the plain names.
    open_clip_first = (folder / OPEN_CLIP_CONFIG).is_file()
    usual = OPEN_CLIP_FILES + HUGGING_FACE_FILES if open_clip_first else HUGGING_FACE_FILES + OPEN_CLIP_FILES
    for name in usual:
        if (folder / name).is_file():
            return folder / name
    try:
        others = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    except OSError as error:
        raise WeightsError(f"{folder}: cannot be read ({error.strerror or error})") from error
    if len(others) == 1:
        return others[0]
    content = f"it holds {', '.join(path.name for path in others)}; give one of them" if others else "it holds none"
    raise WeightsError(f"{folder}: expected one file of weights such as {HUGGING_FACE_FILES[0]}; {content}")
