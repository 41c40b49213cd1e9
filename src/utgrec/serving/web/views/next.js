// A history made by clicking, and what comes next: live, filtered, and with the reasons.

import { get, post } from "../api.js";
import { cardsOf, picture, titleOf } from "../cards.js";
import { itemLink } from "../codes.js";
import { announce, debounce, h, many, sentence } from "../dom.js";
import { showFilters } from "../facets.js";
import { legend, priced, ranked } from "../ranked.js";
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
  const how = legend();
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
      h("section", { class: "results", "aria-label": "Recommendations" }, how, found),
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
      const items = await priced(hits, asking.signal);
      found.replaceChildren(
        items.length
          ? ranked(items, history.length > 0)
          : h("p", { class: "card note" }, "No item meets these filters. Take one of them away."),
      );
      how.hidden = !items.length || !history.length;
      if (items.length === wanted && wanted < MOST) found.append(more());
      const filtered = Object.keys(getFilters()).length ? ", among what the filters allow" : "";
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
          (error.message ? sentence(error.message) : "The server cannot be reached.") + wait,
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
  let here = location.hash;
  const write = () => {
    if (location.hash !== here) return; // the reader is on the way to elsewhere
    history.replaceState(history.state, "", writeAddress());
    here = location.hash;
  };
  const changed = () => {
    write();
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
  if (!signal.aborted) write();
  return null;
}

/** Take history and filters out of the address, if it has any. */
async function follow(query, signal) {
  const { ids, filters } = readAddress(query);
  if (!ids.length && !Object.keys(filters).length) return;
  const known = new Map(getHistory().map((item) => [item.item_id, item]));
  const wanted = ids.slice(-MOST_IN_HISTORY);
  const missing = wanted.filter((id) => !known.has(id));
  if (missing.length) {
    for (const { item_id, title, image, codes } of (await cardsOf(missing, signal)).values()) {
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
