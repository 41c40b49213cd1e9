"""Hold a prepared domain against the paper's counts, and say in words how they compare."""

from typing import Any

import numpy as np
import numpy.typing as npt

from utgrec.data.amazon2023.presets import Counts, find_preset
from utgrec.data.event_store import Selected


def training_pairs(users: npt.NDArray[np.integer[Any]]) -> int:
    """Pairs (prefix of a training history, next item). Shape: users (n,), the user of each event.

    Leave-one-out takes two items of every user with three or more; h items left give h - 1 pairs.
    """
    lengths = np.bincount(users)
    return int(np.maximum(np.where(lengths >= 3, lengths - 3, lengths - 1), 0).sum())


def against_paper(category: str, selected: Selected) -> dict[str, Any]:
    """What the manifest of the domain records about the paper's counts.

    `law` says whether training pairs = interactions − 3 · users, as for any 5-core.
    """
    found = Counts(
        users=len(selected.user_ids),
        items=len(selected.item_ids),
        interactions=len(selected.users),
        training_pairs=training_pairs(selected.users),
    )
    preset = find_preset(category)
    stated = preset.counts if preset is not None else None
    return {
        "found": found._asdict(),
        "law": found.training_pairs == found.interactions - 3 * found.users,
        "stated": None if stated is None else stated._asdict(),
        "match": None if stated is None else found == stated,
    }


def in_words(category: str, check: dict[str, Any]) -> list[str]:
    """The comparison as sentences, for a person."""
    found = check["found"]
    pairs = f"{found['training_pairs']:,} training pairs"
    words = [
        f"{pairs} = {found['interactions']:,} interactions − 3 · {found['users']:,} users"
        if check["law"]
        else f"{pairs} are not interactions − 3 · users: some users have fewer than 3 interactions"
    ]
    stated = check["stated"]
    if stated is None:
        words.append(f"The paper states no counts for {category}.")
    elif check["match"]:
        words.append("Users, items, interactions and training pairs equal the paper's.")
    else:
        differences = ", ".join(
            f"{name.replace('_', ' ')} {found[name]:,} instead of {stated[name]:,} "
            f"({found[name] - stated[name]:+,})"
            for name in Counts._fields
            if found[name] != stated[name]
        )
        words.append(
            f"Not the paper's domain: {differences}. Are the files whole, and the settings those "
            "of the paper (5-core, first of repeated reviews)?"
        )
    return words
