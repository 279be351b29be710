"""Give commands the options of `LoadOptions`, so that they are written once and mean the same everywhere."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any

import typer

from anomalens.errors import ConfigError
from anomalens.options import HINTS, LoadOptions, flag
from anomalens.untrusted import json_value

# Options that say how the tower sees an image; the other panels follow from what an option changes.
_SEEING = ("size", "tile", "overlap", "extra_sizes", "fast_jpeg", "truncated_jpeg", "max_pixels", "dtype")


def load_options(
    *, only: Sequence[str] = LoadOptions.names(), without: Sequence[str] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for every option of `LoadOptions`, or for `only` some, but not for those in `without`.

    The command has a parameter `options`, which receives them all as one `LoadOptions`. `defaults` are the command's
    own for options whose usual one would be wrong there.
    """
    chosen = [option for option in fields(LoadOptions) if option.name in only and option.name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            command(options=_collected({option.name: values.pop(option.name) for option in chosen}), **values)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
        parameters = [*own, *(_parameter(option, defaults.get(option.name, option.default)) for option in chosen)]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def option_help(name: str) -> str:
    """Return what `LoadOptions` says of an option, for a command that declares the flag itself."""
    return str(next(option.metadata["help"] for option in fields(LoadOptions) if option.name == name))


def _parameter(option: "Field[Any]", default: Any) -> inspect.Parameter:
    """Describe one option as Typer wants it: type, flag, help, least value."""
    hint = HINTS[option.name]
    if option.name == "method_options":
        hint, default = list[str] | None, None
    elif option.name == "extra_sizes":
        hint, default = list[int] | None, None
    name = flag(option)
    if hint is bool:
        name = f"{name}/--no-{name.removeprefix('--')}"
    least, words = option.metadata["minimum"], option.metadata["help"]
    setting = typer.Option(name, min=least, help=words, rich_help_panel=_panel(option))
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if default is MISSING else default,
        annotation=Annotated[hint, setting],
    )


def _panel(option: "Field[Any]") -> str:
    """Name the frame of the help text that an option stands in."""
    if option.name in _SEEING:
        return "How images are seen"
    return {"decision": "Decisions", "speed": "Speed"}.get(option.metadata["effect"], "Method and weights")


def _collected(values: dict[str, Any]) -> LoadOptions:
    sides = values.get("extra_sizes")
    values["extra_sizes"] = tuple(sides) if sides else None
    values["method_options"] = method_options(values.get("method_options"))
    return LoadOptions(**values)


def method_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """Read ["views=1", "adapter=linear"] as {"views": 1, "adapter": "linear"}.

    Raises ConfigError without a "=", or for what is no option of a method but one of loading.
    """
    options = {}
    for text in texts or ():
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not name:
            raise ConfigError(f"--set takes NAME=VALUE, not {text!r}")
        if name in LoadOptions.names():
            raise ConfigError(f"--set {text}: {name} is no option of a method; see --help for its own flag")
        try:
            options[name] = json_value(value)
        except ValueError:
            options[name] = value
    return options
