"""Tests of the store, on SQLite and on PostgreSQL: what is written is read, nothing is lost or doubled."""

import sqlite3
import threading
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from anomalens.errors import ConfigError
from anomalens.prediction import Region as FoundRegion
from anomalens.serving.database import Database
from anomalens.serving.history import Answer, ConflictError, Filters, History, NotFoundError, ReusedKeyError
from anomalens.serving.schema import Inspection, Table, Upload, now
from anomalens.serving.webhooks import Webhooks


def row(**values: object) -> Inspection:
    """Return an inspection that waits."""
    plain = {
        "id": uuid.uuid4().hex, "created": now(), "state": "waiting", "station": "here", "name": "a.png", "place": 0,
        "original": "0" * 64, "bytes": 1, "method": "auto", "object": "object", "regions": [], "reviews": [],
    }  # fmt: skip
    return Inspection(**{**plain, **values})


def answered(history: History, score: float = 0.5, **values: object) -> Inspection:
    """Store an inspection with an answer; return it."""
    waiting = row(**values)
    history.add([waiting])
    label = "anomalous" if score > 0.5 else "normal"
    regions = [FoundRegion((1, 2, 3, 4), 4, 0.9, (2, 3)), FoundRegion((5, 6, 7, 8), 4, 0.8, (6, 7), 0.5)]
    history.answer([Answer(waiting.id, {"state": "done", "label": label, "score": score, "answered": now()}, regions)])
    return history.get(waiting.id)


def test_an_answer_is_read_as_it_was_written(database: Database) -> None:
    stored = answered(History(database), 0.7, name="Ünï\u2028cöde <b>.png")
    assert (stored.state, stored.label, stored.score) == ("done", "anomalous", 0.7)
    assert stored.name == "Ünï\u2028cöde <b>.png"
    assert [(region.left, region.top, region.mm_per_px) for region in stored.regions] == [(1, 2, None), (5, 6, 0.5)]
    assert stored.created.tzinfo is not None
    assert abs((stored.created - now()).total_seconds()) < 60


def test_an_answer_is_taken_once(database: Database) -> None:
    history = History(database)
    stored = answered(history, 0.7)
    history.answer([Answer(stored.id, {"state": "done", "label": "normal", "score": 0.1})])
    assert history.get(stored.id).score == 0.7
    history.answer([Answer("nobody", {"state": "done"})])


def test_what_waits_is_known_by_its_station(database: Database) -> None:
    history = History(database)
    mine, other = row(), row(station="there")
    history.add([mine, other])
    assert [waiting.id for waiting in history.waiting("here")] == [mine.id]


