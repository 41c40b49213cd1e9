"""Recommend in a domain that the recommender has never been trained on.

The stage holds the same weights; only the token of the new domain is a copy of the one for any.
"""

from pathlib import Path

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.config import from_dict
from utgrec.data.split import trained_facts
from utgrec.recommender.networks import know_items, show_words
from utgrec.recommender.train import (
    STAGE,
    RecommenderConfig,
    coded_domain,
    common_sizes,
    continue_recommender,
    remember,
    write_recommender,
)
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.codes import STAGE as CODES


def lend_recommender(start: Path, domain: Domain, codes: Path, out: Path) -> storage.Manifest:
    """A recommender stage for `domain` out of a finished one, without any training.

    Raises:
        MissingStage: `start` or `codes` is not finished.
        SettingsMismatch: the codes are of another domain or have other sizes.
    """
    made_by = storage.read_manifest(start, STAGE)
    made_of = storage.read_manifest(codes, CODES)
    sizes = common_sizes([domain], [made_of])
    inputs = {
        f"codes {domain.name}": made_of.fingerprint,
        f"domain {domain.name}": domain.fingerprint,
        "start": made_by.fingerprint,
    }
    config = from_dict(RecommenderConfig, made_by.config)

    def make(work: Workspace) -> StageResult:
        model, vocabulary = continue_recommender(start, [domain], sizes, config)
        know_items(model, [], vocabulary)  # those of other domains cannot be met here
        # Remembering trains nothing, and the mixture is what held in the shops of the base: no
        # validation item of this one is looked at.
        coded = coded_domain(domain, codes)
        memory = remember([domain], [coded], vocabulary, config, start)
        show_words(model, [coded], vocabulary, memory.contents)
        write_recommender(work.folder, model, vocabulary, memory)
        facts = {
            "domains": [domain.name],
            **trained_facts(domain),
            "samples": 0,
            "best_step": 0,
            "steps_done": 0,
            "epochs": 0.0,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        return StageResult(facts)

    return run_stage(out, stage=STAGE, config=made_by.config, inputs=inputs, make=make)
