"""Keep the versions of taught parts: files in the media folder, one active version of each name."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select, update

from anomalens.detection.recipe import SUFFIX, Recipe, read_recipe
from anomalens.detection.recipe_facts import recipe_facts
from anomalens.errors import ConfigError
from anomalens.serving.database import Database
from anomalens.serving.history import ConflictError, NotFoundError, needed_media
from anomalens.serving.media import MediaFolder
from anomalens.serving.schema import RecipeVersion
from anomalens.untrusted import read_bytes

_NAME = re.compile(r"[^\W_][\w .+-]{0,79}")
_MOST_BYTES = 2**31


class RecipeVersions:
    """Read and write versions of recipes."""

    def __init__(self, database: Database, media: MediaFolder) -> None:
        """Keep the recipes of a database, their files in a media folder."""
        self._database, self._media = database, media

    def bring(self, path: Path, *, activate: bool = True) -> RecipeVersion:
        """Take over a file of `anomalens fit`, named as the file; one that is known already changes nothing.

        `activate`: have a new version judge from now on; the first version of a name does in any case.

        Raises WeightsError where it is no such file, ConfigError for a name that no recipe can have.
        """
        recipe = read_recipe(path)
        content = read_bytes(path, named="recipe", most_bytes=_MOST_BYTES)
        name = checked_name(path.stem)
        with self._media.adding():
            file = self._media.put(content, SUFFIX)
            with self._database.reading() as session:
                versions = list(session.scalars(select(RecipeVersion).where(RecipeVersion.name == name)))
            known = next((row for row in versions if row.file == file), None)
            return known or self._store(name, file, facts_of(recipe, path), activate=activate or not versions)

    def add(self, name: str, path: Path, *, activate: bool, left_out: Sequence[str] = ()) -> RecipeVersion:
        """Store a recipe's file as a new version of a name."""
        recipe = read_recipe(path)
        with self._media.adding():
            file = self._media.put(read_bytes(path, named="recipe", most_bytes=_MOST_BYTES), SUFFIX)
            return self._store(name, file, facts_of(recipe, path) | {"left_out": list(left_out)}, activate=activate)

    def _store(self, name: str, file: str, facts: dict[str, Any], *, activate: bool) -> RecipeVersion:
        with self._database.writing() as session:
            last = session.scalar(select(func.max(RecipeVersion.version)).where(RecipeVersion.name == name)) or 0
            row = RecipeVersion(
                name=name, version=last + 1, file=file, station=self._media.station, facts=facts, active=False
            )
            session.add(row)
            session.flush()
            if activate:
                _activate(session, row)
        return row

    def all(self) -> list[RecipeVersion]:
        """Return all versions, by name, the newest first."""
        with self._database.reading() as session:
            return list(
                session.scalars(select(RecipeVersion).order_by(RecipeVersion.name, RecipeVersion.version.desc()))
            )

    def get(self, name: str, version: int) -> RecipeVersion:
        """Return a version. Raises NotFoundError."""
        with self._database.reading() as session:
            return _present(session.scalar(_one(name, version)), name, version)

    def active(self, name: str) -> RecipeVersion:
        """Return the active version of a name. Raises NotFoundError."""
        statement = select(RecipeVersion).where(RecipeVersion.name == name, RecipeVersion.active)
        with self._database.reading() as session:
            row = session.scalar(statement)
        if row is None:
            raise NotFoundError(f"there is no active recipe {name!r:.100}; GET /api/v1/recipes lists those there are")
        return row

    def activate(self, name: str, version: int) -> RecipeVersion:
        """Have a version judge from now on: a newer one, or an earlier one to roll back. Raises NotFoundError."""
        with self._database.writing() as session:
            row = _present(session.scalar(_one(name, version)), name, version)
            _activate(session, row)
        return row

    def remove(self, name: str, version: int) -> None:
        """Delete a version. Raises NotFoundError, and ConflictError for the active one."""
        with self._media.guard, self._database.writing() as session:
            row = _present(session.scalar(_one(name, version)), name, version)
            if row.active:
                raise ConflictError(f"version {version} of {name!r} is active; activate another one first")
            session.execute(delete(RecipeVersion).where(RecipeVersion.id == row.id))
            if not needed_media(session, {row.file}):
                self._media.remove(row.file)

    def file(self, name: str, version: int) -> Path:
        """Return the file of a version. Raises NotFoundError, also where it lies at another station."""
        path = self._media.path(self.get(name, version).file)
        if not path.exists():
            raise NotFoundError(f"version {version} of {name!r} lies in the media folder of another station")
        return path


def checked_name(name: str) -> str:
    """Return a recipe's name. Raises ConfigError where it could not stand in an address or a file name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r:.100} is no name of a recipe: use letters, digits, spaces and . _ + -, at most 80, a letter or "
            "digit first"
        )
    return name


def facts_of(recipe: Recipe, path: Path) -> dict[str, Any]:
    """Return what is told about a recipe: `recipe_facts`, the scores of good images and the rate they promise."""
    calibration = recipe.calibration
    above = float(np.nextafter(calibration.threshold, np.inf))
    promised = None if recipe.lesson.mixed else calibration.p_value(above)
    facts = recipe_facts(recipe, path)
    del facts["file"]
    return facts | {"normal_scores": list(calibration.normal_scores), "promised": promised, "left_out": []}


def _one(name: str, version: int) -> Any:
    return select(RecipeVersion).where(RecipeVersion.name == name, RecipeVersion.version == version)


def _activate(session: Any, row: RecipeVersion) -> None:
    session.execute(update(RecipeVersion).where(RecipeVersion.name == row.name).values(active=False))
    session.execute(update(RecipeVersion).where(RecipeVersion.id == row.id).values(active=True))
    session.refresh(row)


def _present(row: RecipeVersion | None, name: str, version: int) -> RecipeVersion:
    if row is None:
        raise NotFoundError(f"there is no version {version} of a recipe {name!r:.100}")
    return row
