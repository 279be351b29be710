"""Where the commands print: results to standard output, everything else to standard error."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

output = Console()
errors = Console(stderr=True)


def progress_bar(unit: str = "images") -> Progress:
    """A bar with count, rate and time left. Set the task's field `rate` (per second) when advancing."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} " + unit + "/s"),
        TimeRemainingColumn(),
        console=errors,
        transient=False,
    )
