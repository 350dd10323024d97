// Where the page starts: holds the state, hands it to the parts, and draws at most once a screen frame.

import * as api from "./api.js";
import { checkDoc, fits, sane } from "./bounds.js";
import { makeCamera } from "./camera.js";
import { makeStage } from "./canvas.js";
import { fillIcons, h, icon, randomName } from "./dom.js";
import { makeFiles } from "./files.js";
import { comesTo, frameTimes, nearestSize } from "./geometry.js";
import * as geometry from "./geometry.js";
import { makeJobs } from "./jobs.js";
import { makeKeys } from "./keys.js";
import { makeMasks } from "./masks.js";
import { makeObjects } from "./objects.js";
import { makeOrigin } from "./origin.js";
import { makePointer } from "./pointer.js";
import { makeResults } from "./results.js";
import { makeSettings } from "./settings.js";
import * as states from "./state.js";
import * as edits from "./edits.js";
import { claim, keptElsewhere, loadWork, saveWork, setAside } from "./storage.js";
import { makeTimeline } from "./timeline.js";
import { makeShell } from "./shell.js";

const parts = [];
const failed = new Set(); // parts that could not be drawn
let fresh = false; // whether what was kept has not been drawn yet
let drawing = false;
let saving = null;

const app = {
  history: states.newHistory(),
  ui: {
    selected: null, key: null, frame: 0, tool: "select", view: null, playing: false, mode: "plan", wipe: 0.5,
    shown: [], active: null, panel: "objects", brush: 24, erase: false, draft: null, theme: "auto", overlay: true,
  },
  choices: { backbone: null, recipe: null, controller: null, values: {}, sampling: {}, settings: {} },
  info: null,
  jobs: new Map(),
  connected: true,

  get doc() {
    return app.history.present;
  },
  get selected() {
    return app.doc.motions.find((motion) => motion.id === app.ui.selected) ?? null;
  },
  get backbone() {
    return app.info?.backbones.find((one) => one.name === app.choices.backbone) ?? app.info?.backbones[0] ?? null;
  },
  /** Size and frames of the video that would be made now. */
  get video() {
    const model = app.backbone ?? { width: 64, height: 64, num_frames: 8, fps: 7 };
    const { sampling, settings } = app.choices;
    // A field that was cleared is null, which the server takes for the model's own value; so is what does not fit.
    const of = (values, fields, name) => {
      const spec = fields?.find((one) => one.name === name);
      return spec && typeof values[name] === "number" && fits(spec, values[name]) ? values[name] : model[name];
    };
    const asked = ["width", "height"].some((name) => of(sampling, model.sampling, name) !== model[name]);
    const taken = app.doc.fit === "aspect" && app.doc.image && !asked ? nearestSize(app.doc.image, model) : null;
    const [width, height] = ["width", "height"].map((name) => taken?.[name] ?? of(sampling, model.sampling, name));
    const fit = comesTo(app.doc.fit, app.doc.image, { width, height }, asked);
    // The limit is a share of the shorter side: the server's is that of the size asked for, not of the model's own.
    const max_speed = (model.max_speed ?? Infinity) / Math.min(model.width, model.height) * Math.min(width, height);
    const num_frames = of(sampling, model.sampling, "num_frames");
    return { width, height, num_frames, fps: of(settings, model.settings, "fps"), max_speed, fit };
  },
  get time() {
    return frameTimes(app.video.num_frames)[app.ui.frame] ?? 0;
  },

  /** Change the document; a new motion becomes the selected one. */
  dispatch(action) {
    const before = app.history;
    app.history = states.advance(before, action);
    if (app.history === before) return false;
    if (action.type === "add" || action.type === "duplicate") {
      app.ui.selected = Math.max(...app.doc.motions.map((motion) => motion.id));
      app.ui.key = null;
    }
    if (!app.selected) Object.assign(app.ui, { selected: null, key: null });
    else if (app.ui.key !== null && !app.selected.path[app.ui.key]) app.ui.key = null;
    app.changed();
    return true;
  },
  /** The next action begins an undo step of its own. */
  endGesture() {
    app.history = { ...app.history, gesture: null };
  },
  setUI(changes) {
    Object.assign(app.ui, changes);
    app.changed();
  },
  setFrame(frame) {
    const last = app.video.num_frames - 1;
    app.setUI({ frame: Math.min(Math.max(Math.round(frame), 0), last) });
  },
  choose(changes) {
    Object.assign(app.choices, changes);
    if (app.backbone) {
      const [choices, out] = sane(app.choices, app.backbone);
      Object.assign(app.choices, choices);
      if (out.length) app.say(`Left out, for no model here takes it: ${[...new Set(out)].join(", ")}.`, "error");
    }
    app.ui.frame = Math.min(app.ui.frame, app.video.num_frames - 1);
    app.changed();
  },
  /** A recipe has defaults of its own, which the server tells; what was changed by hand stays changed. */
  async useRecipe(recipe) {
    if (recipe === app.choices.recipe) return;
    const info = await app.attempt(() => api.getInfo(recipe));
    if (!info) return;
    app.info = info;
    app.choose({ recipe });
  },
  /** The scene as the server takes it: pictures by name. */
  scene() {
    return states.toScene(app.doc, app.doc.image?.image ?? "");
  },
  request() {
    const { backbone, recipe, controller, values, sampling, settings } = app.choices;
    const seed = app.backbone?.sampling.find((one) => one.name === "seed")?.default;
    return { scene: app.scene(), backbone, recipe, controller: { name: controller, ...(values[controller] ?? {}) }, sampling: { seed, ...sampling }, settings };
  },
  changed() {
    app.redraw();
    // One that is under way is left: while a plan plays, changes come faster than it runs out.
    saving ??= setTimeout(save, 250);
  },
  redraw() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      for (const part of parts) {
        try {
          part.update?.();
        } catch (error) { // one part that cannot be drawn does not take the others with it
          trouble(part, error);
        }
      }
      if (app.info && !failed.size) fresh = false;
    });
  },
  /** A short message at the edge, read aloud too; errors stay longer and can be closed. */
  say(text, kind = "note", { undo = null, seconds = kind === "error" ? 15 : 4 } = {}) {
    const back = undo && h("button", { type: "button", class: "button small", onclick: () => { toast.remove(); undo(); } }, "Undo");
    const toast = h("div", { class: `toast ${kind}` }, kind === "error" ? icon("warn") : null, h("p", {}, text), back,
      h("button", { "type": "button", "class": "button bare small", "aria-label": "Close", "onclick": () => toast.remove() }, icon("close")));
    document.getElementById("toasts").append(toast);
    while (document.getElementById("toasts").childElementCount > 3) document.getElementById("toasts").firstElementChild.remove();
    setTimeout(() => toast.remove(), 1000 * seconds);
  },
  /** Run something that may fail; tells the person, and returns undefined then. */
  async attempt(work) {
    try {
      return await work();
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      app.say(error.message, "error");
      if (!(error instanceof api.ApiError) && !error.expected) console.warn(error);
      return undefined;
    }
  },
  /** Show how far a file is on its way while `work(told)` sends it; small ones have gone before it is seen. */
  async sending(file, work) {
    const bar = h("progress", { "max": 1, "value": 0, "aria-label": `${file.name} on its way` });
    const words = h("p", {}, `Sending ${file.name} …`);
    const toast = h("div", { class: "toast sending" }, words, bar);
    const timer = setTimeout(() => document.getElementById("toasts").append(toast), 300);
    try {
      return await work((share) => {
        bar.value = share;
        words.textContent = share < 1 ? `Sending ${file.name}: ${Math.floor(100 * share)} %` : `Reading ${file.name} …`;
        if (share >= 1) bar.removeAttribute("value");
      });
    } finally {
      clearTimeout(timer);
      toast.remove();
    }
  },
  byId: (id) => document.getElementById(id),
  newKey: randomName,
};

