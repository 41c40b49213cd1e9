// The explorer: which view is shown, where the focus goes, and what is the same on all of them.

import { Problem, get } from "./api.js";
import { setHues } from "./codes.js";
import { announce, calm, change, debounce, h, many, sentence } from "./dom.js";
import { leaveDock, showDock } from "./dock.js";
import { getHistory, onChange } from "./state.js";
import { showItem } from "./views/item.js";
import { showNext } from "./views/next.js";
import { showReport } from "./views/report.js";
import { showSearch } from "./views/search.js";
import { showTree } from "./views/tree.js";
import { showUsers } from "./views/users.js";
import { showVersions } from "./views/versions.js";

const views = {
  tree: showTree,
  search: showSearch,
  item: showItem,
  next: showNext,
  users: showUsers,
  versions: showVersions,
  report: showReport,
};
const main = document.getElementById("main");
const input = document.getElementById("query");
const scrolled = new Map(); // address → how far down it was
let leaving = null; // ends what the view before still asks for
let shownAt = null;
let back = false;

export const app = { overview: null };

/** #/tree/9/105?x=1 → its parts, decoded. */
function readRoute() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path
    .split("/")
    .filter(Boolean)
    .map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    });
  return {
    view: parts[0] in views ? parts[0] : "tree",
    parts: parts.slice(1),
    query: new URLSearchParams(query),
  };
}

async function show() {
  const route = readRoute();
  const first = shownAt === null;
  if (!first) scrolled.set(shownAt, scrollY);
  const same = !first && shownAt.split("?")[0] === location.hash.split("?")[0];
  shownAt = location.hash;
  history.replaceState("shown", "");
  leaving?.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  leaveDock(route.view);
  for (const link of document.querySelectorAll("#nav a")) {
    const here =
      link.dataset.view === route.view || (route.view === "item" && link.dataset.view === "tree");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (route.view === "search") {
    if (document.activeElement !== input) input.value = route.query.get("q") ?? "";
  } else input.value = "";
  main.setAttribute("aria-busy", "true");
  const place = h("div", { class: `view view-${route.view}` });
  const place_up = back ? (scrolled.get(location.hash) ?? 0) : 0;
  back = false;
  try {
    app.overview ??= await welcome(signal);
    const ready = await views[route.view](place, { ...route, signal, overview: app.overview });
    if (signal.aborted) return;
    await change(() => {
      if (signal.aborted) return; // a transition begins a frame later: the reader may have gone on
      main.replaceChildren(place);
      ready?.();
      if (!same) scrollTo({ top: place_up, behavior: "instant" });
    });
    if (signal.aborted) return;
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    main.replaceChildren(wrong(error));
  }
  main.removeAttribute("aria-busy");
  const title = main.querySelector("h1");
  document.title = `${title?.textContent ?? "Explorer"} – UTGRec`;
  showDock(route.view);
  const chosen = document.activeElement; // some views have a place to type in that is wanted first
  const placed = chosen === input || (chosen !== main && main.contains(chosen));
  if (!first && !same && title && !placed) {
    title.tabIndex = -1;
    title.focus({ preventScroll: true });
  }
}

async function welcome(signal) {
  const overview = await get("v1/overview", signal);
  setHues(overview.hues);
  document.querySelector("#nav [data-view=users]").parentElement.hidden = !overview.users;
  document.getElementById("domain").textContent = overview.domain;
  document.getElementById("served").textContent =
    `${overview.domain}, generation ${overview.generation} · ${many(overview.items, "item")} · UTGRec ${overview.version}`;
  return overview;
}

function wrong(error) {
  const known = error instanceof Problem;
  return h(
    "div",
    { class: "card wrong prose", role: "alert" },
    h("h1", {}, known && error.status === 404 ? "Nothing there" : "That did not work"),
    h(
      "p",
      {},
      known ? sentence(error.message) : "The server cannot be reached. Is it still running?",
    ),
    h(
      "div",
      { class: "actions" },
      h("a", { class: "button", href: "#/tree" }, "Back to all codes"),
      h("button", { type: "button", onclick: show }, "Try again"),
    ),
  );
}

function showCount() {
  const badge = document.getElementById("count");
  badge.textContent = String(getHistory().length);
  badge.hidden = !getHistory().length;
}

/** Go to what is typed; whether there was anywhere to go. */
function search() {
  const typed = input.value.trim();
  const target = `#/search?q=${encodeURIComponent(typed)}`;
  if (!typed || target === location.hash) return false;
  if (readRoute().view === "search") {
    history.replaceState(history.state, "", target);
    show();
  } else location.hash = target;
  return true;
}

const searchSoon = debounce(search, 180);

input.addEventListener("input", searchSoon);
document.getElementById("find").addEventListener("submit", (event) => {
  event.preventDefault();
  searchSoon.cancel();
  if (!search() && readRoute().view === "search") main.querySelector(".item a")?.focus();
});

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

const typing = (element) => element.closest("input, textarea, select, [contenteditable]") !== null;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]"))
    return;
  if (event.key === "/" && !typing(event.target)) {
    event.preventDefault();
    input.focus();
    input.select();
  } else if (event.key === "Escape" && event.target === input) {
    main.focus();
  }
});

const themes = ["auto", "light", "dark"];
const theme = document.getElementById("theme");

function useTheme(name) {
  document.documentElement.dataset.theme = name;
  const next = themes[(themes.indexOf(name) + 1) % themes.length];
  theme.setAttribute("aria-label", `Colours: ${name}. Switch to ${next}`);
  theme.title = `Colours: ${name}`;
}

theme.addEventListener("click", () => {
  const now = document.documentElement.dataset.theme;
  const next = themes[(themes.indexOf(now) + 1) % themes.length];
  localStorage.setItem("utgrec.theme", next);
  useTheme(next);
  announce(`Colours: ${next}`);
});

useTheme(
  themes.includes(localStorage.getItem("utgrec.theme"))
    ? localStorage.getItem("utgrec.theme")
    : "auto",
);
onChange(showCount);
showCount();
history.scrollRestoration = "manual";
// This comes with every new address, before the page hears of it as a whole. Only addresses that
// were shown before have a state.
addEventListener("popstate", (event) => {
  back = event.state !== null;
  searchSoon.cancel(); // it would call back whoever goes elsewhere
});
addEventListener("hashchange", show);
addEventListener("served", () => {
  app.overview = null; // another generation: ask again
  show();
});
let renewing = false;
addEventListener("generation", async ({ detail }) => {
  if (renewing || !app.overview || detail === app.overview.generation) return;
  renewing = true;
  try {
    app.overview = await welcome(); // the view itself is the reader's: it stays
  } catch {
    // The next answer tells it again.
  } finally {
    renewing = false;
  }
});
document.documentElement.classList.toggle("calm", calm());
show();
