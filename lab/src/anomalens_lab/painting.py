"""Paint the training scenes: shards of procedural scenes with photographs among their surfaces.

Scenes stand in twins, the faulty thing and the same thing sound, so that training can compare the two.
Of every ten shards nine show surfaces and parts with photographed materials among their skins, one shows photographs
of composed things (doors, panels, walls with windows) as a whole, which teaches that parts may differ without fault.
A shard depends on the seed, its number and the photographs alone.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomalens.errors import InputError
from anomalens.files import digest, require_room, write_json
from anomalens_lab.materials import collect
from anomalens_lab.shards import SETTINGS, SHARD, SHARDS, read_settings, write_shard
from anomalens_lab.synthesis.captions import state_captions
from anomalens_lab.synthesis.config import HELD_OUT_FAMILIES, SynthesisConfig
from anomalens_lab.synthesis.fields import generator
from anomalens_lab.synthesis.scene import Scene, twins

Progress = Callable[[str, int, int], object]
"""Is told what is going on, how much of it is done, and the total."""

_THINGS_EVERY = 10  # one shard in so many shows composed things
_CAPTIONS = 4  # sentences kept a scene; one is drawn each time it is seen


def sort_materials(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> tuple[int, int]:
    """Copy the usable photographs of `folders` into `out`/surfaces and `out`/things and return how many of each.

    Nothing is done where `out` holds them already. Raises InputError where nothing usable is found, or where `out`
    holds those of other folders.
    """
    root = Path(out)
    done, sources = root / "sources.json", [str(Path(folder).resolve()) for folder in folders]
    if done.exists():
        if json.loads(done.read_text(encoding="utf-8")) != sources:
            raise InputError(f"{root} holds the photographs of other folders (see {done.name}); name another folder")
    else:
        materials = collect(folders)
        for name, images in (("surfaces", materials.surfaces), ("things", materials.things)):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number, pixels in enumerate(images):
                Image.fromarray(pixels).save(root / name / f"{number:05d}.png", compress_level=1)
        write_json(done, sources)
    return len(list((root / "surfaces").iterdir())), len(list((root / "things").iterdir()))


def shard_config(
    number: int, size: int, materials: Path | None, share: float, held_out: bool, wide: float = 0.0
) -> SynthesisConfig:
    """Choose what shard `number` shows. `held_out`: only the families training never sees, without photographs."""
    if held_out:
        return SynthesisConfig(size=size, include=HELD_OUT_FAMILIES, wide_share=wide)
    drawn = SynthesisConfig(size=size, exclude=HELD_OUT_FAMILIES, wide_share=wide)
    if materials is None:
        return drawn
    if number % _THINGS_EVERY == _THINGS_EVERY - 1:
        return replace(drawn, materials=(materials / "things",), material_share=1.0, part_share=0.0)
    return replace(drawn, materials=(materials / "surfaces",), material_share=share)


def _words(picture: Scene) -> dict[str, object]:
    # A stream of its own, so that further captions do not disturb the picture.
    rng = generator(picture.seed, stream=7)
    captions = [picture.caption, *state_captions(picture.subject, picture.kind_names, rng, count=_CAPTIONS - 1)]
    return {
        "captions": captions, "subject": picture.subject, "family": picture.family, "kinds": picture.kind_names
    }  # fmt: skip


def paint_shard(path: Path, seed: int, config: SynthesisConfig) -> None:
    """Paint and write SHARD scenes from number `seed` on, twins by twins, the faulty one first."""
    painted = [picture for k in range(SHARD // 2) for picture in twins(seed + k, config)]
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
    wide: float = 0.0,
    workers: int = 1,
    progress: Progress | None = None,
) -> None:
    """Fill `folder` with shards until it holds `count` scenes; those already there are kept.

    All settings that decide the scenes but their number are written to settings.json beside them.

    Args:
        size: pixels a side.
        materials: what `sort_materials` wrote; None paints procedural surfaces only.
        share: share of the surfaces taken from photographs.
        held_out: paint the families that training leaves out.
        wide: share of the defects that spread over much of the thing.
        workers: processes.
        progress: called with a description, the number of shards painted by this call and their total.

    Raises:
        InputError: the folder holds scenes painted otherwise, or the disk has no room.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    sorted_materials = Path(materials) if materials is not None else None
    settings: dict[str, Any] = {"seed": seed, "size": size, "held_out": held_out}
    if sorted_materials is not None:
        settings |= {"share": share, "materials": _digest(sorted_materials)}
    if wide:
        settings["wide"] = wide
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
                shard_config(n, size, sorted_materials, share, held_out, wide),
            )
            for n in numbers
        ]
        try:
            for done, future in enumerate(futures, 1):
                future.result()
                if progress is not None:
                    progress("painting scenes", done, len(futures))
        except BaseException:
            # Otherwise all shards behind a failed one would be painted first.
            pool.shutdown(cancel_futures=True)
            raise


def _digest(materials: Path) -> str:
    """Return 16 digits that tell apart folders of photographs by the names and sizes of their files."""
    files = [(p.relative_to(materials).as_posix(), p.stat().st_size) for p in sorted(materials.rglob("*.png"))]
    return digest(repr(files))[:16]
