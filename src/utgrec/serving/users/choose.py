"""Which store of user histories an address means."""

from pathlib import Path

from utgrec.errors import BadConfig
from utgrec.runs import RunFolder
from utgrec.serving.users.events import UserStore
from utgrec.serving.users.postgres import PostgresUsers
from utgrec.serving.users.sqlite import SQLiteUsers

RUN, OFF = "run", "off"
POSTGRES = ("postgresql://", "postgres://")


def open_users(where: str, run: RunFolder, domain: str) -> UserStore | None:
    """The store at an address: `run`, `off`, a file, or a PostgreSQL URL; None if it is off.

    Raises:
        BadConfig: an address of another kind.
        UTGRecError: it cannot be used.
    """
    if where == OFF:
        return None
    if where == RUN:
        return SQLiteUsers(run.path / "users" / f"{domain}.sqlite", domain)
    if where.startswith(POSTGRES):
        return PostgresUsers(where, domain)
    if "://" in where:
        kind = where.partition("://")[0]
        raise BadConfig(
            f"user histories cannot be kept at {kind}://…; give {RUN}, {OFF}, the path of a file, "
            "or a URL that begins with postgresql://"
        )
    return SQLiteUsers(Path(where), domain)
