"""Connect to the Ray cluster of a run, and decide how many actors of what size use it."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from anomalens.errors import ConfigError, one_line
from anomalens.extras import optional

_CORES_PER_ACTOR = 4  # without GPU, where the cluster has that many: more actors are faster, but each holds the weights


@dataclass(frozen=True)
class Node:
    """Describe a machine of the cluster."""

    cores: int
    gpus: int = 0


@dataclass(frozen=True)
class ActorPool:
    """Describe a number of actors of one size."""

    actors: int
    # Cores of each actor.
    threads: int
    # GPUs of each actor: 0 or 1.
    gpus: int = 0


def size_pool(nodes: Sequence[Node], device: str = "auto", actors: int | None = None) -> ActorPool:
    """Return as many actors as asked for, or as fit, with all cores shared out among them.

    Where the device is a GPU, each actor has one. An actor lives on one machine, so its threads are at most the cores
    of one, and only machines that can hold an actor count.

    Raises ConfigError for a device that an actor cannot choose or the cluster does not have, and for more actors than
    there are cores or GPUs.
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
        most = sum(min(node.gpus, node.cores) for node in with_gpu)
        return ActorPool(_checked(most if actors is None else actors, most, "GPUs"), threads, 1)
    cores = sum(node.cores for node in nodes)
    if actors is None:
        actors = max(min(2, cores), cores // _CORES_PER_ACTOR)
    actors = _checked(actors, cores, "cores")
    threads = next(
        threads
        for threads in range(max(1, cores // actors), 0, -1)
        if sum(node.cores // threads for node in nodes) >= actors  # they fit, machine by machine
    )
    return ActorPool(actors, threads)


def _checked(actors: int, most: int, resource: str) -> int:
    if not 1 <= actors <= most:
        raise ConfigError(
            f"{actors} actors do not fit: the cluster has {most} {resource}, and an actor needs at least one"
        )
    return actors


@contextmanager
def cluster() -> Iterator[list[Node]]:
    """Connect to the cluster in use, and yield its machines.

    It is the one that is connected already, the one at RAY_ADDRESS, or a new local one that ends with the block.

    Raises MissingExtraError without ray, ConfigError where no cluster answers.
    """
    ray = optional("ray", "ray")
    optional("ray.data", "ray")
    connected_before = ray.is_initialized()
    try:
        if not connected_before:
            _connect(ray)
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield [Node(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in resources]
    finally:
        if not connected_before:
            ray.shutdown()


def _connect(ray: Any) -> None:
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        # Ray's core writes a line about each restart of an actor to standard error, in the middle of a progress bar.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        address = "local"
        options["include_dashboard"] = False
        # Ray sees the limits of a container, but not which cores this process may use.
        if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
            options["num_cpus"] = len(os.sched_getaffinity(0))
    try:
        ray.init(address=address, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        hint = "" if os.environ.get("RAY_AUTH_MODE") == "token" else ". If it has a token, set RAY_AUTH_MODE=token"
        raise ConfigError(f"the cluster {address!r} does not answer ({one_line(error)}){hint}") from error
