"""Histories of users: kept exactly once, in order, deleted completely; SQLite and PostgreSQL."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import postgres

from utgrec.errors import (
    BadConfig,
    CorruptFile,
    FormatVersionError,
    InputError,
    Overloaded,
    Unavailable,
)
from utgrec.runs import RunFolder
from utgrec.serving.users import sqlite
from utgrec.serving.users.choose import open_users
from utgrec.serving.users.events import Added, Event, Taken
from utgrec.serving.users.postgres import PostgresUsers
from utgrec.serving.users.sqlite import SQLiteUsers


@pytest.fixture(scope="session")
def database():
    """The URL of a PostgreSQL that is there for these tests."""
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request, tmp_path):
    """Opens stores on one place that begins empty; they are closed afterwards."""
    stores = []
    if request.param == "postgres":
        url = request.getfixturevalue("database")
        _forget_everything(url)

    def open_one(domain="shop"):
        if request.param == "sqlite":
            made = SQLiteUsers(tmp_path / "users" / "all.sqlite", domain)
        else:
            made = PostgresUsers(url, domain)
        stores.append(made)
        return made

    yield open_one
    for one in stores:
        one.close()


def _forget_everything(url):
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS utgrec_events, utgrec_format")


def event(number, user="u1", item=None, time=None):
    return Event(
        event_id=f"e{number}",
        user_id=user,
        item_id=item or f"i{number}",
        timestamp=1000 + number if time is None else time,
    )


class TestContract:
    def test_what_is_kept_is_read_back_in_order(self, opened):
        store = opened()
        assert store.history("u1") == []
        assert store.add([event(3), event(1), event(2, "u2")]) == Added(3, 0)
        assert store.add([event(4, time=1003)]) == Added(1, 0)  # as late as e3, but after it
        expected = [Taken("i1", 1001), Taken("i3", 1003), Taken("i4", 1003)]
        assert store.history("u1") == expected
        assert store.history("u1", newest=2) == expected[1:]
        assert opened().history("u1") == expected
        assert opened("other").history("u1") == []

    def test_an_event_is_kept_exactly_once(self, opened):
        store = opened()
        assert store.add([event(1), event(1)]) == Added(1, 1)
        assert store.add([event(1), event(2)]) == Added(1, 1)
        again = Event(event_id="e1", user_id="u1", item_id="i1", timestamp=5, exact_time=False)
        assert store.add([again]) == Added(0, 1)  # the caller gave no time
        assert store.history("u1") == [Taken("i1", 1001), Taken("i2", 1002)]
        assert opened("other").add([event(1)]) == Added(1, 0)

    @pytest.mark.parametrize("other", [event(1, "u2"), event(1, item="x"), event(1, time=7)])
    def test_an_id_names_one_event(self, opened, other):
        store = opened()
        store.add([event(1)])
        for batch in ([event(5), other], [event(6), other]):
            with pytest.raises(InputError, match="event_id 'e1' was used for another event"):
                store.add(batch)
        with pytest.raises(InputError, match="'e7' was used"):
            store.add([event(7), event(7, item="x")])
        assert store.history("u1") == [Taken("i1", 1001)]  # e5, e6 and e7 are not there

    def test_a_user_is_deleted_and_nobody_else(self, opened):
        store = opened()
        store.add([event(1), event(2), event(3, "u2")])
        opened("other").add([event(1)])
        assert store.delete("u1") == 2
        assert store.delete("u1") == 0
        assert store.history("u1") == []
        assert store.history("u2") == [Taken("i3", 1003)]
        assert opened("other").history("u1") == [Taken("i1", 1001)]
        assert store.add([event(1, "u9")]) == Added(1, 0)  # also the ids of events are gone

    def test_many_at_once(self, opened):
        """Threads that send overlapping batches: every event is counted once, none is lost."""
        stores = [opened(), opened()]

        def send(worker):
            batch = [event(n, user=f"u{n % 3}") for n in range(worker, worker + 20)]
            return stores[worker % 2].add(batch if worker % 4 < 2 else batch[::-1])

        with ThreadPoolExecutor(8) as pool:
            added = list(pool.map(send, range(16)))
        assert sum(one.new for one in added) == 35
        kept = [len(stores[0].history(f"u{n}")) for n in range(3)]
        assert sum(kept) == 35

    def test_any_text_is_an_id(self, opened):
        store = opened()
        odd = "ü'; DROP TABLE events; -- % {}\n😀"
        store.add([Event(event_id=odd, user_id=odd, item_id=odd, timestamp=0)])
        assert store.history(odd) == [Taken(odd, 0)]
        assert store.delete(odd) == 1

    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        st.lists(
            st.one_of(
                st.lists(
                    st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.integers(0, 2)),
                    min_size=1,
                    max_size=4,
                ),
                st.sampled_from("ab"),
            ),
            max_size=8,
        )
    )
    def test_any_sequence_is_what_a_dictionary_would_do(self, opened, steps):
        store = opened()
        store.delete("a"), store.delete("b")
        kept = {}  # event id → event, in the order in which they came
        for step in steps:
            if isinstance(step, str):
                gone = [name for name, one in kept.items() if one.user_id == step]
                assert store.delete(step) == len(gone)
                for name in gone:
                    del kept[name]
                continue
            batch = [event(n, user, time=time) for n, user, time in step]
            after = dict(kept)
            clash = any(after.setdefault(one.event_id, one) != one for one in batch)
            if clash:
                with pytest.raises(InputError):
                    store.add(batch)
            else:
                assert store.add(batch).new == len(after) - len(kept)
                kept = after
        for user in "ab":
            mine = [one for one in kept.values() if one.user_id == user]
            mine.sort(key=lambda one: one.timestamp)
            found = store.history(user)
            assert sorted(found) == sorted(Taken(one.item_id, one.timestamp) for one in mine)
            assert [one.timestamp for one in found] == [one.timestamp for one in mine]


class TestSQLite:
    def test_nothing_is_written_before_the_first_event(self, tmp_path):
        path = tmp_path / "users" / "shop.sqlite"
        store = SQLiteUsers(path, "shop")
        assert (store.history("u"), store.delete("u"), store.add([])) == ([], 0, Added(0, 0))
        assert not path.parent.exists()

    def test_no_byte_of_a_deleted_user_is_left(self, tmp_path):
        path = tmp_path / "shop.sqlite"
        store, other = SQLiteUsers(path, "shop"), SQLiteUsers(path, "shop")
        secret = "user-who-wants-to-be-forgotten"
        store.add([event(n, "u2") for n in range(500)])
        store.add(
            [
                Event(
                    event_id=f"{secret}-event-{n}",
                    user_id=secret,
                    item_id=f"{secret}-item-{n}",
                    timestamp=n,
                )
                for n in range(500)
            ]
        )
        assert len(other.history(secret)) == 500
        files = [path, path.with_name(f"{path.name}-wal")]
        assert all(secret.encode() in file.read_bytes() for file in files[1:])
        assert store.delete(secret) == 500
        assert not any(b"wants-to-be-forgotten" in file.read_bytes() for file in tmp_path.iterdir())
        assert len(other.history("u2")) == 500
        store.close(), other.close()

    def test_a_commit_waits_for_the_disk(self, tmp_path):
        store = SQLiteUsers(tmp_path / "x.sqlite", "shop")
        store.add([event(1)])
        connection = store._connection()
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        store.close()

    def test_other_files_are_refused(self, tmp_path):
        path = tmp_path / "x.sqlite"
        path.write_bytes(b"no database at all, but a text " * 100)
        with pytest.raises(CorruptFile, match="no sound SQLite file"):
            SQLiteUsers(path, "shop")
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE theirs (x)")
        other.close()
        with pytest.raises(CorruptFile, match="a database of another program"):
            SQLiteUsers(path, "shop")
        path.unlink()
        store = SQLiteUsers(path, "shop")
        store.add([event(1)])
        store._connection().execute("PRAGMA user_version = 9")
        store.close()
        with pytest.raises(FormatVersionError, match="format version 9, this UTGRec reads 1"):
            SQLiteUsers(path, "shop")

    def test_a_file_in_use_is_no_defect(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sqlite, "WAITS_S", 0.05)
        path = tmp_path / "x.sqlite"
        store = SQLiteUsers(path, "shop")
        store.add([event(1)])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Overloaded, match="in use"):
            store.add([event(2)])
        other.execute("ROLLBACK")
        assert store.add([event(2)]) == Added(1, 0)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM events").fetchone()
        with pytest.raises(Unavailable, match="the user is deleted, but"):
            store.delete("u1")
        other.close()
        assert (store.history("u1"), store.delete("u1")) == ([], 0)
        assert (tmp_path / "x.sqlite-wal").stat().st_size == 0
        store.close()

    def test_a_full_or_forbidden_disk_is_named(self, tmp_path):
        (tmp_path / "x.sqlite").mkdir()
        with pytest.raises(Unavailable, match=r"x\.sqlite cannot be used: unable to open"):
            SQLiteUsers(tmp_path / "x.sqlite", "shop")
        (tmp_path / "file").touch()
        with pytest.raises(Unavailable, match=r"^x\.sqlite cannot be used: ") as caught:
            SQLiteUsers(tmp_path / "file" / "x.sqlite", "shop").add([event(1)])
        assert str(tmp_path) not in str(caught.value)  # callers see it


class TestPostgres:
    def test_a_connection_that_was_cut_is_made_anew(self, database):
        import psycopg

        store = PostgresUsers(database, "cut")
        store.delete("u1")
        assert store.add([event(1)]) == Added(1, 0)
        with psycopg.connect(database, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'utgrec'"
            )
        assert store.add([event(1), event(2)]) == Added(1, 1)
        assert len(store.history("u1")) == 2
        store.close()

    def test_errors_say_nothing_of_what_was_sent(self, database, monkeypatch):
        store = PostgresUsers(database, "quiet")
        secret = Event(event_id="a\ud800", user_id="secret", item_id="i", timestamp=0)
        with pytest.raises(Exception) as error:
            store.add([secret])
        assert "secret" not in str(error.value)
        store.close()
        with pytest.raises(Unavailable, match="check that it runs") as error:
            PostgresUsers("postgresql://me:hidden@127.0.0.1:1/x", "shop")
        assert "hidden" not in str(error.value)

    def test_servers_that_start_together_make_the_tables_once(self, database):
        _forget_everything(database)
        ready = threading.Barrier(6)

        def start(number):
            ready.wait(10)
            return PostgresUsers(database, f"d{number}")

        with ThreadPoolExecutor(6) as pool:
            stores = list(pool.map(start, range(6)))
        assert [store.add([event(1)]).new for store in stores] == [1] * 6
        for store in stores:
            store.close()

    def test_another_version_is_refused(self, database):
        import psycopg

        PostgresUsers(database, "shop").close()
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("UPDATE utgrec_format SET version = 7")
        with pytest.raises(FormatVersionError, match="format version 7, this UTGRec reads 1"):
            PostgresUsers(database, "shop")
        _forget_everything(database)


def test_addresses(tmp_path):
    run = RunFolder(tmp_path)
    assert open_users("off", run, "shop") is None
    store = open_users("run", run, "shop")
    store.add([event(1)])
    assert (tmp_path / "users" / "shop.sqlite").is_file()
    again = open_users(str(tmp_path / "users" / "shop.sqlite"), run, "shop")
    assert len(again.history("u1")) == 1
    store.close(), again.close()
    with pytest.raises(BadConfig, match="cannot be kept at mysql://…") as error:
        open_users("mysql://me:hidden@host/x", run, "shop")
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("user_id", "", "user_id must be 1 to"),
        ("event_id", "x" * 1001, "event_id must be 1 to"),
        ("item_id", "a\0b", "item_id must be .* without NUL"),
        ("timestamp", -1, "timestamp must be milliseconds"),
    ],
)
def test_events_outside_their_range(field, value, message):
    good = {"event_id": "e", "user_id": "u", "item_id": "i", "timestamp": 0}
    with pytest.raises(BadConfig, match=message):
        Event(**good | {field: value})
