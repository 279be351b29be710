"""Build DINOv2 and DINOv3, towers for images alone: features are compared with photographs, or guide another method.

Papers: Oquab et al., "DINOv2", 2023 (arXiv 2304.07193); Darcet et al., "Vision Transformers Need Registers", ICLR 2024
(arXiv 2309.16588); Siméoni et al., "DINOv3", 2025 (arXiv 2508.10104). Weights on the Hugging Face hub:
facebook/dinov2-with-registers-base, the ViT-B/14 that Crane+ uses, facebook/dinov2-small, the ViT-S/14 of AnomalyDINO,
facebook/dinov3-vits16-pretrain-lvd1689m, and every other vision transformer of both, with registers or without, with a
gated feed-forward or an ordinary one. `registry.py` has names for some. Equal to `transformers`'
Dinov2WithRegistersModel, Dinov2Model and DINOv3ViTModel to float32 (tested on random weights).

The blocks are those of `transformer.py`: the layer scale is a factor on the output of either half of a block, so it is
multiplied into the last matrix of that half when weights are loaded (exact). DINOv2 adds a table of positions to the
patches; DINOv3 turns their queries and keys by angles that follow from their places.

Shapes: B images, H W pixels, h w patch grid, N = h*w, D width, R registers, d = D / heads.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from anomalens.backbones.checks import check_finite
from anomalens.backbones.hub import HUB_PREFIX, fetch, fetch_repository
from anomalens.backbones.registry import find_image_tower
from anomalens.backbones.tower import resize_positions
from anomalens.backbones.transformer import Projected, Transformer
from anomalens.backbones.weight_files import HUGGING_FACE_CONFIG, pick_file, read_config, read_tensors
from anomalens.errors import WeightsError
from anomalens.images.normalisation import Triple

# Of the pixels that DINO was trained on, per channel of RGB in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Older and newer names of the attention's matrices in the hub layout.
_ATTENTION = {
    "q": ("attention.attention.query", "attention.q_proj"),
    "k": ("attention.attention.key", "attention.k_proj"),
    "v": ("attention.attention.value", "attention.v_proj"),
    "o": ("attention.output.dense", "attention.o_proj"),
}
# First and last matrix of the feed-forward; a gated one keeps gate and values in one matrix, the gate first, or in two.
_FEED_FORWARD = (
    (("fc1",), "fc2"),
    (("weights_in",), "weights_out"),
    (("gate_proj", "up_proj"), "down_proj"),
    (("up_proj",), "down_proj"),
)
# DINOv3's names in the hub layout, and those of DINOv2.
_RENAMED = {
    "model.": "",
    "layer.": "encoder.layer.",
    "norm.": "layernorm.",
    "embeddings.patch_embeddings.": "embeddings.patch_embeddings.projection.",
}


class Gate(nn.Module):
    """Compute silu(a) b of rows [..., 2 n] that hold a, then b: [..., n]."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to the last axis."""
        gate, values = x.chunk(2, dim=-1)
        return F.silu(gate) * values


class Rotation:
    """Turn queries and keys of patches by angles that follow from their places (rotary positions, as DINOv3 has them).

    Places run from -1 to 1 across the image, whatever its grid; registers and class token are not turned.
    """

    def __init__(self, grid: tuple[int, int], head: int, base: float, like: Tensor) -> None:
        """Prepare a turn for patches of a grid (h, w), heads of `head` channels, in precision and place of `like`."""
        along = [(torch.arange(n, device=like.device) + 0.5) * 2 / n - 1 for n in grid]
        places = torch.stack(torch.meshgrid(*along, indexing="ij"), dim=-1).view(-1, 2, 1)
        speeds = base ** -torch.arange(0, 1, 4 / head, device=like.device)
        # [N, d]: angles of rows, then of columns, for either half of the channels.
        angles = (2 * math.pi * places * speeds).flatten(1).tile(2)
        self.cos, self.sin = angles.cos().to(like.dtype), angles.sin().to(like.dtype)

    def __call__(self, qkv: Projected) -> Projected:
        """Return queries and keys [B, heads, L, d] with their last N rows turned, and the values."""
        queries, keys, values = qkv
        return self._turned(queries), self._turned(keys), values

    def _turned(self, x: Tensor) -> Tensor:
        count = len(self.cos)
        patches = x[..., -count:, :]
        first, second = patches.chunk(2, dim=-1)
        turned = patches * self.cos + torch.cat([-second, first], dim=-1) * self.sin
        return torch.cat([x[..., :-count, :], turned], dim=-2)


