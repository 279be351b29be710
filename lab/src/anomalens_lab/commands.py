"""Define `python -m anomalens_lab COMMAND`: thin commands over the rooms beside this file.

Each imports what it needs when it runs, so that `--help` answers at once.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from anomalens.cli.application import new_app, run_app

app = new_app(
    "python -m anomalens_lab",
    "Make the weights bundled with anomalens anew: draw scenes, train, calibrate, learn the shipped prompts.",
)


def main() -> None:
    """Run the command line. Errors a user can cause become one line and exit status 2."""
    run_app(app)


@app.command("scenes")
def scenes(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new data set, in MVTec layout.")],
    count: Annotated[int, typer.Option(min=1, help="Images to make.")] = 1000,
    size: Annotated[int, typer.Option(min=64, help="Side of the images in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Same seed, same images.")] = 0,
) -> None:
    """Draw surfaces and parts with defects, exact masks and captions.

    A run that was interrupted goes on where it stopped when started again with the same options.
    """
    from anomalens.cli.console import progress_bar, say
    from anomalens_lab.synthesis import synthesize

    with progress_bar() as bar:
        task = bar.add_task("drawing", total=count)
        new = synthesize(out, count, seed=seed, size=size, progress=lambda done: bar.update(task, completed=done))
    say(f"{new} new images in {out}, in MVTec layout; captions in {out / 'captions.jsonl'}")


@app.command("textures")
def textures(
    package: Annotated[Path, typer.Argument(help="Folder that Debian's ufoai-textures was unpacked into.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the photographs.")],
) -> None:
    """Take the photographs of surfaces whose licence asks for nothing or for attribution, and say whose they are.

    Examples:

      apt-get download ufoai-textures && dpkg -x ufoai-textures*.deb unpacked

      python -m anomalens_lab textures unpacked --out textures
    """
    from anomalens.cli.console import say
    from anomalens_lab.textures import ATTRIBUTION, take_clean

    say(f"{take_clean(package, out)} photographs in {out}, their authors in {out / ATTRIBUTION}")


@app.command("pretrain")
def pretrain(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of scenes, checkpoints, log and weights.")],
    materials: Annotated[
        list[Path] | None,
        typer.Option("--materials", help="Folder of texture photographs; may be repeated. None: drawn surfaces alone."),
    ] = None,
    scenes: Annotated[int | None, typer.Option(min=512, help="Training scenes of each stage; default: 20,480.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each stage, more than 100; default: 1,100, 420, 1,000.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, scenes and machine: same weights.")] = 0,
    initial: Annotated[
        Path | None, typer.Option("--initial", help="checkpoint.pt of another run, to begin with its weights.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that paint scenes.")] = 2,
    device: Annotated[str, typer.Option("--device", help="Where to train: cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Train the bundled backbone: paint scenes and align image tokens with words, in three stages.

    Needs `pip install 'anomalens-lab\\[pretrain]'` and 18 GB of disk; a quarter of an hour of painting on two cores and
    two hours of training on one. Stopped? The same command goes on where it was. Each stage has a folder in --out
    with its log, log.jsonl; backbone.safetensors is the mean of the first and the last.

    docs/model-card.md says how to fetch the photographs, and what the weights that ship were made of.

    Examples:

      python -m anomalens_lab textures unpacked --out textures

      python -m anomalens_lab pretrain -o runs/backbone --materials textures

      anomalens detect photos/ -o results --backbone runs/backbone/backbone.safetensors --method anoclip
    """
    from anomalens.cli.console import progress_bar, say
    from anomalens_lab.pretraining import SCENES, pretrain_backbone
    from anomalens_lab.recipe import STAGES

    with progress_bar() as bar:
        task = bar.add_task("reading photographs", total=None)

        def show(description: str, done: int, total: int) -> None:
            bar.update(task, description=description, completed=done, total=total)

        path = pretrain_backbone(
            out,
            materials or (),
            stages=[stage.varied(seed, steps) for stage in STAGES],
            scenes=scenes or SCENES,
            workers=workers,
            initial=initial,
            device=device,
            progress=show,
        )
    say(f"weights: {path}")


@app.command("calibrate")
def calibrate(
    work: Annotated[Path, typer.Argument(help="Folder for the scenes; a second call uses what is there.")],
    photographs: Annotated[
        str | None, typer.Option("--photographs", help="LAYOUT:PATH of one labelled class no result is claimed on.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="A method; may be repeated. None: all that ship.")
    ] = None,
) -> None:
    """Choose thresholds, heatmap scale and score pooling of the shipped methods, and write the package's table."""
    from anomalens.cli.console import say
    from anomalens.errors import ConfigError
    from anomalens_lab.calibrate import METHODS, calibrate_bundled, held_out_scenes

    if unknown := sorted(set(method or ()) - set(METHODS)):
        raise ConfigError(f"{', '.join(unknown)} does not ship; there is {', '.join(METHODS)}")
    chosen = {name: METHODS[name] for name in method or METHODS}
    held_out_scenes(work, workers=2)
    for name, quality in calibrate_bundled(work, photographs, methods=chosen).items():
        say(f"{name}: {100 * quality:.1f}")


@app.command("ship")
def ship(
    work: Annotated[Path, typer.Argument(help="Folder for scenes, features, logs and pictures.")],
    method: Annotated[
        list[str] | None, typer.Option("--method", help="A learned method; may be repeated. None: all that ship.")
    ] = None,
    scenes_only: Annotated[
        bool, typer.Option("--scenes-only", help="Learn nothing; draw the scenes that come with the package.")
    ] = False,
) -> None:
    """Put beside the bundled backbone what belongs to it: prompts learned on drawn scenes, and held-out scenes.

    `anomalens export` compares a graph with its original on these held-out scenes, and judges int8 by them.
    """
    from anomalens.backbones.bundle import BUNDLED_FILE
    from anomalens.cli.console import say
    from anomalens_lab.check_scenes import write_check_scenes
    from anomalens_lab.ship import METHODS
    from anomalens_lab.ship import ship as learn

    def show(line: dict[str, Any]) -> None:
        if line["event"] == "epoch":
            say(f"epoch {line['epoch']} of {line['epochs']}: loss {line['loss']:.4f}")

    for info in () if scenes_only else learn(work, tuple(method or METHODS), report=show):
        say(f"{info.method}: {info.metrics}")
    folder = BUNDLED_FILE.parent / "scenes"
    say(f"{write_check_scenes(folder)} scenes in {folder}")


@app.command("graph")
def graph() -> None:
    """Write the graphs that ship beside the bundled backbone, for installations without PyTorch, and compare them.

    It takes minutes. Whatever changes the weights, the prompts or the best method asks for new graphs.
    """
    from anomalens.cli.console import say, working
    from anomalens_lab.graph import METHODS, make_graph

    for method in METHODS:
        with working(f"writing the graph of {method}"):
            differences = make_graph(method)
        far = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        say(f"{method}: largest differences from PyTorch: {far}")
