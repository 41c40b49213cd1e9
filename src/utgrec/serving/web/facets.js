// Filters: each column of the catalogue as boxes to tick, a choice of yes and no, or two bounds.

import { count, debounce, h, price, s } from "./dom.js";
import { getFilters, onChange, setFilters } from "./state.js";

const FIRST = 6;

/** A panel of filters that follows what is chosen elsewhere, as in the address. */
export function showFilters(facets, signal) {
  const clear = h("button", { type: "button", onclick: () => setFilters({}) }, "Clear all filters");
  const count_ = h("span", { class: "badge" });
  const panel = h(
    "section",
    { class: "card filters", "aria-labelledby": "filters-title" },
    h(
      "details",
      { open: matchMedia("(min-width: 900px)").matches },
      h("summary", {}, h("h2", { id: "filters-title" }, "Filters"), count_),
      facets.map((facet) => one(facet, signal)),
      clear,
    ),
  );
  const show = () => {
    const chosen = Object.keys(getFilters()).length;
    clear.hidden = count_.hidden = !chosen;
    count_.textContent = String(chosen);
  };
  signal.addEventListener("abort", onChange(show));
  show();
  return panel;
}

function choose(name, value) {
  const { [name]: _, ...others } = getFilters();
  setFilters(value === null ? others : { ...others, [name]: value });
}

function one(facet, signal) {
  const title = facet.name.replaceAll("_", " ");
  const set = h("fieldset", { class: `facet facet-${facet.kind}` }, h("legend", {}, title));
  const inside = { words, flags, numbers }[facet.kind](facet, title, signal);
  set.append(...inside);
  return set;
}

function follow(signal, show) {
  signal.addEventListener("abort", onChange(show));
  show();
}

function words(facet, title, signal) {
  const chosen = () => getFilters()[facet.name]?.values ?? [];
  const list = h("ul", { class: "choices" });
  let all = false;
  const tick = (value) => {
    const now = chosen();
    const next = now.includes(value) ? now.filter((other) => other !== value) : [...now, value];
    choose(facet.name, next.length ? { values: next } : null);
  };
  const show = () => {
    const focused = list.contains(document.activeElement) ? document.activeElement.value : null;
    const known = facet.values.map((entry) => entry.value);
    const extra = chosen()
      .filter((value) => !known.includes(value))
      .map((value) => ({ value, items: null }));
    const entries = [...extra, ...facet.values];
    const shown = all
      ? entries
      : entries.filter((entry, place) => place < FIRST || chosen().includes(entry.value));
    list.replaceChildren(
      ...shown.map((entry) =>
        h(
          "li",
          {},
          h(
            "label",
            {},
            h("input", {
              type: "checkbox",
              value: entry.value,
              checked: chosen().includes(entry.value),
              onchange: () => tick(entry.value),
            }),
            h("span", { class: "choice" }, entry.value),
            entry.items !== null && h("span", { class: "figure" }, count(entry.items)),
          ),
        ),
      ),
    );
    if (focused !== null)
      [...list.querySelectorAll("input")].find((box) => box.value === focused)?.focus();
  };
  follow(signal, show);
  const parts = [list];
  if (facet.values.length > FIRST) {
    const more = h(
      "button",
      { type: "button", class: "quiet-button", "aria-expanded": "false" },
      `Show all ${count(facet.values.length)}`,
    );
    more.addEventListener("click", () => {
      all = !all;
      more.setAttribute("aria-expanded", String(all));
      more.textContent = all ? "Show fewer" : `Show all ${count(facet.values.length)}`;
      show();
    });
    parts.push(more);
  }
  if (facet.distinct > facet.values.length) {
    const input = h("input", {
      type: "text",
      "aria-label": `Another ${title}`,
      placeholder: `Another of ${count(facet.distinct)}`,
    });
    parts.push(
      h(
        "form",
        {
          class: "another",
          onsubmit: (event) => {
            event.preventDefault();
            const value = input.value.trim();
            if (value && !chosen().includes(value)) tick(value);
            input.value = "";
          },
        },
        input,
        h("button", { type: "submit" }, "Add"),
      ),
    );
  }
  return parts;
}

function flags(facet, title, signal) {
  const group = h("div", { class: "segments" });
  const made = [
    ["any", null],
    ["yes", true],
    ["no", false],
  ].map(([label, value]) => {
    const button = h(
      "button",
      {
        type: "button",
        onclick: () => choose(facet.name, value === null ? null : { values: [value] }),
      },
      label,
    );
    const entry = facet.values.find((other) => other.value === value);
    if (entry) button.append(h("span", { class: "figure" }, ` ${count(entry.items)}`));
    group.append(button);
    return [button, value];
  });
  follow(signal, () => {
    const now = getFilters()[facet.name]?.values?.[0] ?? null;
    for (const [button, value] of made) button.setAttribute("aria-pressed", String(value === now));
  });
  return [group];
}

function numbers(facet, title, signal) {
  if (facet.least === null) return [h("p", { class: "note" }, "No item has a value.")];
  const write = (value) => (facet.name === "price" ? price(value) : count(value));
  const input = (bound, label, hint) =>
    h("input", {
      type: "number",
      step: "any",
      inputmode: "decimal",
      "aria-label": `${label} ${title}`,
      placeholder: write(hint),
      "data-bound": bound,
    });
  const least = input("min", "Lowest", facet.least);
  const most = input("max", "Highest", facet.most);
  const apply = debounce(() => {
    const [min, max] = [least, most].map((one) =>
      one.value === "" || !Number.isFinite(one.valueAsNumber) ? undefined : one.valueAsNumber,
    );
    const wanted = { ...(min !== undefined && { min }), ...(max !== undefined && { max }) };
    choose(facet.name, Object.keys(wanted).length ? wanted : null);
  }, 250);
  const bars = histogram(facet);
  for (const one of [least, most]) one.addEventListener("input", apply);
  signal.addEventListener("abort", apply.cancel);
  follow(signal, () => {
    const now = getFilters()[facet.name] ?? {};
    for (const [one, bound] of [
      [least, "min"],
      [most, "max"],
    ]) {
      if (document.activeElement !== one) one.value = now[bound] ?? "";
    }
    bars.mark(now.min ?? -Infinity, now.max ?? Infinity);
  });
  return [
    bars.element,
    h("div", { class: "bounds" }, least, h("span", { "aria-hidden": "true" }, "–"), most),
  ];
}

function histogram(facet) {
  const { bars } = facet;
  const highest = Math.max(...bars);
  const step = (facet.bars_to - facet.least) / Math.max(1, bars.length - 1);
  const made = bars.map((items, place) => {
    const height = items ? Math.max(4, (40 * items) / highest) : 0;
    return s("rect", { x: place * 10, y: 40 - height, width: 8, height, rx: 1.5 });
  });
  const element = s(
    "svg",
    {
      class: "bars",
      viewBox: `0 0 ${bars.length * 10} 40`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    made,
  );
  const mark = (min, max) =>
    made.forEach((bar, place) => {
      const from = facet.least + place * step;
      const to = place === bars.length - 1 ? facet.most : from + step;
      bar.setAttribute("class", to < min || from > max ? "off" : "on");
    });
  return { element, mark };
}
