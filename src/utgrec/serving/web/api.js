// Ask the server. If it wants a key, the reader is asked for one; it stays in this tab's
// sessionStorage and is sent in a header only, never in an address.

import { h } from "./dom.js";

const KEPT = "utgrec.key";
let asking = null;

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || `the server answered ${status}`);
    this.status = status;
    this.retryAfter = 0;
  }
}

/** Addresses are taken relative to the page, so it also works below a proxy's path. */
export function address(path) {
  return new URL(path.replace(/^\//, ""), document.baseURI.replace(/#.*/, "")).href;
}

export const hasKey = () => sessionStorage.getItem(KEPT) !== null;

async function send(path, options, signal) {
  const headers = { ...options.headers };
  const key = sessionStorage.getItem(KEPT);
  if (key) headers.authorization = `Bearer ${key}`;
  const answer = await fetch(address(path), { ...options, headers, signal, credentials: "omit" });
  if (answer.status === 401) {
    await askForKey(key);
    return send(path, options, signal);
  }
  if (answer.ok) return answer;
  const problem = new Problem(answer.status, await answer.json().catch(() => ({})));
  problem.retryAfter = Number(answer.headers.get("retry-after")) || 0;
  throw problem;
}

/** Tell the page which generation answered: somebody else may have let another one serve. */
export function heard(generation) {
  if (Number.isInteger(generation))
    dispatchEvent(new CustomEvent("generation", { detail: generation }));
}

export async function get(path, signal) {
  const found = await (await send(path, {}, signal)).json();
  heard(found.generation);
  return found;
}

export async function post(path, body, signal) {
  const options = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  return (await send(path, options, signal)).json();
}

export async function remove(path, signal) {
  return (await send(path, { method: "DELETE" }, signal)).json();
}

/** A picture's address for an <img>; with a key it is fetched, since an <img> cannot send one. */
export async function pictureAddress(path) {
  if (!hasKey()) return address(path);
  if (!pictures.has(path)) {
    const made = send(path, {}).then(async (answer) => URL.createObjectURL(await answer.blob()));
    pictures.set(path, made);
    made.catch(() => pictures.delete(path));
    if (pictures.size > 600) {
      const [oldest, held] = pictures.entries().next().value;
      pictures.delete(oldest);
      held.then(
        (url) => URL.revokeObjectURL(url),
        () => {},
      );
    }
  }
  return pictures.get(path);
}

const pictures = new Map();

function askForKey(refused) {
  if (refused && refused !== sessionStorage.getItem(KEPT)) return Promise.resolve();
  asking ??= new Promise((resolve) => {
    const input = h("input", {
      id: "key",
      type: "password",
      autocomplete: "off",
      required: true,
      spellcheck: "false",
      "aria-describedby": "key-note",
    });
    const dialog = h(
      "dialog",
      { class: "card ask", "aria-labelledby": "key-title" },
      h(
        "form",
        { method: "dialog" },
        h(
          "h2",
          { id: "key-title" },
          refused ? "That key is not known here" : "This server needs a key",
        ),
        h(
          "p",
          { id: "key-note" },
          "Ask whoever runs it for a key with the role read. It stays in this tab only and is forgotten when you close it.",
        ),
        h("label", { for: "key" }, "API key"),
        input,
        h("button", { class: "primary", type: "submit" }, "Use this key"),
      ),
    );
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEPT, input.value.trim());
      dialog.remove();
      asking = null;
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
  return asking;
}
