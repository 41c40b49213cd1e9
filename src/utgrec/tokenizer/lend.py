"""Use a tokenizer in a domain that it has never been trained on.

Not one weight moves. Only the mean and the scale of states are measured anew on the domain's own
catalogue, as a training batch would do: what all items of a shop share tells none of them apart.
Training histories are read for one thing, the company that items keep, which is a closed form.
"""

from pathlib import Path

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.config import from_dict
from utgrec.data.split import split_domain, trained_facts
from utgrec.precision import own_device
from utgrec.progress import Progress, silent
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.backbone_config import PretrainedBackboneConfig
from utgrec.tokenizer.pretrained import STAGE, ItemTokenizer
from utgrec.tokenizer.settings import TokenizerConfig, recorded, with_backbone


def lend_tokenizer(
    start: Path,
    domain: Domain,
    out: Path,
    progress: Progress = silent,
    config: TokenizerConfig | None = None,
) -> storage.Manifest:
    """A tokenizer stage for `domain` out of a finished one, without any training.

    Args:
        config: where its base model is now, if it has one. None is where it was.

    Raises:
        MissingStage, FormatVersionError, CorruptFile: `start` cannot be used.
        SettingsMismatch: `out` was made from something else.
    """
    made_by = storage.read_manifest(start, STAGE)
    made_with = from_dict(TokenizerConfig, made_by.config)
    if config is not None and isinstance(config.backbone, PretrainedBackboneConfig):
        made_with = with_backbone(made_with, config.backbone.name)
    inputs = {f"domain {domain.name}": domain.fingerprint, "start": made_by.fingerprint}

    def make(work: Workspace) -> StageResult:
        tokenizer = ItemTokenizer.from_pretrained(start, made_with, device=own_device())
        items = tokenizer.read(domain.catalog.texts, domain.catalog.images, progress)
        items = tokenizer.add_company(items, split_domain(domain))
        tokenizer.refit_statistics(items, progress)
        tokenizer.save(work.folder)
        facts = {
            "domains": [domain.name],
            **trained_facts(domain),
            "items_trained": 0,
            "steps": 0,
            "epochs": 0.0,
            "parameters_trained": 0,
            "unreadable_pictures": [domain.catalog.item_ids[row] for row in items.unreadable],
        }
        return StageResult(facts)

    return run_stage(out, stage=STAGE, config=recorded(made_with), inputs=inputs, make=make)
