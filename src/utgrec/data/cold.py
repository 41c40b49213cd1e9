"""Make items cold on purpose: a derived domain in which a share of the items is in no training.

Shops get new items every day, and a log that was split user by user has next to none: what is a
test item of one user is a training item of others. Here a seeded share of the items is held out.
Every interaction with such an item is taken away, except where it is a user's last one: there it
becomes the test item under the usual leave-one-out split. All stages work on the derived folder as
on any other; the catalogue stays whole, so that held-out items can be recommended.

Shapes: N items · I interactions · U users.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import LEAVE_ONE_OUT, Domain, write_domain
from utgrec.config import require
from utgrec.data.derived import derived_from, find_derived, link_pictures
from utgrec.errors import EmptyDomain

SUFFIX = "-cold"
SHORTEST = 3  # interactions that leave-one-out needs to hold out a test item


class HeldOut(NamedTuple):
    """What is held out of a log, and what stays."""

    items: npt.NDArray[np.int64]  # indices of the held-out items, ascending
    keep: npt.NDArray[np.bool_]  # (I,), interactions that stay
    cold_targets: int  # users whose test item is a held-out one


def hold_out_items(domain_folder: Path, share: float, seed: int, out: Path) -> storage.Manifest:
    """Write a derived domain folder, named NAME-cold, in which some items are in no training.

    A finished folder made from the same things is left as it is. Pictures are hard links where the
    file system allows them, else copies. An oracle is not taken over: it knows another log.

    Args:
        share: share of the items that occur in the log, in (0, 1).
        seed: draws the items.

    Returns:
        The manifest; its fact `cold` counts what was held out and removed.

    Raises:
        BadConfig: a share outside (0, 1), or one that gives no item at all.
        EmptyDomain: no user's last item is among those held out, so there is nothing to measure.
        SettingsMismatch: `out` was made with other settings or from another domain.
        StorageError: `out` holds something else, or is the domain itself.
    """
    domain = Domain.open(domain_folder)
    require(
        domain.split == LEAVE_ONE_OUT,
        f"items are held out by leave-one-out, but {domain.name} has the split "
        f"{domain.split.words!r}; it has cold items of its own, see the group 'cold'",
    )
    held = choose_items(domain, share, seed)
    config = {"share": share, "seed": seed}
    inputs = derived_from(domain)
    found = find_derived(Path(domain_folder), out, config, inputs)
    if found is not None:
        return found
    log = pq.read_table(Path(domain_folder) / "interactions.parquet")
    interactions = log.filter(pa.array(held.keep))
    base = domain.manifest.facts if domain.manifest is not None else {}
    facts: dict[str, Any] = {
        name: value for name, value in base.items() if name not in ("name", "counts")
    }
    facts["cold"] = {
        "of": domain.name,
        **config,
        "items": len(held.items),
        "interactions_removed": int((~held.keep).sum()),
        "users_with_cold_target": held.cold_targets,
    }
    with storage.new_folder(out) as folder:
        link_pictures(domain, folder)
        return write_domain(
            folder,
            name=domain.name + SUFFIX,
            items=domain.catalog.table,
            user_ids=domain.user_ids,
            interactions=interactions,
            config=config,
            inputs=inputs,
            facts=facts,
        )


def choose_items(domain: Domain, share: float, seed: int) -> HeldOut:
    """Draw the items, and say which interactions stay.

    A user who would be left with fewer than 3 interactions is training only, so their last one goes
    too if it is with a held-out item.

    Raises:
        BadConfig: a share outside (0, 1), or one that gives no item.
        EmptyDomain: no user's last item is among those held out.
    """
    require(
        isinstance(share, (int, float)) and 0 < share < 1,
        f"the share of cold items must be between 0 and 1, both excluded, got {share!r}",
    )
    taken = np.unique(domain.items).astype(np.int64)
    count = round(share * len(taken))
    require(
        0 < count < len(taken),
        f"a share of {share} of {len(taken)} items that occur in the log of {domain.name} is "
        f"{count}; give a share that holds out at least one item and leaves one",
    )
    rng = np.random.default_rng([seed, 3])
    items = np.sort(rng.choice(taken, count, replace=False))
    is_held = np.zeros(len(domain.catalog), dtype=np.bool_)
    is_held[items] = True
    held = is_held[domain.items]  # (I,)
    user = np.repeat(np.arange(domain.user_count), np.diff(domain.offsets))  # (I,)
    left = np.bincount(user[~held], minlength=domain.user_count)  # (U,)
    last = np.zeros(len(held), dtype=np.bool_)
    last[domain.offsets[1:][np.diff(domain.offsets) > 0] - 1] = True
    target = held & last & (left[user] + 1 >= SHORTEST)
    if not target.any():
        raise EmptyDomain(
            f"none of the {domain.user_count} users of {domain.name} ends with one of the {count} "
            f"held-out items (share {share}, seed {seed}); give a larger share or another seed"
        )
    return HeldOut(items, ~held | target, int(target.sum()))
