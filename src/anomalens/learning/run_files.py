"""Write what stands beside the checkpoint FILE.safetensors of a training run.

FILE.jsonl    the log, one JSON object a line: start, step, epoch, end
FILE.png      after each epoch: images, truth and maps of the first anomalous samples
FILE.resume   until the end: where a run that was stopped goes on, with the result it would have had
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.weight_files import load_torch
from anomalens.datasets.layouts import Sample
from anomalens.errors import TrainingError, WeightsError
from anomalens.files import atomic_write, remove_unfinished
from anomalens.images.decoding import decode
from anomalens.images.encoding import encode_image
from anomalens.learning import processes
from anomalens.learning.features import Source
from anomalens.methods.parts.checkpoints import CheckpointInfo
from anomalens.methods.parts.learned import LearnedMethod

Report = Callable[[dict[str, Any]], None]
"""Takes a line of the log."""

# Samples on the picture, and pixels a side of each.
_SHOWN = 4
_THUMB = 160


class RunFiles:
    """Keep the files of a run. Only the first of several processes writes, and only it reports what it writes."""

    def __init__(self, checkpoint: Path, report: Report) -> None:
        checkpoint = Path(checkpoint)
        self.log, self.picture, self.resume = (checkpoint.with_suffix(s) for s in (".jsonl", ".png", ".resume"))
        self.report = report

    def start(
        self, method: LearnedMethod, optimiser: torch.optim.Optimizer, info: CheckpointInfo
    ) -> tuple[int, dict[str, float]]:
        """Put back the state of a run that was stopped, and begin the log or go on with it.

        Returns the epochs already done, and the last one's means; 0 where there is nothing of this run. Raises
        TrainingError where the file cannot be read.
        """
        done, totals = 0, {}
        if self.resume.is_file():
            try:
                state = load_torch(self.resume, next(method.parameters()).device)
                if state["run"] == _identity(info):
                    method.load_state_dict(state["method"])
                    optimiser.load_state_dict(state["optimiser"])
                    done, totals = int(state["done"]), dict(state["totals"])
            except (WeightsError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise TrainingError(f"{self.resume}: damaged; delete it to start the run anew") from error
        if processes.rank() == 0:
            for file in (self.resume, self.picture):
                remove_unfinished(file)
            if done == 0:
                self.log.unlink(missing_ok=True)
            elif self.log.is_file():
                _cut_torn_line(self.log)
        self.write({"event": "start", "method": info.method, "epoch": done, **info.training})
        return done, totals

    def keep(
        self,
        method: LearnedMethod,
        optimiser: torch.optim.Optimizer,
        info: CheckpointInfo,
        done: int,
        totals: dict[str, float],
    ) -> None:
        """Write the state after `done` epochs."""
        if processes.rank() == 0:
            buffer = io.BytesIO()
            state = {"run": _identity(info), "done": done, "totals": totals}
            torch.save(state | {"method": method.state_dict(), "optimiser": optimiser.state_dict()}, buffer)
            atomic_write(self.resume, buffer.getvalue())

    def write(self, line: dict[str, Any]) -> None:
        """Append a line to the log, which a reader may follow, and report it."""
        if processes.rank() == 0:
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            self.report(line)

    def finish(self, line: dict[str, Any]) -> None:
        """Remove the state of the run and write the last line of its log."""
        if processes.rank() == 0:
            self.resume.unlink(missing_ok=True)
        self.write(line)

    def draw(self, method: LearnedMethod, encoder: PromptEncoder, source: Source, samples: Sequence[Sample]) -> None:
        """Draw a row for each of the first anomalous samples: image, truth, map (white: the largest of all)."""
        if processes.rank() > 0:
            return
        rows = []
        for number in [i for i, sample in enumerate(samples) if sample.label == 1][:_SHOWN]:
            with torch.no_grad():
                batch = source.batch([number])
                result = method.score(batch.features, method.text(encoder, batch.names[0]), (_THUMB, _THUMB))
            rows.append((samples[number], batch.masks[0].cpu().numpy(), result.map[0].float().cpu().numpy()))
        brightest = max((float(heat.max()) for _, _, heat in rows), default=1.0) or 1.0
        sheet = Image.new("RGB", (3 * _THUMB, len(rows) * _THUMB))
        for row, (sample, mask, heat) in enumerate(rows):
            for column, cell in enumerate([decode(sample.image).rgb, 255 * mask, 255 * heat / brightest]):
                tile = Image.fromarray(cell.astype(np.uint8)).convert("RGB").resize((_THUMB, _THUMB))
                sheet.paste(tile, (column * _THUMB, row * _THUMB))
        atomic_write(self.picture, encode_image(sheet))


def _cut_torn_line(log: Path) -> None:
    """Cut off what a killed process wrote of its last line."""
    with log.open("r+b") as stream:
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)


def _identity(info: CheckpointInfo) -> str:
    """Return what must be equal for a run to go on. More epochs than before may be asked."""
    facts = asdict(info)
    facts["training"] = facts["training"] | {"recipe": facts["training"]["recipe"] | {"epochs": 0}}
    return json.dumps(facts, sort_keys=True)
