"""Painting the training scenes: shards of procedural scenes with photographs among their surfaces.

Scenes stand in twins, the faulty thing and the same thing sound, so that training can compare the two.
Of every ten shards nine show surfaces and parts with photographed materials among their skins, one shows photographs
of composed things (doors, panels, walls with windows) as a whole, which teaches that parts may differ without fault.
A shard depends on the seed, its number and the photographs alone.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from anomalens.errors import InputError
from anomalens.files import require_room, write_json
from anomalens_lab.materials import collect
from anomalens_lab.scenes import SETTINGS, SHARD, SHARDS, read_settings, write_shard
from anomalens_lab.synthesis.captions import state_captions
from anomalens_lab.synthesis.config import HELD_OUT_FAMILIES, SynthesisConfig
from anomalens_lab.synthesis.fields import generator
from anomalens_lab.synthesis.scene import Scene, twins

_THINGS_EVERY = 10  # one shard in so many shows composed things
_CAPTIONS = 4  # sentences kept a scene; one is drawn each time it is seen


def sort_materials(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> tuple[int, int]:
    """Copy the usable photographs of `folders` into `out`/surfaces and `out`/things; returns how many of each.

    Nothing is done where `out` holds them already. Raises InputError where nothing usable is found, or where `out`
    holds those of other folders.
    """
    root = Path(out)
    done, asked = root / "sources.json", [str(Path(folder).resolve()) for folder in folders]
    if done.exists():
        if json.loads(done.read_text(encoding="utf-8")) != asked:
            raise InputError(f"{root} holds the photographs of other folders (see {done.name}); name another folder")
    else:
        found = collect(folders)
        for name, images in (("surfaces", found.surfaces), ("things", found.things)):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number, pixels in enumerate(images):
                Image.fromarray(pixels).save(root / name / f"{number:05d}.png", compress_level=1)
        write_json(done, asked)
    return len(list((root / "surfaces").iterdir())), len(list((root / "things").iterdir()))


def shard_config(number: int, size: int, materials: Path | None, share: float, held_out: bool) -> SynthesisConfig:
    """What shard `number` shows. `held_out`: only the families training never sees, without photographs."""
    if held_out:
        return SynthesisConfig(size=size, include=HELD_OUT_FAMILIES)
    common = {"size": size, "exclude": HELD_OUT_FAMILIES}
    if materials is None:
        return SynthesisConfig(**common)  # type: ignore[arg-type]
    if number % _THINGS_EVERY == _THINGS_EVERY - 1:
        whole = {"materials": (materials / "things",), "material_share": 1.0, "part_share": 0.0}
        return SynthesisConfig(**common, **whole)  # type: ignore[arg-type]
    return SynthesisConfig(**common, materials=(materials / "surfaces",), material_share=share)  # type: ignore[arg-type]


def _words(one: Scene) -> dict[str, object]:
    rng = generator(one.seed, stream=7)
    captions = [one.caption, *state_captions(one.subject, one.kind_names, rng, count=_CAPTIONS - 1)]
    return {"captions": captions, "subject": one.subject, "family": one.family, "kinds": one.kind_names}


def paint_shard(path: Path, seed: int, config: SynthesisConfig) -> None:
    """Paint and write SHARD scenes from number `seed` on, twins by twins, the faulty one first."""
    painted = [one for k in range(SHARD // 2) for one in twins(seed + k, config)]
    images, kinds = np.stack([s.image for s in painted]), np.stack([s.kinds for s in painted])
    write_shard(path, images, kinds, [_words(s) for s in painted])


def paint_scenes(
    folder: str | os.PathLike[str],
    count: int,
    *,
    size: int = 256,
    seed: int = 0,
    materials: str | os.PathLike[str] | None = None,
    share: float = 0.55,
    held_out: bool = False,
    workers: int = 1,
) -> None:
    """Fill `folder` with shards until it holds `count` scenes; those already there are kept.

    What decides the scenes but their number is written to settings.json beside them.

    Args:
        size: pixels a side.
        materials: what `sort_materials` wrote; None paints procedural surfaces only.
        share: share of the surfaces taken from photographs.
        held_out: paint the families that training leaves out.
        workers: processes.

    Raises:
        InputError: the folder holds scenes painted otherwise, or the disk has no room.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    sorted_materials = Path(materials) if materials is not None else None
    settings: dict[str, Any] = {"seed": seed, "size": size, "held_out": held_out}
    if sorted_materials is not None:
        settings |= {"share": share, "materials": _digest(sorted_materials)}
    if any(root.glob(SHARDS)) and read_settings(root) != settings:
        raise InputError(f"{root} holds scenes painted otherwise (see {SETTINGS}); name another folder")
    write_json(root / SETTINGS, settings)
    numbers = [n for n in range(-(-count // SHARD)) if not (root / f"{n:05d}.json").exists()]
    require_room(root, len(numbers) * SHARD * size**2 * 4, "the scenes")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(
                paint_shard,
                root / f"{n:05d}.json",
                seed * 100_000_000 + n * SHARD,
                shard_config(n, size, sorted_materials, share, held_out),
            )
            for n in numbers
        ]
        try:
            for future in track(futures, "painting scenes"):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else all shards behind a failed one are painted first
            raise


def _digest(materials: Path) -> str:
    """Of the photographs in a folder: their names and sizes."""
    files = [(p.relative_to(materials).as_posix(), p.stat().st_size) for p in sorted(materials.rglob("*.png"))]
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]