def test_a_key_of_a_request_is_taken_once_by_whoever_is_first(database: Database) -> None:
    history, rows = History(database), [[row(upload_key="k", place=place) for place in range(3)] for _ in range(8)]
    results: list[list[str]] = []

    def add(own: list[Inspection]) -> None:
        results.append([stored.id for stored in history.add(own, Upload(key="k", digest="same"))])

    threads = [threading.Thread(target=add, args=(own,)) for own in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len({tuple(ids) for ids in results}) == 1
    assert len(list(history.each(Filters()))) == 3
    with pytest.raises(ReusedKeyError):
        history.add([row(upload_key="k")], Upload(key="k", digest="other"))


def test_eight_writers_lose_and_double_nothing(database: Database) -> None:
    history, failures = History(database), []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                stored = answered(history, (number + turn) / 20)
                history.review(stored.id, "right", f"{number} {turn}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows = list(history.each(Filters(review="right")))
    assert len(rows) == len({stored.id for stored in rows}) == 80
    assert all(len(stored.regions) == 2 and len(stored.reviews) == 1 for stored in rows)


def test_pages_follow_equal_scores(database: Database) -> None:
    history = History(database)
    ids = {answered(history, 0.5).id for _ in range(5)}
    first = history.page(Filters(), sort="worst", limit=2)
    second = history.page(Filters(), sort="worst", limit=2, cursor=first.next)
    third = history.page(Filters(), sort="worst", limit=2, cursor=second.next)
    assert {stored.id for page in (first, second, third) for stored in page.rows} == ids
    assert third.next is None


def test_what_arrives_meanwhile_does_not_shift_pages(database: Database) -> None:
    history = History(database)
    old = [answered(history).id for _ in range(4)]
    first = history.page(Filters(), limit=2)
    answered(history)
    second = history.page(Filters(), limit=2, cursor=first.next)
    assert [stored.id for stored in (*first.rows, *second.rows)] == old[::-1]


def test_reviews(database: Database) -> None:
    history = History(database)
    stored, waiting = answered(history), row()
    history.add([waiting])
    history.review(stored.id, "missed", "scratch")
    assert history.get(stored.id).verdict == "missed"
    history.review(stored.id, "missed", "scratch")
    assert history.count(Filters(review="missed")) == 1
    assert history.undo_review(stored.id).verdict is None
    with pytest.raises(ConflictError, match="not judged yet"):
        history.review(waiting.id, "right", "")
    with pytest.raises(NotFoundError):
        history.review("nobody", "right", "")


def test_an_anomalous_answer_and_its_messages_are_stored_together(database: Database) -> None:
    history, hooks = History(database), Webhooks(database)
    everything, nuts = hooks.add("https://example.org/a"), hooks.add("https://example.org/b", "nut")
    stored = answered(history, 0.9)
    answered(history, 0.1)
    assert [message.inspection_id for message in hooks.deliveries(everything.id)] == [stored.id]
    assert hooks.deliveries(nuts.id) == []
    history.delete([stored.id])
    assert hooks.deliveries(everything.id) == []


def test_deleting_names_the_files_that_nothing_needs(database: Database) -> None:
    history = History(database)
    first, second = answered(history, original="a" * 64), answered(history, original="a" * 64)
    assert history.delete([first.id]) == set()
    assert history.delete([second.id]) == {"a" * 64}


def test_old_answers_are_found_and_waiting_ones_stay(database: Database) -> None:
    history, long_ago = History(database), now() - timedelta(days=10)
    old = answered(history, created=long_ago)
    history.add([row(created=long_ago)])
    answered(history)
    limit = now() - timedelta(days=5)
    assert history.older_than(limit) == [old.id]
    assert history.count_older(limit) == 1


def test_an_older_store_is_brought_up_to_date_and_keeps_its_rows(address: str) -> None:
    database = Database(address)
    engine = database.engine
    with engine.begin() as connection:
        for table in ("deliveries", "webhooks", "jobs"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    old = answered_before(database)
    database.close()
    newer = Database(address)
    assert History(newer).get(old).label == "normal"
    assert Webhooks(newer).all() == []
    newer.close()


def answered_before(database: Database) -> str:
    """Store an inspection as a version without webhooks did; return its id."""
    id = uuid.uuid4().hex
    with database.writing() as session:
        session.add(row(id=id, state="done", label="normal", score=0.1))
    return id


def test_migrations_make_what_the_code_expects(database: Database) -> None:
    inspector = inspect(database.engine)
    for name, table in Table.metadata.tables.items():
        assert {column["name"] for column in inspector.get_columns(name)} == set(table.columns.keys())
        expected = {str(index.name) for index in table.indexes}
        assert expected <= {str(index["name"]) for index in inspector.get_indexes(name)}


def test_several_processes_may_bring_a_store_up_to_date(address: str) -> None:
    failures: list[BaseException] = []

    def open_it() -> None:
        try:
            Database(address).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_new_file_that_another_writes_to_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "h.db"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    Database(f"sqlite:///{file}").close()
    timer.join()
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'h.db'}"
    database = Database(address)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(ConfigError, match="newer version"):
        Database(address)


@pytest.mark.parametrize(
    "address",
    ["nonsense", "mysql://a/b", "sqlite://", "sqlite:///:memory:", "postgresql+psycopg://u:secret@127.0.0.1:1/x"],
)
def test_other_addresses_are_refused_without_their_password(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Database(address)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "h.db"
    file.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        Database(f"sqlite:///{file}")
    with pytest.raises(ConfigError, match="no folder"):
        Database(f"sqlite:///{tmp_path}/none/h.db")


def test_committed_rows_are_on_the_disk(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'h.db'}")
    with database.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    database.close()
