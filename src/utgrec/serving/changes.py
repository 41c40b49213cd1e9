"""Add, remove and replace items of a live catalogue: each change publishes a new generation.

New items get free codes beside those that are published, which never move. A removed item keeps
its codes, so that histories with it stay readable; when it comes back, it has them again.

Shapes: N items of a generation · n changed items · L codes per item · D code dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from utgrec.config import to_dict
from utgrec.errors import BadImage, FieldError, InputError
from utgrec.serving.coder import Coder, RunCoder
from utgrec.serving.draft import Draft, are, as_tuple
from utgrec.serving.drift import DriftReport, Histories, report_drift
from utgrec.serving.generations import Delta, Generation, GenerationStore
from utgrec.serving.items import ItemReader, NewItem
from utgrec.serving.pictures import MAX_PIXELS, keep_picture
from utgrec.serving.rows import Rows
from utgrec.tokenizer.assignment import assign_codes, code_distances


class Published(NamedTuple):
    """What a change came to."""

    generation: int
    active: bool  # whether it serves now
    codes: dict[str, tuple[int, ...]]  # of the changed items
    delta: Delta
    drift: DriftReport


class CatalogEditor:
    """Changes the catalogue of one domain of a run."""

    def __init__(
        self,
        store: GenerationStore,
        coder: Coder | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """`coder` is the run's own tokenizer by default; a picture has at most `max_pixels`."""
        self.store = store
        self._max_pixels = max_pixels
        self._coder = coder or RunCoder(store.run.tokenizer)
        self._histories = Histories(store)

    @property
    def coder(self) -> Coder:
        """What encodes new items."""
        return self._coder

    def add(
        self,
        items: Sequence[Mapping[str, Any]],
        pictures: Mapping[str, bytes | str] | None = None,
        *,
        activate: bool = True,
    ) -> Published:
        """Publish new items; one that was removed earlier comes back with its codes.

        Fields that are left out of a returning item are as they were, as in `replace`.

        Args:
            items: as in `ItemReader.read`, without their pictures.
            pictures: item id → the bytes of its picture, or where `keep_picture` put them.
            activate: whether the new generation serves at once.

        Raises:
            InputError: an item that cannot be read, that is there already, or with neither words
                nor picture; or no codes are left. Nothing was published then.
        """
        with self.store.writing():
            base = Draft(self.store)
            new = self._read(base, items, pictures or {})
            there = [place for place, one in enumerate(new) if base.is_live(one.item_id)]
            if there:
                raise _about(
                    new,
                    there,
                    "already in the catalogue; change them with replace, or give new items other "
                    "ids",
                    "is not in the catalogue",
                )
            kept = self._keep(new, pictures or {})
            empty = [
                place
                for place, one in enumerate(new)
                if one.item_id not in base.places
                and not one.values.get("text")
                and one.item_id not in kept
            ]
            if empty:
                raise _about(
                    new,
                    empty,
                    "without words and without picture, so there is nothing to encode; give title, "
                    "text or another field of words",
                    "has words or a picture",
                )
            rows, codes = self._place(base, new, kept)
            ids = [one.item_id for one in new]
            delta = Delta(
                added=[item_id for item_id in ids if base.is_new(item_id)],
                restored=[item_id for item_id in ids if not base.is_new(item_id)],
            )
            return self._publish(base, rows, delta, codes, activate)

    def replace(
        self,
        items: Sequence[Mapping[str, Any]],
        pictures: Mapping[str, bytes | str] | None = None,
        *,
        activate: bool = True,
    ) -> Published:
        """Change what items are; their codes stay.

        A field that is left out keeps its value, except that words belong together: with one of
        them the whole sentence is made anew of those given.

        Raises:
            UnknownItem: an item that is not in the catalogue.
            InputError: an item that cannot be read. Nothing was published then.
        """
        with self.store.writing():
            base = Draft(self.store)
            new = self._read(base, items, pictures or {})
            base.require_live([one.item_id for one in new])
            rows, codes = self._place(base, new, self._keep(new, pictures or {}))
            delta = Delta(replaced=[one.item_id for one in new])
            return self._publish(base, rows, delta, codes, activate)

    def remove(self, item_ids: Sequence[str], *, activate: bool = True) -> Published:
        """Stop recommending items; histories with them stay readable.

        Raises:
            UnknownItem: an item that is not in the catalogue. Nothing was published then.
        """
        item_ids = list(dict.fromkeys(item_ids))
        if not item_ids:
            raise InputError("no item was named; give the ids of those to remove")
        with self.store.writing():
            base = Draft(self.store)
            base.require_live(item_ids)
            places = np.array([base.places[item_id] for item_id in item_ids], dtype=np.int64)
            live = base.rows.live.copy()
            live[places] = False
            rows = base.rows._replace(live=live)
            codes = {item_id: base.codes_of(item_id) for item_id in item_ids}
            return self._publish(base, rows, Delta(removed=item_ids), codes, activate)

    def _read(
        self,
        base: Draft,
        items: Sequence[Mapping[str, Any]],
        pictures: Mapping[str, bytes | str],
    ) -> list[NewItem]:
        if not items:
            raise InputError("no item was given; give at least one")
        new = ItemReader(base.rows.items.schema, self.store.domain_folder).read(items)
        strangers = sorted(set(pictures) - {one.item_id for one in new})
        if strangers:
            raise InputError(
                f"of the ids that pictures were given for, {are(strangers)} not among the items; "
                "use the same ids"
            )
        return new

    def _keep(self, new: Sequence[NewItem], pictures: Mapping[str, bytes | str]) -> dict[str, str]:
        kept = {}
        for item_id, picture in pictures.items():
            if isinstance(picture, bytes):
                try:
                    picture = keep_picture(picture, self.store.folder, self._max_pixels)
                except BadImage as error:
                    place = [one.item_id for one in new].index(item_id)
                    raise BadImage(f"the picture of item {item_id!r}: {error}").about(
                        one._replace(field=f"items.{place}.{one.field}") for one in error.fields
                    ) from error
            kept[item_id] = picture
        return kept

    def _place(
        self, base: Draft, new: Sequence[NewItem], pictures: Mapping[str, str]
    ) -> tuple[Rows, dict[str, tuple[int, ...]]]:
        """The rows with the new items in them, and the codes of those."""
        rows = base.write(new, pictures, self.store)
        # What only changes its price or stock is as far from its codes as before.
        changed = [
            one
            for one in new
            if one.has_words or one.item_id in pictures or base.is_new(one.item_id)
        ]
        if changed:
            self._encode(base, rows, changed)
        codes = {one.item_id: as_tuple(rows.codes[base.places[one.item_id]]) for one in new}
        return rows, codes

    def _encode(self, base: Draft, rows: Rows, changed: Sequence[NewItem]) -> None:
        """Place items without codes, and measure how far all of them are from theirs."""
        places = np.array([base.places[one.item_id] for one in changed], dtype=np.int64)  # (n,)
        catalog = Generation(base.newest.manifest, rows, self.store.pictures).catalog
        states = self._coder.states(
            [catalog.texts[place] for place in places], [catalog.images[place] for place in places]
        )  # (n, L, D)
        quantizer = self._coder.quantizer
        fresh = np.flatnonzero(places >= base.count).tolist()
        assignment = assign_codes(
            states[fresh],
            [changed[row].item_id for row in fresh],
            quantizer,
            published=base.rows.codes,
        )
        rows.codes[places[fresh]] = assignment.codes
        rows.conflict[places[fresh]] = assignment.conflict
        with torch.no_grad():
            distance = code_distances(states, torch.from_numpy(rows.codes[places]), quantizer)
        rows.distance[places] = distance.numpy()

    def _publish(
        self,
        base: Draft,
        rows: Rows,
        delta: Delta,
        codes: dict[str, tuple[int, ...]],
        activate: bool,
    ) -> Published:
        gone = self._histories.share_with(~rows.live)
        drift = report_drift(rows, base.newest.sizes, gone)
        made = self.store.publish(
            rows, parent=base.parent, delta=delta, drift=to_dict(drift), activate=activate
        )
        return Published(made.facts["number"], activate, codes, delta, drift)


def _about(new: Sequence[NewItem], places: Sequence[int], what: str, rule: str) -> InputError:
    """An error about some of the new items, by their places among them."""
    ids = [new[place].item_id for place in places]
    return InputError(f"{are(ids)} {what}").about(
        FieldError.of(f"items.{place}.item_id", item_id, rule)
        for place, item_id in zip(places, ids, strict=True)
    )
