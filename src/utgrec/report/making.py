"""How a run was made: its settings, its stages with their cost, and this machine."""

import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from utgrec.config import to_dict
from utgrec.report.source import RunSource
from utgrec.storage import Manifest


class Stage(NamedTuple):
    """What one stage cost."""

    name: str
    seconds: float | None
    peak_mib: float | None
    package_version: str
    fingerprint: str


class Making(NamedTuple):
    """Settings, stages and machine."""

    settings: dict[str, list[tuple[str, str]]]  # part of the recipe → dotted name and value
    stages: list[Stage]
    seconds: float
    machine: list[tuple[str, str]]
    sources: list[tuple[str, str, str]]  # domain, where its data come from, licence


def making(source: RunSource) -> Making:
    """Everything needed to make the run again."""
    stages = [_stage("tokenizer", source.tokenizer)]
    stages += [_stage(f"codes · {domain.name}", domain.codes) for domain in source.domains]
    stages.append(_stage("recommender", source.recommender))
    if source.ranker is not None:
        stages.append(_stage("ranker", source.ranker))
    stages += [_stage(f"evaluation · {domain.name}", domain.evaluated) for domain in source.domains]
    settings: dict[str, list[tuple[str, str]]] = {"run": []}
    for name, value in to_dict(source.plan.recipe).items():
        if isinstance(value, dict):
            settings[name] = list(_flat(value))
        else:
            settings["run"].append((name, _text(value)))
    return Making(
        settings=settings,
        stages=stages,
        seconds=sum(stage.seconds or 0.0 for stage in stages),
        machine=machine(),
        sources=[_origin(domain.name, domain.domain) for domain in source.domains],
    )


def machine() -> list[tuple[str, str]]:
    """The machine and the software that are running now."""
    import psutil

    return [
        ("Processor", _processor()),
        ("Cores", f"{psutil.cpu_count(logical=False) or '?'} ({psutil.cpu_count()} threads)"),
        ("Memory", f"{psutil.virtual_memory().total / 2**30:.1f} GiB"),
        ("System", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        ("torch", version("torch")),
        ("transformers", version("transformers")),
        ("UTGRec", version("utgrec")),
    ]


def _processor(file: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name; Linux tells it in a file, other systems through `platform`."""
    if file.is_file():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def _stage(name: str, manifest: Manifest) -> Stage:
    return Stage(
        name,
        manifest.measured.get("wall_s"),
        manifest.measured.get("peak_memory_mib"),
        manifest.package_version,
        manifest.fingerprint[:12],
    )


def _origin(name: str, domain: Any) -> tuple[str, str, str]:
    facts = domain.manifest.facts if domain is not None and domain.manifest is not None else {}
    return name, str(facts.get("source") or "not told"), str(facts.get("licence") or "not told")


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_text(entry) for entry in value)
    return "none" if value is None else f"{value}"
