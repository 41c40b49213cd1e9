"""Write the report of a run: one HTML file without scripts that loads nothing from elsewhere.

Titles and ids come from outside. They reach the page only through Jinja's escaping, and a content
security policy forbids every load in case something slips through.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utgrec import storage
from utgrec.config import require
from utgrec.report import charts
from utgrec.report.codes import domain_codes, meanings
from utgrec.report.examples import HISTORY, SHOWN, examples
from utgrec.report.figures import groups, results
from utgrec.report.making import making
from utgrec.report.pictures import Gallery
from utgrec.report.source import open_run
from utgrec.report.training import recommender_training, tokenizer_training

if TYPE_CHECKING:
    from jinja2 import Template

_MARKDOWN = frozenset("\\`*_[]#|~>$")


def write_report(
    run: Path, out: Path | None = None, *, example_users: int = 6, seed: int = 0
) -> Path:
    """Write the report of a finished run, by default as RUN/report.html.

    Args:
        example_users: users shown per domain, about half of them with a hit.
        seed: draws the users and the items shown; equal seeds give equal files on one machine.

    Returns:
        The file.

    Raises:
        MissingStage: not a run, or a stage of it is not finished.
        CorruptFile: a file of the run is not the one its manifest names.
    """
    require(example_users >= 0, f"example_users must be at least 0, got {example_users}")
    source = open_run(Path(run))
    galleries = [Gallery(domain.coded.catalog) for domain in source.domains]
    page = find_template("report.html.j2").render(
        title=source.folder.path.resolve().name,
        recipe=source.plan.recipe.name,
        version=source.recommender.package_version,
        domains=[domain.name for domain in source.domains],
        results=[results(domain) for domain in source.domains],
        groups=[groups(domain) for domain in source.domains],
        codes=[domain_codes(domain) for domain in source.domains],
        meanings=meanings(source.domains, galleries, seed),
        tokenizer=tokenizer_training(source),
        recommender=recommender_training(source),
        examples=[
            examples(source, domain, gallery, count=example_users, seed=seed)
            for domain, gallery in zip(source.domains, galleries, strict=True)
        ],
        pictured=[gallery.has_pictures for gallery in galleries],
        making=making(source),
        seed=seed,
        shown=SHOWN,
        history_shown=HISTORY,
        box={
            "width": charts.WIDTH,
            "height": charts.HEIGHT,
            "left": charts.LEFT,
            "right": charts.RIGHT,
            "top": charts.TOP,
            "bottom": charts.BOTTOM,
        },
    )
    target = source.folder.report if out is None else Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    storage.write_text(target, page)
    return target


def find_template(name: str) -> "Template":
    """A template of the reports, with its filters; all that an HTML template prints is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("utgrec.report"),
        # Markdown has no entities; its template escapes what it prints with `md`.
        autoescape=lambda name: name is None or not name.endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "figure": figure,
        "signed": signed,
        "percent": percent,
        "count": count,
        "duration": duration,
        "metric": metric_name,
        "md": markdown_text,
    }
    environment.filters.update(filters)
    return environment.get_template(name)


def figure(value: float, digits: int = 4) -> str:
    """A figure with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    """A difference, always with its sign."""
    return f"{value:+.4f}".replace("-", "−")


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * share:.{digits}f} %"


def count(number: float) -> str:
    """A count with separators."""
    return f"{number:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours: the two largest units."""
    if seconds is None:
        return "—"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def metric_name(name: str) -> str:
    """ndcg@10 → NDCG@10, recall@5 → Recall@5."""
    kind, _, cut = name.partition("@")
    return f"{kind.upper() if kind in ('ndcg', 'mrr') else kind.capitalize()}@{cut}"


def markdown_text(value: object) -> str:
    """Text as it is in Markdown, also within a table: nothing in it is markup."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{sign}" if sign in _MARKDOWN else sign for sign in text)
