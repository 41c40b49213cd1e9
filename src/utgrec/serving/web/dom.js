// Make elements, tell screen readers, wait a little: what every view needs. Texts are never parsed
// as HTML anywhere: titles come from outside.

/** An element: properties by name, `on…` as listeners, `style` as custom properties. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") {
      for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    } else if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(
    ...children.flat(3).filter((one) => one !== null && one !== undefined && one !== false),
  );
  return element;
}

let speaking = 0;

/** Let a screen reader say something, without moving anybody. */
export function announce(text) {
  const status = document.getElementById("status");
  clearTimeout(speaking);
  status.textContent = "";
  speaking = setTimeout(() => (status.textContent = text), 60);
}

/** Call a function once nothing has happened for a while. */
export function debounce(action, milliseconds) {
  let waiting = 0;
  const later = (...given) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => action(...given), milliseconds);
  };
  later.cancel = () => clearTimeout(waiting);
  return later;
}

const numbers = new Intl.NumberFormat("en");
const prices = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export const count = (value) => numbers.format(value);
export const price = (value) => prices.format(value);
export const many = (value, one, more = `${one}s`) => `${count(value)} ${value === 1 ? one : more}`;
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

/** A message of the server as a sentence. */
export const sentence = (text) =>
  text.slice(0, 1).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Change the page with a soft transition, where the browser can and the reader wants it. */
export async function change(action) {
  if (!document.startViewTransition || calm() || document.hidden) return action();
  const transition = document.startViewTransition(action);
  transition.finished.catch(() => {});
  transition.ready.catch(() => {});
  return transition.updateCallbackDone;
}
