"""Items and their pictures out of a file: one JSON object per line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST
from utgrec.data.columns import ITEM_ROLES, find_columns
from utgrec.data.images import is_url, pictures_by_id
from utgrec.data.values import id_text
from utgrec.errors import BadTable, StorageError
from utgrec.serving.generations import GenerationStore
from utgrec.serving.pictures import keep_files

PICTURE_ROLES = {role: ITEM_ROLES[role] for role in ("item_id", "image")}


class ItemFile(NamedTuple):
    """What a file of items holds."""

    items: list[dict[str, Any]]  # without their pictures
    pictures: dict[str, str]  # item id → path relative to the file's folder


def read_item_file(path: Path, domain: Path | None = None) -> ItemFile:
    """Read a JSON-lines file of items.

    A picture is named by its path beside the file, or is `images/ITEM_ID.png` (or .jpg, …) there.

    Raises:
        BadTable: a line that is no JSON object, or a picture that is a web address.
    """
    items: list[dict[str, Any]] = []
    pictures: dict[str, str] = {}
    told = _told(domain)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadTable(f"{path} is not UTF-8 ({error}); write it anew in UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        item = _object(line, where)
        named = {role: name for role, name in told.items() if name in item}
        columns = find_columns(where, list(item), PICTURE_ROLES, named, required=[])
        picture = item.pop(columns["image"], None) if "image" in columns else None
        item_id = id_text(item.get(columns["item_id"])) if "item_id" in columns else None
        if isinstance(picture, list):
            picture = picture[0] if picture else None
        if picture is not None and (not isinstance(picture, str) or is_url(picture)):
            raise BadTable(
                f"{where}: picture {picture!r} is not the path of a file beside {path.name}; "
                "download it first and name the file"
            )
        if picture and item_id is not None:
            pictures[item_id] = picture
        items.append(item)
    return ItemFile(items, pictures | _beside(path, items, told, pictures))


def keep_item_pictures(store: GenerationStore, path: Path, file: ItemFile) -> dict[str, str]:
    """Store the pictures of a file's items: item id → where they are now.

    Raises:
        BadImage: one that cannot be used.
    """
    kept = keep_files(path.parent, list(file.pictures.values()), store.folder)
    return {item_id: kept[reference] for item_id, reference in file.pictures.items()}


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadTable(f"{where} is not JSON ({error}); write one object per line") from error
    if not isinstance(item, dict):
        raise BadTable(f"{where} is a {type(item).__name__}, not an object such as {{…}}")
    return item


def _told(domain: Path | None) -> Mapping[str, str]:
    """The names that the domain's own columns had."""
    if domain is None:
        return {}
    try:
        facts = storage.read_manifest(domain, "domain", DOMAIN_MANIFEST).facts
    except StorageError:
        return {}
    columns = facts.get("items", {}).get("columns", {})
    return {role: name for role, name in columns.items() if role in PICTURE_ROLES}


def _beside(
    path: Path, items: list[dict[str, Any]], told: Mapping[str, str], named: Mapping[str, str]
) -> dict[str, str]:
    """Pictures in the folder `images` beside the file, for items that name none."""
    ids = []
    for item in items:
        roles = {"item_id": ITEM_ROLES["item_id"]}
        known = {role: name for role, name in told.items() if role in roles and name in item}
        column = find_columns(path.name, list(item), roles, known, required=[]).get("item_id")
        item_id = id_text(item[column]) if column else None
        if item_id is not None and item_id not in named:
            ids.append(item_id)
    found = pictures_by_id(path.parent / "images", ids)
    return {item_id: name for item_id, name in zip(ids, found, strict=True) if name}
