"""Turn a detector in PyTorch into one graph of its normalisation, tower, method and text features.

    inputs    pixels [B, 3, S, S] in 0..1; for AnoCLIP+ also weight, bias, noise (`methods/parts/draws.py`)
    outputs   score [B] and map [B, S, S], raw; of a taught part also score_map and unlike, of the shipped graph the
              levels (`engines.contract.Scored`)

B is free. S is fixed, and position table and map operators are constants; or it is open, any multiple of `unit`, and
both are computed in the graph by formula (`backbones/resampling.py`).
"""

import copy
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip, Positions, resize_positions
from anomalens.engines.light import LEVELS
from anomalens.engines.taught import JoinedArrays, TaughtEngine, join
from anomalens.engines.torch_engine import TorchEngine
from anomalens.errors import ConfigError
from anomalens.extras import optional, quiet_logger
from anomalens.images.preprocessing import Preprocess
from anomalens.methods.base import ExportTraits, RandomFeatures
from anomalens.methods.references.reference_method import Words

_INPUTS = ("pixels", "weight", "bias", "noise")
_PROTOBUF = 2**31  # bytes; the most that one .onnx file holds


class Graph(nn.Module):
    """Hold the whole network of a detector as one module of tensors."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, engine: TorchEngine | TaughtEngine, preprocess: Preprocess, any_size: bool = False, shipped: bool = False
    ) -> None:
        """Gather the network of an engine.

        Args:
            engine: in PyTorch, or taught with such an engine.
            preprocess: says the size, and how pixels are normalised.
            any_size: leave the size open.
            shipped: make the graph of `engines.light`: it takes pixels that are normalised, and gives levels too.
        """
        super().__init__()
        self.taught, self.shipped = None, shipped
        if isinstance(engine, TaughtEngine):
            # The photographs are constants of the graph.
            self.reference = engine.method
            self.taught = engine.sizes[preprocess.size].moved(torch.empty(0))
            engine = cast(TorchEngine, engine.words)
        self.method, self.side, self.any_size = engine.method, preprocess.size, any_size
        self.clip = engine.clip if any_size else _at_size(engine.clip, self.side, engine.method.positions)
        # The text features are computed anew: those of the engine were made in inference mode, which an exporter
        # cannot take.
        encoder = PromptEncoder(engine.clip, engine.encoder.weights_hash, engine.encoder.folder)
        with torch.no_grad():
            self.text = engine.method.text(encoder, engine.identity.object_name)
        for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    @property
    def unit(self) -> int:
        """Return the pixels that an open side is a multiple of: a patch."""
        return self.clip.visual.patch

    @property
    def traits(self) -> ExportTraits:
        """Return what the method asks of a graph of this size."""
        return self.method.export_traits(self.side)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of what the graph gives, in order."""
        if self.taught is not None:
            return JoinedArrays._fields
        return ("score", "map", *LEVELS) if self.shipped else ("score", "map")

    def forward(self, pixels: Tensor, *drawn: Tensor) -> tuple[Tensor, ...]:
        """Score pixels [B, 3, S, S] in 0..1, with their random numbers where the method takes some.

        Returns what `outputs` names: scores [B], maps [B, S, S] and, of a taught part, further fields of `Scored`.
        """
        # The content key (0,) is not used: random numbers come in as `drawn`.
        normalised = pixels if self.shipped else (pixels - self.mean) / self.std
        features = self.method.encode(self.clip, normalised, (0,))
        if isinstance(features, RandomFeatures):
            features.drawn = drawn
        result = self.method.score(features, self.text, (pixels.shape[-2], pixels.shape[-1]))
        if self.taught is None:
            return result.score, result.map, *(self.method.levels(features) if self.shipped else ())
        words = Words(result.score.float(), result.map.float())
        return tuple(join(words, self.method.levels(features), self.reference, self.taught))


def _at_size(clip: Clip, side: int, mode: Positions) -> Clip:
    """Return the same network with its position table resized for images of `side` pixels.

    The table is then a constant of the graph; runtimes differ in how they resize with antialiasing.
    """
    # A deep copy of the modules that shares every tensor, so that replacing the table leaves the original as it is.
    tensors = {id(tensor): tensor for tensor in (*clip.parameters(), *clip.buffers())}
    resized: Clip = copy.deepcopy(clip, tensors)
    visual = resized.visual
    grid = (side // visual.patch, side // visual.patch)
    table = resize_positions(visual.positional_embedding.detach(), grid, mode)
    visual.positional_embedding = nn.Parameter(table.clone(), requires_grad=False)
    return resized


def write_onnx(graph: Graph, path: Path) -> None:
    """Write the graph as .onnx. Raises ConfigError above 2 GiB, MissingExtraError without the exporter."""
    size = sum(p.numel() * p.element_size() for p in graph.clip.visual.parameters())
    if size > _PROTOBUF:
        raise ConfigError(f"weights of {size / 1e9:.1f} GB do not fit one .onnx file; use --format openvino")
    export_program(graph).save(path)


def write_openvino(graph: Graph, path: Path) -> None:
    """Write the graph as .xml, weights in a .bin next to it. Raises MissingExtraError without OpenVINO."""
    openvino = optional("openvino", "export")
    intermediate = path.with_suffix(".onnx")
    export_program(graph).save(intermediate, external_data=True)
    openvino.save_model(openvino.convert_model(str(intermediate)), str(path), compress_to_fp16=False)


def export_program(graph: Graph) -> Any:
    """Return the graph as the exporter's program. Raises MissingExtraError without the exporter."""
    optional("onnx", "export")
    optional("onnxscript", "export")
    side = 5 * graph.unit if graph.any_size else graph.side
    example: list[Tensor] = [torch.rand(2, 3, side, side)]
    if graph.traits.draws:
        example += [torch.from_numpy(part) for part in graph.traits.draws.draw((0, 1))]
    batch: dict[int, Any] = {0: torch.export.Dim("batch")}
    cells = graph.unit * torch.export.Dim("cells", min=3, max=256)
    pixels = {**batch, 2: cells, 3: cells} if graph.any_size else batch
    shapes: tuple[Any, ...] = (pixels, (batch,) * (len(example) - 1)) if len(example) > 1 else (pixels,)
    with torch.no_grad(), quiet_logger("torch.onnx"), warnings.catch_warnings(action="ignore"):
        # A first pass outside the exporter computes the constants that a method keeps for each size.
        graph.eval()(*example)
        return torch.onnx.export(
            graph,
            tuple(example),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=_INPUTS[: len(example)],
            output_names=graph.outputs,
            verbose=False,
        )