/** Say once what cannot be drawn. What was kept and was never drawn is set aside, so that the next visit is whole. */
function trouble(part, error) {
  if (failed.has(part)) return;
  failed.add(part);
  console.warn(error);
  if (fresh) aside(error);
  else app.say(`A part of the page cannot be drawn (${error.message}). Undo, or open another scene.`, "error");
}

function aside(error) {
  fresh = false;
  setAside();
  app.history = states.newHistory();
  Object.assign(app.ui, { selected: null, key: null, frame: 0, shown: [], active: null, mode: "plan", draft: null });
  Object.assign(app.choices, { values: {}, sampling: {}, settings: {} });
  failed.clear();
  app.say(`What this page had last cannot be drawn (${error.message}); it is set aside in this browser, and the page begins anew.`, "error");
  app.redraw();
}

function save() {
  clearTimeout(saving);
  saving = null;
  saveWork(app);
  claim(app);
}

async function start() {
  addEventListener("pagehide", () => { if (saving !== null) save(); });
  fillIcons(document);
  const kept = await loadWork();
  try {
    if (kept) restore(kept);
  } catch (error) {
    aside(error);
  }
  app.masks = makeMasks(app);
  app.results = makeResults(app);
  app.stage = makeStage(app);
  app.files = makeFiles(app);
  app.jobsPanel = makeJobs(app);
  app.camera = makeCamera(app);
  app.shell = makeShell(app);
  parts.push(app.shell, app.masks, makeObjects(app), makeTimeline(app), app.camera, app.stage, app.results, app.jobsPanel, app.files);
  app.origin = makeOrigin(app);
  makePointer(app);
  makeKeys(app);
  app.redraw();
  app.info = await until(() => api.getInfo(app.choices.recipe).catch((error) => {
    if (!error.status || !app.choices.recipe) throw error;
    app.choices.recipe = null; // a recipe that is no more
    return api.getInfo();
  }));
  const known = app.info.backbones.map((one) => one.name);
  if (!known.includes(app.choices.backbone)) app.choices.backbone = app.info.default_backbone;
  if (!app.backbone.controllers.some((one) => one.name === app.choices.controller)) app.choices.controller = app.backbone.default_controller ?? app.info.default_controller;
  app.settings = makeSettings(app);
  parts.push(app.settings);
  app.choose({}); // what does not fit is left out, and said
  app.jobsPanel.connect();
  app.redraw();
  for (const [page, pictures] of keptElsewhere()) api.keep(page, pictures).catch(() => {});
  claim(app);
  setInterval(() => claim(app), 3_600_000);
  if (app.info.notice) app.say(app.info.notice, "error");
  document.body.dataset.ready = "true";
}

