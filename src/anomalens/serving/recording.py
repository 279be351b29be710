"""Write the results of a run of `anomalens detect` into the history that the service keeps."""

import uuid
from pathlib import Path

from anomalens.detection.recipe import is_recipe
from anomalens.errors import InputError
from anomalens.files import digest, write_json
from anomalens.names import name_text, on_one_line
from anomalens.options import LoadOptions
from anomalens.prediction import Result
from anomalens.serving.database import Database
from anomalens.serving.history import History
from anomalens.serving.media import MediaFolder
from anomalens.serving.recipe_versions import RecipeVersions
from anomalens.serving.schema import Inspection, now
from anomalens.serving.settings import ServeSettings
from anomalens.serving.stored_predictions import answer_of
from anomalens.untrusted import read_bytes, read_json

# In the folder of the run: its number, by which a resumed run knows what it has stored.
_NUMBER = "history.json"
_MOST_BYTES = 2**31
_LONGEST_NAME = 500  # characters of a path that are kept, the last ones


class Recorder:
    """Store results as inspections; safe to use from several threads.

    Raises ConfigError where the store or the media folder cannot be used.
    """

    def __init__(self, store: str, media: Path | None, run: Path, options: LoadOptions) -> None:
        """Open the store.

        Args:
            store: address of the database.
            media: folder of pictures; None: beside an SQLite file.
            run: folder of the run, which exists.
            options: what was asked for, for the names of recipe, method and object.
        """
        self._database = Database(store)
        self._media = MediaFolder(ServeSettings(store=store, media=media).media_folder)
        self._history, self._options = History(self._database), options
        path = options.method if is_recipe(options.method) else options.recipe
        recipes = RecipeVersions(self._database, self._media)
        self._recipe = None if path is None else recipes.bring(Path(path), activate=False)
        number = run / _NUMBER
        if not number.exists():
            write_json(number, {"run": uuid.uuid4().hex})
        self._run = str(read_json(number, named="history of the run")["run"])

    def keep(self, index: int, path: Path, result: Result) -> None:
        """Store the result for input number `index`, once; nothing for a file that is not there.

        Raises OSError, SQLAlchemyError where it cannot be stored.
        """
        try:
            content = read_bytes(path, error=InputError, most_bytes=_MOST_BYTES)
        except InputError:
            return
        name = on_one_line(name_text(path))[-_LONGEST_NAME:]
        id = digest(f"{self._run} {index}")[:32]
        if self._history.get_all([id]):
            return
        with self._media.adding():
            answer = answer_of(id, name, result, self._media)
            row = Inspection(
                id=id,
                created=now(),
                station=self._media.station,
                place=index,
                name=name,
                original=self._media.put(content),
                bytes=len(content),
                recipe=self._recipe and self._recipe.name,
                version=self._recipe and self._recipe.version,
                method=self._options.method if self._recipe is None else self._recipe.facts["method"],
                object=self._options.object_name if self._recipe is None else self._recipe.facts["object"],
                regions=[],
                reviews=[],
                state="waiting",
            )
            self._history.add([row])
        self._history.answer([answer])

    def close(self) -> None:
        """Close the store."""
        self._database.close()
