"""Build DINOv2, a tower for images alone: its features are compared with photographs, or guide another method.

Papers: Oquab et al., "DINOv2", 2023 (arXiv 2304.07193); Darcet et al., "Vision Transformers Need Registers", ICLR 2024
(arXiv 2309.16588). Weights on the Hugging Face hub (Apache-2.0): facebook/dinov2-with-registers-base, the ViT-B/14 that
Crane+ uses, facebook/dinov2-small, the ViT-S/14 of AnomalyDINO, and every other size, with registers or without, the
gated feed-forward of the giant one included. Equal to `transformers`' Dinov2WithRegistersModel and Dinov2Model to
float32 (tested on random weights).

The blocks are those of `transformer.py`: DINOv2's layer scale is a factor on the output of either half of a block, so
it is multiplied into the last matrix of that half when weights are loaded (exact).

Shapes: B images, H W pixels, h w patch grid, N = h*w, D width, R registers.
"""

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
from anomalens.backbones.hub import fetch_repository
from anomalens.backbones.tower import resize_positions
from anomalens.backbones.transformer import Transformer
from anomalens.backbones.weight_files import HUGGING_FACE_CONFIG, pick_file, read_config, read_tensors
from anomalens.errors import WeightsError
from anomalens.images.normalisation import Triple

# Of the pixels DINOv2 was trained on, per channel of RGB in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Older and newer names of the attention's matrices in the hub layout.
_ATTENTION = {
    "q": ("attention.attention.query", "attention.q_proj"),
    "k": ("attention.attention.key", "attention.k_proj"),
    "v": ("attention.attention.value", "attention.v_proj"),
    "o": ("attention.output.dense", "attention.o_proj"),
}
# First and last matrix of the feed-forward; a gated one keeps gate and values in one matrix, the gate first, or in two.
_FEED_FORWARD = ((("fc1",), "fc2"), (("weights_in",), "weights_out"), (("gate_proj", "up_proj"), "down_proj"))


class Gate(nn.Module):
    """Compute silu(a) b of rows [..., 2 n] that hold a, then b: [..., n]."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to the last axis."""
        gate, values = x.chunk(2, dim=-1)
        return F.silu(gate) * values


class Dinov2(nn.Module):
    """Compute DINOv2's patch features; build the network with `load_dinov2` or `from_state_dict`."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        patch: int,
        grid: int,
        registers: int,
        eps: float,
        gated: int | None = None,
    ) -> None:
        """Build it: `grid` positions a side, `gated` values within the gated feed-forward (None: the ordinary one)."""
        super().__init__()
        self.width, self.layers, self.patch = width, layers, patch
        self.conv = nn.Conv2d(3, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.registers = nn.Parameter(torch.zeros(registers, width))
        self.positions = nn.Parameter(torch.zeros(1 + grid**2, width))
        self.transformer = Transformer(width, layers, heads, 4.0, "gelu")
        if gated is not None:
            for block in self.transformer.blocks:
                parts = {"c_fc": nn.Linear(width, 2 * gated), "gelu": Gate(), "c_proj": nn.Linear(gated, width)}
                block.mlp = nn.Sequential(OrderedDict(parts))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps

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
        # The weights with registers were trained with antialiased positions, those without were not.
        positions = resize_positions(self.positions, grid, "bicubic", antialias=len(self.registers) > 0)
        count = len(patches)
        rows = [
            (self.class_token + positions[0]).expand(count, 1, -1),
            self.registers.expand(count, -1, -1),
            patches.flatten(2).transpose(1, 2) + positions[1:],
        ]
        x = torch.cat(rows, dim=1)
        patch_rows, depth = slice(1 + self.registers.shape[0], None), max(taps)
        read = {}
        for number, block in enumerate(self.transformer.blocks[:depth], start=1):
            x = block(x, rows=patch_rows if number == depth else slice(None))
            if number in taps:
                read[number] = x if number == depth else x[:, patch_rows]
        if depth == self.layers:
            read[depth] = self.norm(read[depth])
        return tuple(read[tap].unflatten(1, grid) for tap in taps)

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor], heads: int | None = None, eps: float = 1e-6) -> "Dinov2":
        """Build a frozen network from tensors in the hub layout; `heads` defaults to one for every 64 channels.

        Raises WeightsError where they are not DINOv2.
        """
        state = {k.removeprefix("dinov2_with_registers.").removeprefix("dinov2."): v.float() for k, v in state.items()}
        try:
            conv = state["embeddings.patch_embeddings.projection.weight"]
            table = state["embeddings.position_embeddings"][0]
            registers = state.get("embeddings.register_tokens", table[None, :0])[0]
            layers = 1 + max(int(k.split(".")[2]) for k in state if k.startswith("encoder.layer."))
            grid = round((table.shape[0] - 1) ** 0.5)
            width = conv.shape[0]
            tensors = {
                "conv.weight": conv,
                "conv.bias": state["embeddings.patch_embeddings.projection.bias"],
                "class_token": state["embeddings.cls_token"].flatten(),
                "registers": registers,
                "positions": table,
                "norm.weight": state["layernorm.weight"],
                "norm.bias": state["layernorm.bias"],
            }
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
                    conv.shape[-1],
                    grid,
                    len(registers),
                    eps,
                    None if ordinary else gated,
                )
            model.load_state_dict(tensors, strict=True, assign=True)
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise WeightsError(
                f"these are no weights of DINOv2 in the hub's layout ({error}); give, for instance,"
                " facebook/dinov2-with-registers-base"
            ) from error
        check_finite(tensors, "the weights")
        return model.eval().requires_grad_(False)


def _block(state: dict[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """Return a block's tensors under the names of `transformer.Block`, layer scales folded in."""

    def matrix(name: str) -> str:
        return next((n for n in _ATTENTION[name] if f"{source}{n}.weight" in state), _ATTENTION[name][0])

    inner, outer = next(
        (names for names in _FEED_FORWARD if f"{source}mlp.{names[1]}.weight" in state), _FEED_FORWARD[0]
    )
    scale1, scale2 = state[f"{source}layer_scale1.lambda1"], state[f"{source}layer_scale2.lambda1"]
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


