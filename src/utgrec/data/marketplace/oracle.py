"""The best possible recommender of a simulated shop: it knows what every user really wants.

An oracle lies beside its domain, in `DOMAIN/oracle/`. It is tied to that very domain by the
domain's fingerprint, and finds items and users by their ids, whatever their order there.

Shapes: B users of a call · N items of the domain.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import Domain, Ints
from utgrec.data.marketplace.behaviour import Behaviour, blocks, pad_histories
from utgrec.data.marketplace.products import SHOPS
from utgrec.data.marketplace.simulation import Simulation
from utgrec.data.marketplace.world import STYLES, Integers
from utgrec.errors import InputError, SettingsMismatch

FOLDER = "oracle"
_NUMBERS = "behaviour.safetensors"
_ITEMS = "items.parquet"
_USERS = "users.parquet"


class Oracle:
    """The true distribution of every next item of one domain."""

    def __init__(
        self, behaviour: Behaviour, items: Integers, users: Integers, truth: pa.Table
    ) -> None:
        """`items` (N,) and `users` (U,): the simulator's number of each of the domain's.

        `truth` has N rows, one for each of the domain's items in its order.
        """
        self.behaviour = behaviour
        self.truth = truth  # item_id, product, colour, pattern, material, theme, purpose, cold
        self.items = items
        self.users = users

    @classmethod
    def open(cls, domain_folder: str | Path) -> "Oracle":
        """Read the oracle of a simulated domain.

        Raises:
            MissingStage: the domain was not made by the marketplace.
            SettingsMismatch: the oracle belongs to another domain.
            InputError: the domain has items or users that the simulator never made.
            CorruptFile, FormatVersionError: a file is not what was written.
        """
        domain = Domain.open(domain_folder)
        folder = Path(domain_folder) / FOLDER
        manifest = storage.read_manifest(folder, "oracle")
        if manifest.inputs.get("domain") != domain.fingerprint:
            raise SettingsMismatch(
                f"the oracle in {folder} was made for another domain "
                f"({manifest.inputs.get('domain', 'unknown')[:12]}, this one is "
                f"{domain.fingerprint[:12]}); simulate the marketplace again"
            )
        numbers, items, users = (
            storage.check_file(folder, manifest, name) for name in (_NUMBERS, _ITEMS, _USERS)
        )
        truth = pq.read_table(items)
        places = _places(truth.column("item_id").to_pylist(), domain.catalog.item_ids)
        return cls(
            _read_behaviour(numbers),
            places,
            _places(pq.read_table(users).column("user_id").to_pylist(), domain.user_ids),
            truth.take(places),
        )

    def scores(self, users: Ints, histories: Sequence[Ints]) -> npt.NDArray[np.float32]:
        """True log-probability of each item to be the user's next one; -inf where it cannot be.

        A history is everything that the user took so far, oldest first: how much of it there is
        tells the oracle which event comes next, and nobody takes an item twice.

        Shapes: users (B,), the domain's user indices; histories B × (length,), the domain's item
        indices → (B, N), float32.

        Raises:
            InputError: not one history for each user, or an index that the domain does not have.
        """
        persons: Integers = np.asarray(users, dtype=np.int64)
        if len(persons) != len(histories):
            raise InputError(
                f"got {len(persons)} users and {len(histories)} histories; give each user one"
            )
        taken = [np.asarray(history, dtype=np.int64) for history in histories]
        _check_range("users", persons, len(self.users))
        _check_range("items", np.concatenate([*taken, persons[:0]]), len(self.items))
        scores = np.empty((len(persons), len(self.items)), dtype=np.float32)  # (B, N)
        for block in blocks(len(persons)):
            known = pad_histories([self.items[history] for history in taken[block]])
            everything = self.behaviour.log_probabilities(self.users[persons[block]], known)
            scores[block] = everything[:, self.items]
        return scores


def write_oracle(
    domain_folder: Path, simulation: Simulation, config: dict[str, Any]
) -> storage.Manifest:
    """Write what the simulator knows beside the finished domain of the same shop.

    `config` is kept in the manifest: the settings of the simulation.
    """
    from safetensors.numpy import save_file

    domain = Domain.open(domain_folder)
    shelf = simulation.shelf
    truth = {
        "item_id": shelf.item_ids,
        "product": [SHOPS[shelf.shop][place].name for place in shelf.types],
        **{
            kind: [values[place] for place in shelf.styles[:, column]]
            for column, (kind, values) in enumerate(STYLES.items())
        },
        "cold": shelf.cold,
    }
    with storage.new_folder(domain_folder / FOLDER) as folder:
        fields = dataclasses.asdict(simulation.behaviour)
        arrays = {name: np.ascontiguousarray(value) for name, value in fields.items()}
        save_file(arrays, folder / _NUMBERS)
        pq.write_table(pa.table(truth), folder / _ITEMS, compression="zstd")
        users = pa.table({"user_id": simulation.user_ids})
        pq.write_table(users, folder / _USERS, compression="zstd")
        return storage.write_manifest(
            folder, stage="oracle", config=config, inputs={"domain": domain.fingerprint}
        )


def _read_behaviour(path: Path) -> Behaviour:
    from safetensors.numpy import load_file

    arrays = load_file(path)
    return Behaviour(**arrays | {"drift_events": arrays["drift_events"].item()})


def _check_range(what: str, indices: Integers, count: int) -> None:
    """Refuse indices outside the domain; -1 would silently mean the last one."""
    wrong = indices[(indices < 0) | (indices >= count)]
    if len(wrong):
        raise InputError(
            f"{what} must be indices of the domain, 0 to {count - 1}, got {wrong[0]}; "
            "give histories without padding"
        )


def _places(ours: list[str], theirs: list[str]) -> Integers:
    """Where each of the domain's ids is in the simulator's order."""
    place = {name: number for number, name in enumerate(ours)}
    unknown = [name for name in theirs if name not in place]
    if unknown:
        raise InputError(
            f"the oracle does not know {len(unknown)} ids of this domain, {unknown[0]!r} first; "
            "simulate the marketplace again"
        )
    return np.array([place[name] for name in theirs], dtype=np.int64)
