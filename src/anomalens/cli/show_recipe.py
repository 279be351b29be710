"""Run `anomalens recipe show`: say what a taught part knows, without loading any weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from anomalens.cli.application import new_app
from anomalens.cli.console import Json, with_verbosity
from anomalens.errors import ConfigError
from anomalens.options import DEFAULT_OBJECT

app = new_app("recipe", "Taught parts: look into the files that `anomalens fit` writes.")


@app.callback()
def _group() -> None:
    """Keep `show` a command of its own: Typer would leave out the name of an only command."""


@app.command("show")
@with_verbosity
def show(
    file: Annotated[Path, typer.Argument(help="A file of `anomalens fit`.")],
    thumbnails: Annotated[
        Path | None, typer.Option("--thumbnails", help="Also draw the good photos as one picture, a .png file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what a taught part knows: methods, photos, threshold and its promise, limits, sizes, versions.

    No weights are loaded, and nothing in the file is run.

    Examples:

      anomalens recipe show part.anomalens

      anomalens recipe show part.anomalens --thumbnails photos.png --json
    """
    from anomalens.cli.console import note, say, show_facts
    from anomalens.detection.recipe import read_recipe
    from anomalens.detection.recipe_facts import recipe_facts
    from anomalens.reporting.contact_sheet import write_contact_sheet

    if thumbnails is not None and thumbnails.suffix.lower() != ".png":
        raise ConfigError(f"--thumbnails {thumbnails}: the picture is a .png file")
    recipe = read_recipe(file)
    facts = recipe_facts(recipe, file)
    if thumbnails is not None:
        try:
            write_contact_sheet(recipe.lesson.photos, thumbnails)
        except OSError as error:
            raise ConfigError(f"cannot write {thumbnails}: {error.strerror or error}") from error
    if as_json:
        show_facts(facts, as_json=True)
        return
    say(in_words(facts))
    rows = {
        "object": None if facts["object"] == DEFAULT_OBJECT else facts["object"],
        "images are seen": _seen_in_words(facts),
        "thresholds": f"image {facts['threshold']:.6g}, pixel {facts['pixel_threshold']:.6g}",
        "accepted": _accepted_in_words(facts),
        "regions": _regions_in_words(facts),
        "options": ", ".join(f"{name}={value}" for name, value in facts["method_options"].items()) or "none",
        "weights": facts["weights"][:12],
        "seed": facts["seed"],
        "made by": f"anomalens {facts['version']}",
        "size of the file": f"{facts['bytes'] / 1e6:.1f} MB",
    }
    show_facts(rows, as_json=False)
    say("photos:")
    for photo in facts["photos"]:
        say(f"  {photo['name']!r}  (score {photo['score']:.4g} against the others)")
    if thumbnails is not None:
        note(f"the photos as a picture: {thumbnails}")


def in_words(facts: Mapping[str, Any]) -> str:
    """Return the lines that people read first: what was taught, what was decided and why, what the threshold promises.

    facts: of `recipe_facts`.
    """
    count = len(facts["photos"])
    method = facts["method"]
    if facts["uses_words"]:
        method = f"{method}, joined with the words of {facts['words']}"
    lines = [
        f"taught from {count} good photo{'' if count == 1 else 's'} by {method}, on the weights {facts['backbone']}",
        *_decisions(facts),
        f"threshold {facts['threshold']:.4g} ({facts['threshold_source']})",
    ]
    if facts["odd"]:
        lines.append(
            f"unlike the other photos, so have a look whether they are good: {', '.join(map(repr, facts['odd']))}"
        )
    return "\n".join(lines)


def _decisions(facts: Mapping[str, Any]) -> list[str]:
    """Say whether turned copies and the place in the image count, and why."""
    options, ratio = facts["method_options"], facts["turn_ratio"]
    if ratio is None:
        return [f"photos are also compared turned, at {options['turns']} angles"] if options["turns"] > 1 else []
    measured = f"turned, a photo is {ratio:.2g} times as far from the other photos as it is unturned"
    if options["turns"] > 1:
        return [f"the part lies at any angle, so photos are also compared turned: {measured}"]
    place = ", and where in the image something lies counts" if options.get("position") else ""
    return [f"photos are compared as they lie{place}: {measured}"]


def _seen_in_words(facts: Mapping[str, Any]) -> str:
    sizes = " and ".join(f"{side} pixels" for side in facts["sizes"])
    return f"at {sizes}" + (f", in tiles of {facts['tile']} pixels" if facts["tile"] else "")


def _accepted_in_words(facts: Mapping[str, Any]) -> str:
    unlike = ", ".join(f"{limit:.3g}" for limit in facts["unlike_limits"].values())
    text = f"images that show the same as the photos (distance up to {unlike})"
    capture = facts["capture"]
    if capture is None:
        return text
    low, high = (capture["brightness"] + sign * capture["brightness_range"] for sign in (-1, 1))
    return f"{text}, of a mean brightness of {max(low, 0):.0f} to {min(high, 255):.0f} of 255"


def _regions_in_words(facts: Mapping[str, Any]) -> str:
    words = [f"of at least {facts['min_area']} pixels" if facts["min_area"] else "of any size"]
    if facts["roi"] is not None:
        words.append(f"in a region of interest of {100 * facts['roi']:.0f} % of the image")
    if facts["mm_per_px"] is not None:
        words.append(f"{facts['mm_per_px']:g} mm a pixel")
    return ", ".join(words)