class Dino(nn.Module):
    """Compute the patch features of DINOv2 or DINOv3; build the network with `load_dino` or `from_state_dict`."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        patch: int,
        registers: int,
        eps: float,
        *,
        grid: int | None = None,
        rotary_base: float | None = None,
        gated: int | None = None,
    ) -> None:
        """Build a network.

        Args:
            width, layers, heads: of the transformer.
            patch: side of a patch in pixels.
            registers: tokens besides patches and class token.
            eps: of every LayerNorm.
            grid: positions a side in the table of positions (DINOv2).
            rotary_base: slowest turn of rotary positions (DINOv3). Either this or `grid` is given.
            gated: values within the gated feed-forward; None: the ordinary one.
        """
        super().__init__()
        self.width, self.layers, self.patch = width, layers, patch
        self.head, self.rotary_base = width // heads, rotary_base
        self.conv = nn.Conv2d(3, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.registers = nn.Parameter(torch.zeros(registers, width))
        self.positions = None if grid is None else nn.Parameter(torch.zeros(1 + grid**2, width))
        self.transformer = Transformer(width, layers, heads, 4.0, "gelu")
        if gated is not None:
            for block in self.transformer.blocks:
                parts = {"c_fc": nn.Linear(width, 2 * gated), "gelu": Gate(), "c_proj": nn.Linear(gated, width)}
                block.mlp = nn.Sequential(OrderedDict(parts))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps

    @property
    def device(self) -> torch.device:
        """Return where the network computes."""
        return self.class_token.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision that it computes in."""
        return self.class_token.dtype

    def forward(self, pixels: Tensor) -> Tensor:
        """Return patch features [B, N, D] of pixels normalised for ImageNet [B, 3, H, W], sides multiples of the patch.

        They are the last block's output after the final LayerNorm; class token and registers are dropped.
        """
        return self.levels(pixels, (self.layers,))[0].flatten(1, 2)

    def levels(self, pixels: Tensor, taps: Sequence[int]) -> tuple[Tensor, ...]:
        """Return patch features after blocks `taps`, counted from 1: [B, h, w, D] each; pixels as `forward`.

        The last block's are behind the final LayerNorm, those of others are as they leave the block.
        """
        patches = self.conv(pixels)
        grid = (patches.shape[-2], patches.shape[-1])
        x = self._rows(patches, grid)
        rotation = Rotation(grid, self.head, self.rotary_base, x) if self.rotary_base else None
        patch_rows, depth = slice(1 + self.registers.shape[0], None), max(taps)
        read = {}
        for number, block in enumerate(self.transformer.blocks[:depth], start=1):
            qkv = block.project(x)
            rows = patch_rows if number == depth else slice(None)
            x = block.feed_forward(block.attend(x, rotation(qkv) if rotation else qkv, rows))
            if number in taps:
                read[number] = x if number == depth else x[:, patch_rows]
        if depth == self.layers:
            read[depth] = self.norm(read[depth])
        return tuple(read[tap].unflatten(1, grid) for tap in taps)

    def _rows(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return what the first block takes [B, 1 + R + N, D], of patches [B, D, h, w]."""
        count, rest = len(patches), patches.flatten(2).transpose(1, 2)
        first: Tensor = self.class_token
        if self.positions is not None:
            # The weights with registers were trained with antialiased positions, those without were not.
            table = resize_positions(self.positions, grid, "bicubic", antialias=len(self.registers) > 0)
            first, rest = first + table[0], rest + table[1:]
        return torch.cat([first.expand(count, 1, -1), self.registers.expand(count, -1, -1), rest], dim=1)

    @classmethod
    def from_state_dict(
        cls, state: dict[str, Tensor], heads: int | None = None, eps: float | None = None, rotary_base: float = 100.0
    ) -> "Dino":
        """Build a frozen network from tensors in the hub layout, which say whether it is DINOv2 or DINOv3.

        Args:
            state: name -> tensor.
            heads: None: one for every 64 channels.
            eps: of every LayerNorm; None: what the published weights have.
            rotary_base: of DINOv3, as published.

        Raises WeightsError where they are neither.
        """
        state = {_name_of_dinov2(name): value.float() for name, value in state.items()}
        try:
            conv = state["embeddings.patch_embeddings.projection.weight"]
            width, patch = conv.shape[0], conv.shape[-1]
            table = state.get("embeddings.position_embeddings")
            registers = state.get("embeddings.register_tokens", conv.new_zeros(1, 0, width))[0]
            layers = 1 + max(int(k.split(".")[2]) for k in state if k.startswith("encoder.layer."))
            tensors = {
                "conv.weight": conv,
                "conv.bias": state["embeddings.patch_embeddings.projection.bias"],
                "class_token": state["embeddings.cls_token"].flatten(),
                "registers": registers,
                "norm.weight": state["layernorm.weight"],
                "norm.bias": state["layernorm.bias"],
            }
            if table is not None:
                tensors["positions"] = table[0]
            for layer in range(layers):
                tensors |= _block(state, f"encoder.layer.{layer}.", f"transformer.resblocks.{layer}.")
            first = "transformer.resblocks.0.mlp."
            gated = tensors[f"{first}c_proj.weight"].shape[1]
            ordinary = tensors[f"{first}c_fc.weight"].shape[0] == gated
            with torch.device("meta"):
                model = cls(
                    width,
                    layers,
                    heads or width // 64,
                    patch,
                    len(registers),
                    eps or (1e-5 if table is None else 1e-6),
                    grid=None if table is None else round((table.shape[1] - 1) ** 0.5),
                    rotary_base=rotary_base if table is None else None,
                    gated=None if ordinary else gated,
                )
            model.load_state_dict(tensors, strict=True, assign=True)
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise WeightsError(
                f"these are no weights of DINOv2 or DINOv3 in the hub's layout ({error}); give, for instance,"
                " facebook/dinov2-with-registers-base"
            ) from error
        check_finite(tensors, "the weights")
        return model.eval().requires_grad_(False)


def _name_of_dinov2(name: str) -> str:
    """Return the name that a tensor of either network has in DINOv2's layout."""
    name = re.sub(r"^dinov2(_with_registers)?\.", "", name)
    for start, renamed in _RENAMED.items():
        if name.startswith(start) and not name.startswith(renamed or " "):
            name = renamed + name.removeprefix(start)
    return name


def _block(state: dict[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """Return a block's tensors under the names of `transformer.Block`, layer scales folded in."""

    def matrix(name: str) -> str:
        return next((n for n in _ATTENTION[name] if f"{source}{n}.weight" in state), _ATTENTION[name][0])

    inner, outer = next(
        (names for names in _FEED_FORWARD if all(f"{source}mlp.{n}.weight" in state for n in (*names[0], names[1]))),
        _FEED_FORWARD[0],
    )
    scale1, scale2 = state[f"{source}layer_scale1.lambda1"], state[f"{source}layer_scale2.lambda1"]
    # DINOv3's keys have no bias.
    state = {f"{source}{matrix('k')}.bias": torch.zeros_like(scale1)} | state
    out = {}
    for kind in ("weight", "bias"):
        tall = (-1, 1) if kind == "weight" else (-1,)  # a factor on each output channel
        out[f"{target}ln_1.{kind}"] = state[f"{source}norm1.{kind}"]
        out[f"{target}ln_2.{kind}"] = state[f"{source}norm2.{kind}"]
        out[f"{target}attn.in_proj_{kind}"] = torch.cat([state[f"{source}{matrix(n)}.{kind}"] for n in "qkv"])
        out[f"{target}attn.out_proj.{kind}"] = scale1.view(tall) * state[f"{source}{matrix('o')}.{kind}"]
        out[f"{target}mlp.c_fc.{kind}"] = torch.cat([state[f"{source}mlp.{n}.{kind}"] for n in inner])
        out[f"{target}mlp.c_proj.{kind}"] = scale2.view(tall) * state[f"{source}mlp.{outer}.{kind}"]
    return out


def is_dino(source: str | Path) -> bool:
    """Return whether weights are DINOv2's or DINOv3's, without reading them.

    source: a name of `registry.py`; a folder or file, judged by the `config.json` in its folder, where there is none by
        the names of its tensors; or a hub id, judged by its name.

    Raises WeightsError for a damaged `config.json`.
    """
    if find_image_tower(str(source)) is not None:
        return True
    path = Path(source).expanduser()
    if not path.exists():
        hub_id = str(source).removeprefix(HUB_PREFIX)
        return re.fullmatch(r"[\w.-]+/[\w.-]*dinov[23][\w.-]*", hub_id, re.IGNORECASE) is not None
    folder = path if path.is_dir() else path.parent
    settings = read_config(folder / HUGGING_FACE_CONFIG)
    if settings is not None:
        return str(settings.get("model_type", "")).startswith(("dinov2", "dinov3_vit"))
    if not path.is_file() or path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as stream:
            names = map(_name_of_dinov2, stream.keys())
            return any(name.startswith("embeddings.patch_embeddings.projection.") for name in names)
    except (SafetensorError, OSError):
        # The loader that is tried next says what is wrong.
        return False


def load_dino(source: str | Path, *, offline: bool = False) -> Dino:
    """Load DINOv2 or DINOv3, frozen, on the CPU.

    Wrap it for Crane+ as `DinoGuide(load_dino(source, offline=offline), patch)`; that guide is called as
    `guide.features(pixels, mean, std)` with the mean and std by which the pixels were normalised.

    Args:
        source: a name of `registry.py` ("dinov2-small"), a folder, a file, or a hub id
            ("facebook/dinov2-with-registers-base").
        offline: never touch the network.

    Raises:
        WeightsError: missing, damaged or other weights, or not on this machine while offline.
    """
    named, path = find_image_tower(str(source)), Path(source).expanduser()
    if named is not None:
        path = fetch(named, offline=offline)
    elif path.is_dir():
        path = pick_file(path)
    elif not path.is_file():
        path = fetch_repository(str(source).removeprefix(HUB_PREFIX), offline=offline)
    settings = read_config(path.parent / HUGGING_FACE_CONFIG) or {}
    state, _ = read_tensors(path)
    heads, eps = settings.get("num_attention_heads"), settings.get("layer_norm_eps")
    return Dino.from_state_dict(state, heads, eps, settings.get("rope_theta") or 100.0)


class DinoGuide:
    """Compute features of DINO on the patch grid of a backbone, to guide Crane+. Holds no parameters of the method.

    Args:
        network: from `load_dino`.
        patch: patch side of the backbone in pixels. Where it is not the network's, images are resized (bilinear,
            antialiased) so that both grids are the same.
    """

    def __init__(self, network: Dino, patch: int = 14) -> None:
        self.network, self.patch = network, patch

    @torch.no_grad()
    def features(self, pixels: Tensor, mean: Triple, std: Triple) -> Tensor:
        """Return features [B, N, D] of pixels as the backbone sees them [B, 3, H, W], normalised by `mean` and `std`.

        That normalisation is undone and ImageNet's, by which DINO was trained, put in its place.
        """
        self.network.to(pixels.device)
        mean_of, std_of, imagenet_mean, imagenet_std = (
            torch.tensor(values, device=pixels.device).view(3, 1, 1)
            for values in (mean, std, IMAGENET_MEAN, IMAGENET_STD)
        )
        rgb = (pixels.float() * std_of + mean_of).clamp(0, 1)
        size = [side // self.patch * self.network.patch for side in pixels.shape[-2:]]
        if size != list(pixels.shape[-2:]):
            rgb = F.interpolate(rgb, size=size, mode="bilinear", antialias=True)
        return cast(Tensor, self.network((rgb - imagenet_mean) / imagenet_std))
