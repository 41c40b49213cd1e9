"""The rows of the generation to come: those published so far, and the changed items.

Shapes: N items of a generation · L codes per item.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from utgrec.errors import CorruptFile, FieldError, UnknownItem, named
from utgrec.serving.generations import GenerationStore
from utgrec.serving.items import NewItem
from utgrec.serving.rows import Rows


class Draft:
    """What a change starts from: the items of the current generation, the codes of all."""

    def __init__(self, store: GenerationStore) -> None:
        self.parent = store.current
        parent = store.open(self.parent)
        newest_number = max(store.numbers)
        self.newest = parent if newest_number == self.parent else store.open(newest_number)
        self.rows = _as_in(self.newest.rows, parent.rows, str(store.folder))
        self.count = len(self.rows.live)
        ids = self.rows.items.column("item_id").to_pylist()
        self.places: dict[str, int] = {item_id: place for place, item_id in enumerate(ids)}

    def is_live(self, item_id: str) -> bool:
        """Whether an item can be recommended."""
        place = self.places.get(item_id)
        return place is not None and bool(self.rows.live[place])

    def is_new(self, item_id: str) -> bool:
        """Whether an item that was written in has never been published before."""
        return self.places[item_id] >= self.count

    def require_live(self, item_ids: Sequence[str]) -> None:
        """Raise UnknownItem unless all these items can be recommended."""
        missing = [item_id for item_id in item_ids if not self.is_live(item_id)]
        if missing:
            raise UnknownItem(
                f"{are(missing)} not in generation {self.parent} of the catalogue; ids are "
                "compared exactly (case and spaces count)"
            ).about(
                FieldError.of(f"items.{place}.item_id", item_id, "is in the catalogue")
                for place, item_id in enumerate(item_ids)
                if item_id in missing
            )

    def codes_of(self, item_id: str) -> tuple[int, ...]:
        """The codes of an item."""
        return as_tuple(self.rows.codes[self.places[item_id]])

    def write(
        self, new: Sequence[NewItem], pictures: Mapping[str, str], store: GenerationStore
    ) -> Rows:
        """Rows with the new items written in; codes of those that come for the first time are 0.

        Adds the places of the new items.
        """
        number = max(store.numbers) + 1
        before = self.rows
        fresh = [one for one in new if one.item_id not in self.places]
        old = [one for one in new if one.item_id in self.places]
        self.places |= {one.item_id: self.count + row for row, one in enumerate(fresh)}
        columns = {}
        for field in before.items.schema:
            column = before.items.column(field.name)
            if any(self._names(one, field.name, pictures) for one in old):
                changed = column.to_pylist()
                for one in old:
                    place = self.places[one.item_id]
                    changed[place] = self._value(one, field.name, changed[place], pictures)
                column = pa.chunked_array([pa.array(changed, field.type)])
            if fresh:
                values = [self._value(one, field.name, None, pictures) for one in fresh]
                added = pa.array(values, field.type)
                column = pa.chunked_array([*column.chunks, added], field.type)
            columns[field.name] = column
        more = len(fresh)
        rows = Rows(
            items=pa.table(columns, schema=before.items.schema).combine_chunks(),
            codes=_longer(before.codes, more),
            live=_longer(before.live, more),
            since=_longer(before.since, more),
            conflict=_longer(before.conflict, more),
            distance=_longer(before.distance, more),
            own_picture=_longer(before.own_picture, more),
        )
        rows.since[self.count :] = number
        for one in new:
            rows.live[self.places[one.item_id]] = True
        for item_id in pictures:
            rows.own_picture[self.places[item_id]] = True
        return rows

    def _names(self, one: NewItem, column: str, pictures: Mapping[str, str]) -> bool:
        """Whether an item says anything about a column."""
        return column in one.values or (column == "image" and one.item_id in pictures)

    def _value(self, one: NewItem, column: str, before: Any, pictures: Mapping[str, str]) -> Any:
        if column == "item_id":
            return one.item_id
        if column == "image":
            return pictures.get(one.item_id, before)
        return one.values.get(column, before)


def _as_in(newest: Rows, parent: Rows, where: str) -> Rows:
    """The rows of the newest generation, with those that the parent knows as they are there."""
    if newest is parent:
        return parent
    count = len(parent.live)
    same = newest.items.column("item_id").slice(0, count).equals(parent.items.column("item_id"))
    if not same or not np.array_equal(newest.codes[:count], parent.codes):
        raise CorruptFile(
            f"the newest generation in {where} does not go on from the current one: folders were "
            "removed or copied by hand; restore them, or move all of them away to begin anew"
        )
    later = newest.items.slice(count)
    return Rows(
        items=pa.concat_tables([parent.items, later]).combine_chunks(),
        codes=newest.codes,
        live=_longer(parent.live, len(newest.live) - count),
        since=newest.since,
        conflict=newest.conflict,
        distance=np.concatenate([parent.distance, newest.distance[count:]]),
        own_picture=np.concatenate([parent.own_picture, newest.own_picture[count:]]),
    )


def _longer(values: npt.NDArray[Any], more: int) -> npt.NDArray[Any]:
    """A copy with `more` rows of zeros at the end."""
    return np.concatenate([values, np.zeros((more, *values.shape[1:]), dtype=values.dtype)])


def as_tuple(codes: npt.NDArray[np.int16]) -> tuple[int, ...]:
    """The codes of one item as plain integers."""
    return tuple(int(code) for code in codes)


def are(item_ids: Sequence[str]) -> str:
    """Some ids and a verb that fits them."""
    return f"{named(item_ids)} {'is' if len(item_ids) == 1 else 'are'}"
