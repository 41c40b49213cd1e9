// The report of the run, in a frame that can neither run scripts nor load anything.

import { address, get, hasKey } from "../api.js";
import { h } from "../dom.js";

export async function showReport(view, { signal }) {
  const { url } = await get("v1/report", signal);
  view.append(
    h(
      "header",
      { class: "head" },
      h(
        "div",
        {},
        h("h1", {}, "Report of the run"),
        h(
          "p",
          { class: "lead" },
          "How it was trained, what its codes are worth, and how good it is beside simple recommenders.",
        ),
      ),
      url &&
        h(
          "a",
          {
            class: "button",
            href: address(url),
            target: "_blank",
            rel: "noopener noreferrer",
            onclick: renew,
          },
          "Open on its own",
        ),
    ),
  );
  if (!url) {
    view.append(
      h(
        "div",
        { class: "card" },
        h("p", {}, "This run has no report yet. Write it, then come back:"),
        h("pre", {}, h("code", {}, "utgrec report RUN")),
      ),
    );
    return null;
  }
  view.append(
    h("iframe", {
      class: "report",
      title: "Report of the run",
      sandbox: "",
      referrerpolicy: "no-referrer",
      src: address(url),
    }),
  );
  return null;
}

/** With keys, the address is good for a minute: take a new one. */
async function renew(event) {
  if (!hasKey()) return;
  event.preventDefault();
  const { url } = await get("v1/report");
  open(address(url), "_blank", "noopener,noreferrer");
}
