"""User histories in PostgreSQL, for servers on several machines. Needs `utgrec[postgres]`.

A commit waits until the database has it on its disk (synchronous_commit = on). Tables are made on
the first start; the account needs the right to do so then.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from utgrec.errors import FormatVersionError, MissingDependency, Unavailable
from utgrec.serving.users.events import NEWEST, Added, Event, EventIdUsed, Taken, distinct, same

T = TypeVar("T")
VERSION = 1
CONNECT_S = 10
LOCK = 7_412_310_547  # any number that other programs are unlikely to use
SCHEMA = """
CREATE TABLE IF NOT EXISTS utgrec_format (version integer PRIMARY KEY);
CREATE TABLE IF NOT EXISTS utgrec_events (
  number    bigint GENERATED ALWAYS AS IDENTITY,
  domain    text NOT NULL,
  event_id  text NOT NULL,
  user_id   text NOT NULL,
  item_id   text NOT NULL,
  timestamp bigint NOT NULL,
  PRIMARY KEY (domain, event_id)
);
CREATE INDEX IF NOT EXISTS utgrec_events_of_a_user
  ON utgrec_events (domain, user_id, timestamp, number);
"""


class PostgresUsers:
    """Histories of the users of one domain in a database; each thread has a connection."""

    def __init__(self, url: str, domain: str) -> None:
        """Connect once, and make the tables if need be.

        Raises:
            MissingDependency: psycopg is not installed.
            Unavailable: the database cannot be reached or used.
            FormatVersionError: the tables are of another version.
        """
        try:
            import psycopg
        except ImportError as error:
            raise MissingDependency(
                "user histories in PostgreSQL need psycopg; install it with "
                "`pip install 'utgrec[postgres]'`"
            ) from error
        self._psycopg: Any = psycopg
        self._url, self._domain = url, domain
        self._local = threading.local()
        self._opened: list[Any] = []
        self._lock = threading.Lock()
        try:
            self._do(self._make_tables)
        except BaseException:
            self.close()
            raise

    def add(self, events: list[Event]) -> Added:
        """See `UserStore.add`."""
        by_id = distinct(events)
        if not by_id:
            return Added(0, 0)

        def work(cursor: Any) -> Added:
            # In the order of their ids, so that two batches never wait for each other in a circle.
            rows = [by_id[event_id] for event_id in sorted(by_id)]
            cursor.execute(
                "INSERT INTO utgrec_events (domain, event_id, user_id, item_id, timestamp)"
                " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])"
                " ON CONFLICT DO NOTHING RETURNING event_id",
                (
                    self._domain,
                    [one.event_id for one in rows],
                    [one.user_id for one in rows],
                    [one.item_id for one in rows],
                    [one.timestamp for one in rows],
                ),
            )
            fresh = {row[0] for row in cursor.fetchall()}
            cursor.execute(
                "SELECT event_id, user_id, item_id, timestamp FROM utgrec_events"
                " WHERE domain = %s AND event_id = ANY(%s)",
                (self._domain, [event_id for event_id in by_id if event_id not in fresh]),
            )
            clashes = [row[0] for row in cursor.fetchall() if not same(by_id[row[0]], *row[1:])]
            if clashes:
                raise EventIdUsed(sorted(clashes))
            return Added(len(fresh), len(events) - len(fresh))

        return self._do(work)

    def history(self, user_id: str, newest: int = NEWEST) -> list[Taken]:
        """See `UserStore.history`."""

        def work(cursor: Any) -> list[Taken]:
            cursor.execute(
                "SELECT item_id, timestamp FROM utgrec_events WHERE domain = %s AND user_id = %s"
                " ORDER BY timestamp DESC, number DESC LIMIT %s",
                (self._domain, user_id, newest),
            )
            return [Taken(*row) for row in cursor.fetchall()[::-1]]

        return self._do(work)

    def delete(self, user_id: str) -> int:
        """See `UserStore.delete`."""

        def work(cursor: Any) -> int:
            cursor.execute(
                "DELETE FROM utgrec_events WHERE domain = %s AND user_id = %s",
                (self._domain, user_id),
            )
            return int(cursor.rowcount)

        return self._do(work)

    def close(self) -> None:
        """See `UserStore.close`."""
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()
            self._local = threading.local()

    def _make_tables(self, cursor: Any) -> None:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))  # one server at a time
        cursor.execute(SCHEMA)
        cursor.execute("SELECT max(version) FROM utgrec_format")
        (version,) = cursor.fetchone()
        if version is None:
            cursor.execute("INSERT INTO utgrec_format VALUES (%s)", (VERSION,))
        elif version != VERSION:
            raise FormatVersionError(
                f"the tables of user histories have format version {version}, this UTGRec reads "
                f"{VERSION}; install the version that wrote them, or name another database"
            )

    def _do(self, work: Callable[[Any], T]) -> T:
        """One transaction, tried again once with a new connection if the old one was cut.

        Doing it again is harmless also when the first one was committed: events have ids.
        """
        with self._reported():
            for last in (False, True):
                connection = self._connection()
                try:
                    with connection.transaction(), connection.cursor() as cursor:
                        return work(cursor)
                except self._psycopg.OperationalError:
                    if last or not connection.broken:
                        raise
                    self._forget(connection)
        raise AssertionError("the second try returns or raises")

    def _connection(self) -> Any:
        if not hasattr(self._local, "connection"):
            made = self._psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_S,
                application_name="utgrec",
            )
            made.execute("SET synchronous_commit = on")
            with self._lock:
                self._opened.append(made)
            self._local.connection = made
        return self._local.connection

    def _forget(self, connection: Any) -> None:
        connection.close()
        with self._lock:
            self._opened.remove(connection)
        del self._local.connection

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """The database's errors as ours, by their kind only: their texts hold values."""
        try:
            yield
        except self._psycopg.Error as error:
            state = error.sqlstate or "no connection"
            raise Unavailable(
                f"the database of user histories answered {type(error).__name__} ({state}); check "
                "that it runs, its address, and the rights of its account"
            ) from None
