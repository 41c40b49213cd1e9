"""The comparison as Markdown, from the values of `summary`."""

from typing import Any

from utgrec.evaluation.intervals import Interval
from utgrec.evaluation.sheet import Sheet

JSON = dict[str, Any]


def to_markdown(found: JSON) -> str:
    """The whole document."""
    parts = [f"# {found['title']}", conditions(found)]
    for domain in found["domains"]:
        parts += [f"## {domain['name']}", describe(domain)]
        sheets = [
            figures_sheet(found, domain),
            tests_sheet(found, domain),
            cost_sheet(found, domain),
            groups_sheet(found, domain),
        ]
        parts += [sheet.to_markdown().rstrip() for sheet in sheets if sheet.lines]
        parts += [_settings(domain)] if domain["tuning"] else []
    parts.append(notes(found))
    return "\n\n".join(parts) + "\n"


def conditions(found: JSON) -> str:
    """How everything was measured, in two sentences."""
    seeds = ", ".join(map(str, found["seeds"]))
    others = "".join(f", {family} {count}" for family, count in found["budgets"].items())
    seen = "cannot be recommended" if found["exclude_seen"] else "can be recommended again"
    return (
        "Every system guesses each user's test item from everything before it, among all items of "
        f"the catalogue. Items of a user's own history {seen}, for all systems alike. "
        f"Seeds: {seeds}. Settings tried for each family: {found['budget']}{others}."
    )


def describe(domain: JSON) -> str:
    """One domain in a sentence or two."""
    text = (
        f"{domain['users']:,} users with a test item, {domain['items']:,} items, "
        f"{domain['interactions']:,} interactions. Split: {domain['split']}."
    )
    if domain["targets_in_history"]:
        text += f" {domain['targets_in_history']:,} test items are in the user's own history."
    if domain["cold"]:
        cold = domain["cold"]
        text += (
            f" Derived from {cold['of']}: {cold['items']:,} items ({cold['share']:.0%}, seed "
            f"{cold['seed']}) are in no training and no validation; they are the test items of "
            f"{cold['users_with_cold_target']:,} users."
        )
    return text


def figures_sheet(found: JSON, domain: JSON) -> Sheet:
    """Systems down, metrics across: mean, interval, spread over seeds."""
    metrics = list(domain["systems"][0]["metrics"])
    depth = max(domain["systems"][0]["coverage"], key=int)
    lines = []
    for system in domain["systems"]:
        cells = [_cell(system["metrics"][name]) for name in metrics]
        name = system["system"] + (f" (beam {system['beam']})" if system["beam"] else "")
        lines.append([name, *cells, f"{system['coverage'][depth]:.1%}"])
    return Sheet("Figures", ["system", *metrics, f"coverage@{depth}"], lines)


def tests_sheet(found: JSON, domain: JSON) -> Sheet:
    """The reference against every other system."""
    reference = found["reference"]
    lines = []
    for system in domain["systems"]:
        test = system["reference_minus_system"]
        if test is None:
            continue
        lines.append(
            [
                system["system"],
                signed(test["difference"]),
                p_text(test["p_value"]),
                p_text(test["p_corrected"]),
                f"{test['reference_better']:,} : {test['reference_worse']:,}",
            ]
        )
    header = ["system", f"{reference} − it, {found['metric']}", "p", "p, corrected"]
    return Sheet(f"{reference} against each", [*header, "users better : worse"], lines)


def cost_sheet(found: JSON, domain: JSON) -> Sheet:
    """Seconds and MiB."""
    measured = found["measured"][domain["name"]]
    lines = [
        [
            system["system"],
            str(len(system["seeds"])),
            f"{cost['train_s']:,.1f}",
            "" if cost["tuning_s"] is None else f"{cost['tuning_s']:,.1f}",
            f"{cost['peak_memory_mib']:,.0f}",
            f"{cost['ms_per_user']:.2f}",
        ]
        for system in domain["systems"]
        for cost in [measured[system["system"]]]
    ]
    header = ["system", "seeds", "training (s)", "tuning (s)", "peak memory (MiB)", "ms per user"]
    return Sheet("Cost", header, lines)


def groups_sheet(found: JSON, domain: JSON) -> Sheet:
    """Groups down, systems and chance across."""
    systems = [system["system"] for system in domain["systems"]]
    lines = []
    for row in domain["groups"]:
        if row["systems"] is None:
            cells = ["too few users"] + [""] * (len(systems) + 1)
        else:
            cells = [Interval(**row["systems"][name]).text for name in systems]
            cells += [f"{row['chance']:.4f}", f"{row['chance_by_popularity']:.4f}"]
        lines.append([f"{row['grouping']}: {row['group']}", f"{row['users']:,}", *cells])
    header = ["group", "users", *systems, "chance", "chance by popularity"]
    return Sheet(f"{found['metric']} by group", header, lines)


def notes(found: JSON) -> str:
    """What the figures mean."""
    lines = [
        "In brackets: 95 % bootstrap intervals over users. With several seeds a user's metric is "
        "first averaged over the seeds; ± is the standard deviation over the seeds.",
        f"Paired tests: sign flips over users on {found['metric']}, averaged over the seeds; "
        f"corrected (Holm) for all {found['tests']} tests of this comparison. Two systems may "
        "differ although their intervals overlap. A p-value speaks of users, not of seeds.",
        "Training: wall time of one seed, the mean over the seeds, without tuning. Peak memory: "
        "the highest of the processes that trained and measured.",
        f"Groups with fewer than {found['group_users']} users are not shown. Chance: random items. "
        "Chance by popularity: items drawn with 1 + (training users) tickets each. Both are "
        "expectations.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def signed(interval: JSON) -> str:
    """A difference with its interval."""
    return f"{interval['value']:+.4f} ({interval['low']:+.4f} to {interval['high']:+.4f})"


def p_text(value: float) -> str:
    """A p-value; the test knows four digits."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _cell(metric: JSON) -> str:
    text = f"{metric['value']:.4f} ({metric['low']:.4f}-{metric['high']:.4f})"
    return text if metric["sd"] is None else f"{text} ± {metric['sd']:.4f}"


def _settings(domain: JSON) -> str:
    """What was chosen for each tuned family."""
    lines = ["Chosen on the validation items:", ""]
    for family, record in domain["tuning"].items():
        chosen = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
        lines.append(f"- {family}: {chosen} ({len(record['trials'])} tried)")
    return "\n".join(lines)
