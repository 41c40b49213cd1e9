"""Kill −9 while events are kept or deleted: nothing acknowledged is lost, no batch is half there.

SQLite is killed before each of its statements, one after the other; both kinds of store while
somebody sends as fast as they can; and PostgreSQL itself, all of its processes at once.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from postgres import postgres_server

from utgrec.errors import Unavailable
from utgrec.runs import RunFolder
from utgrec.serving.users.choose import open_users
from utgrec.serving.users.events import Added, Event
from utgrec.serving.users.sqlite import SQLiteUsers


def event(name, user="u", time=0):
    """An event whose item has its name."""
    return Event(event_id=name, user_id=user, item_id=name, timestamp=time)


def kept(store, user="u"):
    """The items of a user."""
    return [one.item_id for one in store.history(user, newest=100_000)]


def killed_before_statement(path, number, work):
    """Do something with a store in a process that dies before its n-th statement.

    Returns whether it died; otherwise what was to be done has been acknowledged.
    """
    child = os.fork()
    if child == 0:
        left = [number]

        def watch(statement):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        store = SQLiteUsers(path, "shop")
        store._connection().set_trace_callback(watch)
        work(store)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


WORK = {
    "add": (lambda store: store.add([event("b", time=1), event("c", time=2)]), ["a", "b", "c"]),
    "delete": (lambda store: store.delete("u"), []),
}


@pytest.mark.parametrize("what", WORK)
def test_sqlite_killed_before_every_statement(tmp_path, what):
    work, after = WORK[what]
    start = tmp_path / "start.sqlite"
    store = SQLiteUsers(start, "shop")
    store.add([event("a"), event("other", user="v")])
    store.close()
    seen = []
    for number in range(1, 60):
        path = tmp_path / f"{number}.sqlite"
        shutil.copy(start, path)
        died = killed_before_statement(path, number, work)
        store = SQLiteUsers(path, "shop")
        seen.append(kept(store))
        assert kept(store, "v") == ["other"]
        work(store)  # done again, it is done
        assert kept(store) == after
        store.close()
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        if not died:
            break
    assert not died and len(seen) >= 4
    assert seen[0] == ["a"] and seen[-1] == after
    assert all(one in (["a"], after) for one in seen)  # whole or absent
    done = [one == after for one in seen]
    assert done == sorted(done)  # once it is done, it stays done


SENDER = """
import sys
from utgrec.runs import RunFolder
from utgrec.serving.users.choose import open_users
from utgrec.serving.users.events import Event
store = open_users(sys.argv[1], RunFolder("."), "shop")
for number in range(int(sys.argv[2]), 100_000):
    two = [Event(event_id=f"{number}{half}", user_id="u", item_id=f"{number}{half}",
                 timestamp=number) for half in "ab"]
    store.add(two)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def send(where, first, count, kill):
    """Send pairs of events until something is killed; the number of the last one acknowledged."""
    sender = subprocess.Popen(
        [sys.executable, "-c", SENDER, where, str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    acknowledged = [int(sender.stdout.readline()) for _ in range(count)]
    kill(sender)
    acknowledged += [int(line) for line in sender.stdout.read().split(b"\n")[:-1]]
    sender.stdout.close()
    sender.wait(30)
    return acknowledged[-1]


def check(where, last):
    """All that was acknowledged is there, and nothing is half there."""
    store = open_users(where, RunFolder("."), "shop")
    found = kept(store)
    wanted = [f"{number}{half}" for number in range(last + 1) for half in "ab"]
    assert found[: len(wanted)] == wanted
    assert len(found) in (len(wanted), len(wanted) + 2)  # one more was on its way
    assert store.add([event(f"{last}a", time=last)]) == Added(0, 1)  # sent again, it is known
    store.close()


@pytest.fixture(scope="module")
def database():
    """A PostgreSQL that may be killed."""
    with postgres_server() as database:
        yield database


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_sender_is_killed(tmp_path, kind, request):
    if kind == "sqlite":
        where = str(tmp_path / "x.sqlite")
    else:
        where = request.getfixturevalue("database").url
    first = 0
    for round_ in range(3):
        last = send(where, first, 5 + 13 * round_, lambda sender: sender.kill())
        check(where, last)
        first = last


def test_the_database_is_killed(database):
    store = open_users(database.url, RunFolder(Path(".")), "shop")
    store.delete("u")
    last = send(database.url, 0, 20, lambda sender: database.kill())
    with pytest.raises(Unavailable, match="check that it runs"):
        store.history("u")
    database.start()
    check(database.url, last)
    assert len(kept(store)) >= 2 * last  # a store that was open finds its way back
    store.close()
