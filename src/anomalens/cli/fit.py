"""Run `anomalens fit`: good photographs in, a taught part as one file out."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from anomalens.cli.console import Json
from anomalens.cli.data_options import Exclude
from anomalens.cli.load_options import load_options
from anomalens.errors import ConfigError
from anomalens.options import LoadOptions


@load_options(without=("recipe", "checkpoint", "calibration", "threshold", "pixel_threshold"))
def fit(
    photos: Annotated[list[str], typer.Argument(help="Good photos: images, folders (searched recursively), patterns.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, NAME.anomalens, for `--recipe`.")],
    add: Annotated[
        bool, typer.Option("--add", help="Add the photos to the part that --out holds already; it keeps its options.")
    ] = False,
    mixed: Annotated[
        bool,
        typer.Option(
            "--mixed",
            help="The photos are not sorted and some are faulty: it learns the 70 of 100 most like the others.",
        ),
    ] = False,
    fpr: Annotated[
        float | None,
        typer.Option(help="Largest rate of false alarms; unless given, the least that so many photos can promise."),
    ] = None,
    exclude: Exclude = None,
    as_json: Json = False,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Learn a part from a few good photos, none with a defect; write all that was learned as one small file.

    Four photos are enough to begin with; the more, the fewer false alarms are promised: at most 1 in 5 sound images
    with four photos, 1 in 21 with twenty. Take them as the later images will be taken. Photos that cannot be used are
    left out with the reason, and photos that look unlike the others are named.

    --method names a method that compares with photos (memory, unless given), or one that goes by words (anoclip), which
    is then joined with the memory; --set gives options of either.

    Examples:

      anomalens fit good/ --out part.anomalens

      anomalens detect photos/ --recipe part.anomalens --out results

      anomalens fit --add more_good/ --out part.anomalens

      anomalens fit unsorted/ --mixed --out part.anomalens

      anomalens fit good/ --out part.anomalens --fpr 0.05 --roi mask.png --min-area 40
    """
    from anomalens.cli.console import note, progress_bar, say, show_facts, working
    from anomalens.cli.show_recipe import in_words
    from anomalens.decision.conformal import needed
    from anomalens.detection.loading import load_detector, split_options
    from anomalens.detection.recipe import SUFFIX, read_recipe
    from anomalens.detection.recipe_facts import recipe_facts
    from anomalens.images.sources import list_images

    if out.suffix != SUFFIX:
        raise ConfigError(f"--out {out}: the file of a taught part ends in {SUFFIX}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out.parent} is no folder; make it, or choose another --out")
    if add and mixed:
        raise ConfigError("--add takes good photos only; leave out --mixed, or learn all photos anew without --add")
    if mixed and fpr is not None:
        raise ConfigError("no rate of false alarms can be promised of unsorted photos; leave out --fpr or --mixed")
    images = list_images(photos, exclude=exclude or ())
    known = len(read_recipe(out).lesson.photos) if add else 0
    if fpr is not None and len(images) + known < needed(fpr):
        raise ConfigError(
            f"--fpr {fpr:g} needs at least {needed(fpr)} good photos, found {len(images) + known}; add photos or raise "
            "the rate"
        )
    reference_options: dict[str, Any] = {}
    if not add:
        reference_options, options = split_options(options)
    with working("loading the backbone"):
        detector = load_detector(options.replace(recipe=str(out)) if add else options)
    with progress_bar() as bar:
        # Mixed photos are looked at once to choose among them, and once to learn.
        task = bar.add_task("learning", total=len(images) * (2 if mixed else 1))
        step = partial(bar.advance, task)
        taught = detector.fit(images, mixed=mixed, fpr=fpr, seed=options.seed, progress=step, **reference_options)
    try:
        taught.save(out)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
    left_out = list(taught.lesson.left_out) if taught.lesson else []
    for reason in left_out:
        note(f"left out: {reason}")
    facts = recipe_facts(read_recipe(out), out)
    if as_json:
        show_facts(facts | {"left_out": left_out}, as_json=True)
    else:
        say(in_words(facts))
        say(f"written to {out} ({facts['bytes'] / 1e6:.1f} MB)")
        note(f"to find defects with it: anomalens detect PHOTOS --recipe {out} --out FOLDER")
