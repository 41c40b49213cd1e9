// Recommendations as a ranked list, each with how likely it is and which items of the history it is
// there for.

import { card, cardsOf, titleOf } from "./cards.js";
import { hueOf } from "./codes.js";
import { h, percent } from "./dom.js";

/** The same items with their prices, which recommendations do not have. */
export async function priced(items, signal) {
  const known = await cardsOf(
    items.map((item) => item.item_id),
    signal,
  );
  return items.map((item) => ({ ...item, price: known.get(item.item_id)?.price }));
}

/** How to read what stands below each of them. */
export const legend = () =>
  h(
    "p",
    { class: "note legend" },
    h(
      "span",
      { class: "dots", "aria-hidden": "true" },
      h("span", { class: "dot" }),
      h("span", { class: "dot off" }),
    ),
    " codes in common with an item of the history; behind it, how much of the model's attention that item holds.",
  );

/** Recommended items, best first. `after` says whether there was a history to compare them with. */
export function ranked(items, after) {
  const best = items[0].score;
  return h(
    "ol",
    { class: "items ranked" },
    items.map((item, place) =>
      card(item, {
        rank: place + 1,
        below: h("div", { class: "because" }, likely(item, best), why(item, after)),
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

function why(item, after) {
  if (!after) return null;
  if (!item.why.length) return h("p", { class: "note why" }, "Nothing in the history is like it.");
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
        { class: "quiet figure", title: "Share of the model's attention to the history" },
        h("span", { class: "hidden" }, ", attention "),
        percent(attention),
      ),
  ];
}
