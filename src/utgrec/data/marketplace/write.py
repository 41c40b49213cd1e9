"""Write a marketplace: for every shop what its owner would bring, the domain, and the oracle.

OUT/sources/SHOP  items.jsonl, interactions.csv, images/ITEM.png
OUT/domains/SHOP  the prepared domain; its oracle in oracle/
"""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from utgrec import config as configs
from utgrec import storage
from utgrec.catalog import DOMAIN_MANIFEST
from utgrec.data.marketplace import oracle
from utgrec.data.marketplace.behaviour import NOTHING
from utgrec.data.marketplace.config import MarketplaceConfig
from utgrec.data.marketplace.pictures import draw_picture, draw_pose
from utgrec.data.marketplace.products import SHOPS
from utgrec.data.marketplace.sentences import describe
from utgrec.data.marketplace.simulation import Simulation, simulate
from utgrec.data.marketplace.world import random_stream
from utgrec.errors import SettingsMismatch, StorageError

_log = logging.getLogger(__name__)


def write_marketplace(
    out: Path, config: MarketplaceConfig, *, overwrite: bool = False
) -> list[Path]:
    """Simulate every shop and write its source, its domain and its oracle.

    A shop that is already there, made with the same settings, is left as it is.

    Returns:
        The domain folders, in the order of `config.shops`.

    Raises:
        SettingsMismatch: a shop is there, made with other settings, and `overwrite` is not set.
        StorageError: a folder to be written exists and was not simulated.
    """
    return [_write_shop(Path(out), config, shop, overwrite) for shop in config.shops]


def write_source(folder: Path, simulation: Simulation, config: MarketplaceConfig) -> None:
    """Write what the owner of one shop would bring: items, interactions, pictures.

    An existing folder is replaced.
    """
    with storage.new_folder(folder) as partial:
        _write_items(partial, simulation, config)
        _write_interactions(partial / "interactions.csv", simulation)
        settings = _settings_of(config, simulation.shelf.shop)
        storage.write_manifest(partial, stage="source", config=settings, inputs={})


def _write_shop(out: Path, config: MarketplaceConfig, shop: str, overwrite: bool) -> Path:
    from utgrec.data.prepare import TableOptions, prepare_table

    source, domain = out / "sources" / shop, out / "domains" / shop
    settings = _settings_of(config, shop)
    if _is_finished(domain, settings):
        _log.info("%s: simulated before with the same settings, left as it is", domain)
        return domain
    simulation = simulate(config, shop)
    if not _is_there(source, settings, overwrite):
        write_source(source, simulation, config)
    options = TableOptions(
        name=shop,
        k_core=1,
        time_unit="ms",
        source="simulated by utgrec.data.marketplace",
        licence="simulated data, free of rights",
        overwrite=overwrite,
    )
    prepare_table(source, domain, options)
    oracle.write_oracle(domain, simulation, settings)
    _log.info("%s: %d items, %d users", domain, config.items_per_shop, config.users_per_shop)
    return domain


def _settings_of(config: MarketplaceConfig, shop: str) -> dict[str, Any]:
    """What one shop depends on: all settings but the names of the other shops."""
    return {**configs.to_dict(config), "shops": [shop]}


def _is_finished(domain: Path, settings: dict[str, Any]) -> bool:
    made = storage.find_manifest(domain / oracle.FOLDER, "oracle")
    prepared = storage.find_manifest(domain, "domain", DOMAIN_MANIFEST)
    return (
        made is not None
        and prepared is not None
        and made.config == settings
        and made.inputs == {"domain": prepared.fingerprint}
    )


def _is_there(source: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Whether the source was written before; somebody's own folder is never replaced."""
    made = storage.find_manifest(source, "source")
    if made is None:
        if source.exists():
            raise StorageError(
                f"{source} exists and was not simulated; choose another folder for the marketplace"
            )
        return False
    if made.config == settings:
        return True
    if not overwrite:
        changed = [key for key in settings if made.config.get(key) != settings[key]]
        raise SettingsMismatch(
            f"{source} was simulated with other settings ({', '.join(changed)} differ); "
            "choose another folder, or replace it with overwrite=True"
        )
    return False


def _write_items(folder: Path, simulation: Simulation, config: MarketplaceConfig) -> None:
    shelf = simulation.shelf
    words = random_stream(config.seed, shelf.shop, "words")
    poses = random_stream(config.seed, shelf.shop, "poses")
    (folder / "images").mkdir()
    with open(folder / "items.jsonl", "w", encoding="utf-8") as stream:
        for item, item_id in enumerate(shelf.item_ids):
            product = SHOPS[shelf.shop][shelf.types[item]]
            style = shelf.style(item)
            title, description = describe(product, style, shelf.brands[item], words)
            pose = draw_pose(poses)
            row = {
                "item_id": item_id,
                "title": title,
                "brand": shelf.brands[item],
                "categories": [shelf.shop, product.section],
                "description": description,
                "price": shelf.prices[item],
                "image": None,
            }
            if shelf.pictured[item]:
                row["image"] = f"images/{item_id}.png"
                picture = draw_picture(product.name, style, pose, config.picture_size)
                picture.save(folder / "images" / f"{item_id}.png", compress_level=6)
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_interactions(path: Path, simulation: Simulation) -> None:
    """The log of the shop in the order of time."""
    users, events = np.nonzero(simulation.histories != NOTHING)
    times = simulation.times[users, events]
    order = np.lexsort((users, times))
    with open(path, "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("user_id", "item_id", "timestamp"))
        for user, event, time in zip(users[order], events[order], times[order], strict=True):
            item = simulation.histories[user, event]
            table.writerow((simulation.user_ids[user], simulation.shelf.item_ids[item], int(time)))
