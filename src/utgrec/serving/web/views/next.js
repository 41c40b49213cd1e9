// A history made by clicking, and what comes next: live, filtered, and with the reasons.

import { get, post } from "../api.js";
import { card, picture, titleOf } from "../cards.js";
import { hueOf, itemLink } from "../codes.js";
import { announce, debounce, h, many, percent } from "../dom.js";
import { showFilters } from "../facets.js";
import {
  addToHistory,
  asRequest,
  getFilters,
  getHistory,
  onChange,
  readAddress,
  removeFromHistory,
  setFilters,
  setHistory,
  writeAddress,
} from "../state.js";

const FIRST = 12;
const MOST = 60;
const WAIT_MS = 150;
const MOST_IN_HISTORY = 50;

export async function showNext(view, { query, signal }) {
  await follow(query, signal);
  const [facets, roots] = await Promise.all([get("v1/facets", signal), get("v1/tree", signal)]);
  const taken = h("div", { class: "taken" });
  const found = h("div", { class: "found", "aria-busy": "true" });
  const say = h("p", { class: "lead", id: "found-lead" }, "…");
  let wanted = FIRST;
  view.append(
    h("header", { class: "head" }, h("div", {}, h("h1", {}, "What comes next"), say)),
    h(
      "div",
      { class: "two" },
      h(
        "div",
        { class: "side" },
        h(
          "section",
          { class: "card", "aria-labelledby": "history-title" },
          h("h2", { id: "history-title" }, "Your history"),
          taken,
        ),
        facets.facets.length > 0 && showFilters(facets.facets, signal),
      ),
      h("section", { class: "results", "aria-label": "Recommendations" }, found),
    ),
  );

  let asking = null;
  const ask = async () => {
    asking?.abort();
    asking = new AbortController();
    found.setAttribute("aria-busy", "true");
    const history = getHistory().map((item) => item.item_id);
    try {
      const got = await post(
        "v1/recommend",
        { history, k: wanted, filters: asRequest(), unknown: "skip", attention: true },
        AbortSignal.any([asking.signal, signal]),
      );
      const hits = got.answers[0].items;
      const priced = hits.length
        ? await cards(
            hits.map((item) => item.item_id),
            asking.signal,
          )
        : new Map();
      const items = hits.map((item) => ({ ...item, price: priced.get(item.item_id)?.price }));
      found.replaceChildren(
        items.length
          ? results(items, history)
          : h("p", { class: "card note" }, "No item meets these filters. Take one of them away."),
      );
      if (items.length === wanted && wanted < MOST) found.append(more());
      const filtered = Object.keys(getFilters()).length ? ", filtered" : "";
      say.textContent = history.length
        ? `After ${many(history.length, "item")}${filtered}, most likely first.`
        : `For somebody without any history${filtered}. Add items, and watch this change.`;
      announce(
        items.length
          ? `${many(items.length, "recommendation")} after ${many(history.length, "item")}. First: ${titleOf(items[0])}.`
          : "No item meets these filters.",
      );
    } catch (error) {
      if (error.name === "AbortError") return;
      const wait = error.retryAfter ? ` Trying again in ${error.retryAfter} s.` : "";
      found.replaceChildren(
        h(
          "p",
          { class: "card wrong", role: "alert" },
          (error.message || "The server cannot be reached.") + wait,
        ),
      );
      if (error.retryAfter) setTimeout(() => !signal.aborted && soon(), 1000 * error.retryAfter);
    }
    found.setAttribute("aria-busy", "false");
  };
  const more = () => {
    const button = h("button", { type: "button", class: "more" }, "Show more");
    button.addEventListener("click", async () => {
      const before = found.querySelectorAll(".item").length;
      wanted = Math.min(MOST, wanted + 2 * FIRST);
      await ask();
      found.querySelectorAll(".item-link")[before]?.focus();
    });
    return button;
  };
  const soon = debounce(ask, WAIT_MS);
  const changed = () => {
    history.replaceState(null, "", writeAddress());
    showTaken(taken, roots);
    soon();
  };
  const stop = onChange(changed);
  signal.addEventListener("abort", () => {
    stop();
    soon.cancel();
    asking?.abort();
  });
  showTaken(taken, roots);
  await ask();
  if (signal.aborted) return null;
  history.replaceState(null, "", writeAddress());
  return null;
}

async function cards(ids, signal) {
  const { items } = await get(
    `v1/cards?${new URLSearchParams(ids.map((id) => ["item_id", id]))}`,
    signal,
  );
  return new Map(items.map((item) => [item.item_id, item]));
}

