// Camera presets with a strength: the server compiles them (camera.py) to the ordinary boxes they become.

import * as api from "./api.js";
import { fits, wanted } from "./bounds.js";
import { h, icon, plainNumber } from "./dom.js";
import { leaves } from "./geometry.js";
import { fromScene, toScene } from "./state.js";

// At strength 1; a camera that pans right moves the content left. Zooms multiply, the others add.
const PRESETS = [
  ["pan-left", "Pan left", { dx: -0.5 }], ["pan-right", "Pan right", { dx: 0.5 }], ["pan-up", "Pan up", { dy: -0.5 }], ["pan-down", "Pan down", { dy: 0.5 }],
  ["zoom-in", "Zoom in", { zoom: 2 }], ["zoom-out", "Zoom out", { zoom: 0.5 }], ["roll-left", "Roll left", { roll: -45 }], ["roll-right", "Roll right", { roll: 45 }],
];
const STILL = { dx: 0, dy: 0, zoom: 1, roll: 0, easing: "linear" };

export function makeCamera(app) {
  const panel = app.byId("panel-camera");
  let camera = { ...STILL };
  const on = new Set();
  let request = null, timer = null, gesture = 0;

  const strength = h("input", { type: "range", min: 0.02, max: 1, step: 0.02, value: 0.3, id: "camera-strength", oninput: () => fromPresets() });
  const shownStrength = h("output", { for: "camera-strength" }, "");
  const chips = PRESETS.map(([name, label]) => {
    const chip = h("button", { "type": "button", "class": "chip", "aria-pressed": "false", "data-preset": name, "onclick": () => toggle(name) }, icon(name), h("span", {}, label));
    return chip;
  });
  const fields = new Map([["dx", "Right", "In widths of the frame; content moves left"], ["dy", "Down", "In heights of the frame; content moves up"], ["zoom", "Zoom", "Times"], ["roll", "Roll", "Degrees, clockwise"]].map(([name, label, tip]) => {
    const input = h("input", { type: "number", step: "any", id: `camera-${name}`, onchange: () => {
      const spec = app.info?.camera.find((one) => one.name === name);
      if (input.value === "") return app.redraw();
      if (!spec || fits(spec, Number(input.value))) return change({ [name]: Number(input.value) });
      app.say(wanted(spec), "error");
      input.value = plainNumber(camera[name], 4);
      return undefined;
    } });
    return [name, { input, label: h("label", { class: "field", for: `camera-${name}`, title: tip }, h("span", {}, label), input) }];
  }));
  const easing = h("select", { id: "camera-easing", onchange: () => change({ easing: easing.value }) },
    [["linear", "Even"], ["ease-in", "Ease in"], ["ease-out", "Ease out"], ["ease-in-out", "Ease in and out"]].map(([value, text]) => h("option", { value }, text)));
  const density = h("select", { id: "camera-density", onchange: () => change({}) }, [["3x2", "6 boxes"], ["4x3", "12 boxes"], ["6x4", "24 boxes"]].map(([value, text]) => h("option", { value, selected: value === "4x3" }, text)));
  const note = h("p", { class: "note", id: "camera-note" });
  const remove = h("button", { type: "button", class: "button", onclick: clear }, "Remove the camera");
  panel.append(
    h("div", { class: "panel-head" }, h("h2", {}, "Camera")),
    h("div", { class: "section" },
      h("p", { class: "note" }, "The camera's move becomes ordinary boxes on the background. Presets may be joined."),
      h("div", { class: "chips", role: "group", "aria-label": "Camera presets" }, chips),
      h("label", { class: "field slider", for: "camera-strength" }, h("span", {}, "Strength"), strength, shownStrength)),
    h("details", { class: "section" }, h("summary", {}, "Exact values"),
      h("div", { class: "four" }, [...fields.values()].map(({ label }) => label)),
      h("div", { class: "row" }, h("label", { class: "field wide", for: "camera-easing" }, h("span", {}, "Easing"), easing), h("label", { class: "field wide", for: "camera-density" }, h("span", {}, "Grid"), density))),
    h("div", { class: "section" }, note, remove));

  function toggle(name) {
    const [way] = name.split("-");
    if (on.has(name)) on.delete(name);
    else {
      const against = PRESETS.filter(([other, , move]) => other.startsWith(way) && Object.keys(move)[0] === Object.keys(PRESETS.find(([one]) => one === name)[2])[0]);
      for (const [other] of against) on.delete(other);
      on.add(name);
    }
    gesture += 1;
    fromPresets();
  }

  function fromPresets() {
    const share = Number(strength.value);
    const moves = PRESETS.filter(([name]) => on.has(name)).map(([, , move]) => move);
    const next = { ...STILL, easing: camera.easing };
    for (const move of moves) {
      next.dx += share * (move.dx ?? 0);
      next.dy += share * (move.dy ?? 0);
      next.roll += share * (move.roll ?? 0);
      next.zoom *= (move.zoom ?? 1) ** share;
    }
    for (const name of ["dx", "dy", "zoom", "roll"]) next[name] = Math.round(next[name] * 1e4) / 1e4;
    camera = next;
    apply();
  }

  function change(changes) {
    camera = { ...camera, ...changes };
    on.clear();
    gesture += 1;
    apply();
  }

  const still = () => camera.dx === 0 && camera.dy === 0 && camera.zoom === 1 && camera.roll === 0;

  function apply() {
    app.redraw();
    clearTimeout(timer);
    if (!app.doc.image) return;
    const { opened } = app.doc;
    timer = setTimeout(() => { if (app.doc.opened === opened) compile(); }, 120);
  }

  /** Ask for the boxes and put them into the scene; a slider's whole drag is one undo step. */
  async function compile() {
    request?.abort();
    if (still()) return void app.dispatch({ type: "camera", motions: [], gesture: `camera-${gesture}` });
    request = new AbortController();
    const { opened } = app.doc;
    const [columns, rows] = density.value.split("x").map(Number);
    const objects = { ...app.doc, motions: app.doc.motions.filter((motion) => motion.kind !== "camera") };
    const body = { scene: toScene(objects, app.doc.image.image), camera, columns, rows, fraction: 0.15 };
    const answer = await app.attempt(() => api.compileCamera(body, request.signal));
    if (!answer || app.doc.opened !== opened) return;
    const { motions } = fromScene({ ...toScene(app.doc, ""), motions: answer.motions }, null);
    app.dispatch({ type: "camera", motions, gesture: `camera-${gesture}` });
  }

  function clear() {
    clearTimeout(timer);
    request?.abort();
    on.clear();
    camera = { ...STILL };
    app.dispatch({ type: "camera", motions: [] });
    app.redraw();
  }

  function update() {
    shownStrength.textContent = `${Math.round(100 * strength.value)} %`;
    for (const chip of chips) {
      chip.setAttribute("aria-pressed", String(on.has(chip.dataset.preset)));
      chip.disabled = !app.doc.image;
    }
    for (const [name, { input }] of fields) if (document.activeElement !== input) input.value = plainNumber(camera[name], 4);
    easing.value = camera.easing;
    const count = app.doc.motions.filter((motion) => motion.kind === "camera").length;
    const out = app.doc.motions.filter((motion) => motion.kind === "camera" && leaves(motion, app.doc.image, app.video, app.video.fit)).length;
    note.textContent = !count ? "The camera stands where it is: no boxes."
      : `${count} camera boxes in the scene.${out ? ` ${out} of them leave the frame on their way: the model cannot follow them there. A smaller strength keeps them inside.` : ""}`;
    note.classList.toggle("warned", out > 0);
    remove.disabled = count === 0;
    strength.disabled = !on.size;
  }

  return { update };
}
