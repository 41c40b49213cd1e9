"""The card of a published tokenizer: what it is, what made it, and what its codes are worth.

Front matter and headings are those of model cards on the Hugging Face hub.
"""

from collections.abc import Mapping
from typing import Any

from utgrec import storage

FIGURES = {
    "conflict_rate": "share of items that shared their nearest codes, before repair",
    "moved_rate": "share of items that repair gave other codes",
    "root_used": "share of root entries in use",
    "leaf_used": "share of leaf entries in use",
    "agreement_lift": "times more often than by chance co-taken items share the first code",
}


def write_card(
    *,
    name: str,
    manifest: storage.Manifest,
    config: Mapping[str, Any],
    reports: Mapping[str, Mapping[str, Any]],
    licence: str,
) -> str:
    """The card as Markdown."""
    backbone, quantizer = config["backbone"], config["quantizer"]
    base = backbone.get("name")
    facts = manifest.facts
    domains = [str(domain) for domain in facts.get("domains", [])]
    front = ["---", "library_name: utgrec", f"license: {licence}"]
    front += [f"base_model: {base}"] if base else []
    front += ["tags:", "- recommender-systems", "- semantic-ids", "- item-tokenizer", "---"]
    length = quantizer["code_length"]
    model = (
        f"the pretrained model `{base}` (revision {backbone['revision']}), which is not part of "
        "this folder"
        if base
        else "a small model of its own, which is part of this folder"
    )
    lora = backbone.get("lora")
    adapter = (
        f" Its language model was adapted with LoRA (rank {lora['rank']}, alpha {lora['alpha']}); "
        "`adapter/` opens with PEFT, too."
        if base and lora
        else ""
    )
    sizes = f"{quantizer['root_size']} root and {quantizer['leaf_size']} leaf entries"
    lines = [
        *front,
        "",
        f"# {name}",
        "",
        f"An item tokenizer of UTGRec: it turns the words and the picture of an item into {length} "
        f"small integers, its codes ({sizes}). Similar items get similar codes, also items of "
        "shops that it was not trained on.",
        "",
        f"It reads items with {model}.{adapter}",
        "",
        "## Use",
        "",
        "```python",
        "from utgrec import ItemTokenizer",
        "",
        'tokenizer = ItemTokenizer.from_pretrained("FOLDER")'
        + ('  # backbone="PATH" if the base model is a folder of yours' if base else ""),
        'print(tokenizer.encode(text="Tea mug. Fired clay.", image="mug.jpg"))',
        "```",
        "",
        "## Training",
        "",
        f"Trained on the training histories of {_listed(domains)}: "
        f"{facts.get('items_trained', 0)} items, {facts.get('steps', 0)} steps, "
        f"{facts.get('parameters_trained', 0)} parameters. The last two items of every person were "
        "held out. All settings are in `config.json`.",
        "",
        "## Codes",
        "",
        *_table(reports),
        "",
        "Codes say what an item is to the people of these shops; they are not names, and two items "
        "may get the same nearest codes until a catalogue is assigned as a whole.",
        "",
        "## Licence",
        "",
        f"The weights in this folder are given under {licence}."
        + (f" The base model `{base}` has a licence of its own." if base else "")
        + " The data it was trained on keep theirs. UTGRec itself is under Apache-2.0.",
        "",
        f"Written by UTGRec {manifest.package_version}.",
        "",
    ]
    return "\n".join(lines)


def _listed(domains: list[str]) -> str:
    if not domains:
        return "no domain"
    names = ", ".join(f"`{domain}`" for domain in domains)
    return f"{'one domain' if len(domains) == 1 else f'{len(domains)} domains'} ({names})"


def _table(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not reports:
        return ["No catalogue was assigned with it before it was published."]
    names = list(reports)
    lines = [
        f"| figure | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for key, meaning in FIGURES.items():
        values = [_number(reports[name].get(key)) for name in names]
        lines.append(f"| {meaning} | {' | '.join(values)} |")
    return [*lines, "", "The whole report is in `code_report.json`."]


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "unknown"