function restore(kept) {
  const doc = { ...states.emptyDoc(), ...kept.doc };
  checkDoc(doc, states.fromScene, states.toScene);
  app.history = states.newHistory(doc);
  const { frame, shown, mode, panel, brush } = kept.ui ?? {};
  Object.assign(app.ui, kept.ui, {
    playing: false, draft: null, frame: Number.isInteger(frame) && frame > 0 ? frame : 0, shown: Array.isArray(shown) ? shown.filter((one) => /^[0-9a-f]{32}$/.test(one)) : [],
    mode: ["plan", "beside", "wipe", "under", "difference"].includes(mode) ? mode : "plan", brush: brush >= 3 && brush <= 120 ? brush : 24,
    panel: ["objects", "settings", "camera", "results"].includes(panel) ? panel : "objects",
  });
  const { backbone, recipe, controller, values, sampling, settings } = kept.choices ?? {};
  const known = (one) => (one && typeof one === "object" ? one : {});
  Object.assign(app.choices, { backbone: backbone ?? null, recipe: recipe ?? null, controller: controller ?? null, values: known(values), sampling: known(sampling), settings: known(settings) });
  fresh = true;
}

/** Ask again until the server answers: the page may be open before it is up. */
async function until(ask) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 5000)) {
    try {
      return await ask();
    } catch (error) {
      if (wait === 500) app.say(error.message, "error");
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

// To look at, for tests and the curious; nothing here changes the page's state.
window.sgi2v = Object.freeze({
  state: () => structuredClone({
    doc: app.doc, ui: app.ui, choices: app.choices, scene: app.scene(), jobs: [...app.jobs.values()],
    undo: app.history.past.length, redo: app.history.future.length, video: app.video, connected: app.connected,
  }),
  place: (x, y) => app.stage.toScreen([x, y]),
  geometry, states, edits,
});

start();
