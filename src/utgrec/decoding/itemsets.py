"""Sets of items at one bit each, in the order of the trie, and attribute columns that make them.

A condition on a column is a set; conditions are put together by `&`, `|` and `~`, each a few
microseconds for a million items. `AllowedItems` pushes the result up the trie.

Shapes: N items · E entries of a column of lists.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from utgrec.decoding.kernels.native import find_functions
from utgrec.decoding.trie import CodeTrie
from utgrec.errors import InputError

Bits = npt.NDArray[np.uint8]
_FEW = 100  # a set of fewer than one item in so many is made bit by bit
SETS_KEPT = 64  # of each column, by value; 125 kB each for a million items


class ItemSet:
    """Some of a catalogue's items. Sets are never changed; operators make new ones."""

    def __init__(self, bits: Bits, size: int) -> None:
        """Use `of`, `of_items` or a column."""
        self.bits = (
            bits  # (ceil(N / 8),), the item at sorted position p is bit p % 8 of byte p // 8
        )
        self.size = size  # N

    @classmethod
    def of(cls, trie: CodeTrie, mask: Tensor | npt.NDArray[np.bool_]) -> "ItemSet":
        """The items where the mask holds. Shapes: mask (N,), bool.

        Raises:
            InputError: not one boolean per item.
        """
        mask = torch.as_tensor(mask)
        if mask.dtype != torch.bool or mask.shape != (trie.item_count,):
            raise InputError(
                f"the mask of allowed items must be boolean of shape ({trie.item_count},), got "
                f"{mask.dtype} of shape {tuple(mask.shape)}; make it for this catalogue"
            )
        return cls._packed(mask.to(trie.device)[trie.order].cpu().numpy())

    @classmethod
    def of_items(cls, trie: CodeTrie, items: Sequence[int] | npt.NDArray[np.integer]) -> "ItemSet":
        """These items, such as a list to allow or, after `~`, to deny.

        Raises:
            InputError: an index that the catalogue does not have.
        """
        places = np.asarray(items, dtype=np.int64)
        if places.size and not 0 <= places.min() <= places.max() < trie.item_count:
            raise InputError(
                f"items must be indices 0 … {trie.item_count - 1}, got {places.min()} … "
                f"{places.max()}; use the indices of this catalogue"
            )
        return cls.at(positions(trie)[places], trie.item_count)

    @classmethod
    def at(cls, places: npt.NDArray[np.integer], size: int) -> "ItemSet":
        """The items at sorted positions, of a catalogue of `size`."""
        if len(places) * _FEW > size:
            mask = np.zeros(size, dtype=np.bool_)
            mask[places] = True
            return cls._packed(mask)
        bits = np.zeros(-(-size // 8), dtype=np.uint8)
        np.bitwise_or.at(bits, places >> 3, np.left_shift(1, places & 7).astype(np.uint8))
        return cls(bits, size)

    @classmethod
    def _packed(cls, mask: npt.NDArray[np.bool_]) -> "ItemSet":
        return cls(np.packbits(mask, bitorder="little"), len(mask))

    def __and__(self, other: "ItemSet") -> "ItemSet":
        self._require_same(other)
        return ItemSet(self.bits & other.bits, self.size)

    def __or__(self, other: "ItemSet") -> "ItemSet":
        self._require_same(other)
        return ItemSet(self.bits | other.bits, self.size)

    def __invert__(self) -> "ItemSet":
        bits = ~self.bits
        if self.size % 8:
            bits[-1] &= (1 << self.size % 8) - 1  # no items beyond the last
        return ItemSet(bits, self.size)

    def __len__(self) -> int:
        return int(self.counts(np.array([0, self.size], dtype=np.int32))[0])

    @property
    def in_order(self) -> npt.NDArray[np.bool_]:
        """Whether each item is in the set, in the order of the trie. (N,)"""
        return np.unpackbits(self.bits, count=self.size, bitorder="little").view(np.bool_)

    def counts(self, starts: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """How many items of the set are between neighbouring sorted positions, (n + 1,) → (n,)."""
        functions = find_functions(torch.float32)
        if functions is None:
            return count_bits(self.bits, starts)
        counted = np.empty(len(starts) - 1, dtype=np.int32)
        functions.count_bits(
            self.bits.ctypes.data,
            len(self.bits),
            starts.ctypes.data,
            len(counted),
            counted.ctypes.data,
        )
        return counted

    def _require_same(self, other: "ItemSet") -> None:
        if self.size != other.size:
            raise InputError(
                f"sets of catalogues of {self.size} and {other.size} items cannot be put "
                "together; make them for the same one"
            )


class ItemColumn(Protocol):
    """An attribute of the items that conditions can be made of. No value meets no condition."""

    def any_of(self, values: Sequence[Any]) -> ItemSet:
        """The items that have one of these values."""

    def between(self, least: float | None, most: float | None) -> ItemSet:
        """The items with a value from `least` to `most`, both included; None is no bound."""


class ValueColumn:
    """One value per item, such as a price, a stock flag or a number that stands for a word."""

    def __init__(
        self,
        trie: CodeTrie,
        values: npt.NDArray[Any],
        missing: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Shapes: values (N,), missing (N,), where there is no value.

        Raises:
            InputError: not one value per item.
        """
        _require_length(trie, values)
        order = trie.order.cpu().numpy()
        self._values = values[order]  # (N,), in the order of the trie
        self._missing = None if missing is None else ItemSet.of(trie, missing)
        self._kept = _Kept()

    def any_of(self, values: Sequence[Any]) -> ItemSet:
        """See `ItemColumn.any_of`."""
        return self._kept.union(values, len(self._values), self._equal)

    def between(self, least: float | None, most: float | None) -> ItemSet:
        """See `ItemColumn.between`."""
        if least is None and most is None:
            return self._present(np.ones(len(self._values), dtype=np.bool_))
        if least is None or most is None:
            return self._present(self._values <= most if least is None else self._values >= least)
        met = self._values >= least
        met &= self._values <= most
        return self._present(met)

    def _equal(self, value: Any) -> ItemSet:
        return self._present(self._values == value)

    def _present(self, met: npt.NDArray[np.bool_]) -> ItemSet:
        found = ItemSet._packed(met)
        return found if self._missing is None else found & ~self._missing


class ListColumn:
    """Any number of values per item, such as categories: an item has each of them."""

    def __init__(
        self, trie: CodeTrie, values: npt.NDArray[Any], items: npt.NDArray[np.integer]
    ) -> None:
        """Shapes: values (E,), items (E,), the item that each entry belongs to.

        Raises:
            InputError: an item that the catalogue does not have.
        """
        if len(values) != len(items) or (len(items) and int(items.max()) >= trie.item_count):
            raise InputError(
                f"{len(values)} values belong to {len(items)} items up to "
                f"{int(items.max(initial=0))} of a catalogue of {trie.item_count}; give one item "
                "of this catalogue per value"
            )
        order = np.argsort(values, kind="stable")
        self._values = values[order]  # (E,), ascending
        self._places = positions(trie)[items[order]]  # (E,), sorted positions
        self._size = trie.item_count
        self._kept = _Kept()

    def any_of(self, values: Sequence[Any]) -> ItemSet:
        """See `ItemColumn.any_of`."""
        return self._kept.union(values, self._size, lambda value: self.between(value, value))

    def between(self, least: Any, most: Any) -> ItemSet:
        """See `ItemColumn.between`."""
        first = 0 if least is None else np.searchsorted(self._values, self._alike(least))
        end = None
        if most is not None:
            end = np.searchsorted(self._values, self._alike(most), side="right")
        return ItemSet.at(self._places[first:end], self._size)

    def _alike(self, value: Any) -> Any:
        """The value in the type of the column, if it has it: another makes numpy convert all."""
        same = np.asarray(value).astype(self._values.dtype)
        return same if same == value else value


class _Kept:
    """The sets of values that were asked for lately."""

    def __init__(self) -> None:
        self._sets: OrderedDict[Any, ItemSet] = OrderedDict()

    def union(self, values: Sequence[Any], size: int, make: Any) -> ItemSet:
        """The union of the values' sets, which `make` makes."""
        whole = ItemSet(np.zeros(-(-size // 8), dtype=np.uint8), size)
        for value in values:
            # Looked up and put back in single steps: threads may lose a set, never mix them up.
            found = self._sets.pop(value, None)
            found = make(value) if found is None else found
            self._sets[value] = found
            whole = whole | found
        while len(self._sets) > SETS_KEPT:
            self._sets.popitem(last=False)
        return whole


def count_bits(bits: Bits, starts: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """How many bits are set between neighbouring positions, (n + 1,) → (n,)."""
    before = np.zeros(len(bits) + 1, dtype=np.int32)
    np.cumsum(np.bitwise_count(bits), dtype=np.int32, out=before[1:])
    byte, lower = starts >> 3, (np.left_shift(1, starts & 7) - 1).astype(np.uint8)
    inside = np.append(bits, np.uint8(0)).take(byte) & lower
    counted: npt.NDArray[np.int32] = np.diff(before.take(byte) + np.bitwise_count(inside))
    return counted


def positions(trie: CodeTrie) -> npt.NDArray[np.int32]:
    """The sorted position of every item. (N,)"""
    found: npt.NDArray[np.int32] = trie.rank.cpu().numpy()
    return found


def _require_length(trie: CodeTrie, values: npt.NDArray[Any]) -> None:
    if values.shape != (trie.item_count,):
        raise InputError(
            f"a column must have one value for each of the {trie.item_count} items, got shape "
            f"{values.shape}; use a ListColumn for several values per item"
        )
