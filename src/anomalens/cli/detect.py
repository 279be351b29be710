"""Run `anomalens detect`: images in, one folder of results out."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomalens.cli.console import Json
from anomalens.cli.data_options import Exclude
from anomalens.cli.history_options import Media, Store, remembering
from anomalens.cli.load_options import load_options, option_help
from anomalens.cli.report import FormatNames
from anomalens.cli.stream_options import EVERY, Duration, Every
from anomalens.errors import ConfigError, InputError
from anomalens.options import DEFAULT_OBJECT, LoadOptions

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from anomalens.detection.detector import Detector
    from anomalens.images.video import Video
    from anomalens.runs.store import RunSummary


class Maps(StrEnum):
    """Say how raw anomaly maps are written."""

    none = "none"
    png = "png"
    npy = "npy"


class Together(StrEnum):
    """Say whether images are compared with each other."""

    auto = "auto"
    yes = "yes"
    no = "no"


class Where(StrEnum):
    """Say what computes in this process, or that a Ray cluster does the work."""

    auto = "auto"
    onnx = "onnx"
    openvino = "openvino"
    torch = "torch"
    ray = "ray"
    # This process, as "auto": the opposite of ray.
    local = "local"


@load_options(without=("engine",))
def detect(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders (searched recursively) or glob patterns; videos, a camera (/dev/video0) or a stream "
            "(rtsp://...); with --engine ray also Parquet manifests and addresses such as s3://bucket/prefix."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for predictions.jsonl, heatmaps and masks.")],
    maps: Annotated[Maps, typer.Option(help="Also write raw anomaly maps: 16-bit PNG or .npy.")] = Maps.none,
    together: Annotated[
        Together,
        typer.Option(
            help="Compare the images with each other (as --method musc does): what few of the others show stands out. "
            "auto: where at least 12 images look like one kind of part and nothing else was asked for."
        ),
    ] = Together.auto,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")] = False,
    engine: Annotated[
        Where,
        typer.Option(
            help=f"{option_help('engine')} Or ray: many processes or machines, each as auto; rows as Parquet."
        ),
    ] = Where.auto,
    actors: Annotated[int | None, typer.Option("--actors", min=1, help="With --engine ray: processes.")] = None,
    part_size: Annotated[
        int | None,
        typer.Option("--part-size", min=1, help="With --engine ray: inputs in a file; 1,024 or fewer unless given."),
    ] = None,
    every: Every = None,
    duration: Duration = None,
    formats: FormatNames = None,
    report: Annotated[
        bool, typer.Option("--report", help="At the end, make the page of `anomalens report`: short for --format html.")
    ] = False,
    store: Store = None,
    media: Media = None,
    exclude: Exclude = None,
    as_json: Json = False,
    options: LoadOptions = LoadOptions(),
) -> None:
    """Find defects: one row, one heatmap and one mask for every image.

    With --recipe images are judged as `anomalens fit` was taught; without it by words alone, which is wrong more often.

    Results of earlier runs, and hidden files, are never inputs; what is left out is counted.

    Results: [bold]predictions.jsonl[/] (one object per input, in input order), [bold]heatmaps/[/], [bold]masks/[/]
    and [bold]run.json[/]; with --engine ray [bold]run.json[/] and [bold]rows/[/], a folder of Parquet files.
    Exit status: 0 all well, 1 some inputs failed (each has its row), 2 wrong usage.

    Examples:

      anomalens detect photos/ --recipe part.anomalens --out results

      anomalens detect photos/ --out results

      anomalens detect "shots/*.jpg" -o results --object "metal nut" --tile 512

      anomalens detect clip.mp4 --every 500ms --out results --format mp4

      anomalens detect rtsp://camera/stream --every 1s --for 10m --out results

      anomalens detect s3://bucket/shots --out results --engine ray --actors 16
    """
    import functools

    from anomalens.cli.console import complain, drawing_bar, note, progress_bar, working
    from anomalens.detection.loading import load_detector
    from anomalens.images.sources import list_images
    from anomalens.reporting.formats import chosen_formats, write_formats
    from anomalens.runs.folder import detect_files
    from anomalens.runs.stored_run import read_run
    from anomalens.runs.stream_run import detect_videos

    chosen = chosen_formats([*(formats or []), *(["html"] if report else [])])
    scaled = engine is Where.ray
    if engine not in (Where.ray, Where.local):
        options = options.replace(engine=engine.value)
    _check_engine(scaled, maps, actors, part_size, together)
    if scaled and store is not None:
        raise ConfigError("--engine ray writes rows of its own; leave out --store, or use --engine local")
    videos = _videos(inputs, every, duration, chosen, scaled, together)
    paths = [] if scaled or videos else list_images(inputs, exclude=exclude or (), out=out)
    with working("loading the backbone"):
        # Where actors do the work, this process only has to know what they compute.
        detector = load_detector(options.replace(device="cpu") if scaled else options)
    detector.require_taught()
    if paths:
        detector = _compared(detector, paths, together)
    for remark in remarks(detector, options):
        note(remark)
    settings = run_settings(detector) | {"maps": maps.value}
    if videos:
        settings |= {
            "videos": [[video.shown, video.size] for video in videos],
            "every": every or EVERY,
            "for": duration,
        }
    try:
        with progress_bar() as bar:
            looking = bar.add_task("looking", total=len(paths), visible=detector.compares_sets and not scaled)
            progress = functools.partial(_show, bar, bar.add_task("starting", total=None, visible=scaled))
            if scaled:
                from anomalens.runs.ray_run import detect_scaled

                summary = detect_scaled(
                    inputs,
                    out,
                    options,
                    settings,
                    actors=actors,
                    part_size=part_size,
                    resume=resume,
                    exclude=exclude or (),
                    progress=progress,
                )
            else:
                with remembering(store, media, out, options) as keep:
                    if videos:
                        detect_inputs = functools.partial(detect_videos, videos)
                    else:
                        looked = functools.partial(bar.advance, looking)
                        detect_inputs = functools.partial(detect_files, paths, looked=looked)
                    summary = detect_inputs(
                        out, detector, settings, maps=maps.value, resume=resume, progress=progress, keep=keep
                    )
    except KeyboardInterrupt:
        note(f"stopped; what is done is in {out}. Add --resume to go on.")
        raise typer.Exit(130) from None
    except OSError as error:
        complain(
            f"stopped, cannot write: {error.strerror or error}. Everything written so far is whole; "
            "make room and add --resume."
        )
        raise typer.Exit(1) from None
    _report(summary, detector, out, as_json)
    if chosen:
        with drawing_bar() as drawn:
            for path in write_formats(read_run(out), chosen, out, drawn):
                note(f"written: {path}")
    if detector.capture is None and not (detector.compares_sets or detector.calibration.normal_scores):
        note("judged by words alone; a few good photos make decisions much better: anomalens fit --help")
    if summary.counts.failed:
        raise typer.Exit(1)


def _compared(detector: "Detector", paths: list[Path], together: Together) -> "Detector":
    """Return a detector that compares the images with each other, where that was asked for or is the better choice."""
    from anomalens.cli.console import note, working
    from anomalens.detection.together import LEAST_TOGETHER, looks_like_one_part

    if detector.compares_sets:
        note(f"{len(paths)} images are compared with each other")
        return detector
    if together is Together.yes:
        note(f"{len(paths)} images are compared with each other")
        return detector.together()
    # Whoever asks for anything that decides has chosen; other weights were not measured.
    chosen = detector.options.chosen().keys() - set(LoadOptions.names("speed"))
    if together is Together.no or chosen - {"roi", "min_area", "mm_per_px"} or len(paths) < LEAST_TOGETHER:
        return detector
    comparing = detector.together()
    with working("looking whether the images show one kind of part"):
        if not looks_like_one_part(comparing, paths):
            return detector
    note(f"{len(paths)} images look like one part: compared with each other (--together no judges each by itself)")
    return comparing


def _check_engine(scaled: bool, maps: Maps, actors: int | None, part_size: int | None, together: Together) -> None:
    if scaled and together is Together.yes:
        raise ConfigError(
            "--engine ray hands images to workers that never see the whole set; leave out --together, or use "
            "--engine local"
        )
    if scaled and maps is not Maps.none:
        raise ConfigError("--engine ray writes rows, no pictures or maps; leave out --maps, or use --engine local")
    if not scaled and (actors is not None or part_size is not None):
        raise ConfigError("--actors and --part-size are options of --engine ray")


def _videos(
    inputs: list[str],
    every: str | None,
    duration: str | None,
    formats: list[str],
    scaled: bool,
    together: Together,
) -> "list[Video]":
    """Return the videos that are named; none where images are. Raises ConfigError where the options do not fit."""
    from anomalens.extras import optional
    from anomalens.images.video import Video, interval_of, is_missing_video, is_video, seconds_of

    # A cluster may read from places that are not seen here.
    if not scaled and (missing := list(filter(is_missing_video, inputs))):
        raise InputError(f"{missing[0]}: no such file")
    names = [name for name in inputs if is_video(name)]
    if not names:
        if every is not None or duration is not None or "mp4" in formats:
            raise ConfigError("--every, --for and --format mp4 are for videos, cameras and streams; leave them out")
        return []
    if len(names) < len(inputs):
        raise ConfigError("videos have a run of their own; name images in another command, with another --out")
    if scaled or together is Together.yes:
        raise ConfigError("frames of videos are judged one by one in this process: leave out --engine ray, --together")
    optional("av", "video")
    return [
        Video(name, interval_of(every or EVERY), None if duration is None else seconds_of(duration)) for name in names
    ]


def _show(bar: "Progress", task: "TaskID", summary: "RunSummary") -> None:
    if summary.counts.rows == summary.resumed:
        # The start: what was done before is no part of the rate.
        resumed = summary.resumed
        bar.reset(task, completed=resumed, visible=True, description="detecting", resumed=resumed)
    # Of a live source nobody knows how much will come.
    bar.update(task, completed=summary.counts.rows, total=summary.total or None)


def run_settings(detector: "Detector") -> dict[str, Any]:
    """Return what decides the numbers of a run, for run.json, and for refusing to resume under others."""
    decisions = {name: getattr(detector.options, name) for name in ("min_area", "mm_per_px")}
    return detector.settings | {"calibration": detector.calibration.to_dict()} | decisions


def remarks(detector: "Detector", options: LoadOptions) -> list[str]:
    """Say which of the options that were asked for do not do what one would expect."""
    lines = []
    if options.object_name != DEFAULT_OBJECT and detector.identity.ignores_object:
        lines.append(
            f"--object {options.object_name!r} is written down and changes no score: {detector.method_name} calls "
            "every object alike"
        )
    low, high = detector.calibration.heat_range
    if options.threshold is not None and not 2 * low - high <= options.threshold <= 2 * high - low:
        lines.append(
            f"--threshold {options.threshold:g} lies outside what {detector.method_name} usually gives ({low:.4g} to "
            f"{high:.4g}), so every image may be called {'normal' if options.threshold > high else 'anomalous'}"
        )
    return lines


def _report(summary: "RunSummary", detector: "Detector", out: Path, as_json: bool) -> None:
    from anomalens.cli.console import show_facts
    from anomalens.runs.folder import stored_threshold

    counts, calibration = summary.counts, detector.calibration
    threshold, source = stored_threshold(out) or (calibration.threshold, calibration.source)
    numbers = {
        "method": detector.method_name,
        "backbone": detector.backbone,
        "images": summary.total,
        "anomalous": counts.anomalous,
        "normal": counts.normal,
        "unusable": counts.unusable,
        "unusable_reasons": dict(counts.unusable_reasons),
        "failed": counts.failed,
        "unsure": counts.unsure,
        "worst": [{"path": path, "score": score} for score, path in counts.worst],
        "lowest_score": counts.lowest,
        "highest_score": counts.highest,
        "threshold": threshold,
        "threshold_source": source,
        "images_per_second": summary.rate,
        "results": str(out),
    }
    title = f"{detector.method_name} on {detector.backbone}"
    show_facts(numbers if as_json else _summary(summary, threshold, source, out), title=title, as_json=as_json)


def _summary(summary: "RunSummary", threshold: float, source: str, out: Path) -> dict[str, Any]:
    """Return the lines that people read."""
    counts = summary.counts
    reasons = [
        f"{count} ({reason.removeprefix('Not judged: ').removesuffix('.')})"
        for reason, count in sorted(counts.unusable_reasons.items(), key=lambda reason: (-reason[1], reason[0]))
    ]
    return {
        "images": summary.total,
        "anomalous": counts.anomalous,
        "normal": counts.normal,
        "unusable": ", ".join(reasons) or None,
        "failed": f"{counts.failed} (each row says why)" if counts.failed else None,
        "not sure": f"{counts.unsure} of the decisions, the confidence in their rows is low" if counts.unsure else None,
        "worst": ", ".join(f"{path} ({score:.4f})" for score, path in counts.worst) or None,
        "scores": None if counts.lowest is None else f"{counts.lowest:.4f} to {counts.highest:.4f}",
        "threshold": f"{threshold:.4f}: {source}",
        "speed": None if summary.rate is None else f"{summary.rate:.1f} images/s",
        "results": str(out),
    }
