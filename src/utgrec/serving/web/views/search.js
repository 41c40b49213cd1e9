// Items whose titles, brands, categories or ids have words that begin like those typed.

import { get } from "../api.js";
import { card, grid } from "../cards.js";
import { treeLink } from "../codes.js";
import { announce, h, many } from "../dom.js";

const PAGE = 24;
const DEEPEST = 10_000;
const IDEAS = 12;

export async function showSearch(view, { query, signal }) {
  const typed = (query.get("q") ?? "").trim();
  view.append(
    h("header", { class: "head" }, h("div", {}, h("h1", {}, typed ? `“${typed}”` : "Search"))),
  );
  if (!typed) {
    view.append(
      h(
        "p",
        { class: "lead" },
        "Type words of a title, a brand, a category or an id above. Beginnings are enough.",
      ),
    );
    view.append(await ideas(signal));
    return () => document.getElementById("query").focus();
  }
  const ask = (offset) =>
    get(`v1/items?${new URLSearchParams({ query: typed, k: PAGE, offset })}`, signal);
  const found = await ask(0);
  const said = found.total ? many(found.total, "item") : "No item";
  view
    .querySelector(".head div")
    .append(
      h(
        "p",
        { class: "lead" },
        found.total
          ? `${said}.`
          : "No item has such words. Try fewer of them, or only their beginnings.",
      ),
    );
  announce(`${said} found for ${typed}`);
  if (!found.total) {
    view.append(await ideas(signal));
    return null;
  }
  const list = grid(found.items);
  view.append(list);
  let shown = found.items.length;
  if (shown < found.total) {
    const more = h("button", { type: "button", class: "more" }, "Show more");
    more.addEventListener("click", async () => {
      more.disabled = true;
      const next = await ask(shown);
      const cards = next.items.map((item) => card(item));
      list.append(...cards);
      shown += next.items.length;
      announce(`${many(shown, "item")} of ${found.total} shown`);
      more.disabled = false;
      if (shown >= Math.min(found.total, DEEPEST) || !next.items.length) more.remove();
      cards[0]?.querySelector("a").focus();
    });
    view.append(more);
  }
  return null;
}

/** What there is to find: words of the largest branches, and the map that they are from. */
async function ideas(signal) {
  const { branches } = await get("v1/tree", signal);
  const largest = [...branches].sort((one, other) => other.items - one.items);
  const words = new Set(largest.flatMap((branch) => branch.words.slice(0, 1)));
  return h(
    "div",
    { class: "ideas" },
    h("h2", {}, "What there is"),
    h(
      "ul",
      {},
      [...words]
        .slice(0, IDEAS)
        .map((word) =>
          h("li", {}, h("a", { class: "button", href: `#/search?q=${encodeURIComponent(word)}` }, word)),
        ),
      h("li", {}, h("a", { class: "button", href: treeLink([]) }, "all codes")),
    ),
  );
}
