"""User histories in one SQLite file: nothing to install, nothing to start.

Several processes of one machine may use the file at once (write-ahead log). A commit waits until
it is on the disk (synchronous = FULL), and what is deleted is overwritten (secure_delete).
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from utgrec.errors import CorruptFile, FormatVersionError, Overloaded, Unavailable
from utgrec.serving.users.events import NEWEST, Added, Event, EventIdUsed, Taken, distinct, same

VERSION = 1
WAITS_S = 10.0  # for other processes that write
TRIES = 20
SCHEMA = """
CREATE TABLE events (
  number    INTEGER PRIMARY KEY,
  domain    TEXT NOT NULL,
  event_id  TEXT NOT NULL,
  user_id   TEXT NOT NULL,
  item_id   TEXT NOT NULL,
  timestamp INTEGER NOT NULL,
  UNIQUE (domain, event_id)
) STRICT;
CREATE INDEX events_of_a_user ON events (domain, user_id, timestamp, number);
"""


class SQLiteUsers:
    """Histories of the users of one domain in a file, which is made with the first event."""

    def __init__(self, path: Path, domain: str) -> None:
        """Check a file that is there.

        Raises:
            CorruptFile, FormatVersionError: it is no file of histories that this UTGRec reads.
        """
        self._path, self._domain = path, domain
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        if path.exists():
            with _reported(path):
                self._connection()

    def add(self, events: list[Event]) -> Added:
        """See `UserStore.add`."""
        by_id = distinct(events)
        if not by_id:
            return Added(0, 0)
        with _reported(self._path):
            connection = self._connection()
            with _transaction(connection):
                fresh, clashes = [], []
                for event in by_id.values():
                    found = connection.execute(
                        "SELECT user_id, item_id, timestamp FROM events"
                        " WHERE domain = ? AND event_id = ?",
                        (self._domain, event.event_id),
                    ).fetchone()
                    if found is None:
                        fresh.append(event)
                    elif not same(event, *found):
                        clashes.append(event.event_id)
                if clashes:
                    raise EventIdUsed(clashes)
                connection.executemany(
                    "INSERT INTO events (domain, event_id, user_id, item_id, timestamp)"
                    " VALUES (?, ?, ?, ?, ?)",
                    [
                        (self._domain, one.event_id, one.user_id, one.item_id, one.timestamp)
                        for one in fresh
                    ],
                )
        return Added(len(fresh), len(events) - len(fresh))

    def history(self, user_id: str, newest: int = NEWEST) -> list[Taken]:
        """See `UserStore.history`."""
        if not self._path.exists():
            return []
        with _reported(self._path):
            rows = self._connection().execute(
                "SELECT item_id, timestamp FROM events WHERE domain = ? AND user_id = ?"
                " ORDER BY timestamp DESC, number DESC LIMIT ?",
                (self._domain, user_id, newest),
            )
            return [Taken(*row) for row in rows.fetchall()[::-1]]

    def delete(self, user_id: str) -> int:
        """See `UserStore.delete`. The write-ahead log is emptied too, as it holds copies."""
        if not self._path.exists():
            return 0
        with _reported(self._path):
            connection = self._connection()
            with _transaction(connection):
                deleted = connection.execute(
                    "DELETE FROM events WHERE domain = ? AND user_id = ?", (self._domain, user_id)
                ).rowcount
            for _ in range(TRIES):  # readers of other threads and processes are done in a moment
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if not busy:
                    return deleted
        raise Unavailable(
            f"the user is deleted, but {self._path.name}-wal is in use and still holds copies; "
            "close other programs that read the file, and delete the user once more"
        )

    def close(self) -> None:
        """See `UserStore.close`."""
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()
            self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        """This thread's own connection."""
        if not hasattr(self._local, "connection"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            made = sqlite3.connect(
                self._path, timeout=WAITS_S, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(made, self._path)
            except BaseException:
                made.close()
                raise
            with self._lock:
                self._opened.append(made)
            self._local.connection = made
        connection: sqlite3.Connection = self._local.connection
        return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    for setting in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {setting}")
    with _transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables:
                raise CorruptFile(f"{path} is a database of another program; name another file")
            for statement in SCHEMA.split(";")[:-1]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise FormatVersionError(
                f"{path} has format version {version}, this UTGRec reads {VERSION}; install the "
                "version that wrote it, or name another file"
            )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the system as ours; they name no values and no folders."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise Overloaded(
                f"{path.name} is in use for over {WAITS_S:g} s; try again", 5
            ) from None
        raise Unavailable(
            f"{path.name} cannot be used: {error}; check the disk and its rights"
        ) from None
    except OSError as error:
        raise Unavailable(
            f"{path.name} cannot be used: {error.strerror}; check the disk and its rights"
        ) from None
    except sqlite3.DatabaseError as error:
        raise CorruptFile(f"{path} is no sound SQLite file ({error}); restore it") from None