/** Take history and filters out of the address, if it has any. */
async function follow(query, signal) {
  const { ids, filters } = readAddress(query);
  if (!ids.length && !Object.keys(filters).length) return;
  const known = new Map(getHistory().map((item) => [item.item_id, item]));
  const wanted = ids.slice(-MOST_IN_HISTORY);
  const missing = wanted.filter((id) => !known.has(id));
  if (missing.length) {
    for (const { item_id, title, image, codes } of (await cards(missing, signal)).values()) {
      known.set(item_id, { item_id, title, image, codes });
    }
  }
  setFilters(filters);
  if (ids.length) setHistory(wanted.map((id) => known.get(id)).filter(Boolean));
}

function showTaken(box, roots) {
  const items = getHistory();
  const focused = box.contains(document.activeElement)
    ? [...box.querySelectorAll("button")].indexOf(document.activeElement)
    : -1;
  if (!items.length) {
    box.replaceChildren(
      h(
        "p",
        { class: "note" },
        "Empty so far. Add items with their + button anywhere, search for some, or start with one of these:",
      ),
      h(
        "ul",
        { class: "starters" },
        starters(roots).map((item) =>
          h(
            "li",
            {},
            h(
              "button",
              {
                type: "button",
                "aria-label": `Start with ${titleOf(item)}`,
                title: titleOf(item),
                onclick: () => addToHistory(item),
              },
              picture(item),
            ),
          ),
        ),
      ),
    );
  } else {
    box.replaceChildren(
      h(
        "ol",
        { class: "history" },
        items.map((item) =>
          h(
            "li",
            {},
            h("a", { href: itemLink(item.item_id) }, picture(item), h("span", {}, titleOf(item))),
            h(
              "button",
              {
                type: "button",
                class: "round",
                "aria-label": `Remove ${titleOf(item)}`,
                title: "Remove",
                onclick: () => {
                  removeFromHistory(item.item_id);
                  announce(`Removed ${titleOf(item)}.`);
                },
              },
              h("span", { "aria-hidden": "true" }, "×"),
            ),
          ),
        ),
      ),
      h("p", { class: "note" }, "Oldest first; the newest counts most."),
      h("button", { type: "button", onclick: () => setHistory([]) }, "Clear the history"),
    );
  }
  if (focused >= 0) {
    const buttons = box.querySelectorAll("button");
    buttons[Math.min(focused, buttons.length - 1)]?.focus();
  }
}

const starters = (roots) =>
  [...roots.branches]
    .sort((one, other) => other.items - one.items)
    .slice(0, 12)
    .map((branch) => branch.covers[0])
    .filter(Boolean)
    .slice(0, 8);

function results(items, history) {
  const best = items[0].score;
  return h(
    "ol",
    { class: "items ranked" },
    items.map((item, place) =>
      card(item, {
        rank: place + 1,
        below: h("div", { class: "because" }, likely(item, best), why(item, history)),
      }),
    ),
  );
}

function likely(item, best) {
  const chance = Math.exp(item.score);
  const share = Math.exp(item.score - best);
  const text =
    chance < 0.0001 ? "< 0.01 %" : percent(chance, chance < 0.001 ? 2 : chance < 0.1 ? 1 : 0);
  return h(
    "p",
    { class: "likely", title: `log-probability ${item.score.toFixed(2)}` },
    h("span", {
      class: "bar",
      "aria-hidden": "true",
      style: { "--share": share.toFixed(4), "--hue": hueOf(0, item.codes[0]) },
    }),
    h("span", { class: "figure" }, h("span", { class: "hidden" }, "Probability "), text),
  );
}

function why(item, history) {
  if (!history.length) return null;
  if (!item.why.length) return h("p", { class: "note why" }, "Nothing in your history is like it.");
  const reasons = item.why.map((reason) => h("li", {}, because(item, reason)));
  return h("ul", { class: "why", "aria-label": "Why it is here" }, reasons);
}

/** One item of the history: as many squares filled as codes shared, and how much it was looked at. */
function because(item, reason) {
  const { shared_codes: shared, attention } = reason;
  const dots = item.codes.map((code, level) =>
    h("span", { class: level < shared ? "dot" : "dot off", style: { "--hue": hueOf(level, code) } }),
  );
  const told = shared
    ? `shares ${shared} of ${item.codes.length} codes with `
    : "no codes in common with ";
  return [
    h("span", { class: "dots", "aria-hidden": "true" }, dots),
    h(
      "span",
      { class: "why-title" },
      h("span", { class: "hidden" }, told),
      h("span", { class: "quiet", "aria-hidden": "true" }, shared ? "like " : "after "),
      titleOf(reason),
    ),
    attention !== null &&
      attention !== undefined &&
      h(
        "span",
        { class: "quiet figure", title: "Share of the model's attention to your history" },
        h("span", { class: "hidden" }, ", attention "),
        percent(attention),
      ),
  ];
}
