// Small helpers to make page elements without a framework, and the icons.

/** An element. Props: on… are listeners, others attributes; true is an empty attribute, false and null none. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "indeterminate") element[name] = value;
    else if (name === "class") element.className = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Strokes on a 24 x 24 field.
const ICONS = {
  open: "M3 7.5V18a1.5 1.5 0 0 0 1.5 1.5h15A1.5 1.5 0 0 0 21 18V9a1.5 1.5 0 0 0-1.5-1.5h-8L9.3 4.9H4.5A1.5 1.5 0 0 0 3 6.4z",
  examples: "M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z",
  save: "M12 4v10m0 0 4-4m-4 4-4-4M4.5 15.5V18A1.5 1.5 0 0 0 6 19.5h12a1.5 1.5 0 0 0 1.5-1.5v-2.5",
  undo: "M8 5 4 9l4 4M4 9h9.5a5.5 5.5 0 0 1 0 11H9",
  redo: "m16 5 4 4-4 4M20 9h-9.5a5.5 5.5 0 0 0 0 11H15",
  theme: "M12 3.5a8.5 8.5 0 1 0 0 17zM12 3.5a8.5 8.5 0 0 1 0 17M14.5 7l4 4M12.5 11l6 6M12 16.5l2.5 2.5",
  help: "M9 9.2a3 3 0 1 1 4.3 2.7c-.9.5-1.3 1-1.3 2.1M12 17.3v.2M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  play: "M8 5.5v13l10.5-6.5z", pause: "M8.5 5.5v13M15.5 5.5v13",
  previous: "M17 6 9 12l8 6zM6.5 6v12", next: "m7 6 8 6-8 6zM17.5 6v12",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  eyeoff: "M4 4l16 16M9.9 5.8A9 9 0 0 1 12 5.5c6 0 9.5 6.5 9.5 6.500a17 17 0 0 1-3 3.700M6.2 7.700A16 16 0 0 0 2.5 12S6 18.5 12 18.500c1.3 0 2.5-.3 3.6-.8",
  lock: "M6 11h12v8.5H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3", unlock: "M6 11h12v8.5H6zM8.5 11V7.500a3.5 3.5 0 0 1 6.8-1.2",
  trash: "M5 7h14M9.5 7V4.500h5V7M7 7l.8 12.500h8.400L17 7M10.5 10.500v5.500M13.5 10.500v5.5",
  copy: "M9 9h10.500v10.500H9zM5.5 15H4.500V4.500H15v1", plus: "M12 5v14M5 12h14", close: "M6 6l12 12M18 6 6 18",
  select: "M6 3.5 18.5 13l-5.7.8-3 5.200z",
  box: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M9 12h6M12 9v6", pin: "M12 21v-6M8 4h8l-1.2 5 2.7 4h-11l2.7-4z",
  path: "M5 19a2 2 0 1 0 0-.1zM7 18.500C13 17 9 8 17 6.500M14 4.500l4 1.8-2.7 3.5",
  cutout: "M4 9V5a1 1 0 0 1 1-1h4M15 4h4a1 1 0 0 1 1 1v4M20 15v4a1 1 0 0 1-1 1h-4M9 20H5a1 1 0 0 1-1-1v-4M12 9v6M9 12h6",
  brush: "M14.5 4.5 20 10l-7.5 6-4-4zM8.5 12c-3 0-2.5 4.5-5 6.5 4 1.5 8.5.5 9-2.5", polygon: "M5 9l8-5 7 6-3 9H8z",
  erase: "M9 19.500h11M4 14.5 13.5 5l5.5 5.5-9 9H8zM9 9.500l5.5 5.5",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5", zoomin: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.5 15.5 20.5 20.500M10.5 8v5M8 10.500h5",
  zoomout: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.5 15.5 20.5 20.500M8 10.500h5",
  camera: "M3.5 7.500h11v9h-11zM14.5 10.500l6-3v9l-6-3", sliders: "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4M4 12h2M10 12h10M8 10v4",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 9.500h4M4 14.500h4M16 9.500h4M16 14.500h4", objects: "M4 4h9v9H4zM11 11h9v9h-9z",
  retry: "M19.5 12A7.5 7.5 0 1 1 17 6.400M19.5 4v4.500H15", stop: "M7 7h10v10H7z", warn: "M12 4 2.8 19.500h18.400zM12 10v4.500M12 17v.2",
  plan: "M4 5h16v14H4zM7 15l4-5 3 3 2-2 2 4", beside: "M4 5h7v14H4zM13 5h7v14h-7z", wipe: "M4 5h16v14H4zM12 3v18M14.5 12h3M16 10.500l1.5 1.5-1.5 1.5",
  under: "M4 9h11v11H4zM9 9V4h11v11h-5", difference: "M9 16a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM15 19a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11z",
  compare: "M5 4v16M19 4v16M12 4v16M5 8h7M12 15h7", spark: "M12 3.500l1.9 5.6 5.6 1.9-5.6 1.900L12 18.500l-1.9-5.600L4.5 11l5.6-1.900zM18.5 16v4M16.5 18h4",
  up: "M6 15l6-6 6 6", down: "M6 9l6 6 6-6", diamond: "M12 5l7 7-7 7-7-7z", load: "M12 19V9m0 0-4 4m4-4 4 4M5 5h14", hand: "M8 13V6.500a1.5 1.5 0 0 1 3 0V11m0-5.500a1.5 1.5 0 0 1 3 0V11m0-4a1.5 1.5 0 0 1 3 0v6.500c0 4-2 7-5.5 7-2.8 0-4.3-1.5-5.5-3.800L4.3 13.500c-.8-1.6 1.2-2.8 2.3-1.300L8 14",
  "pan-left": "M19 12H5m5-5-5 5 5 5", "pan-right": "M5 12h14m-5-5 5 5-5 5", "pan-up": "M12 19V5m-5 5 5-5 5 5", "pan-down": "M12 5v14m-5-5 5 5 5-5",
  "zoom-in": "M9 9 4 4m0 4V4h4M15 9l5-5m-4 0h4v4M9 15l-5 5m0-4v4h4M15 15l5 5m-4 0h4v-4", "zoom-out": "M4 4l5 5M5 9h4V5M20 4l-5 5m4 0h-4V5M4 20l5-5m-4 0h4v4M20 20l-5-5m4 0h-4v4",
  "roll-left": "M6 8a7.5 7.5 0 1 1-1.5 6M6 3.500V8h4.5", "roll-right": "M18 8a7.5 7.5 0 1 0 1.5 6M18 3.500V8h-4.5",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon; its label is shown as a tip and read aloud, or stands beside the icon with `text`. */
