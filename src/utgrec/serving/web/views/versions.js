// Every published version of the catalogue: what it changed, how far it has drifted, which one serves.

import { get, heard, post } from "../api.js";
import { itemLink } from "../codes.js";
import { picture, titleOf } from "../cards.js";
import { confirm } from "../dialog.js";
import { announce, count, h, many, percent, sentence } from "../dom.js";

// The thresholds are those of the drift report (serving/drift.py, docs/serving.md).
const MOST_NEW = 0.3;
const MOST_FARTHER = 1.5;

const date = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

export async function showVersions(view, { signal, overview }) {
  const versions = await get("v1/changes", signal);
  const active = versions.find((one) => one.active);
  heard(active?.number);
  view.append(
    h(
      "header",
      { class: "head" },
      h(
        "div",
        {},
        h("h1", {}, "Versions of the catalogue"),
        h(
          "p",
          { class: "lead" },
          `Every change publishes a generation that never changes again. ${active ? `Generation ${active.number} serves.` : ""} Published codes never move.`,
        ),
      ),
    ),
    active && Object.keys(active.drift).length > 0 ? drift(active) : "",
    h(
      "ol",
      { class: "versions" },
      versions.map((one) => version(one, overview)),
    ),
    versions.length === 1 ? firstChange() : "",
  );
  return null;
}

const firstChange = () =>
  h(
    "div",
    { class: "card prose" },
    h("h2", {}, "The first change"),
    h(
      "p",
      {},
      "New items, other prices, pictures, removals: each change is live within seconds, is listed here, and can be taken back.",
    ),
    h("pre", { tabindex: 0 }, h("code", {}, "utgrec catalog add RUN new_items.jsonl")),
  );

function drift(active) {
  const found = active.drift;
  const farther =
    found.new_distance === null || !found.first_distance
      ? null
      : found.new_distance / found.first_distance;
  const reasons = found.reasons ?? [];
  return h(
    "section",
    { class: "card", "aria-labelledby": "drift-title" },
    h("h2", { id: "drift-title" }, "How far it has drifted"),
    h(
      "p",
      { class: reasons.length ? "verdict bad" : "verdict good" },
      reasons.length
        ? "Assigning all codes anew would pay: "
        : "The codes still fit: nothing says that assigning them anew would pay.",
      reasons.join("; "),
    ),
    h(
      "dl",
      { class: "meters" },
      meter(
        "New items",
        found.new_share,
        percent(found.new_share),
        MOST_NEW,
        `advice at ${percent(MOST_NEW)}`,
      ),
      farther !== null &&
        meter(
          "Distance of new items to their codes",
          farther / (2 * MOST_FARTHER),
          `${farther.toFixed(2)} × that of the first`,
          0.5,
          `advice at ${MOST_FARTHER} ×`,
        ),
      found.new_conflicts !== null &&
        meter(
          "New items that found their nearest codes taken",
          found.new_conflicts,
          percent(found.new_conflicts),
          null,
          `at first ${percent(found.first_conflicts)}`,
        ),
      meter(
        "Prefixes that are nearly full",
        found.full_prefixes,
        percent(found.full_prefixes),
        null,
        `at first ${percent(found.first_full_prefixes)}; the fullest is at ${percent(found.fullest_prefix)}`,
      ),
      found.histories_with_removed !== null &&
        meter(
          "People with a removed item in their history",
          found.histories_with_removed,
          percent(found.histories_with_removed),
          null,
          "their histories stay readable",
        ),
    ),
  );
}

function meter(name, share, text, mark, note) {
  const track = h("span", {
    class: "track",
    "aria-hidden": "true",
    style: { "--share": String(Math.min(1, share)) },
  });
  if (mark !== null) track.append(h("span", { class: "mark", style: { "--at": String(mark) } }));
  return h(
    "div",
    { class: mark !== null && share > mark ? "over" : "" },
    h("dt", {}, name),
    h("dd", {}, track, h("strong", {}, text), h("span", { class: "note" }, note)),
  );
}

function version(one, overview) {
  const changes = Object.entries(one.changed).filter(([, change]) => change.items);
  return h(
    "li",
    { class: one.active ? "card version active" : "card version" },
    h(
      "div",
      { class: "version-head" },
      h("h2", {}, `Generation ${one.number}`),
      one.active ? h("span", { class: "pill good" }, "serves now") : null,
      h(
        "p",
        { class: "note" },
        one.written
          ? h(
              "time",
              { datetime: new Date(1000 * one.written).toISOString() },
              date.format(1000 * one.written),
            )
          : null,
        ` · ${many(one.live, "item")}`,
        one.parent ? ` · made from ${one.parent}` : " · the codes of the run",
      ),
      !one.active && !one.problem && overview.may_change ? serve(one) : null,
    ),
    one.problem && h("p", { class: "verdict bad" }, one.problem),
    changes.map(([kind, change]) =>
      h(
        "div",
        { class: "changed" },
        h("h3", {}, `${kind[0].toUpperCase()}${kind.slice(1)}: ${count(change.items)}`),
        h(
          "ul",
          { class: "thumbs" },
          change.examples.map((item) =>
            h(
              "li",
              {},
              h(
                "a",
                { href: itemLink(item.item_id), title: titleOf(item) },
                picture(item, titleOf(item)),
              ),
            ),
          ),
        ),
        change.items > change.examples.length &&
          h("p", { class: "note" }, `and ${count(change.items - change.examples.length)} more`),
      ),
    ),
    !changes.length && one.parent !== null && h("p", { class: "note" }, "No change of items."),
  );
}

function serve(one) {
  const button = h("button", { type: "button" }, `Serve generation ${one.number}`);
  button.addEventListener("click", async () => {
    const sure = await confirm({
      title: `Serve generation ${one.number}?`,
      text: `Everybody gets recommendations from its ${many(one.live, "item")} at once. You can go back the same way.`,
      yes: "Serve it",
      no: "Leave it",
    });
    if (!sure) return button.focus();
    try {
      await post("v1/generations", { activate: one.number });
      announce(`Generation ${one.number} serves now`);
      dispatchEvent(new Event("served"));
    } catch (error) {
      button.after(h("p", { class: "verdict bad", role: "alert" }, sentence(error.message)));
    }
  });
  return button;
}
