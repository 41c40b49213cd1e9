// One item: what it is, where its codes put it, what is near, and what people take after it.

import { get, post } from "../api.js";
import { grid, historyButton, picture, titleOf, waiting } from "../cards.js";
import { hueOf, nameOf, treeLink } from "../codes.js";
import { h, many, price, sentence } from "../dom.js";

const NEAR = 12;
const AFTER = 6;

export async function showItem(view, { parts, signal }) {
  const id = parts.join("/");
  const path = encodeURIComponent(id);
  const item = await get(`v1/items/${path}`, signal);
  const place = await get(`v1/tree/${item.codes.join("/")}`, signal);
  const shown = { ...item, price: item.attributes.price };
  view.append(
    h(
      "article",
      { class: "about" },
      h("div", { class: "about-picture" }, picture(item, `Picture of ${titleOf(item)}`)),
      h(
        "div",
        { class: "about-words" },
        h(
          "p",
          { class: "over" },
          item.item_id,
          !item.live && h("span", { class: "pill" }, "removed"),
        ),
        h("h1", {}, titleOf(item)),
        h("p", { class: "about-text" }, item.text),
        attributes(item.attributes),
        h("div", { class: "about-do" }, historyButton(shown, { words: true })),
      ),
    ),
    h(
      "section",
      { "aria-labelledby": "codes-title" },
      h("h2", { id: "codes-title" }, "Its codes"),
      h(
        "p",
        { class: "lead" },
        "From coarse to fine: each code narrows down what the item is like.",
        place.moved ? " Its nearest codes were taken, so it has the next best ones." : "",
      ),
      trail(place),
    ),
    section(
      "near",
      "Near it",
      later(get(`v1/similar/${path}?k=${NEAR}`, signal), signal, ({ items }) =>
        items.length
          ? grid(items, (one) => ({ below: sharedNote(one.shared_codes, item.codes) }))
          : h("p", { class: "note" }, "No other item shares its first code."),
      ),
    ),
    section(
      "after",
      "What comes after it",
      later(post("v1/recommend", { history: [id], k: AFTER }, signal), signal, ({ answers }) =>
        grid(answers[0].items, (one, place) => ({ rank: place + 1 })),
      ),
    ),
  );
  return null;
}

const section = (id, title, ...content) =>
  h(
    "section",
    { "aria-labelledby": `${id}-title` },
    h("h2", { id: `${id}-title` }, title),
    content,
  );

/** A place that is filled once an answer has come; the rest of the page does not wait for it. */
function later(answer, signal, show) {
  const box = h("div", { class: "later", "aria-busy": "true" }, waiting(AFTER));
  answer
    .then(
      (found) => box.replaceChildren(show(found)),
      (error) =>
        signal.aborted ||
        box.replaceChildren(h("p", { class: "note", role: "alert" }, sentence(error.message))),
    )
    .finally(() => box.removeAttribute("aria-busy"));
  return box;
}

function sharedNote(shared, codes) {
  return h(
    "p",
    { class: "shares" },
    h(
      "span",
      { class: "codes", "aria-hidden": "true" },
      codes.map((code, level) =>
        h(
          "span",
          { class: level < shared ? "code" : "code off", style: { "--hue": hueOf(level, code) } },
          level < shared ? String(code) : "·",
        ),
      ),
    ),
    h("span", { class: "hidden" }, `shares ${many(shared, "code")}`),
  );
}

function trail(place) {
  return h(
    "ol",
    { class: "trail" },
    place.trail.map((step, level) => {
      const whole = level === place.codes.length - 1;
      return h(
        "li",
        {},
        h(
          "a",
          {
            class: "plate",
            href: treeLink(place.codes.slice(0, whole ? level : level + 1)),
            style: { "--hue": hueOf(level, step.code) },
          },
          h(
            "span",
            { class: "plate-code" },
            h("span", { class: "hidden" }, `Code ${level + 1}: `),
            String(step.code),
          ),
          h("span", { class: "plate-words" }, nameOf(step.words, whole ? "this item alone" : "–")),
          h(
            "span",
            { class: "plate-count" },
            whole ? many(step.items, "item") : `${many(step.items, "item")} begin so`,
          ),
        ),
      );
    }),
  );
}

function attributes(values) {
  const rows = Object.entries(values).filter(
    ([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length),
  );
  if (!rows.length) return null;
  return h(
    "dl",
    { class: "facts" },
    rows.map(([name, value]) =>
      h("div", {}, h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, written(name, value))),
    ),
  );
}

function written(name, value) {
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "boolean") return value ? "yes" : "no";
  return name === "price" && typeof value === "number" ? price(value) : String(value);
}
