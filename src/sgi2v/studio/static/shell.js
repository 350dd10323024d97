// The frame around the plan: header, tools, modes, panels' tabs, hints, help and the welcome.

import * as edits from "./edits.js";
import { button, h } from "./dom.js";

const TOOLS = [
  ["select", "Select and move", "V", "Drag a box to move it with its path. At a later time, dragging sets a key there. Drag empty space to pan."],
  ["box", "Box that moves", "B", "Drag over the thing that should move, or click for a box of the usual size."],
  ["pin", "Pin: stays where it is", "I", "Drag over what should stay still, or click."],
  ["path", "Path", "P", "Drag from the box to where it should go; or click to add points. Esc: leave it where it is."],
  ["brush", "Mask: brush", "M", "Paint the thing's own pixels. X: erase."],
  ["polygon", "Mask: polygon", "G", "Click around the thing; click the first point, double-click or press Enter to close."],
  ["cutout", "Cut out: click on a thing", "C", "Click on a thing: its outline is found, and a box around it. On the chosen box's thing: a mask for that box."],
  ["hand", "Pan the view", "H", "Drag to pan, wheel or pinch to zoom."],
];
const THEMES = ["auto", "dark", "light"];

export function makeShell(app) {
  const { byId } = app;
  const buttons = new Map();
  for (const [name, title, key] of TOOLS) {
    if (["brush", "hand"].includes(name)) byId("tools").append(h("hr"));
    const made = button(name, title, () => app.setUI({ tool: name, draft: null }), { "key": key, "aria-pressed": "false", "data-tool": name });
    buttons.set(name, made);
    byId("tools").append(made);
  }

  const brush = h("input", { type: "range", min: 3, max: 120, step: 1, id: "brush-size", oninput: () => app.setUI({ brush: Number(brush.value) }) });
  const erase = button("erase", "Erase", () => app.setUI({ erase: !app.ui.erase }), { "text": true, "key": "X", "aria-pressed": "false" });
  const clear = button("trash", "Remove mask", () => app.dispatch({ type: "set", id: app.ui.selected, changes: { mask: null } }), { text: true });
  const brushLabel = h("label", {}, "Brush", brush);
  const wipe = h("input", { type: "range", min: 0, max: 1, step: 0.01, oninput: () => app.setUI({ wipe: Number(wipe.value) }) });
  const wipeLabel = h("label", {}, "Wipe", wipe);
  byId("options").append(brushLabel, erase, clear, wipeLabel);

  byId("undo").addEventListener("click", () => app.dispatch({ type: "undo" }));
  byId("redo").addEventListener("click", () => app.dispatch({ type: "redo" }));
  byId("zoom-in").addEventListener("click", () => app.stage.zoomBy(1.25));
  byId("zoom-out").addEventListener("click", () => app.stage.zoomBy(0.8));
  byId("zoom-fit").addEventListener("click", () => app.setUI({ view: null }));
  byId("help").addEventListener("click", help);
  byId("theme").addEventListener("click", () => {
    const theme = THEMES[(THEMES.indexOf(app.ui.theme) + 1) % THEMES.length];
    app.setUI({ theme });
    app.say(`Colours: ${theme === "auto" ? "as the system" : theme}`);
  });
  byId("generate").addEventListener("click", () => app.jobsPanel.generate());
  byId("compare").addEventListener("click", () => app.jobsPanel.compare());
  radios(byId("modes"), "mode", "aria-checked");
  radios(byId("tabs"), "panel", "aria-selected");
  addEventListener("resize", app.redraw);

  /** Arrow keys go through a group of which one is chosen, as in every tab list. */
  function radios(group, name) {
    const all = [...group.querySelectorAll("button")];
    group.addEventListener("click", (event) => {
      const chosen = event.target.closest("button");
      if (chosen) app.setUI({ [name]: chosen.dataset[name] });
    });
    group.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      const shown = all.filter((one) => one.offsetParent);
      const next = shown[(shown.indexOf(document.activeElement) + step + shown.length) % shown.length];
      next.focus();
      app.setUI({ [name]: next.dataset[name] });
      event.preventDefault();
      event.stopPropagation();
    });
  }

  function mark(group, name, attribute, value) {
    const all = [...group.querySelectorAll("button")];
    // Where there is room the objects have a place of their own and no tab; the settings are shown then.
    const hidden = name === "panel" && !all.find((one) => one.dataset[name] === value)?.offsetParent;
    const shown = hidden ? "settings" : value;
    for (const one of all) {
      const chosen = one.dataset[name] === shown;
      one.setAttribute(attribute, String(chosen));
      one.tabIndex = chosen ? 0 : -1;
    }
  }

  function welcome() {
    const shown = !app.doc.image;
    byId("welcome").hidden = !shown;
    if (!shown || byId("welcome").childElementCount) return;
    byId("welcome").append(h("div", { class: "card" },
      h("h2", {}, "Steer a photo into motion"),
      h("ol", {}, h("li", {}, "Drop a photo here, or open an example."), h("li", {}, "Draw a box over a thing and drag where it goes."), h("li", {}, "Press Generate and compare result and plan.")),
      h("div", { class: "actions" },
        button("open", "Open a photo", () => byId("open").click(), { text: true, kind: "primary" }),
        button("examples", "Try an example", () => byId("examples").click(), { text: true }))));
  }

  function update() {
    const { ui, doc, selected } = app;
    document.body.dataset.mode = ui.mode;
    document.body.dataset.zoomed = String(ui.view !== null);
    document.body.dataset.panel = ui.panel;
    if (ui.theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = ui.theme;
    mark(byId("modes"), "mode", "aria-checked", ui.mode);
    mark(byId("tabs"), "panel", "aria-selected", ui.panel);
    for (const [name, element] of buttons) {
      element.setAttribute("aria-pressed", String(name === ui.tool));
      element.disabled = !doc.image;
    }
    byId("undo").disabled = app.history.past.length === 0;
    byId("redo").disabled = app.history.future.length === 0;
    for (const id of ["save", "generate", "compare", "zoom-in", "zoom-out", "zoom-fit"]) byId(id).disabled = !doc.image;
    byId("tools").hidden = !doc.image;
    const masks = ui.tool === "brush" || ui.tool === "polygon";
    const wiping = ui.mode === "wipe" && app.results.frameNow() !== null;
    byId("options").hidden = !doc.image || !(masks || wiping);
    brushLabel.hidden = ui.tool !== "brush";
    erase.hidden = clear.hidden = !masks;
    clear.disabled = !selected?.mask;
    erase.setAttribute("aria-pressed", String(ui.erase));
    brush.value = ui.brush;
    wipeLabel.hidden = !wiping;
    wipe.value = ui.wipe;
    byId("hint").textContent = doc.image ? hint() : "Photos stay on this machine: the studio asks no other host for anything.";
    welcome();
  }

  function hint() {
    const [, , , text] = TOOLS.find(([name]) => name === app.ui.tool);
    if (["brush", "polygon", "path"].includes(app.ui.tool) && !app.selected) return "Choose an object first.";
    return app.selected?.locked ? "This object is locked." : text;
  }

  function remove() {
    const motion = app.selected;
    if (!motion) return false;
    if (motion.locked) app.say("This object is locked; unlock it first.");
    else if (app.ui.key !== null) {
      app.dispatch({ type: "replace", id: motion.id, motion: edits.keyRemoved(motion, app.ui.key) });
      app.setUI({ key: null });
    } else app.dispatch({ type: "remove", ids: [motion.id] });
    return true;
  }

  function duplicate() {
    const { mask, ...changes } = edits.offsetCopy(app.selected, app.doc.image);
    app.dispatch({ type: "duplicate", id: app.ui.selected, changes: { ...changes, mask } });
    return true;
  }

  /** The one dialog of the page, with a title and whatever is wanted in it. */
  function dialog(title, ...content) {
    const box = byId("dialog");
    box.replaceChildren(
      h("header", {}, h("h2", { id: "dialog-title" }, title), button("close", "Close", () => box.close())),
      h("div", { class: "content" }, ...content));
    if (!box.open) box.showModal();
    return box;
  }

  function help() {
    const rows = [
      ["Space", "Play, pause"], [", .", "Frame back, frame on"], ["Home End", "First, last frame"], ["Arrows", "Move what is selected by a pixel; with Shift by ten"],
      ["K", "Set a key here"], ["Delete", "Remove the key or the object"], ["Ctrl+Z", "Undo"], ["Shift+Ctrl+Z", "Redo"], ["Ctrl+D", "Duplicate"], ["Ctrl+S", "Save the scene"],
      ["Ctrl+O", "Open"], ["Ctrl+Enter", "Generate"], ["1 – 5", "Plan, beside, wipe, under, difference"], ["0 + −", "Zoom to fit, in, out"], ["Esc", "Give up, choose nothing"],
      ...TOOLS.map(([, title, key]) => [key, title]),
    ];
    dialog("Keys and help",
      h("p", {}, "Boxes say what moves, paths say where to, pins hold still what is under them. Scrub to a time and drag the box: a key is set there. A path in red dashes goes faster than the model can be expected to follow."),
      h("dl", { class: "keys" }, rows.map(([key, what]) => h("div", {}, h("dt", {}, key.split(" ").map((one) => h("kbd", {}, one))), h("dd", {}, what)))),
      h("p", {}, "The server's interface is described at ", h("a", { href: "/docs", target: "_blank", rel: "noopener" }, "/docs"), "."));
  }

  byId("dialog").addEventListener("click", (event) => { if (event.target === byId("dialog")) byId("dialog").close(); });
  return { update, remove, duplicate, dialog };
}
