"""`anomalens methods`, `anomalens backbones`, `anomalens info`: what there is, here and in general."""


def methods() -> None:
    """List the methods: name, paper, year, and whether learned prompts are needed."""
    from rich.table import Table

    from anomalens.cli.console import output
    from anomalens.methods.base import list_methods

    table = Table("name", "title", "paper", "learns")
    for one in list_methods():
        table.add_row(one.name, one.title, one.source, "prompts" if one.learned else "nothing")
    output.print(table)


def backbones() -> None:
    """List the weights known by name: size, licence, where they come from, and whether they are here."""
    from rich.table import Table

    from anomalens.backbones.hub import is_available
    from anomalens.backbones.registry import BACKBONES
    from anomalens.cli.console import output

    table = Table("name", "patch", "native size", "download", "licence", "source", "here")
    for one in BACKBONES.values():
        vision = one.config.vision
        here = "yes" if is_available(one.name) else "no"
        size = f"{one.bytes / 1e6:.0f} MB" if one.bytes else "unknown"
        table.add_row(one.name, str(vision.patch), f"{vision.image_size} px", size, one.licence, one.source, here)
    output.print(table)


def info() -> None:
    """Say what this machine offers: versions, devices, threads, precision, weights found."""
    import platform

    import torch
    from rich.table import Table

    from anomalens import __version__
    from anomalens.backbones.hub import is_available
    from anomalens.backbones.registry import BACKBONES
    from anomalens.cli.console import output
    from anomalens.files import cache_folder

    table = Table(show_header=False)
    table.add_row("anomalens", __version__)
    table.add_row("python", platform.python_version())
    table.add_row("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    table.add_row("devices", ", ".join(["cpu", *gpus]))
    table.add_row("bfloat16", "native" if torch.cpu._is_avx512_bf16_supported() else "emulated (slow)")
    table.add_row("weights here", ", ".join(n for n in BACKBONES if is_available(n)) or "none")
    table.add_row("text cache", str(cache_folder()))
    output.print(table)
