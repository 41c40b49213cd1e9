"""Write a domain as the folder that the paper's authors' scripts read (`utgrec.data.authors`)."""

import json
import shutil
from pathlib import Path

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.authors import IMAGES, MAPPING, PADDING, SENTENCES, SEQUENCES
from utgrec.data.export_files import mapping_of, toml_of
from utgrec.data.images import is_safe_name
from utgrec.data.options import MAPPING as SETTINGS
from utgrec.errors import InputError


def write_authors(domain: Domain, folder: Path) -> list[str]:
    """Write the files of a domain; what the format cannot hold.

    Pictures keep their bytes and are called ID.jpg whatever their kind: readers open them by their
    content.

    Raises:
        InputError: an item or user is called like the padding, or an item with a picture has an id
            that cannot be a file name.
    """
    ids, users = domain.catalog.item_ids, domain.user_ids
    if PADDING in ids or PADDING in users:
        raise InputError(f"an id is {PADDING!r}, which is the padding there; rename it")
    histories = {
        user: [ids[item] for item in domain.history(number)] for number, user in enumerate(users)
    }
    _write(folder / SEQUENCES, histories)
    _write(
        folder / MAPPING,
        {
            "user2id": _numbers(users),
            "item2id": _numbers(ids),
            "id2user": [PADDING, *users],
            "id2item": [PADDING, *ids],
        },
    )
    _write(folder / SENTENCES, dict(zip(ids, domain.catalog.texts, strict=True)))
    pictures = domain.catalog.images
    if any(pictures):
        (folder / IMAGES).mkdir()
    for item_id, picture in zip(ids, pictures, strict=True):
        if picture is None:
            continue
        if not is_safe_name(item_id):
            raise InputError(
                f"the picture of item {item_id!r} cannot be a file of that name; export as csv, "
                "parquet or recbole"
            )
        shutil.copyfile(picture, folder / IMAGES / f"{item_id}.jpg")
    settings = mapping_of(domain) | {"split": {"kind": "leave-one-out"}}
    storage.write_text(folder / SETTINGS, toml_of(settings))
    left_out = ["times (the place in a history stands for them)"]
    left_out += ["titles"] if any(domain.catalog.titles) else []
    left_out += domain.catalog.table.column_names[4:]
    if domain.split.kind != "leave-one-out":
        left_out.append(f"the split ({domain.split.words})")
    return left_out


def _numbers(names: list[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate([PADDING, *names])}


def _write(path: Path, value: object) -> None:
    storage.write_text(path, json.dumps(value, ensure_ascii=False))
