// One user of the shop: what is kept of them, what they would get and why, and how to forget them.

import { get, remove } from "../api.js";
import { cardsOf, picture, titleOf } from "../cards.js";
import { itemLink } from "../codes.js";
import { confirm } from "../dialog.js";
import { announce, count, h, many, sentence } from "../dom.js";
import { legend, priced, ranked } from "../ranked.js";

const FIRST = 24; // items recommended
const MOST_TO_TRY = 50; // items that "What comes next" takes
const date = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
let deleted = null; // what to say once, after somebody was forgotten

const userLink = (id) => `#/users/${encodeURIComponent(id)}`;

export async function showUsers(view, { parts, signal, overview }) {
  const id = parts.join("/");
  view.append(head(id, overview));
  if (!overview.users) {
    view.append(off());
    return null;
  }
  if (deleted !== null) {
    view.append(h("p", { class: "verdict good" }, deleted));
    announce(deleted);
    deleted = null;
  }
  if (!id) {
    view.append(howItWorks());
    return () => document.getElementById("user-id").focus();
  }
  const path = `v1/users/${encodeURIComponent(id)}`;
  const [{ history }, next] = await Promise.all([
    get(path, signal),
    get(`${path}/recommend?k=${FIRST}&attention=true`, signal),
  ]);
  const [known, items] = await Promise.all([
    cardsOf([...new Set(history.map((one) => one.item_id))], signal),
    priced(next.items, signal),
  ]);
  const after = next.history.length;
  view.append(
    h(
      "div",
      { class: "two" },
      h("div", { class: "side" }, kept(id, path, history, known, overview)),
      h(
        "section",
        { class: "results", "aria-labelledby": "comes-title" },
        h("h2", { id: "comes-title" }, "What they would get"),
        h(
          "p",
          { class: "lead" },
          after
            ? `After ${many(after, "item")}, most likely first.`
            : "Without a history: what fits everybody.",
        ),
        after > 0 && items.length > 0 && legend(),
        items.length
          ? ranked(items, after > 0)
          : h("p", { class: "card note" }, "There is nothing left to recommend."),
      ),
    ),
  );
  announce(
    `${many(history.length, "entry", "entries")} kept, ${many(items.length, "recommendation")}.`,
  );
  return null;
}

function head(id, overview) {
  const input = h("input", {
    id: "user-id",
    type: "text",
    required: true,
    maxlength: 200,
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    value: id,
  });
  const form = h(
    "form",
    { class: "who" },
    h("label", { for: "user-id" }, "Id of a user"),
    h("div", {}, input, h("button", { class: "primary", type: "submit" }, "Look up")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim()) location.hash = userLink(input.value.trim());
  });
  return h(
    "header",
    { class: "head" },
    h(
      "div",
      {},
      h("h1", {}, id ? `User ${id}` : "Users"),
      h(
        "p",
        { class: "lead" },
        id
          ? "What the shop's events say, and what comes of it."
          : "Look somebody up by the id that your shop sends with its events.",
      ),
    ),
    overview.users && form,
  );
}

function howItWorks() {
  const event = { event_id: "order-93-1", user_id: "u42", item_id: "A12" };
  return h(
    "div",
    { class: "card prose" },
    h("h2", {}, "Where histories come from"),
    h(
      "p",
      {},
      "The shop sends an event for everything that somebody takes. The next recommendations for that user already know it.",
    ),
    h("pre", { tabindex: 0 }, h("code", {}, `POST /v1/events\n${JSON.stringify({ events: [event] }, null, 1)}`)),
    h(
      "p",
      { class: "note" },
      "Nobody is listed here: who has no id to ask for, finds nobody. Deleting a user leaves nothing of them behind.",
    ),
  );
}

const off = () =>
  h(
    "div",
    { class: "card prose" },
    h("p", {}, "This server keeps no histories of users. Start it with them:"),
    h("pre", { tabindex: 0 }, h("code", {}, "utgrec serve RUN --users run")),
  );

function kept(id, path, history, known, overview) {
  const newest = [...history].reverse();
  const shown = matchMedia("(max-width: 56rem)").matches ? 5 : 24; // what comes next is below it
  const list = h("ol", { class: "history", reversed: true });
  const show = (entries) => list.append(...entries.map((one) => entry(one, known)));
  show(newest.slice(0, shown));
  const more = h("button", { type: "button" }, `Show all ${count(newest.length)}`);
  more.addEventListener("click", () => {
    show(newest.slice(shown));
    more.remove();
    list.children[shown].querySelector("a")?.focus();
  });
  const tried = history.map((one) => one.item_id).filter((one) => known.has(one));
  return h(
    "section",
    { class: "card", "aria-labelledby": "kept-title" },
    h("h2", { id: "kept-title" }, "History"),
    h(
      "div",
      { class: "taken" },
      h(
        "p",
        { class: "note" },
        history.length
          ? `${many(history.length, "entry", "entries")}, newest first.`
          : "Nothing is kept of this user.",
      ),
      history.length > 0 && list,
      newest.length > shown && more,
      tried.length > 0 &&
        h("a", { class: "button", href: tryLink(tried) }, "Try changes to it"),
      history.length > 0 && overview.may_change && forget(id, path),
    ),
  );
}

function entry({ item_id, timestamp }, known) {
  const item = known.get(item_id);
  const when = h(
    "time",
    { class: "note", datetime: new Date(timestamp).toISOString() },
    date.format(timestamp),
  );
  if (!item) {
    return h(
      "li",
      {},
      picture({ item_id }),
      h("span", { class: "entry" }, item_id, h("span", { class: "note" }, "not in this version"), when),
    );
  }
  return h(
    "li",
    {},
    h(
      "a",
      { href: itemLink(item_id) },
      picture(item),
      h("span", { class: "entry" }, h("span", { class: "entry-title" }, titleOf(item)), when),
    ),
    !item.live && h("span", { class: "pill" }, "removed"),
  );
}

/** The newest items of a history, once each, in the view where it can be played with. */
function tryLink(ids) {
  const distinct = [...new Set(ids.reverse())].slice(0, MOST_TO_TRY).reverse();
  return `#/next?${new URLSearchParams(distinct.map((one) => ["h", one]))}`;
}

function forget(id, path) {
  const button = h("button", { type: "button", class: "danger" }, "Delete this user");
  button.addEventListener("click", async () => {
    const sure = await confirm({
      title: `Delete everything about “${id}”?`,
      text: "All entries of the history and the ids of their events go for good. This cannot be undone.",
      yes: "Delete for good",
      no: "Keep",
      danger: true,
    });
    if (!sure) return button.focus();
    try {
      const here = location.hash;
      const done = await remove(path);
      const said = `${many(done.deleted, "entry", "entries")} deleted. Nothing is kept of “${id}” any more.`;
      if (location.hash !== here) return announce(said); // the reader has gone elsewhere
      deleted = said;
      location.hash = "#/users";
    } catch (error) {
      button.after(h("p", { class: "verdict bad", role: "alert" }, sentence(error.message)));
    }
  });
  return button;
}
