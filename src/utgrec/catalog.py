"""Items, catalogues and domains: plain data, and the domain folder they live in.

A domain folder holds `items.parquet` (row number = item index), `users.parquet` (row number = user
index), `interactions.parquet` (user, item, timestamp; sorted by user, time, source order),
`images/` and, written last, `domain.json`.
"""

import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.config import from_dict, require, to_dict
from utgrec.errors import BadConfig, CorruptFile, UnknownItem, named

DOMAIN_MANIFEST = "domain.json"
SPLIT_FILE = "split.json"
CORE_COLUMNS = ("item_id", "title", "text", "image")

SplitKind = Literal["leave-one-out", "global-time"]

Ints = npt.NDArray[np.integer[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How a domain's interactions are divided; everything that learns or measures obeys it."""

    kind: SplitKind = "leave-one-out"
    """leave-one-out: each user's last item is test, the one before validation. global-time: what
    comes before `valid_from` trains, whoever did it."""
    valid_from: int | None = None
    """global-time: interactions from this time on do not train (ms since 1970)."""
    test_from: int | None = None
    """global-time: interactions from this time on are test (ms since 1970)."""

    def __post_init__(self) -> None:
        kinds, cuts = get_args(SplitKind), (self.valid_from, self.test_from)
        require(self.kind in kinds, f"split is {self.kind!r}; it is one of {', '.join(kinds)}")
        if self.kind == "leave-one-out":
            require(cuts == (None, None), f"leave-one-out has no points in time, got {cuts}")
        else:
            whole = all(isinstance(cut, int) and not isinstance(cut, bool) for cut in cuts)
            require(
                whole and cuts[0] < cuts[1],  # type: ignore[operator]
                f"a global-time split needs valid_from before test_from (ms), got {cuts}",
            )

    @property
    def words(self) -> str:
        """The rule in words, for reports."""
        if self.kind == "leave-one-out":
            return "leave-one-out: last item test, the one before validation"
        return (
            f"global time: training before {_moment(self.valid_from)}, "
            f"test from {_moment(self.test_from)}"
        )


LEAVE_ONE_OUT = SplitRule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to recommend."""

    item_id: str
    """The shop's own id: any text, never used as a path."""
    title: str
    """What people call it; may be empty."""
    text: str
    """The one cleaned sentence that the models read; may be empty."""
    image: Path | None
    """The picture's file, or None."""
    attributes: dict[str, Any]
    """Values for filters and display: category (list of strings), price (float), …"""


class Catalog:
    """All items of one domain, in the order of their indices 0 … N-1."""

    def __init__(self, table: pa.Table, folder: Path | None = None) -> None:
        """`table` has the columns item_id, title, text, image and any attributes.

        Relative image paths are taken from `folder`.
        """
        missing = [name for name in CORE_COLUMNS if name not in table.column_names]
        if missing:
            raise CorruptFile(
                f"the items table lacks {', '.join(missing)}; prepare the domain again"
            )
        self.table = table
        self.folder = folder
        self.item_ids: list[str] = table.column("item_id").to_pylist()
        self._index = {item_id: index for index, item_id in enumerate(self.item_ids)}

    def __len__(self) -> int:
        return len(self.item_ids)

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._index

    def __getitem__(self, index: int) -> Item:
        row = {name: self.table.column(name)[index].as_py() for name in self.table.column_names}
        core = {name: row.pop(name) for name in CORE_COLUMNS}
        return Item(
            item_id=core["item_id"],
            title=core["title"] or "",
            text=core["text"] or "",
            image=self._image_path(core["image"]),
            attributes=row,
        )

    @cached_property
    def titles(self) -> list[str]:
        """The title of every item, in index order."""
        return [title or "" for title in self.table.column("title").to_pylist()]

    @cached_property
    def texts(self) -> list[str]:
        """The sentence of every item, in index order."""
        return [text or "" for text in self.table.column("text").to_pylist()]

    @cached_property
    def images(self) -> list[Path | None]:
        """The picture's file of every item, in index order."""
        return [self._image_path(image) for image in self.table.column("image").to_pylist()]

    def index_of(self, item_id: str) -> int:
        """The index of one item.

        Raises:
            UnknownItem: the catalogue does not hold the id.
        """
        try:
            return self._index[item_id]
        except KeyError:
            raise UnknownItem(
                f"item {item_id!r} is not in this catalogue of {len(self)} items; "
                "ids are compared exactly (case and spaces count)"
            ) from None

    def indices_of(self, item_ids: Sequence[str]) -> list[int]:
        """The indices of several items; every unknown id is named in one error."""
        unknown = [item_id for item_id in item_ids if item_id not in self._index]
        if unknown:
            raise UnknownItem(
                f"not in this catalogue of {len(self)} items: {named(unknown)}; "
                "ids are compared exactly (case and spaces count)"
            )
        return [self._index[item_id] for item_id in item_ids]

    def _image_path(self, image: str | None) -> Path | None:
        if not image:
            return None
        return Path(image) if self.folder is None else self.folder / image


class Domain:
    """One catalogue and its interactions.

    `items[offsets[u]:offsets[u + 1]]` are the item indices of user `u` in time order.
    """

    def __init__(
        self,
        *,
        name: str,
        catalog: Catalog,
        user_ids: list[str],
        offsets: npt.NDArray[np.int64],
        items: npt.NDArray[np.int32],
        timestamps: npt.NDArray[np.int64],
        folder: Path | None = None,
        manifest: storage.Manifest | None = None,
        split: SplitRule = LEAVE_ONE_OUT,
    ) -> None:
        self.name = name
        self.catalog = catalog
        self.user_ids = user_ids
        self.offsets = offsets  # (U + 1,)
        self.items = items  # (interactions,)
        self.timestamps = timestamps  # (interactions,), milliseconds since 1970
        self.folder = folder
        self.manifest = manifest
        self.split = split

    @property
    def user_count(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def interaction_count(self) -> int:
        """Number of interactions."""
        return len(self.items)

    @property
    def fingerprint(self) -> str:
        """Identifies the content of the folder this domain was read from."""
        if self.manifest is None:
            raise ValueError("a domain that was not read from a folder has no fingerprint")
        return self.manifest.fingerprint

    def history(self, user: int) -> npt.NDArray[np.int32]:
        """All items of one user in time order."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @classmethod
    def open(cls, folder: str | Path) -> "Domain":
        """Read a domain folder.

        Raises:
            MissingStage, FormatVersionError, CorruptFile: the folder cannot be used.
        """
        folder = Path(folder)
        manifest = storage.read_manifest(folder, "domain", DOMAIN_MANIFEST)
        paths = [
            storage.check_file(folder, manifest, name)
            for name in ("items.parquet", "users.parquet", "interactions.parquet")
        ]
        items, users, interactions = (pq.read_table(path) for path in paths)
        user = interactions.column("user").to_numpy()
        counts = np.bincount(user, minlength=users.num_rows)
        return cls(
            name=manifest.facts["name"],
            catalog=Catalog(items, folder),
            user_ids=users.column("user_id").to_pylist(),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            items=interactions.column("item").to_numpy(),
            timestamps=interactions.column("timestamp").to_numpy(),
            folder=folder,
            manifest=manifest,
            split=_read_split(folder, manifest),
        )


def write_domain(
    folder: Path,
    *,
    name: str,
    items: pa.Table,
    user_ids: list[str],
    interactions: pa.Table,
    config: dict[str, Any],
    inputs: dict[str, str],
    facts: dict[str, Any],
    rejected: pa.Table | None = None,
    split: SplitRule = LEAVE_ONE_OUT,
) -> storage.Manifest:
    """Write the tables of a domain into `folder` (a temporary one), the manifest last.

    `items` needs item_id, title, text, image; `interactions` needs user (int32), item (int32) and
    timestamp (int64, ms), sorted by user, then time, then source order. Images are already there.
    `facts` gets the name, the counts and the split added. A split by time is also a file of its
    own: its hash makes the same log with another split another domain, for all that reads it.
    """
    pq.write_table(_named_alike(items), folder / "items.parquet", compression="zstd")
    pq.write_table(pa.table({"user_id": user_ids}), folder / "users.parquet", compression="zstd")
    pq.write_table(interactions, folder / "interactions.parquet", compression="zstd")
    if rejected is not None and rejected.num_rows:
        pq.write_table(rejected, folder / "rejected.parquet", compression="zstd")
    if split != LEAVE_ONE_OUT:
        storage.write_json(folder / SPLIT_FILE, to_dict(split))
    characters = pc.binary_length(items.column("text").cast(pa.large_string()))
    counts = {
        "users": len(user_ids),
        "items": items.num_rows,
        "interactions": interactions.num_rows,
        "items_with_text": pc.sum(pc.greater(characters, 0)).as_py() or 0,
        "items_with_image": items.num_rows - items.column("image").null_count,
    }
    return storage.write_manifest(
        folder,
        stage="domain",
        config=config,
        inputs=inputs,
        facts={
            "name": name,
            "counts": counts,
            **facts,
            "split": {**facts.get("split", {}), **to_dict(split), "words": split.words},
        },
        name=DOMAIN_MANIFEST,
    )


def _named_alike(table: pa.Table) -> pa.Table:
    """The same table whose lists call their entries what a new list does.

    Parquet gives them another name, so a domain read and written again would have other bytes.
    """
    fields = [
        field.with_type(pa.list_(field.type.value_type)) if pa.types.is_list(field.type) else field
        for field in table.schema
    ]
    columns = [column.cast(field.type) for column, field in zip(table.columns, fields, strict=True)]
    return pa.table(columns, schema=pa.schema(fields))


def _read_split(folder: Path, manifest: storage.Manifest) -> SplitRule:
    """The split of a domain folder; one that tells none is leave-one-out."""
    told = manifest.facts.get("split", {})
    kept: dict[str, Any] = {}
    if SPLIT_FILE in manifest.files:
        kept = storage.read_json(storage.check_file(folder, manifest, SPLIT_FILE))
    try:
        rule = from_dict(SplitRule, kept)
        same = rule == from_dict(
            SplitRule, {name: told[name] for name in kept or () if name in told}
        )
        if same and told.get("kind", rule.kind) == rule.kind:
            return rule
    except (BadConfig, TypeError, AttributeError) as error:
        raise CorruptFile(
            f"{folder} tells no split that can be ({error}); make it again"
        ) from error
    raise CorruptFile(
        f"{folder}: {DOMAIN_MANIFEST} tells another split than {SPLIT_FILE}; a split is not "
        "changed by hand, derive a domain with `utgrec prepare split`"
    )


def _moment(ms: int | None) -> str:
    """A time in words; positions of simulated or bare logs stay numbers."""
    if ms is None or not 0 <= ms < 253_402_300_800_000:  # the year 10000
        return str(ms)
    moment = datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
