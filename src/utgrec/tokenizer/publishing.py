"""Make a tokenizer into a folder for others: everything to open it anywhere, and a card about it.

The folder is a tokenizer stage of its own, so `ItemTokenizer.from_pretrained` opens it. Paths of
this machine are not in it; a pretrained base model is named, not copied.
"""

import importlib.metadata
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utgrec import storage
from utgrec.config import require
from utgrec.tokenizer.model_card import write_card
from utgrec.tokenizer.pretrained import BASE_FILE, STAGE

CONFIG_FILE, REPORT_FILE, CARD_FILE, LICENCE_FILE = (
    "config.json",
    "code_report.json",
    "README.md",
    "LICENSE",
)
ADAPTER_CONFIG = "adapter/adapter_config.json"
LEFT_OUT = ("losses.jsonl",)
APACHE = "apache-2.0"


def publish_tokenizer(
    tokenizer: Path,
    out: Path,
    *,
    name: str,
    reports: Mapping[str, Mapping[str, Any]],
    licence: str = APACHE,
    backbone: str | None = None,
) -> storage.Manifest:
    """Write a finished tokenizer as a folder to publish.

    Args:
        name: what the card calls it.
        reports: domain → report of the codes that it gave there.
        licence: SPDX name of the licence that the tokenizer's own weights are given under.
        backbone: public name of the base model, where it was trained on a folder.

    Raises:
        MissingStage, FormatVersionError, CorruptFile: the tokenizer cannot be used.
        BadConfig: there is something else in `out`.
    """
    manifest = storage.read_manifest(tokenizer, STAGE)
    require(
        not out.exists() or storage.find_manifest(out, STAGE) is not None,
        f"{out} exists and is no published tokenizer; give another folder, or remove it",
    )
    config = _public(manifest.config, backbone)
    base = config["backbone"].get("name")
    with storage.new_folder(out) as partial:
        for relative in manifest.files:
            if relative not in LEFT_OUT:
                target = partial / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(storage.check_file(tokenizer, manifest, relative), target)
        if base is not None:
            _rename_base(partial, base)
        storage.write_json(partial / CONFIG_FILE, config)
        storage.write_json(partial / REPORT_FILE, dict(reports))
        text = _licence_text() if licence == APACHE else None
        if text is not None:
            storage.write_text(partial / LICENCE_FILE, text)
        card = write_card(
            name=name, manifest=manifest, config=config, reports=reports, licence=licence
        )
        storage.write_text(partial / CARD_FILE, card)
        return storage.write_manifest(
            partial,
            stage=STAGE,
            config=config,
            inputs=manifest.inputs,
            facts={**manifest.facts, "name": name, "licence": licence},
        )


def _public(config: dict[str, Any], backbone: str | None) -> dict[str, Any]:
    """A configuration without paths of this machine."""
    changed: dict[str, Any] = json.loads(json.dumps(config))
    if "name" in changed["backbone"]:
        changed["backbone"]["name"] = backbone or _without_path(changed["backbone"]["name"])
    else:
        require(
            backbone is None,
            f"this tokenizer holds its own backbone, so no other ({backbone}) can be named",
        )
    if "vae" in changed["latents"]:
        changed["latents"]["vae"] = Path(changed["latents"]["vae"]).name
    return changed


def _without_path(name: str) -> str:
    """A hub name as it is; of a folder its last part."""
    local = Path(name).expanduser()
    return local.name if local.exists() or local.is_absolute() or name[:1] == "." else name


def _rename_base(folder: Path, name: str) -> None:
    """Say the base model's public name wherever it is told."""
    told = storage.read_json(folder / BASE_FILE)
    storage.write_json(folder / BASE_FILE, {**told, "name": name})
    adapter = folder / ADAPTER_CONFIG
    if adapter.is_file():
        values = storage.read_json(adapter)
        storage.write_json(adapter, {**values, "base_model_name_or_path": name})


def _licence_text() -> str | None:
    """The text of Apache-2.0 that came with this package, if it is installed."""
    try:
        return importlib.metadata.distribution("utgrec").read_text("licenses/LICENSE")
    except importlib.metadata.PackageNotFoundError:
        return None
