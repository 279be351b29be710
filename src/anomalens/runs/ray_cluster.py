"""The cluster that a run uses, and how many actors of what size fit on it."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from anomalens.errors import ConfigError
from anomalens.extras import optional

_CORES_PER_ACTOR = 4  # without GPU, where the cluster has that many: more actors are faster, but each holds the weights


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    cores: int
    gpus: int = 0


@dataclass(frozen=True)
class Pool:
    """Actors of one size."""

    actors: int
    threads: int  # cores of each
    gpus: int = 0  # of each: 0 or 1


def size_pool(nodes: Sequence[Node], device: str = "auto", actors: int | None = None) -> Pool:
    """As many actors as asked for, or as fit, with all cores shared out among them; one GPU each where they use any.

    An actor lives on one machine, so its threads are at most the cores of one, and only machines that can hold an
    actor count. Raises ConfigError for a device that an actor cannot choose or the cluster does not have, and for
    more actors than there are cores or GPUs.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"device {device!r}: the engine 'ray' gives every actor its own device; use auto, cpu or cuda"
        )
    gpus = sum(node.gpus for node in nodes)
    if device == "cuda" and not gpus:
        raise ConfigError("no machine of the cluster has a GPU; use --device cpu")
    if device != "cpu" and gpus:
        with_gpu = [node for node in nodes if node.gpus and node.cores]
        threads = min((max(1, node.cores // node.gpus) for node in with_gpu), default=1)
        return Pool(_checked(actors, sum(min(node.gpus, node.cores) for node in with_gpu), "GPUs"), threads, 1)
    cores = sum(node.cores for node in nodes)
    if actors is None:
        actors = max(min(2, cores), cores // _CORES_PER_ACTOR)
    actors = _checked(actors, cores, "cores")
    threads = next(
        threads
        for threads in range(max(1, cores // actors), 0, -1)
        if sum(node.cores // threads for node in nodes) >= actors  # they fit, machine by machine
    )
    return Pool(actors, threads)


def _checked(actors: int | None, most: int, of: str) -> int:
    found = most if actors is None else actors
    if not 1 <= found <= most:
        raise ConfigError(f"{found} actors do not fit: the cluster has {most} {of}, and an actor needs at least one")
    return found


@contextmanager
def cluster() -> Iterator[list[Node]]:
    """Connect to the cluster in use: one that is connected already, the one at RAY_ADDRESS, or a new local one that
    ends with the block. Yields its machines. Raises MissingExtraError without ray, ConfigError where none answers."""
    ray = optional("ray", "ray")
    optional("ray.data", "ray")
    before = ray.is_initialized()
    try:
        if not before:
            _connect(ray)
        yield [_node(one) for one in ray.nodes() if one["Alive"]]
    finally:
        if not before:
            ray.shutdown()


def _connect(ray: Any) -> None:
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
        # The core logs one line an actor straight to standard error about restarts, in the middle of the progress bar.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        address = "local"
        options["include_dashboard"] = False
        if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
            options["num_cpus"] = len(os.sched_getaffinity(0))  # ray sees limits of containers, but not this one
    try:
        ray.init(address=address, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"the cluster {address!r} does not answer ({' '.join(str(error).split())})") from error


def _node(one: dict[str, Any]) -> Node:
    return Node(int(one["Resources"].get("CPU", 0)), int(one["Resources"].get("GPU", 0)))
