"""List what there is, in general and on this machine: the commands methods, backbones, checkpoints and info."""

from typing import Annotated, Any

import typer

from anomalens.cli.console import Json


def methods(as_json: Json = False) -> None:
    """List the methods: name, paper, year, and what they learn from."""
    from anomalens.cli.console import note, show
    from anomalens.errors import MissingExtraError
    from anomalens.extras import torch_needed
    from anomalens.methods.references.reference_method import list_reference_methods
    from anomalens.methods.sets.set_method import list_set_methods

    learned: list[tuple[Any, str]] = []
    try:
        with torch_needed("the list of methods that go by words"):
            from anomalens.methods.base import list_methods
    except MissingExtraError as error:
        note(str(error))
    else:
        learned += [(entry, "prompts" if entry.learned else "nothing") for entry in list_methods()]
    learned += [(entry, "good photos") for entry in list_reference_methods()]
    learned += [(entry, "nothing, compares a folder") for entry in list_set_methods()]
    rows = [
        {"name": entry.name, "title": entry.title, "paper": entry.source, "learns": learns} for entry, learns in learned
    ]
    show(rows, typed=["name"], as_json=as_json)


def backbones(as_json: Json = False) -> None:
    """List the weights known by name: what they know, size, licence, where they come from, and whether they are here.

    Those that know images alone compare images with photographs (`anomalens fit`) or guide crane+.
    """
    from anomalens.backbones.hub import is_available
    from anomalens.backbones.registry import ImageTower, list_backbones
    from anomalens.cli.console import show

    rows = [
        {
            "name": backbone.name,
            "knows": "images" if isinstance(backbone, ImageTower) else "images and words",
            "patch": backbone.patch,
            "native size": f"{backbone.image_size} px",
            "download": f"{backbone.bytes / 1e6:.0f} MB" if backbone.bytes else "unknown",
            "licence": backbone.licence,
            "source": backbone.source,
            "here": is_available(backbone.name),
        }
        for backbone in list_backbones()
    ]
    show(rows, typed=["name"], as_json=as_json)


def checkpoints(
    method: Annotated[str | None, typer.Argument(help="Those of one method.")] = None, as_json: Json = False
) -> None:
    """List what authors published for their learned methods: size, training data, licence, and whether it is here.

    `--checkpoint NAME` takes one. A learned method on ViT-L-14-336 takes the first of its own by itself; `evaluate` and
    `benchmark` the first that did not learn from the data measured.
    """
    from anomalens.cli.console import note, show
    from anomalens.errors import ConfigError
    from anomalens.methods.published.fetching import download_of
    from anomalens.methods.published.table import list_published

    published = list_published(method)
    if not published:
        methods = dict.fromkeys(entry.method for entry in list_published())
        raise ConfigError(f"nothing is published for {method!r}; for {', '.join(methods)} there is")
    rows: list[dict[str, Any]] = []
    for entry in published:
        download = download_of(entry)
        row = {
            "name": entry.name,
            "trained on": ", ".join(entry.trained_on),
            "download": entry.file.size,
            "licence": entry.licence,
            "here": download.present,
        }
        rows.append(row | {"address": download.address, "place": str(download.place)} if as_json else row)
    show(rows, typed=["name"], as_json=as_json)
    if not as_json:
        note("All go with --backbone ViT-L-14-336. Addresses, and where a file can be put by hand: --json")


def info(as_json: Json = False) -> None:
    """Say what this machine offers: versions, devices, threads, precision, weights found."""
    import importlib.util
    import platform

    from anomalens import __version__
    from anomalens.cli.console import show_facts
    from anomalens.extras import quiet_import
    from anomalens.files import cache_folder

    facts = {
        "anomalens": __version__,
        "python": platform.python_version(),
        "onnxruntime": quiet_import("onnxruntime").__version__,
    }
    if importlib.util.find_spec("torch") is None:
        facts["torch"] = "not installed; for other weights and methods: pip install 'anomalens[torch]'"
    else:
        facts |= _about_torch()
    show_facts(facts | {"text cache": str(cache_folder())}, as_json=as_json)


def _about_torch() -> dict[str, str]:
    """Say what PyTorch offers on this machine, and which weights it can load without the network."""
    import torch

    from anomalens.backbones.hub import is_available
    from anomalens.backbones.registry import list_backbones

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    available = [backbone.name for backbone in list_backbones() if is_available(backbone.name)]
    return {
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "devices": ", ".join(["cpu", *gpus]),
        "bfloat16": "native" if torch.cpu._is_avx512_bf16_supported() else "emulated (slow)",
        "weights here": ", ".join(available) or "none",
    }