export function button(name, label, onclick, { text = false, kind = "", key = "", ...props } = {}) {
  const tip = key ? `${label} (${key})` : label;
  return h("button", { "type": "button", "class": `button ${text ? "" : "bare"} ${kind}`, "aria-label": text ? null : label, "title": tip, onclick, ...props },
    icon(name), text ? h("span", {}, label) : null);
}

/** Put icons into the buttons of index.html that name one. */
export function fillIcons(root) {
  for (const element of root.querySelectorAll("[data-icon]")) {
    if (!element.querySelector(".icon")) element.prepend(icon(element.dataset.icon));
    // Its text may be hidden where there is little room.
    if (!element.ariaLabel) element.setAttribute("aria-label", element.textContent.trim());
  }
}

export function setIcon(element, name) {
  if (element.dataset.icon === name && element.querySelector(".icon")) return;
  element.dataset.icon = name;
  element.querySelector(".icon")?.remove();
  element.prepend(icon(name));
}

/** Replace an element's children, keeping the focus on the element with the same data-focus name. */
export function refill(parent, children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  parent.replaceChildren(...children);
  const successor = focused ? named(parent, focused) : null;
  successor?.focus({ preventScroll: true });
  // As the Tab key leaves a field: what is typed next takes the place of what is there.
  successor?.select?.();
}

const named = (parent, name) => parent.querySelector(`[data-focus="${CSS.escape(name)}"]`);

/** Put an element in another's place, the focus on what is named alike in it, or on the first that has a name. */
export function swap(old, made) {
  const focused = old.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  old.replaceWith(made);
  if (focused) (named(made, focused) ?? made.querySelector("[data-focus]"))?.focus({ preventScroll: true });
}

/** Make a list's children these, in order; what is there already stays, with its focus and any press on it. */
export function arrange(list, wanted) {
  const stays = new Set(wanted);
  for (const old of [...list.children]) if (!stays.has(old)) old.remove();
  wanted.forEach((one, k) => { if (list.children[k] !== one) list.insertBefore(one, list.children[k] ?? null); });
}

/** A random name for a request or a page. `crypto.randomUUID` is missing where the page comes by plain http. */
export function randomName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A number as people write it: at most `digits` decimals, no trailing zeros. */
export function plainNumber(value, digits = 2) {
  return String(Number(Number(value).toFixed(digits)));
}

export function secondsText(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
