// The tree of codes as a map to wander in: each tile is a code, as large as its share of the items.

import { get } from "../api.js";
import { card, picture } from "../cards.js";
import { codeLine, hueOf, nameOf, treeLink } from "../codes.js";
import { count, h, many, percent } from "../dom.js";
import { layout, neighbour, withFloor } from "../treemap.js";

const LEAST_TILE = 54; // side of the smallest tile, in pixels: a finger hits 44
const NARROWEST = 44;
const AVERAGE_TILE = 96;
let asList = sessionStorage.getItem("utgrec.list") === "yes";

export async function showTree(view, { parts, signal, overview }) {
  const place = await get(`v1/tree/${parts.join("/")}`, signal);
  const level = place.codes.length;
  const { sizes } = overview;
  const name = level
    ? nameOf(place.trail.at(-1).words, `Code ${place.codes.at(-1)}`)
    : overview.domain;
  view.append(
    level ? crumbs(place) : "",
    h(
      "header",
      { class: "head" },
      h("div", {}, h("h1", {}, name), h("p", { class: "lead" }, lead(place, overview))),
      level < sizes.length - 1 && place.branches.length > 0 && switcher(view),
    ),
  );
  if (level >= sizes.length - 1) {
    view.append(items(place));
    return null;
  }
  if (!place.branches.length) {
    view.append(h("p", { class: "note" }, "No item has these codes now."));
    return null;
  }
  const map = h("div", { class: "map-box" });
  view.append(map, below(place, sizes[level]));
  const draw = () => {
    const { box, arrange } = asList ? { box: table(place) } : tiles(place);
    map.replaceChildren(box);
    arrange?.(); // an observer would do it one frame later, and the reader see tiles without sizes
  };
  view.addEventListener("relayout", draw);
  return draw;
}

function lead(place, { sizes, removed }) {
  const level = place.codes.length;
  const moved = place.moved
    ? ` ${percent(place.moved / Math.max(1, place.items))} of them took other codes than their nearest, because those were taken.`
    : "";
  if (level === 0) {
    const used = place.branches.length;
    return `${many(place.items, "item")} under ${count(used)} of ${count(sizes[0])} first codes. Alike items have alike codes, and alike codes have alike colours.${moved}${removed ? ` ${many(removed, "item")} removed.` : ""}`;
  }
  if (level === sizes.length) return "The one item with these codes.";
  const rest =
    level === sizes.length - 1
      ? "each with a last code of its own"
      : `under ${count(place.branches.length)} of ${count(sizes[level])} next codes`;
  return `${many(place.items, "item")} whose codes begin with ${place.codes.join(", ")}, ${rest}.${moved}`;
}

function crumbs(place) {
  return h(
    "nav",
    { class: "crumbs", "aria-label": "Way through the tree" },
    h(
      "ol",
      {},
      h("li", {}, h("a", { href: "#/tree" }, "All codes")),
      place.trail.map((step, level) =>
        h(
          "li",
          {},
          h(
            "a",
            {
              href: treeLink(place.codes.slice(0, level + 1)),
              ...(level === place.codes.length - 1 ? { "aria-current": "page" } : {}),
              style: { "--hue": hueOf(level, step.code) },
              class: "crumb",
            },
            h("span", { class: "code" }, String(step.code)),
            h("span", { class: "crumb-words" }, nameOf(step.words.slice(0, 2), "")),
          ),
        ),
      ),
    ),
  );
}

function switcher(view) {
  const button = (label, list) => {
    const made = h("button", { type: "button", "aria-pressed": String(asList === list) }, label);
    made.addEventListener("click", () => {
      asList = list;
      sessionStorage.setItem("utgrec.list", list ? "yes" : "no");
      for (const other of made.parentElement.children)
        other.setAttribute("aria-pressed", String(other === made));
      view.dispatchEvent(new Event("relayout"));
    });
    return made;
  };
  return h(
    "div",
    { class: "segments", role: "group", "aria-label": "Show as" },
    button("Map", false),
    button("List", true),
  );
}

function tiles(place) {
  const level = place.codes.length;
  const branches = [...place.branches].sort(
    (one, other) => hueOf(level, one.code) - hueOf(level, other.code),
  );
  const map = h("ul", {
    class: "map",
    "aria-label": `Codes, ${count(branches.length)}`,
    "aria-describedby": "map-help",
  });
  const links = branches.map((branch, number) =>
    tile(branch, [...place.codes, branch.code], number === 0),
  );
  let boxes = [];
  map.append(...links.map((link) => h("li", {}, link)));
  let width = 0;
  const arrange = () => {
    width = map.clientWidth;
    if (!width) return;
    const wanted = Math.max(460, Math.min(innerHeight - 250, 760));
    const height = Math.max(wanted, (branches.length * AVERAGE_TILE ** 2) / width);
    map.style.setProperty("height", `${Math.round(height)}px`);
    const weights = withFloor(
      branches.map((branch) => branch.items),
      LEAST_TILE ** 2,
      width * height,
    );
    boxes = layout(weights, width, height, NARROWEST);
    boxes.forEach((box, number) => {
      const li = links[number].parentElement;
      for (const [side, value] of [
        ["left", box.x],
        ["top", box.y],
        ["width", box.width],
        ["height", box.height],
      ]) {
        li.style.setProperty(side, `${value.toFixed(2)}px`);
      }
    });
  };
  new ResizeObserver(() => map.clientWidth !== width && arrange()).observe(map);
  map.addEventListener("keydown", (event) => {
    const here = links.indexOf(document.activeElement);
    if (here < 0) return;
    let to = here;
    if (event.key.startsWith("Arrow")) to = neighbour(boxes, here, event.key);
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = links.length - 1;
    else if (event.key === "Backspace" && level > 0) {
      location.hash = treeLink(place.codes.slice(0, -1));
      return;
    } else return;
    event.preventDefault();
    links[here].tabIndex = -1;
    links[to].tabIndex = 0;
    links[to].focus();
  });
  map.addEventListener("focusin", (event) => {
    for (const link of links) link.tabIndex = link === event.target ? 0 : -1;
  });
  const help = h(
    "p",
    { class: "hidden", id: "map-help" },
    "Arrow keys move between codes, Enter opens one, Backspace goes one level up.",
  );
  return { box: h("div", {}, map, help), arrange };
}

