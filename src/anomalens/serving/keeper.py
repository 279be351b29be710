"""Write answers to the store in a thread of their own, so that no scoring thread waits for a disk.

Whatever has gathered while the last transaction was written is written with the next.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from anomalens.errors import one_line
from anomalens.prediction import Result
from anomalens.serving.history import History
from anomalens.serving.media import MediaFolder
from anomalens.serving.stored_predictions import answer_of

_log = logging.getLogger("anomalens.serving")

# Answers of a transaction at most.
_MOST = 64
# Seconds until a failed transaction is tried again, at first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0


@dataclass(frozen=True)
class Finished:
    """Hold the result for an inspection, and what to call once it is stored."""

    id: str
    name: str
    result: Result | BaseException
    stored: Callable[[], None]


class Keeper:
    """Store results in the order they come."""

    def __init__(self, history: History, media: MediaFolder) -> None:
        """Start the thread; rows are stored in `history`, maps in `media`."""
        self._history, self._media = history, media
        self._queue: queue.SimpleQueue[Finished | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="anomalens-keep", daemon=True)
        self._thread.start()

    def put(self, finished: Finished) -> None:
        """Store a result some time soon."""
        self._queue.put(finished)

    def close(self) -> None:
        """Store what was put, then end; what cannot be stored now is judged again at the next start."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ending = False
        while not ending:
            batch: list[Finished] = []
            entry = self._queue.get()
            while entry is not None:
                batch.append(entry)
                if len(batch) == _MOST or self._queue.empty():
                    break
                entry = self._queue.get()
            ending = entry is None
            if batch:
                self._store(batch)

    def _store(self, batch: list[Finished]) -> None:
        """Store a batch; a full disk or a database that is away is waited for, unless the service stops."""
        pause = _FIRST_PAUSE
        while True:
            try:
                answers = [answer_of(entry.id, entry.name, entry.result, self._media) for entry in batch]
                self._history.answer(answers)
                break
            except (OSError, SQLAlchemyError) as error:
                _log.error("answers cannot be stored, trying again in %.1f s: %s", pause, one_line(error))
                if self._stopping.is_set():
                    return
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        for entry in batch:
            entry.stored()
