"""Every error that the library raises on purpose.

UTGRecError
├── InputError             what the caller gave cannot be used
│   ├── BadTable           a table: missing column, bad row, broken encoding
│   ├── BadImage           a picture: unreadable, too many pixels, outside its folder
│   ├── EmptyDomain        nothing left after the filters
│   ├── UnknownItem        an item id that the catalogue does not hold
│   └── BadConfig          a setting outside its range, or one that does not exist
├── StorageError           a folder that cannot be used
│   ├── MissingStage       no finished stage there (no manifest)
│   ├── FormatVersionError written by another format version
│   ├── SettingsMismatch   finished, but with other settings or from other input
│   └── CorruptFile        a file is not the one its manifest names
├── DownloadFailed         a file of the network could not be had, or is not what was published
├── Overloaded             more requests than can be answered in time; try again later
├── Unavailable            a service that is needed does not answer
├── TrainingError          training cannot go on (a loss that is not finite)
├── Stopped                a signal ended training after a checkpoint; run it again to go on
├── WorkerDied             a process that prepares items ended before it was done
├── CellFailed             cells of a comparison failed; all others are kept
└── MissingDependency      an optional package is needed; the message names its pip line

A message names the value received, the rule, and the next step.
"""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

NAMED = 5  # values that a message names; of the others it says how many there are


def named(values: Sequence[object]) -> str:
    """The first of some values as a message names them: 'a', 'b' and 3 more."""
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return ", ".join(map(repr, values[:NAMED])) + more


class FieldError(NamedTuple):
    """One field of a request that cannot be used."""

    field: str  # where it is, such as history.3
    value: str
    rule: str  # what it must be

    @classmethod
    def of(cls, field: str, value: object, rule: str) -> Self:
        """The value as a request would write it, in JSON."""
        return cls(field, json.dumps(value, ensure_ascii=False, default=repr), rule)


class UTGRecError(Exception):
    """The base of every error that UTGRec raises on purpose."""

    fields: tuple[FieldError, ...] = ()
    """What exactly was wrong, if the error is about fields of a request."""

    def about(self, fields: Iterable[FieldError]) -> Self:
        """The same error, which also names fields."""
        self.fields = tuple(fields)
        return self


class InputError(UTGRecError):
    """What the caller gave cannot be used."""


class BadTable(InputError):
    """A table has a missing column, a bad row or a broken encoding."""


class BadImage(InputError):
    """A picture is unreadable, too large, or outside its folder."""


class EmptyDomain(InputError):
    """Nothing is left after the filters."""


class UnknownItem(InputError):
    """The catalogue does not hold this item id."""


class BadConfig(InputError):
    """A setting is outside its range, or does not exist."""


class StorageError(UTGRecError):
    """A folder cannot be used."""


class MissingStage(StorageError):
    """There is no finished stage in this folder."""


class FormatVersionError(StorageError):
    """The folder was written by another format version."""


class SettingsMismatch(StorageError):
    """The folder was made with other settings or from other input."""


class CorruptFile(StorageError):
    """A file is not the one that its manifest names."""


class DownloadFailed(UTGRecError):
    """A file of the network could not be had, or is not what was published."""


class Overloaded(UTGRecError):
    """More requests are waiting than can be answered in time."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(UTGRecError):
    """A service that is needed does not answer, such as a database."""


class TrainingError(UTGRecError):
    """Training cannot go on."""


class Stopped(UTGRecError):
    """A signal ended training after a checkpoint."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class WorkerDied(UTGRecError):
    """A process that prepares items ended before it was done."""


class CellFailed(UTGRecError):
    """Cells of a comparison failed; all others are kept."""


class MissingDependency(UTGRecError):
    """An optional package is needed."""
