"""Read tensors from files: safetensors, or `torch.load` in the mode that unpickles nothing but tensors."""

import os
import pickle
import shlex
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from torch import Tensor

from anomalens.errors import ConfigError, WeightsError, one_line
from anomalens.untrusted import open_regular, read_json

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
        with open_regular(path) as stream:
            head = stream.read(64)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path}: cannot be read ({reason})") from error
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
    try:
        with open_regular(path) as stream:
            _check_archive(stream, path)
        with warnings.catch_warnings(action="ignore"):  # advice about kinds of pickles
            content = torch.load(path, map_location=device, weights_only=True)
        _check_stored(content, path)
        return content
    except WeightsError:
        raise
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except pickle.UnpicklingError:
        # Without torch's own message, whose advice is to unpickle everything.
        raise WeightsError(
            f"{path}: holds more than tensors, or is damaged; it is not unpickled, because that can run code; "
            "save the state dict alone, best as .safetensors"
        ) from None
    except Exception as error:  # bytes that are no pickle can raise anything
        raise WeightsError(f"{path}: damaged, cut off or not a file of weights; get it again") from error


def _check_archive(stream: IO[bytes], path: Path) -> None:
    """Look at the list of an archive's entries, where the file is one.

    Raises WeightsError where it holds code, or more bytes than the file has: torch never compresses.
    """
    if not zipfile.is_zipfile(stream):
        return
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        file, out = shlex.quote(path.name), shlex.quote(f"{path.stem}.safetensors")
        raise TorchScriptError(
            f"{path}: a TorchScript archive, which holds code and is not opened here; where you trust it, convert it "
            'once with  python -c "import sys, torch; from safetensors.torch import save_file; state = '
            "torch.jit.load(sys.argv[1], map_location='cpu').state_dict(); save_file({k: v.contiguous() for k, v in "
            f'state.items()}}, sys.argv[2])" {file} {out}  and give the .safetensors file'
        )
    if sum(entry.file_size for entry in entries) > os.fstat(stream.fileno()).st_size:
        raise WeightsError(f"{path}: a compressed archive, which torch does not write; save the weights again")


def _check_stored(content: Any, path: Path) -> None:
    """Raise WeightsError where a tensor has more numbers than are stored: a stored one may stand for billions."""
    seen: set[int] = set()
    level = [content]
    while level:
        below: list[Any] = []
        for part in level:
            if isinstance(part, Tensor):
                if part.layout != torch.strided or part.is_meta or part.is_quantized:
                    raise WeightsError(f"{path}: holds sparse, quantised or empty tensors, which are not read")
                if part.numel() * part.element_size() > part.untyped_storage().nbytes():
                    raise WeightsError(f"{path}: holds a tensor of shape {list(part.shape)}, but not as many numbers")
            elif isinstance(part, (dict, list, tuple)) and id(part) not in seen:
                # Once each, because a list may be named many times.
                seen.add(id(part))
                below.extend(part.values() if isinstance(part, dict) else part)
        level = below


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            # Copied, because these tensors are views of the file: unaligned, and changing with it.
            tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118
            return tensors, dict(stream.metadata() or {})
    except Exception as error:  # kinds of numbers that no weights have can raise anything
        raise WeightsError(f"{path}: damaged or cut off ({one_line(error)}); get the file again") from error


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
        table = read_json(index, named="index of weights", error=WeightsError)["weight_map"]
        shards = sorted({str(name) for name in table.values()})
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: not an index of weight files ({error!r}); get it again") from error
    for shard in shards:
        if Path(shard).name != shard or "\\" in shard or shard.endswith(".index.json"):
            raise WeightsError(f"{index}: names {shard!r}, which is no file of weights in its folder")
    return shards


def read_config(path: Path) -> dict[str, Any] | None:
    """Return the object in a config file of weights; None where there is no such file. Raises WeightsError."""
    if not path.exists():
        return None
    try:
        content = read_json(path)
    except ConfigError as error:
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
    names = OPEN_CLIP_FILES + HUGGING_FACE_FILES if open_clip_first else HUGGING_FACE_FILES + OPEN_CLIP_FILES
    for name in names:
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
