"""Recommendations for a file of histories, in memory that does not grow with the file.

Histories are answered part by part. Finished parts are kept beside the output until all are done,
so a killed job goes on where it was; the output then appears whole.

In:  JSON lines {"user_id": "u1", "history": ["A", "B"]}, or Parquet with these columns. `user_id`
     may be left out.
Out: the same order, as JSON lines {"user_id", "items": [{"item_id", "score"}], "unknown": []}, or
     Parquet with the columns user_id, item_ids, scores, unknown.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.config import fingerprint, require, to_dict
from utgrec.data.values import id_text
from utgrec.errors import BadConfig, BadTable, InputError, UnknownItem
from utgrec.evaluation.ranking import ranker_input
from utgrec.progress import Progress, silent
from utgrec.serving.engine import Answer, Engine, Request

JSON_LINES, PARQUET = (".jsonl", ".ndjson"), (".parquet",)
LONGEST_LINE = 16 * 2**20  # characters
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("unknown", pa.list_(pa.string())),
    ]
)


class Row(NamedTuple):
    """One history of a file."""

    where: str  # for messages
    user_id: str | None
    history: tuple[str, ...]


class BulkDone(NamedTuple):
    """What a job came to."""

    histories: int
    before: int  # those of them that an earlier, interrupted job had done
    generation: int


def recommend_file(
    engine: Engine,
    source: Path,
    out: Path,
    asked: Request,
    *,
    at_once: int = 2048,
    progress: Progress = silent,
) -> BulkDone:
    """Answer every history of a file; `asked` says how, its own history is not used.

    Raises:
        BadConfig: files of a kind that is not known, or the same for both.
        BadTable: a row that cannot be read.
        UnknownItem, InputError: a history or a filter that does not fit the catalogue. Parts that
            were finished before stay, so a mended call with the same input goes on from there.
    """
    require(at_once >= 1, f"at_once must be at least 1, got {at_once}")
    _require_kind(source)
    _require_kind(out)
    if source.resolve() == out.resolve():
        raise BadConfig(f"{out} is the file that is read; write to another one")
    made_from = fingerprint(
        {
            "source": storage.hash_file(source),
            "recommender": storage.read_manifest(
                engine.store.run.recommender, "recommender"
            ).fingerprint,
            **ranker_input(engine.store.run.ranker),
            "catalogue": engine.shelf.generation.manifest.fingerprint,
            "asked": to_dict(asked),
            "at_once": at_once,
        }
    )
    out = Path(os.path.abspath(out))
    work = out.with_name(f".{out.name}.work")
    settings = work / "settings.json"
    if not settings.is_file() or storage.read_json(settings) != made_from:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        storage.write_json(settings, made_from)
    rows, parts = read_histories(source), list[Path]()
    done = before = 0
    while chunk := list(islice(rows, at_once)):
        part = work / f"{len(parts):08d}.jsonl"
        if part.is_file():
            before += len(chunk)
        else:
            storage.write_text(part, "".join(_line(engine, chunk, asked)))
        parts.append(part)
        done += len(chunk)
        progress("Recommending", done, done)
    _join(parts, out)
    shutil.rmtree(work, ignore_errors=True)
    return BulkDone(done, before, engine.shelf.number)


def read_histories(path: Path) -> Iterator[Row]:
    """The histories of a file, one after the other.

    Raises:
        BadTable: a row that cannot be read.
    """
    for where, values in _records(path):
        history, user = values.get("history"), values.get("user_id")
        if not isinstance(history, list):
            raise BadTable(
                f"{where}: history is {_shown(history)}, it must be a list of item ids, oldest "
                'first, such as ["A12", "B7"]'
            )
        ids = [id_text(entry) for entry in history]
        if None in ids:
            bad = history[ids.index(None)]
            raise BadTable(f"{where}: {_shown(bad)} in history is not the id of an item")
        user_id = None if user is None else id_text(user)
        if user is not None and user_id is None:
            raise BadTable(f"{where}: user_id {_shown(user)} is not an id")
        yield Row(where, user_id, tuple(one for one in ids if one is not None))


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix.lower() in PARQUET:
        try:
            file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise BadTable(f"{path.name} is no Parquet file ({error}); write it anew") from error
        with file:
            if "history" not in file.schema_arrow.names:
                raise BadTable(
                    f"{path.name} has no column history; it has "
                    f"{', '.join(file.schema_arrow.names)}"
                )
            columns = [name for name in ("user_id", "history") if name in file.schema_arrow.names]
            number = 0
            batches = file.iter_batches(batch_size=1024, columns=columns)
            while (rows := _next_rows(batches, path)) is not None:
                for values in rows:
                    number += 1
                    yield f"{path.name}, row {number}", values
        return
    with open(path, encoding="utf-8-sig") as stream:
        for number, line in enumerate(_lines(stream, path), start=1):
            if line.strip():
                where = f"{path.name}, line {number}"
                yield where, _object(line, where)


def _next_rows(batches: Iterator[pa.RecordBatch], path: Path) -> list[dict[str, Any]] | None:
    try:
        batch = next(batches, None)
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())
        raise BadTable(f"{path.name} is damaged ({said}); write it anew") from error
    return None if batch is None else batch.to_pylist()


def _lines(stream: IO[str], path: Path) -> Iterator[str]:
    while True:
        try:
            line = stream.readline(LONGEST_LINE)
        except UnicodeDecodeError as error:
            raise BadTable(f"{path.name} is not UTF-8 ({error}); write it anew") from error
        if not line:
            return
        if len(line) == LONGEST_LINE:
            raise BadTable(f"{path.name} has a line of over {LONGEST_LINE:,} characters; split it")
        yield line


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadTable(f"{where} is not JSON ({error}); write one object per line") from error
    if not isinstance(values, dict):
        raise BadTable(f'{where} is {_shown(values)}, not an object such as {{"history": ["A"]}}')
    return values


def _line(engine: Engine, chunk: Sequence[Row], asked: Request) -> Iterator[str]:
    requests = [dataclasses.replace(asked, history=row.history) for row in chunk]
    for row, answer in zip(chunk, engine.recommend(requests), strict=True):
        if isinstance(answer, UnknownItem):
            raise UnknownItem(f"{row.where}: {answer}") from answer
        if isinstance(answer, InputError):
            raise InputError(f"{row.where}: {answer}") from answer
        if isinstance(answer, Exception):
            raise answer
        yield json.dumps(_document(row, answer), ensure_ascii=False, allow_nan=False) + "\n"


def _document(row: Row, answer: Answer) -> dict[str, Any]:
    ids = answer.shelf.catalog.item_ids
    items = [{"item_id": ids[hit.item], "score": round(hit.score, 6)} for hit in answer.found]
    user = {} if row.user_id is None else {"user_id": row.user_id}
    return {**user, "items": items, "unknown": answer.unknown}


def _join(parts: Sequence[Path], out: Path) -> None:
    """Make the output of all parts, whole or not at all."""
    write: Callable[[Sequence[Path], Path], None] = (
        _join_parquet if out.suffix.lower() in PARQUET else _join_lines
    )
    with storage.new_file(out) as partial:
        write(parts, partial)


def _join_lines(parts: Sequence[Path], partial: Path) -> None:
    with open(partial, "wb") as stream:
        for part in parts:
            with open(part, "rb") as finished:
                shutil.copyfileobj(finished, stream)


def _join_parquet(parts: Sequence[Path], partial: Path) -> None:
    with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        for part in parts:
            with open(part, encoding="utf-8") as stream:
                found = [json.loads(line) for line in stream]
            columns = {
                "user_id": [one.get("user_id") for one in found],
                "item_ids": [[hit["item_id"] for hit in one["items"]] for one in found],
                "scores": [[hit["score"] for hit in one["items"]] for one in found],
                "unknown": [one["unknown"] for one in found],
            }
            writer.write_table(pa.table(columns, schema=SCHEMA))


def _require_kind(path: Path) -> None:
    kinds = (*JSON_LINES, *PARQUET)
    require(
        path.suffix.lower() in kinds,
        f"{path} is of no known kind; its name must end in {', '.join(kinds)}",
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
