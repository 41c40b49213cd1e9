// An item wherever it is shown: its picture, its card, and the button that puts it into the history.

import { get, hasKey, pictureAddress } from "./api.js";
import { codeLine, hueOf, itemLink } from "./codes.js";
import { announce, h, price } from "./dom.js";
import { addToHistory, getHistory, inHistory, onChange, removeFromHistory } from "./state.js";

const AT_ONCE = 50; // ids in one address

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      load(entry.target);
    }
  },
  { rootMargin: "300px" },
);

async function load(image) {
  try {
    image.src = await pictureAddress(image.dataset.path);
  } catch {
    image.closest(".picture")?.classList.add("broken");
  }
}

/** A picture, or a plate in the colour of the item's first code. `alt` is empty beside its title. */
export function picture(item, alt = "") {
  const hue = item.codes ? hueOf(0, item.codes[0]) : 200;
  const letter = (item.title || item.item_id).trim().slice(0, 1).toUpperCase();
  const box = h(
    "span",
    { class: "picture", style: { "--hue": hue } },
    h("span", { class: "letter", "aria-hidden": "true" }, letter),
  );
  if (item.image) {
    const image = h("img", { alt, decoding: "async", "data-path": item.image, draggable: "false" });
    image.addEventListener("error", () => box.classList.add("broken"));
    image.addEventListener("load", () => box.classList.add("loaded"));
    box.append(image);
    if (hasKey()) seen.observe(image);
    else {
      image.loading = "lazy";
      load(image);
    }
  }
  return box;
}

export const titleOf = (item) => item.title || item.item_id;

/** Id → item, of those that the catalogue has. */
export async function cardsOf(ids, signal) {
  const found = new Map();
  for (let first = 0; first < ids.length; first += AT_ONCE) {
    const some = ids.slice(first, first + AT_ONCE).map((id) => ["item_id", id]);
    const { items } = await get(`v1/cards?${new URLSearchParams(some)}`, signal);
    for (const item of items) found.set(item.item_id, item);
  }
  return found;
}

/** Put an item into the history or take it out; says what happened. */
export async function toggle(item) {
  if (inHistory(item.item_id)) {
    removeFromHistory(item.item_id);
    announce(`Removed ${titleOf(item)}. ${getHistory().length} in your history.`);
    return;
  }
  const whole = item.codes ? item : await get(`v1/items/${encodeURIComponent(item.item_id)}`);
  addToHistory(whole);
  announce(`Added ${titleOf(item)}. ${getHistory().length} in your history.`);
}

/** A button that puts an item into the history; it follows changes made elsewhere. */
export function historyButton(item, { words = false } = {}) {
  const sign = h("span", { "aria-hidden": "true" });
  const text = h("span", { class: words ? "" : "hidden" });
  const button = h(
    "button",
    { class: words ? "primary add" : "round add", type: "button" },
    sign,
    text,
  );
  const show = () => {
    const there = inHistory(item.item_id);
    button.setAttribute("aria-pressed", String(there));
    sign.textContent = there ? "✓" : "+";
    text.textContent = words
      ? there
        ? "In your history"
        : "Add to your history"
      : `${titleOf(item)} in your history`;
    button.title = there ? "Take out of your history" : "Add to your history";
  };
  button.addEventListener("click", () => toggle(item));
  show();
  const stop = onChange(() => (button.isConnected || !button.dataset.shown ? show() : stop()));
  requestAnimationFrame(() => (button.dataset.shown = "yes"));
  return button;
}

/** An item as one of many. `below` comes under its title. */
export function card(item, { below = null, rank = null, shared = null, tag = "li" } = {}) {
  return h(
    tag,
    { class: "item", "data-id": item.item_id },
    h(
      "a",
      { class: "item-link", href: itemLink(item.item_id) },
      picture(item),
      h(
        "span",
        { class: "item-title" },
        rank !== null &&
          h(
            "span",
            { class: "rank" },
            h("span", { class: "hidden" }, "Place "),
            String(rank),
            h("span", { class: "hidden" }, ": "),
          ),
        titleOf(item),
      ),
    ),
    h(
      "div",
      { class: "item-facts" },
      item.codes &&
        codeLine(
          item.codes,
          shared === null
            ? {}
            : {
                shared,
                label: `codes ${item.codes.join(", ")}, of which ${shared} shared`,
              },
        ),
      item.price !== null &&
        item.price !== undefined &&
        h("span", { class: "price" }, price(item.price)),
      item.live === false && h("span", { class: "pill" }, "removed"),
    ),
    below,
    historyButton(item),
  );
}

/** Where cards will be, until their answer has come. */
export const waiting = (count) =>
  h(
    "div",
    {},
    h("p", { class: "hidden" }, "Loading …"),
    h(
      "ul",
      { class: "items", "aria-hidden": "true" },
      Array.from({ length: count }, () =>
        h("li", { class: "item ghostly" }, h("span", { class: "picture" })),
      ),
    ),
  );

export const grid = (items, options = () => ({})) =>
  h(
    "ul",
    { class: "items" },
    items.map((item, place) => card(item, options(item, place))),
  );
