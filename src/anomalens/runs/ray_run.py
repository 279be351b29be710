"""Run one detector in many processes, on one machine or many, over as many images as there are: the engine "ray".

    inputs ─▶ keys, each once ─▶ parts not done yet ─▶ Ray Data, an actor pool of workers ─▶ driver ─▶ DIR/rows/part=…

Ray Data moves parts to workers and finished parts back, restarts workers and gives their parts to others. That each
input has exactly one row does not depend on it: see `ray_parts`. The driver alone writes, so the workers need to see
the images, but not the folder of results.
"""

import functools
import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.errors import AnomalensError, ConfigError
from anomalens.extras import optional, quiet_logger
from anomalens.locks import held_folder
from anomalens.methods.sets.set_method import is_set_method
from anomalens.options import LoadOptions
from anomalens.runs.ray_cluster import ActorPool, cluster, size_pool
from anomalens.runs.ray_inputs import list_inputs
from anomalens.runs.ray_parts import FinishedPart, ParquetParts
from anomalens.runs.ray_worker import CrashLedger, Loader, RemoteLedger, Worker
from anomalens.runs.store import RunCounts, RunSummary, fill

_IN_FLIGHT = 2  # parts given to an actor: the next one lies ready while it works


def detect_scaled(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: LoadOptions,
    settings: Mapping[str, Any],
    *,
    actors: int | None = None,
    part_size: int | None = None,
    resume: bool = False,
    exclude: Sequence[str] = (),
    progress: Callable[[RunSummary], None] | None = None,
    load: Callable[[LoadOptions], Detector] = load_detector,
) -> RunSummary:
    """Detect every input once, in the actors of a Ray cluster, into Parquet files below `out`/rows.

    Args:
        inputs: what `list_inputs` takes: files, folders, patterns, Parquet manifests, addresses of object stores.
        out: folder of the run; the driver writes it, the workers need not see it.
        options: of the detector that every actor loads. With the device "cuda", or "auto" where the cluster has GPUs,
            each actor gets one.
        settings: everything that decides the numbers, for run.json; a run is resumed only under equal settings.
        actors: processes; None takes what fits the cluster. Cores are shared out evenly among them.
        part_size: rows of a part, the unit of work, retry and files; None takes at most 1,024.
        resume: go on with the run in `out`: parts that are there are not done again.
        exclude: patterns of files and folders to leave out; see `find_images`.
        progress: called with the summary at the start and after every part.
        load: builds the detector in an actor; it must survive pickling.

    Raises:
        ConfigError, InputError: see `list_inputs`, `ParquetParts`, `size_pool`; another run is writing to `out`.
        MissingExtraError: ray is not installed.
        AnomalensError: a worker cannot load or run the detector. What is done stays and can be resumed.
        OSError: the disk of `out` is full. What is done stays and can be resumed.
    """
    if is_set_method(options.method):
        raise ConfigError(
            f"{options.method} compares every image with others of the whole set, which workers of Ray never see; use "
            "--engine local"
        )
    optional("ray", "ray")
    listed = list_inputs(inputs, exclude=exclude, out=out)
    with held_folder(Path(out), "detect with ray"), cluster() as nodes:
        pool = size_pool(nodes, options.device, actors)
        store = ParquetParts(Path(out), settings, listed, actors=pool.actors, part_size=part_size, resume=resume)
        return fill(
            store,
            _finished_parts(store, pool, functools.partial(_load_in, os.getcwd(), load, options)),
            len(listed),
            progress,
        )


def _finished_parts(store: ParquetParts, pool: ActorPool, load: Loader) -> Generator[FinishedPart]:
    """Have workers do the parts that are not done; yield each as it is finished, in any order."""
    ray, data, pa = (optional(module, "ray") for module in ("ray", "ray.data", "pyarrow"))
    lists = pa.list_(pa.large_string())
    columns = pa.schema([("number", pa.int64()), ("paths", lists), ("objects", lists)])
    # A block is a task.
    blocks = [pa.table([[part.number], [part.paths], [part.objects]], schema=columns) for part in store.pending()]
    if not blocks:
        return
    ledger = ray.remote(CrashLedger).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    parts = data.from_arrow(blocks).map_batches(
        Worker,
        fn_constructor_kwargs={
            "load": load,
            "threads": pool.threads,
            "ledger": RemoteLedger(ledger),
            "root": os.getcwd(),
        },
        batch_size=1,
        batch_format="pyarrow",
        compute=data.ActorPoolStrategy(size=pool.actors, max_tasks_in_flight_per_actor=_IN_FLIGHT),
        num_cpus=pool.threads,
        num_gpus=pool.gpus,
    )
    parts.context.enable_progress_bars = False
    try:
        with quiet_logger("ray.data"):
            for row in parts.iter_rows():
                if row["problem"]:
                    raise _stopped(row["problem"], store.folder)
                yield FinishedPart(row["number"], RunCounts(**json.loads(row["counts"])), row["data"])
    except ray.exceptions.RayError as error:  # workers that cannot even be built: their machine lacks this package
        raise _stopped(str(error).strip().splitlines()[-1], store.folder) from error


def _load_in(folder: str, load: Callable[[LoadOptions], Detector], options: LoadOptions) -> Detector:
    """Load the detector in a worker, where relative names of weights shall mean what they mean in the driver."""
    if os.path.isdir(folder):
        os.chdir(folder)
    return load(options)


def _stopped(reason: str, folder: Path) -> AnomalensError:
    return AnomalensError(
        f"a worker cannot go on ({reason}); what is done is in {folder}. Mend the cause and add --resume."
    )
