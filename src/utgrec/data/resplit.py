"""A derived domain: the same catalogue and the same log, divided by another split."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from utgrec import storage
from utgrec.catalog import Domain, write_domain
from utgrec.config import require, to_dict
from utgrec.data.derived import derived_from, find_derived, link_pictures
from utgrec.data.split import divide
from utgrec.data.splitting import SplitOptions, choose_split, split_counts

SUFFIX = {"leave-one-out": "-last", "global-time": "-time"}


def resplit_domain(
    domain_folder: Path, options: SplitOptions, out: Path, *, name: str = ""
) -> storage.Manifest:
    """Write a domain folder with the content of another one and its own split.

    A finished folder made from the same things is left as it is. Pictures are hard links where the
    file system allows them, else copies. An oracle is not taken over: it is tied to one domain.

    Args:
        name: of the new domain; empty = the other one's with "-time" or "-last" added.

    Raises:
        InputError: a global-time split of a log without times.
        EmptyDomain: training, validation or test would be empty.
        SettingsMismatch: `out` was made with other settings or from another domain.
        StorageError: `out` holds something else, or is the domain itself.
    """
    domain = Domain.open(domain_folder)
    base = domain.manifest.facts if domain.manifest is not None else {}
    rule = choose_split(options, domain.timestamps, base.get("time", {}))
    name = name or domain.name + SUFFIX[options.kind]
    require(name != domain.name, f"the derived domain needs another name than {domain.name!r}")
    config = {"name": name, "split": to_dict(options)}
    inputs = derived_from(domain)
    found = find_derived(Path(domain_folder), out, config, inputs)
    if found is not None:
        return found
    divided = divide(domain.offsets, domain.items, domain.timestamps, rule)
    facts: dict[str, Any] = {
        key: value for key, value in base.items() if key not in ("name", "counts")
    }
    facts["split"] = split_counts(divided, domain.interaction_count)
    facts["derived_from"] = domain.name
    with storage.new_folder(out) as folder:
        link_pictures(domain, folder)
        return write_domain(
            folder,
            name=name,
            items=domain.catalog.table,
            user_ids=domain.user_ids,
            interactions=pq.read_table(Path(domain_folder) / "interactions.parquet"),
            config=config,
            inputs=inputs,
            facts=facts,
            split=rule,
        )
