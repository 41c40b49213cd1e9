"""How training went, as curves: every named loss, and the validation with its best step."""

from typing import Any, NamedTuple

from utgrec.recommender.train import METRIC
from utgrec.report.charts import LineChart, line_chart
from utgrec.report.source import RunSource, read_losses

# What each logged name means; names that are not here are shown as they are.
TOKENIZER_NOTES = {
    "loss": ("Weighted sum", "what is minimised"),
    "text": ("Text", "rebuilding the item's own words, nats per token"),
    "image": ("Picture", "rebuilding the item's own picture, squared error of the noise"),
    "code": ("Codebooks", "distance of states and code vectors"),
    "alignment": ("Alignment", "telling the partner from other items, nats"),
    "partner_text": ("Partner's text", "rebuilding a co-taken item's words, nats per token"),
    "partner_image": ("Partner's picture", "rebuilding a co-taken item's picture"),
    "gradient_norm": ("Gradient norm", "before it is cut"),
}


class Training(NamedTuple):
    """The curves of one stage."""

    steps: int
    epochs: float | None
    parameters: int | None
    charts: list[LineChart]
    best_step: int | None
    best_value: float | None


def tokenizer_training(source: RunSource) -> Training:
    """One chart per loss: they have different units."""
    rows = _of_kind(read_losses(source.folder.tokenizer, source.tokenizer), "loss")
    # As this tokenizer was trained: one that went on from another has no warm-up.
    warmup = source.tokenizer.config["quantizer"]["warmup_steps"]
    facts = source.tokenizer.facts
    series = _series(rows)
    # Until warm-up ends the states are not quantised, so the losses jump there.
    inside = 0 < warmup < max((step for line in series.values() for step, _ in line), default=0)
    marks = [(float(warmup), "codes on")] if inside else []
    charts = []
    for name in sorted(series, key=_order):
        title, note = TOKENIZER_NOTES.get(name, (name, ""))
        charts.append(line_chart(title, {name: series[name]}, note=note, marks=marks))
    return Training(
        steps=facts["steps"],
        epochs=facts.get("epochs"),
        parameters=facts.get("parameters_trained"),
        charts=charts,
        best_step=None,
        best_value=None,
    )


def recommender_training(source: RunSource) -> Training:
    """Losses of all codes on common axes, and NDCG@10 on validation items."""
    rows = read_losses(source.folder.recommender, source.recommender)
    losses, validations = _series(_of_kind(rows, "loss")), _series(_of_kind(rows, "validation"))
    norm = losses.pop("gradient_norm", None)
    facts = source.recommender.facts
    best_step = facts.get("best_step") if validations else None
    charts = []
    if losses:
        note = "cross-entropy in nats; loss is what is minimised, code_1 the loss of the root code"
        charts.append(line_chart("Loss by code", losses, note=note))
    if validations:
        if len(validations) == 2:
            # With one domain the mean and the domain's own figure are the same curve.
            validations = {METRIC: validations[METRIC]}
        mark = [] if best_step is None else [(float(best_step), f"best: {best_step:,}")]
        note = "on validation items; the weights of the best step are kept"
        charts.append(line_chart("Validation NDCG@10", validations, note=note, marks=mark))
    if norm:
        title, note = TOKENIZER_NOTES["gradient_norm"]
        charts.append(line_chart(title, {"gradient_norm": norm}, note=note))
    best = dict(validations.get(METRIC, [])).get(float(best_step)) if best_step else None
    return Training(
        steps=facts["steps_done"],
        epochs=facts.get("epochs"),
        parameters=facts.get("parameters"),
        charts=charts,
        best_step=best_step,
        best_value=best,
    )


def _of_kind(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


def _series(rows: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Points (step, value) by name."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("kind", "step"):
                series.setdefault(name, []).append((float(row["step"]), float(value)))
    return series


def _order(name: str) -> int:
    known = list(TOKENIZER_NOTES)
    return known.index(name) if name in known else len(known)
