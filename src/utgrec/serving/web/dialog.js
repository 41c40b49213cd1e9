// Ask before something that others will notice.

import { h } from "./dom.js";

let made = 0;

/** Whether the reader said yes. The way out has the focus; Escape takes it, too. */
export function confirm({ title, text, yes, no, danger = false }) {
  const id = `dialog-${++made}`;
  const out = h("button", { value: "no" }, no);
  const dialog = h(
    "dialog",
    { class: "card ask", "aria-labelledby": id, "aria-describedby": `${id}-text` },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id }, title),
      h("p", { id: `${id}-text` }, text),
      h(
        "div",
        { class: "actions" },
        h("button", { class: danger ? "primary danger" : "primary", value: "yes" }, yes),
        out,
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  out.focus();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    }),
  );
}
