"""Run `anomalens train` and `anomalens import-checkpoint`, which make the checkpoints of learned methods."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from anomalens.cli.data_options import Exclude, NormalName
from anomalens.cli.load_options import load_options
from anomalens.errors import ConfigError
from anomalens.options import LoadOptions

_Out = Annotated[Path, typer.Option("--out", "-o", help="The checkpoint, FILE.safetensors.")]


@load_options(only=("backbone", "size", "device", "offline", "method_options"))
def train(
    method: Annotated[str, typer.Argument(help="A learned method; see `anomalens methods`.")],
    data: Annotated[
        list[str], typer.Option("--data", help="LAYOUT:PATH of auxiliary data with masks; may be repeated.")
    ],
    out: _Out,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data; default: the paper's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step; default: the paper's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Step size of the optimiser; default: the paper's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of initial values and order; default: the paper's.")] = None,
    hold_out: Annotated[
        float, typer.Option("--hold-out", help="Share of the data that is measured on, not learned from.")
    ] = 0.0,
    name: Annotated[
        str | None, typer.Option("--name", help="What the data is called in the checkpoint; default: its folders.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of what is learned, for the checkpoint's header.")] = "",
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder for features kept between runs; default: the user's cache.")
    ] = None,
    exclude: Exclude = None,
    normal_name: NormalName = None,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Learn prompts on auxiliary data: normal and anomalous images with masks, of other things than will be inspected.

    The images of the test split are used, as in the papers. The backbone looks at each image once; what it saw is kept
    on disk, and the epochs run on that. Beside FILE.safetensors stand FILE.jsonl (the log) and FILE.png (maps after
    the latest epoch). A run that was stopped goes on when the same command is given again.

    Examples:

      anomalens train crane --data mvtec:datasets/mvtec --backbone ViT-L-14-336 --out crane-mvtec.safetensors

      torchrun --nproc-per-node 4 -m anomalens train tokenclip --data visa:datasets/visa -o tokenclip.safetensors
    """
    from anomalens.backbones.weights import load_weights
    from anomalens.cli.console import note, say
    from anomalens.datasets.layouts import open_dataset
    from anomalens.engines.torch_engine import pick_device
    from anomalens.learning.training import TrainingPlan
    from anomalens.learning.training import train as learn

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: a checkpoint is a .safetensors file; call it {out.stem}.safetensors")
    plan = TrainingPlan(epochs, batch, lr, seed, options.size, hold_out)
    first = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun; one alone speaks
    datasets = [open_dataset(spec, exclude=exclude or (), normal_names=normal_name or ()) for spec in data]
    if first:
        for dataset in datasets:
            note(dataset.summary())
    show = TrainingBars() if first else _silent
    try:
        info = learn(
            method,
            [sample for dataset in datasets for sample in dataset.samples()],
            load_weights(options.backbone, offline=options.offline),
            out,
            auxiliary_data=name or "+".join(dataset.name for dataset in datasets),
            licence=licence,
            plan=plan,
            options=dict(options.method_options),
            device=pick_device(options.device),
            cache=cache,
            offline=options.offline,
            report=show,
        )
    except KeyboardInterrupt:
        if first:
            note("stopped; the same command goes on where it stopped")
        raise typer.Exit(130) from None
    finally:
        if isinstance(show, TrainingBars):
            show.close()
    if first:
        measured = {key: value for key, value in info.metrics.get("held_out", {}).items() if value is not None}
        if measured:
            numbers = ", ".join(f"{key.replace('_', ' ')} {value:.1f}" for key, value in measured.items())
            say(f"on {info.training['held_out']} images held out, per cent: {numbers}")
        say(f"{info.method} on {info.backbone}, learned from {info.auxiliary_data}: {out}")
        say(f"use it: anomalens detect IMAGES --checkpoint {out} --backbone {options.backbone} --out DIR")


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="What the authors of a learned method published (.pth).")],
    out: _Out,
    method: Annotated[
        str | None, typer.Option("--method", help="The method; needed only where the file does not say.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What it was trained on (mvtec, visa), where it is not recognised.")
    ] = None,
) -> None:
    """Turn what authors published into a checkpoint for the backbone ViT-L-14-336; nothing in the file is run.

    The content says which method it is of: AnomalyCLIP, Crane, Crane+, APRIL-GAN or AdaCLIP. Files that are known by
    their hash (`anomalens checkpoints`) also say what they were trained on. These need no import: `--checkpoint NAME`
    fetches them.

    Example:

      anomalens import-checkpoint epoch_5.pth --out crane-mvtec.safetensors
    """
    from anomalens.cli.console import say
    from anomalens.methods.parts.checkpoints import save_checkpoint
    from anomalens.methods.published.importing import import_published

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: a checkpoint is a .safetensors file; call it {out.stem}.safetensors")
    checkpoint = import_published(file, method, name)
    save_checkpoint(out, checkpoint)
    info = checkpoint.info
    say(
        f"{out}: {info.method} for {info.backbone}, {info.training['published']}, trained on {info.auxiliary_data}, "
        f"{info.licence}"
    )


def _silent(line: dict[str, Any]) -> None:
    """Report nothing, as all processes but the first."""


class TrainingBars:
    """Show the log as one bar for the features and one for the epochs, with a line for each epoch."""

    def __init__(self) -> None:
        from anomalens.cli.console import progress_bar

        self.bar = progress_bar()
        self.bar.start()
        self.features = self.bar.add_task("features", total=None, visible=False)
        self.steps = self.bar.add_task("learning", total=None, visible=False)
        self.images, self.batch = 0, 1

    def __call__(self, line: dict[str, Any]) -> None:
        match line["event"]:
            case "cache":
                self.say(f"keeping features in {line['folder']}: {_size(line['bytes'])}")
            case "features":
                self.bar.update(self.features, total=line["total"], completed=line["done"], visible=True)
            case "start":
                self.images, self.batch = line["images"], line["recipe"]["batch"]
                total, done = line["recipe"]["epochs"] * self.images, line["epoch"] * self.images
                self.bar.reset(self.steps, total=total, completed=done, visible=True, resumed=done)
            case "step":
                done = (line["epoch"] - 1) * self.images + min(self.images, line["step"] * self.batch)
                self.bar.update(self.steps, completed=done, description=f"learning, loss {line['loss']:.4f}")
            case "epoch":
                parts = ", ".join(f"{key} {value:.4f}" for key, value in line.items() if isinstance(value, float))
                self.say(f"epoch {line['epoch']} of {line['epochs']}: {parts}")

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bars off the screen."""
        self.bar.stop()


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
