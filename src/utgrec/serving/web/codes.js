// Codes as people see them: small plates with a number, in the colour that stands for what it means.
// The server gives each code a hue so that codes that mean alike look alike.

import { h } from "./dom.js";

let hues = [];

export const setHues = (given) => (hues = given);

export const hueOf = (level, code) => hues[level]?.[code] ?? 200;

/** The codes of an item in one line; `shared` of them are marked as common with something else. */
export function codeLine(codes, { shared = null, label = null } = {}) {
  const said = label ?? `codes ${codes.join(", ")}`;
  return h(
    "span",
    { class: "codes", role: "img", "aria-label": said },
    codes.map((code, level) =>
      h(
        "span",
        {
          class: shared !== null && level >= shared ? "code off" : "code",
          "aria-hidden": "true",
          style: { "--hue": hueOf(level, code) },
        },
        String(code),
      ),
    ),
  );
}

/** Words of a branch as its name. */
export const nameOf = (words, fallback) => (words.length ? words.join(" · ") : fallback);

export const treeLink = (codes) => `#/tree${codes.length ? `/${codes.join("/")}` : ""}`;
export const itemLink = (id) => `#/item/${encodeURIComponent(id)}`;
