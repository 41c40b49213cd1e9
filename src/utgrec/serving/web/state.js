// What the reader has chosen: a history of items, and filters. It lives in this tab, and in the
// address of the view that recommends, so that what one sees can be sent to somebody else.

const KEPT = "utgrec.history";
const MOST = 50;
const listeners = new Set();

function restore() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) || "[]");
    return Array.isArray(kept) ? kept.filter((item) => typeof item?.item_id === "string") : [];
  } catch {
    return [];
  }
}

let history = restore();
let filters = {}; // column → {values: [...]} or {min, max}

export const getHistory = () => history;
export const getFilters = () => filters;
export const inHistory = (id) => history.some((item) => item.item_id === id);

/** Be told of every change; call what comes back to hear no more. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function setHistory(items) {
  history = items.slice(-MOST);
  sessionStorage.setItem(KEPT, JSON.stringify(history));
  for (const listener of [...listeners]) listener();
}

export const addToHistory = ({ item_id, title, image, codes }) =>
  setHistory([
    ...history.filter((one) => one.item_id !== item_id),
    { item_id, title, image, codes },
  ]);

export const removeFromHistory = (id) => setHistory(history.filter((one) => one.item_id !== id));

export function setFilters(wanted) {
  filters = wanted;
  for (const listener of [...listeners]) listener();
}

/** What the address says: ?h=ID&h=ID&c.brand=X&min.price=1&max.price=9&is.stock=true */
export function readAddress(query) {
  const wanted = {};
  for (const [name, value] of query) {
    const [kind, column] = [name.slice(0, name.indexOf(".")), name.slice(name.indexOf(".") + 1)];
    if (!["c", "is", "min", "max"].includes(kind) || !column) continue;
    const one = (wanted[column] ??= {});
    if (kind === "c") one.values = [...(one.values ?? []), value];
    else if (kind === "is") one.values = [value === "true"];
    else if (value !== "" && Number.isFinite(Number(value))) one[kind] = Number(value);
  }
  return { ids: query.getAll("h"), filters: wanted };
}

/** The address that says what is chosen now. */
export function writeAddress() {
  const query = new URLSearchParams();
  for (const item of history) query.append("h", item.item_id);
  for (const [column, one] of Object.entries(filters)) {
    for (const value of one.values ?? []) {
      query.append(`${typeof value === "boolean" ? "is" : "c"}.${column}`, value);
    }
    for (const bound of ["min", "max"]) {
      if (one[bound] !== undefined) query.append(`${bound}.${column}`, one[bound]);
    }
  }
  const text = query.toString();
  return `#/next${text ? `?${text}` : ""}`;
}

/** The filters as the server takes them. */
export function asRequest() {
  const where = {};
  for (const [column, one] of Object.entries(filters)) {
    if (one.values?.length) where[column] = one.values;
    else if (one.min !== undefined || one.max !== undefined) {
      where[column] = { min: one.min ?? null, max: one.max ?? null };
    }
  }
  return { where };
}
