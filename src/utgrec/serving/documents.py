"""Answers of the server as documents: what `schemas` describes, made from what the engine gives."""

import logging
import math
from typing import Any
from urllib.parse import quote

from utgrec.config import to_dict
from utgrec.errors import FieldError
from utgrec.serving.changes import Published
from utgrec.serving.engine import Answer, Shelf
from utgrec.serving.generations import Listed
from utgrec.serving.problems import Refused
from utgrec.serving.service import Service

log = logging.getLogger(__name__)


def find_item(service: Service, item_id: str) -> tuple[Shelf, int]:
    """The generation that serves, and the place of an item in it."""
    shelf = service.shelf
    if item_id not in shelf.catalog:
        raise Refused(
            404,
            "the catalogue has never had an item with this id",
            FieldError.of("path.item_id", item_id, "is in the catalogue"),
        )
    return shelf, shelf.catalog.index_of(item_id)


def read_codes(codes: str) -> list[int]:
    """The codes in an address, such as 12/300."""
    parts = [part for part in codes.split("/") if part]
    if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        rule = "codes are whole numbers with slashes between, such as 12/300"
        raise Refused(404, rule, FieldError.of("path.codes", codes, rule))
    return [int(part) for part in parts]


def short(shelf: Shelf, place: int) -> dict[str, Any]:
    """An item by its name, with where its picture is."""
    item_id = shelf.catalog.item_ids[place]
    image = f"/v1/images/{quote(item_id, safe='')}" if shelf.pictured[place] else None
    return {"item_id": item_id, "title": shelf.catalog.titles[place], "image": image}


def answer_document(answer: Answer) -> dict[str, Any]:
    """What one history gets (`AnswerOut`)."""
    shelf, catalog = answer.shelf, answer.shelf.catalog
    items = [
        {
            **short(shelf, hit.item),
            "score": hit.score,
            "codes": shelf.codes[hit.item].tolist(),
            "why": [
                {
                    "item_id": catalog.item_ids[reason.item],
                    "title": catalog.titles[reason.item],
                    "shared_codes": reason.shared,
                    "attention": reason.attention,
                }
                for reason in hit.why
            ],
        }
        for hit in answer.found
    ]
    return {"items": items, "unknown": answer.unknown}


def published(made: Published) -> dict[str, Any]:
    """What a change came to (`PublishedOut`)."""
    return {
        "generation": made.generation,
        "active": made.active,
        "changes": {name: list(ids) for name, ids in made.delta._asdict().items()},
        "codes": {item_id: list(codes) for item_id, codes in made.codes.items()},
        "drift": to_dict(made.drift),
    }


def generation_list(service: Service) -> dict[str, Any]:
    """All generations (`GenerationsOut`)."""
    return {
        "serving": service.shelf.number,
        "generations": [listed(one) for one in service.store.listing()],
    }


def listed(one: Listed) -> dict[str, Any]:
    """One generation. Why it cannot be used names folders of this machine, so the log has that."""
    if one.problem is None:
        return one._asdict()
    log.error("generation %d cannot be used: %s", one.number, one.problem)
    return {**one._asdict(), "problem": "its files cannot be used; the server's log says why"}


def plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
