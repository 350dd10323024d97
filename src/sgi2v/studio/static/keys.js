// The keyboard: every key does what its button does; keys typed into a field stay the field's.

import * as edits from "./edits.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOOLS = { v: "select", b: "box", i: "pin", p: "path", m: "brush", g: "polygon", c: "cutout", h: "hand" };
const MODES = ["plan", "beside", "wipe", "under", "difference"];

export function makeKeys(app) {
  document.addEventListener("keydown", (event) => {
    if (app.byId("dialog").open) return;
    const field = event.target.closest("input:not([type=range]):not([type=checkbox]), select, textarea");
    const control = event.ctrlKey || event.metaKey;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const done = control ? withControl(key, event, field) : !field && plain(key, event);
    if (done) event.preventDefault();
  });

  function withControl(key, event, field) {
    if (key === "Enter") return press("generate");
    if (key === "s") return press("save");
    if (key === "o") return press("open");
    if (field) return false; // a field undoes its own typing
    if (key === "z") return press(event.shiftKey ? "redo" : "undo");
    if (key === "y") return press("redo");
    if (key === "d" && app.selected) return app.shell.duplicate();
    return false;
  }

  function press(id) {
    const element = app.byId(id);
    if (!element.disabled) element.click();
    return true;
  }

  function plain(key, event) {
    const onControl = event.target.closest("button, a, summary, input, [role=tab], [role=radio]");
    if (key === " " && (!onControl || event.target.id === "scrub")) return press("play");
    if (key === "Escape") return escape();
    if (key === "Enter" && app.ui.tool === "polygon" && !onControl) return app.pointer.closePolygon() ?? true;
    if ((key === "Delete" || key === "Backspace") && !event.target.closest("input")) return app.shell.remove();
    if (key in STEPS && !onControl) return nudge(STEPS[key], event.shiftKey ? 10 : 1);
    if (event.altKey) return false;
    if (key === "?") return press("help");
    if (key === ",") return press("previous");
    if (key === ".") return press("next");
    if (key === "Home" && !onControl) return app.setFrame(0) ?? true;
    if (key === "End" && !onControl) return app.setFrame(app.video.num_frames - 1) ?? true;
    if (key === "0") return press("zoom-fit");
    if (key === "+" || key === "=") return press("zoom-in");
    if (key === "-") return press("zoom-out");
    if (key === "k") return press("add-key");
    if (key === "x") return app.setUI({ erase: !app.ui.erase }) ?? true;
    if (key in TOOLS) return app.setUI({ tool: TOOLS[key], draft: null }) ?? true;
    if (MODES[Number(key) - 1]) return app.setUI({ mode: MODES[Number(key) - 1] }) ?? true;
    return false;
  }

  function escape() {
    if (app.pointer.busy || app.ui.draft) app.pointer.cancel();
    if (app.ui.draft) app.setUI({ draft: null });
    else if (app.ui.tool !== "select") app.setUI({ tool: "select" });
    else app.setUI({ selected: null, key: null });
    return true;
  }

  /** Arrows move the selected key, or the box at the shown time; one undo step for a run of them. */
  function nudge([dx, dy], by) {
    const motion = app.selected;
    if (!motion || !app.doc.image) return false;
    const { key } = app.ui;
    const moved = key !== null && key > 0
      ? edits.keyChanged(motion, key, { x: motion.path[key].x + dx * by, y: motion.path[key].y + dy * by })
      : edits.dragged(motion, app.time, app.video.num_frames, dx * by, dy * by, app.doc.image);
    app.dispatch({ type: "replace", id: motion.id, motion: moved, gesture: `arrows-${motion.id}-${key}-${app.ui.frame}` });
    return true;
  }
}