def is_dinov2(source: str | Path) -> bool:
    """Return whether weights are DINOv2's, without reading them.

    source: a folder or file, judged by the `config.json` in its folder, where there is none by the names of its
        tensors; or a hub id, judged by its name.

    Raises WeightsError for a damaged `config.json`.
    """
    path = Path(source).expanduser()
    if not path.exists():
        return re.fullmatch(r"[\w.-]+/[\w.-]*dinov2[\w.-]*", str(source), re.IGNORECASE) is not None
    folder = path if path.is_dir() else path.parent
    settings = read_config(folder / HUGGING_FACE_CONFIG)
    if settings is not None:
        return str(settings.get("model_type", "")).startswith("dinov2")
    if not path.is_file() or path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as stream:
            return any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in stream.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        # The loader that is tried next says what is wrong.
        return False


def load_dinov2(source: str | Path, *, offline: bool = False) -> Dinov2:
    """Load DINOv2, frozen, on the CPU.

    Wrap it for Crane+ as `Dinov2Guide(load_dinov2(source, offline=offline), patch)`; that guide is called as
    `guide.features(pixels, mean, std)` with the mean and std by which the pixels were normalised.

    Args:
        source: a folder, a file, or a hub id ("facebook/dinov2-with-registers-base").
        offline: never touch the network.

    Raises:
        WeightsError: missing, damaged or other weights, or not on this machine while offline.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        path = pick_file(path)
    elif not path.is_file():
        path = fetch_repository(str(source), offline=offline)
    settings = read_config(path.parent / HUGGING_FACE_CONFIG) or {}
    state, _ = read_tensors(path)
    return Dinov2.from_state_dict(state, settings.get("num_attention_heads"), settings.get("layer_norm_eps", 1e-6))


class Dinov2Guide:
    """Compute DINOv2 features on the patch grid of a backbone, to guide Crane+. Holds no parameters of the method.

    Args:
        network: from `load_dinov2`.
        patch: patch side of the backbone in pixels. Where it is not DINOv2's, images are resized (bilinear,
            antialiased) so that both grids are the same.
    """

    def __init__(self, network: Dinov2, patch: int = 14) -> None:
        self.network, self.patch = network, patch

    @torch.no_grad()
    def features(self, pixels: Tensor, mean: Triple, std: Triple) -> Tensor:
        """Return features [B, N, D] of pixels as the backbone sees them [B, 3, H, W], normalised by `mean` and `std`.

        That normalisation is undone and ImageNet's, by which DINOv2 was trained, put in its place.
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
