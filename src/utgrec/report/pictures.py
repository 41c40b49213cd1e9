"""Items as a report shows them: a small picture inside the file itself, and the title."""

import base64
import io
import logging
from pathlib import Path
from typing import NamedTuple

from utgrec.catalog import Catalog
from utgrec.errors import BadImage

SIDE = 96  # pixels, twice what is shown, for screens with fine pixels
QUALITY = 72
LONGEST = 240  # characters of a title; what is longer is cut

_log = logging.getLogger(__name__)


class Tile(NamedTuple):
    """One item."""

    item_id: str
    title: str  # the item's id where it has no title
    picture: str  # a data: address, or empty


class Gallery:
    """The items of one catalogue; every picture is read and made small once."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._pictures: dict[Path, str] = {}

    @property
    def has_pictures(self) -> bool:
        """Whether any item of the catalogue names a picture."""
        return any(path is not None for path in self.catalog.images)

    def tile(self, index: int) -> Tile:
        """What is shown of an item."""
        item_id = self.catalog.item_ids[index]
        path = self.catalog.images[index]
        title = " ".join(self.catalog.titles[index].split()) or item_id
        if len(title) > LONGEST:
            title = title[: LONGEST - 1].rstrip() + "…"
        return Tile(item_id, title, "" if path is None else self._picture(path))

    def _picture(self, path: Path) -> str:
        if path not in self._pictures:
            self._pictures[path] = thumbnail(path)
        return self._pictures[path]


def thumbnail(path: Path) -> str:
    """A picture of at most SIDE × SIDE pixels as a data: address; empty if it is unreadable."""
    from PIL import Image, features

    from utgrec.tokenizer.backbone import open_picture

    try:
        picture = open_picture(path)
    except BadImage as error:
        _log.warning("%s", error)
        return ""
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    kind = "webp" if features.check("webp") else "jpeg"
    stream = io.BytesIO()
    picture.save(stream, kind, quality=QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
