// The page's work, kept in the browser: a reload, or the next visit, finds it again. Pictures lie on the server.

import * as api from "./api.js";

const PREFIX = "sgi2v-work-";
const ASIDE = "sgi2v-aside";
const MOST = 8; // works kept, newest first; each page has its own, so that two never overwrite each other

let name = null;

function pageName() {
  if (name) return name;
  name = sessionStorage.getItem("sgi2v-page");
  if (!name) {
    name = `${Date.now()}-${Math.floor(Math.random() * 1e9)}`;
    sessionStorage.setItem("sgi2v-page", name);
  }
  return name;
}

function entries() {
  return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)).map((key) => {
    try {
      return { key, ...JSON.parse(localStorage.getItem(key)) };
    } catch {
      return { key, saved: 0 };
    }
  }).sort((a, b) => b.saved - a.saved);
}

/** What this page last had, else, in a new page, what was worked on last; null for nothing. */
export async function loadWork() {
  try {
    const own = sessionStorage.getItem("sgi2v-page");
    // A duplicated page brings the name of the one it came from: whoever holds the lock keeps it.
    if (own && !(await holds(own))) sessionStorage.removeItem("sgi2v-page");
    const all = entries();
    const found = all.find((entry) => entry.key === PREFIX + own) ?? all.find((entry) => entry.saved > 0);
    await holds(pageName());
    return found ?? null;
  } catch {
    return null; // a browser that keeps nothing
  }
}

function holds(page) {
  if (!navigator.locks) return Promise.resolve(true); // not by plain http from another machine
  return new Promise((resolve) => {
    navigator.locks.request(`sgi2v-page-${page}`, { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock ? new Promise(() => {}) : undefined;
    });
  });
}

/** What other pages have kept in this browser, open or not: [page, ids of its pictures]. */
export function keptElsewhere() {
  try {
    return entries().slice(0, MOST).map(({ key, doc }) => [key.slice(PREFIX.length, PREFIX.length + 100), JSON.stringify(doc ?? "").match(/(?<="upload:)[0-9a-f]{64}(?=")/g) ?? []])
      .filter(([page]) => page && page !== pageName());
  } catch {
    return [];
  }
}

/** Keep what this page had under another name, of which the page never reads: a person may still want it. */
export function setAside() {
  try {
    const found = entries().find((entry) => entry.key === PREFIX + pageName()) ?? entries().find((entry) => entry.saved > 0);
    if (!found) return;
    localStorage.setItem(ASIDE, localStorage.getItem(found.key));
    localStorage.removeItem(found.key);
  } catch { /* a browser that keeps nothing */ }
}

export function saveWork(app) {
  const { selected, frame, mode, shown, active, panel, theme, brush, overlay } = app.ui;
  const work = { saved: Date.now(), doc: app.doc, choices: app.choices, ui: { selected, frame, mode, shown, active, panel, theme, brush, overlay } };
  try {
    for (const old of entries().slice(MOST)) localStorage.removeItem(old.key);
    localStorage.setItem(PREFIX + pageName(), JSON.stringify(work));
  } catch {
    try { // full: this work matters more than older ones
      for (const old of entries()) if (old.key !== PREFIX + pageName()) localStorage.removeItem(old.key);
      localStorage.setItem(PREFIX + pageName(), JSON.stringify(work));
    } catch { /* then it is not kept; Save does */ }
  }
}

const named = new WeakMap(); // document -> the pictures it needs
let claimed = "";

/** Tell the server which pictures the page needs, undo included, so that it keeps them; again once a day. */
export function claim(app) {
  const { past, present, future } = app.history;
  const all = new Set();
  for (const doc of [...past, present, ...future]) {
    if (!named.has(doc)) named.set(doc, JSON.stringify(doc).match(/(?<="upload:)[0-9a-f]{64}(?=")/g) ?? []);
    for (const name of named.get(doc)) all.add(name);
  }
  const now = JSON.stringify([new Date().toDateString(), ...[...all].sort()]);
  if (now === claimed) return;
  claimed = now;
  api.keep(pageName(), [...all]).catch(() => { claimed = ""; });
}
