// The history at the foot of every view but the one that is about it, with what would come next.

import { post } from "./api.js";
import { itemLink } from "./codes.js";
import { debounce, h, many } from "./dom.js";
import { picture, titleOf } from "./cards.js";
import { asRequest, getHistory, onChange, writeAddress } from "./state.js";

const SHOWN = 6;
const dock = document.getElementById("dock");
let view = null;
let asking = null;

const ask = debounce(async (place) => {
  asking?.abort();
  asking = new AbortController();
  const history = getHistory().map((item) => item.item_id);
  try {
    const body = { history, k: SHOWN, unknown: "skip", filters: asRequest() };
    const got = await post("v1/recommend", body, asking.signal);
    place.replaceChildren(
      ...got.answers[0].items.map((item) =>
        h(
          "a",
          { href: itemLink(item.item_id), title: titleOf(item) },
          picture(item, titleOf(item)),
        ),
      ),
    );
  } catch {
    place.replaceChildren(); // the view itself says what is wrong
  }
}, 200);

const without = (shown) => shown === "next" || shown === "report";

/** A view is on its way: where it has no dock, this one asks for nothing more. */
export function leaveDock(shown) {
  if (!without(shown)) return;
  view = shown;
  ask.cancel();
  asking?.abort();
}

/** Show the history below a view, unless the view has none of it. */
export function showDock(shown = view) {
  view = shown;
  const history = getHistory();
  dock.hidden = without(view) || !history.length;
  document.body.classList.toggle("docked", !dock.hidden);
  if (dock.hidden) return;
  const next = h("div", { class: "dock-next" });
  const before = dock.querySelector(".dock-next");
  if (before) next.append(...before.children); // until the new ones are there
  dock.replaceChildren(
    h(
      "div",
      { class: "dock-history" },
      h("span", { class: "dock-count" }, many(history.length, "item")),
      h(
        "ol",
        {},
        history
          .slice(-SHOWN)
          .map((item) =>
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
    ),
    h("span", { class: "dock-arrow", "aria-hidden": "true" }, "→"),
    next,
    h(
      "a",
      { class: "primary", href: writeAddress() },
      h("span", { class: "long" }, "See what comes next"),
      h("span", { class: "short" }, "What comes next"),
    ),
  );
  ask(next);
}

onChange(() => showDock());
