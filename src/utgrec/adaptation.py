"""Bring a finished run to a new domain: a run folder of its own that needs its base no more.

Everything is checked before any work starts; stages are skipped and continued as in any run.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.config import fingerprint, from_dict, require
from utgrec.data.derived import sources
from utgrec.errors import InputError, MissingStage, SettingsMismatch
from utgrec.evaluation.calibration import make_calibrator
from utgrec.evaluation.generative import make_validator
from utgrec.evaluation.ranking import STAGE as RANKER
from utgrec.evaluation.ranking import lend_ranker
from utgrec.progress import Progress, silent
from utgrec.recipes import Recipe, on_backbone, reduced
from utgrec.recommender.lend import lend_recommender
from utgrec.recommender.train import STAGE as RECOMMENDER
from utgrec.recommender.train import read_vocabulary, train_recommender
from utgrec.regimes import AdaptConfig, recommender_settings, tokenizer_settings
from utgrec.runs import (
    Base,
    RunFolder,
    RunPlan,
    check_names,
    evaluate_run_domain,
    read_plan,
    train_run_ranker,
    write_plan,
)
from utgrec.tokenizer.codes import assign_domain
from utgrec.tokenizer.lend import lend_tokenizer
from utgrec.tokenizer.pretrained import STAGE as TOKENIZER
from utgrec.tokenizer.settings import TokenizerConfig, different_network
from utgrec.tokenizer.train import train_tokenizer


def adapt_run(
    base: Path,
    domain: Path,
    out: Path,
    config: AdaptConfig | None = None,
    *,
    leave_out: Sequence[str] = (),
    backbone: str | None = None,
    progress: Progress = silent,
) -> dict[str, storage.Manifest]:
    """Do all stages of an adaptation; finished ones are skipped, interrupted ones continued.

    Args:
        base: a finished run; nothing in it is changed.
        domain: the new domain's folder.
        out: the run folder to write.
        config: regime, steps and learning rates; None is what the base's recipe says.
        leave_out: parts of the tokenizer to leave out, see `utgrec.regimes.without`.
        backbone: where the tokenizer's base model is, if it is not where it was.

    Returns:
        The manifest of every stage by its path in the run folder.

    Raises:
        InputError: `out` is `base`.
        MissingStage: `base` is no finished run.
        SettingsMismatch: the base knows another domain of this name, or has other codes than are
            asked for; or `out` holds a run made from something else.
    """
    opened = Domain.open(domain)
    plan = plan_adaptation(
        base, opened, domain, out, config, leave_out=leave_out, backbone=backbone
    )
    folder, source, adapt = RunFolder(out), RunFolder(base), plan.recipe.adapt
    write_plan(folder, plan)
    tokenizer = _tokenizer(plan.recipe, source, opened, folder.tokenizer, progress)
    codes = assign_domain(folder.tokenizer, opened, folder.codes(opened.name), progress)
    if adapt.what.train_recommender:
        settings = recommender_settings(plan.recipe.recommender, adapt)
        recommender = train_recommender(
            [opened],
            [folder.codes(opened.name)],
            settings,
            folder.recommender,
            validator=make_validator(
                plan.recipe.validation,
                max_items=settings.max_items,
                exclude_seen=plan.recipe.exclude_seen,
            ),
            calibrator=make_calibrator(
                plan.recipe.validation,
                plan.recipe.decoding,
                max_items=settings.max_items,
                exclude_seen=plan.recipe.exclude_seen,
            ),
            progress=progress,
            start=source.recommender if adapt.what.base_recommender else None,
        )
    else:
        recommender = lend_recommender(
            source.recommender, opened, folder.codes(opened.name), folder.recommender
        )
    done = {
        "tokenizer": tokenizer,
        f"codes/{opened.name}": codes,
        "recommender": recommender,
    }
    if adapt.what.train_recommender:
        done["ranker"] = train_run_ranker(folder, plan.recipe, [opened], progress)
    elif storage.find_manifest(source.ranker, RANKER) is not None:
        # Zero-shot looks at no validation item.
        done["ranker"] = lend_ranker(
            source.ranker, opened, folder.codes(opened.name), folder.recommender, folder.ranker
        )
    return done | {
        f"evaluation/{opened.name}": evaluate_run_domain(folder, plan.recipe, opened, progress),
    }


def plan_adaptation(
    base: Path,
    domain: Domain,
    where: Path,
    out: Path,
    config: AdaptConfig | None = None,
    *,
    leave_out: Sequence[str] = (),
    backbone: str | None = None,
) -> RunPlan:
    """What an adaptation is going to do; every check that needs no work is made here.

    Raises:
        The same as `adapt_run`.
    """
    if out.resolve() == base.resolve():
        raise InputError(
            f"{out} is the base itself, which an adaptation leaves as it is; choose another folder"
        )
    check_names([domain])
    source = RunFolder(base)
    found = read_plan(source)
    recipe = reduced(found.recipe, leave_out)
    recipe = recipe if backbone is None else on_backbone(recipe, backbone)
    recipe = dataclasses.replace(recipe, adapt=config or recipe.adapt)
    require(
        recipe.adapt.what.train_tokenizer or not leave_out,
        f"the regime {recipe.adapt.regime!r} does not train the tokenizer, so "
        f"{' and '.join(leave_out)} cannot be left out of it; leave it out in the pre-training",
    )
    try:
        tokenizer = storage.read_manifest(source.tokenizer, TOKENIZER)
        recommender = storage.read_manifest(source.recommender, RECOMMENDER)
    except MissingStage as error:
        raise MissingStage(
            f"{base} is not finished ({error}); run the command that makes it again, then adapt"
        ) from error
    met = {name: recommender.inputs[f"domain {name}"] for name in found.domains}
    if found.base is not None:
        met = {**found.base.domains, **met}
    if met.get(domain.name, domain.fingerprint) != domain.fingerprint:
        raise SettingsMismatch(
            f"{base} knows another domain {domain.name!r} than the one in {where}; prepare this "
            "one under another --name"
        )
    if recipe.adapt.what.base_tokenizer and recipe.adapt.what.train_tokenizer:
        made_with = from_dict(TokenizerConfig, tokenizer.config)
        wanted = tokenizer_settings(recipe.tokenizer, recipe.adapt)
        if differs := different_network(made_with, wanted):
            raise SettingsMismatch(
                f"{base} has other codes than are asked for ({'; '.join(differs)}); pre-train with "
                "these settings, or adapt with the regime 'from-scratch'"
            )
    what, cut = recipe.adapt.what, domain.split.valid_from
    if cut is not None and (what.base_tokenizer or what.base_recommender):
        before = recommender.facts.get("trained_before")
        if before is None or before > cut:
            raise SettingsMismatch(
                f"{base} was trained by the split {recommender.facts.get('split', 'leave-one-out')}"
                f", so it may know what is the future for {domain.name} ({domain.split.words}); "
                "pre-train on domains with the same split, or adapt with the regime 'from-scratch'"
            )
    held_out = domain.manifest is not None and domain.manifest.facts.get("cold")
    if held_out and (what.base_tokenizer or what.base_recommender):
        seen = [name for name, mark in met.items() if mark in sources(domain)]
        if seen:
            raise SettingsMismatch(
                f"{base} was trained on {', '.join(seen)}, which {domain.name} holds items out of, "
                "so none of them would be new to it; pre-train on other domains, or adapt with the "
                "regime 'from-scratch'"
            )
    if what.base_recommender:
        read_vocabulary(source.recommender).with_domain(domain.name)
    mark = fingerprint([tokenizer.fingerprint, recommender.fingerprint])
    return RunPlan(recipe, {domain.name: where}, Base(base, mark, met))


def _tokenizer(
    recipe: Recipe, source: RunFolder, domain: Domain, out: Path, progress: Progress
) -> storage.Manifest:
    what = recipe.adapt.what
    if not what.train_tokenizer:
        return lend_tokenizer(source.tokenizer, domain, out, progress, recipe.tokenizer)
    return train_tokenizer(
        [domain],
        tokenizer_settings(recipe.tokenizer, recipe.adapt),
        out,
        progress,
        start=source.tokenizer if what.base_tokenizer else None,
    )