function tile(branch, codes, first) {
  const level = codes.length - 1;
  const name = nameOf(branch.words, `code ${branch.code}`);
  const link = h(
    "a",
    {
      class: "tile",
      href: treeLink(codes),
      tabindex: first ? 0 : -1,
      style: { "--hue": hueOf(level, branch.code) },
      title: `${name} · ${many(branch.items, "item")}${branch.moved ? `, ${count(branch.moved)} moved` : ""}`,
      // What is seen comes first and in its order, for those who speak what they see.
      "aria-label": `Code ${[branch.code, ...branch.words, many(branch.items, "item")].join(" ")}${branch.moved ? `, ${count(branch.moved)} moved` : ""}`,
    },
    h(
      "span",
      { class: "tile-inner" },
      h("span", { class: "tile-code" }, String(branch.code)),
      " ",
      h(
        "span",
        { class: "tile-words" },
        branch.words.map((word) => [h("span", {}, word), " "]),
      ),
      " ",
      h("span", { class: "tile-count" }, count(branch.items)),
      h(
        "span",
        { class: "tile-covers" },
        branch.covers.filter((item) => item.image).map((item) => picture(item)),
      ),
    ),
  );
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    // The tile grows into the map that comes: it takes over the name from the map that goes.
    link.closest(".map-box").style.setProperty("view-transition-name", "none");
    link.style.setProperty("view-transition-name", "zoom");
  });
  return link;
}

function table(place) {
  const level = place.codes.length;
  const rows = [...place.branches].sort((one, other) => other.items - one.items);
  const most = rows[0].items;
  return h(
    "div",
    { class: "card table-box", tabindex: 0, role: "region", "aria-label": "Codes as a table" },
    h(
      "table",
      { class: "codes-table" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["Code", "What its items say", "Items", "Moved"].map((one) =>
            h("th", { scope: "col" }, one),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((branch) =>
          h(
            "tr",
            { style: { "--hue": hueOf(level, branch.code) } },
            h(
              "th",
              { scope: "row" },
              h(
                "a",
                { href: treeLink([...place.codes, branch.code]) },
                h("span", { class: "hidden" }, "Code "),
                h("span", { class: "code" }, String(branch.code)),
              ),
            ),
            h("td", {}, nameOf(branch.words, "–")),
            h(
              "td",
              { class: "bar-cell" },
              h("span", {
                class: "bar",
                "aria-hidden": "true",
                style: { "--share": String(branch.items / most) },
              }),
              h("span", { class: "figure" }, count(branch.items)),
            ),
            h("td", { class: "figure" }, branch.moved ? percent(branch.moved / branch.items) : "0"),
          ),
        ),
      ),
    ),
  );
}

function below(place, size) {
  const list = (codes) =>
    h(
      "p",
      { class: "unused" },
      codes.map((code) => h("span", { class: "ghost" }, String(code))),
    );
  const what = place.codes.length ? "Free codes" : "Dead codes";
  const why = place.codes.length
    ? "No item has them under this prefix; new items may get them."
    : "No item has them as its first code. Many dead codes mean that the codebook is larger than the catalogue needs, or that it has collapsed.";
  return h(
    "div",
    { class: "below" },
    place.unused.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, `${what}: ${count(place.unused.length)} of ${count(size)}`),
        h("p", { class: "note" }, why),
        list(place.unused),
      ),
    place.reserved.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, `Reserved codes: ${count(place.reserved.length)}`),
        h(
          "p",
          { class: "note" },
          "Only removed items have them. They stay theirs, so that histories stay readable.",
        ),
        list(place.reserved),
      ),
  );
}

function items(place) {
  const found = place.branches.length
    ? place.branches.flatMap((branch) => branch.covers.map((item) => [item, branch.moved]))
    : place.covers.map((item) => [item, place.moved]);
  return h(
    "ul",
    { class: "items" },
    found.map(([item, moved]) =>
      card(item, {
        shared: place.codes.length,
        below: moved ? h("p", { class: "note" }, "Its nearest codes were taken.") : null,
      }),
    ),
  );
}
