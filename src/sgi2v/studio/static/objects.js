// The list of boxes and, below it, the fields of the selected one: all the plan can do, by keyboard too.

import { leaves, speeds } from "./geometry.js";
import * as api from "./api.js";
import * as edits from "./edits.js";
import { button, h, icon, plainNumber, refill } from "./dom.js";
import { colorOf, titleOf } from "./state.js";

export function makeObjects(app) {
  const panel = app.byId("panel-objects");
  const list = h("ul", { class: "objects", id: "object-list" });
  const detail = h("div", { class: "detail", id: "object-detail" });
  const add = (label, name, extra) => button(name, label, () => addBox(extra), { text: true, kind: "small" });
  const head = h("div", { class: "panel-head" }, h("h2", {}, "Objects"), h("div", { class: "group" }, add("Box", "plus", {}), add("Pin", "pin", { pin: true })));
  panel.append(head, list, detail);
  let shownList = "", shownDetail = "";
  let typed = null; // the field that something is typed in and not yet entered: to put another in its place would lose it
  const entered = () => {
    typed = null;
    app.redraw();
  };
  detail.addEventListener("input", (event) => {
    if (event.target === document.activeElement) typed = event.target;
  });
  detail.addEventListener("change", entered);
  detail.addEventListener("focusout", entered);

  /** A box in the middle, for those who do not draw. */
  function addBox({ pin = false }) {
    const { image } = app.doc;
    if (!image) return app.say("Open a photo first.");
    const side = 0.2 * Math.min(image.width, image.height);
    const [x, y] = [image.width / 2, image.height / 2];
    const box = { left: x - side / 2, top: y - side / 2, right: x + side / 2, bottom: y + side / 2 };
    app.dispatch({ type: "add", motion: { box } });
    return app.setUI({ tool: pin ? "select" : "path" });
  }

  const flag = (motion, changes) => app.dispatch({ type: "flags", id: motion.id, changes });
  const tooFast = (motion) => app.doc.image
    && Math.max(0, ...speeds(motion, app.doc.image, app.video, app.video.fit)) > app.video.max_speed;

  function row(motion) {
    const chosen = motion.id === app.ui.selected;
    const title = titleOf(app.doc, motion);
    const what = motion.kind === "camera" ? "camera" : motion.path.length ? `${motion.path.length} keys` : "pin";
    const name = h("button", { "type": "button", "class": "name", "aria-pressed": String(chosen), "data-focus": `name-${motion.id}`, "onclick": () => app.setUI({ selected: motion.id, key: null }) },
      h("span", { class: "swatch" }), h("span", { class: "title" }, title), h("small", {}, what), tooFast(motion) ? warning("Faster than the model can be expected to follow", "too fast") : null,
      motion.kind === "camera" && goesOut(motion) ? warning("Leaves the frame on its way", "leaves the frame") : null);
    name.querySelector(".swatch").style.background = colorOf(app.doc, motion);
    return h("li", { class: `object ${chosen ? "chosen" : ""} ${motion.visible ? "" : "faint"}` }, name,
      button(motion.visible ? "eye" : "eyeoff", `${motion.visible ? "Hide" : "Show"} ${title} on the plan; it stays in the scene`, () => flag(motion, { visible: !motion.visible }), { "kind": "small", "aria-pressed": String(!motion.visible), "data-focus": `eye-${motion.id}` }),
      button(motion.locked ? "lock" : "unlock", `${motion.locked ? "Unlock" : "Lock"} ${title}`, () => flag(motion, { locked: !motion.locked }), { "kind": "small", "aria-pressed": String(motion.locked), "data-focus": `lock-${motion.id}` }));
  }

  function warning(title, word) {
    const mark = h("span", { class: "warning", title }, icon("warn"));
    mark.append(h("span", { class: "unseen" }, word));
    return mark;
  }

  const goesOut = (motion) => app.doc.image && motion.path.length > 0 && leaves(motion, app.doc.image, app.video, app.video.fit);

  /** The motion as it is by now: fields stay on the page while others change it. */
  const fresh = (motion) => app.doc.motions.find((one) => one.id === motion.id) ?? motion;
  const replace = (motion, edit) => app.dispatch({ type: "replace", id: motion.id, motion: edit(fresh(motion)) });
  const set = (motion, changes, gesture) => app.dispatch({ type: "set", id: motion.id, changes, gesture });

  function number(motion, label, value, apply, props = {}) {
    const id = `field-${label.toLowerCase().replaceAll(" ", "-")}`;
    const input = h("input", { "type": "number", "step": "any", id, "value": plainNumber(value, props.digits ?? 2), "disabled": motion.locked, "data-focus": id,
      "onchange": () => {
        const wanted = Number(input.value);
        if (input.value === "" || !Number.isFinite(wanted)) input.value = plainNumber(value);
        else apply(wanted);
      } });
    return h("label", { class: "field", for: id }, h("span", {}, label), input);
  }

  function details(motion) {
    const { image } = app.doc;
    const { box } = motion;
    const limit = (value, most) => Math.min(Math.max(value, 0), most);
    const reshape = (changes) => {
      const next = { ...fresh(motion).box, ...changes };
      if (edits.isBox(next)) replace(motion, (now) => edits.resized(now, next));
      else app.say("A box needs a width and a height of at least 2 pixels.");
    };
    const name = h("input", { "type": "text", "id": "field-name", "maxlength": 200, "value": motion.name, "placeholder": titleOf(app.doc, { ...motion, name: "" }), "data-focus": "field-name",
      "oninput": () => app.dispatch({ type: "flags", id: motion.id, changes: { name: name.value }, gesture: `name-${motion.id}` }), "onchange": () => app.endGesture() });
    const color = h("input", { "type": "color", "id": "field-color", "value": colorOf(app.doc, motion), "aria-label": "Colour", "data-focus": "field-color",
      "oninput": () => app.dispatch({ type: "flags", id: motion.id, changes: { color: color.value }, gesture: `color-${motion.id}` }), "onchange": () => app.endGesture() });
    return [
      h("div", { class: "panel-head" }, h("h2", {}, motion.kind === "camera" ? "Camera box" : motion.path.length ? "Object" : "Pin"),
        h("div", { class: "group" },
          button("up", "Move up in the list", () => move(-1), { "kind": "small", "data-focus": "move-up" }), button("down", "Move down in the list", () => move(1), { "kind": "small", "data-focus": "move-down" }),
          button("copy", "Duplicate", () => app.shell.duplicate(), { kind: "small", key: "Ctrl+D" }),
          button("trash", "Delete", () => { app.setUI({ key: null }); app.shell.remove(); }, { kind: "small danger", key: "Delete" }))),
      h("div", { class: "row" }, h("label", { class: "field wide", for: "field-name" }, h("span", {}, "Name"), name), h("label", { class: "field swatch-field" }, h("span", {}, "Colour"), color)),
      h("fieldset", {}, h("legend", {}, "Box on the first frame, pixels"), h("div", { class: "four" },
        number(motion, "Left", box.left, (v) => reshape({ left: limit(v, box.right - 2) })), number(motion, "Top", box.top, (v) => reshape({ top: limit(v, box.bottom - 2) })),
        number(motion, "Width", box.right - box.left, (v) => reshape({ right: limit(box.left + v, image.width) })), number(motion, "Height", box.bottom - box.top, (v) => reshape({ bottom: limit(box.top + v, image.height) })))),
      motion.path.length ? pathFields(motion) : h("p", { class: "note" }, "A pin: what is under it stays. ", button("path", "Give it a path", () => app.setUI({ tool: "path" }), { text: true, kind: "small", disabled: motion.locked })),
      motion.kind === "camera" ? null : h("div", { class: "row mask" }, h("span", {}, motion.mask ? "Mask" : "No mask"),
        button("spark", "Find", () => findOutline(motion), { "text": true, "kind": "small", "title": "Find the thing's outline in its box", "disabled": motion.locked, "data-focus": "find-outline" }),
        button("brush", "Paint", () => app.setUI({ tool: "brush" }), { text: true, kind: "small", disabled: motion.locked }),
        motion.mask ? button("trash", "Remove mask", () => set(motion, { mask: null }), { kind: "small", disabled: motion.locked }) : null),
    ];

    function move(step) {
      app.dispatch({ type: "order", id: motion.id, to: app.doc.motions.findIndex((one) => one.id === motion.id) + step });
    }
  }

  /** The server's guess (GrabCut) at which pixels of the box are the thing. */
  async function findOutline(motion) {
    const { opened } = app.doc;
    const { box } = fresh(motion);
    const found = await app.attempt(() => api.outline(app.doc.image.image, { box }));
    if (!found || app.doc.opened !== opened) return;
    // By now it may be gone, or another one with its number, or elsewhere: the outline is that of the box asked about.
    const now = app.doc.motions.find((one) => one.id === motion.id);
    if (now && JSON.stringify(now.box) === JSON.stringify(box)) set(motion, { mask: found.image });
  }

  function pathFields(motion) {
    const fastest = Math.max(...speeds(motion, app.doc.image, app.video, app.video.fit));
    const most = app.video.max_speed;
    const curve = choice("Curve", motion.curve, [["polyline", "Straight"], ["spline", "Smooth"]], (value) => set(motion, { curve: value }), motion.locked);
    const keys = motion.path.length > 40
      ? h("p", { class: "note" }, `${motion.path.length} keys: move them on the plan or the time-line.`)
      : h("ol", { class: "keys-list" }, motion.path.map((key, index) => keyRow(motion, key, index)));
    return h("fieldset", {}, h("legend", {}, "Path"),
      h("div", { class: "row" }, curve, button("sliders", "One speed: set the keys' times so that the path is travelled evenly", () => replace(motion, edits.evened), { kind: "small", disabled: motion.locked || motion.path.length < 3 }),
        button("pin", "Remove the path: make it a pin", () => set(motion, { path: [] }), { kind: "small", disabled: motion.locked })),
      Number.isFinite(most) ? h("p", { class: `note ${fastest > most ? "warned" : ""}`, id: "speed-note" }, fastest > most ? icon("warn") : null,
        `Up to ${plainNumber(fastest, 1)} px of the video a frame; this model can be expected to follow ${plainNumber(most, 1)}.`) : null,
      goesOut(motion) ? h("p", { class: "note warned", id: "outside-note" }, icon("warn"), "It leaves the frame on its way, where the model cannot follow it.") : null,
      keys);
  }

  function keyRow(motion, key, index) {
    const change = (changes) => replace(motion, (now) => edits.keyChanged(now, index, changes));
    const small = (label, name, value, digits, disabled = false) => {
      const input = h("input", { "type": "number", "step": "any", "aria-label": `${label} of key ${index + 1}`, "value": plainNumber(value, digits), "disabled": motion.locked || disabled, "data-focus": `key-${index}-${name}`,
        "onchange": () => { if (input.value !== "" && Number.isFinite(Number(input.value))) change({ [name]: Number(input.value) }); app.redraw(); } });
      return input;
    };
    const easing = h("select", { "aria-label": `Easing after key ${index + 1}`, "disabled": motion.locked, "data-focus": `key-${index}-easing`, "onchange": () => change({ easing: easing.value }) },
      [["linear", "at an even speed"], ["ease-in", "ease in"], ["ease-out", "ease out"], ["ease-in-out", "ease in and out"]].map(([value, text]) => h("option", { value, selected: value === key.easing }, text)));
    return h("li", { class: app.ui.key === index ? "chosen" : "" },
      h("button", { "type": "button", "class": "pick", "aria-label": `Choose key ${index + 1}`, "aria-pressed": String(app.ui.key === index), "data-focus": `key-${index}`, "onclick": () => { app.setUI({ key: index }); app.setFrame(key.time * (app.video.num_frames - 1)); } }, icon("diamond")),
      h("label", {}, h("small", {}, "time"), small("Time", "time", key.time, 3)), h("label", {}, h("small", {}, "x"), small("x", "x", key.x, 1, index === 0)), h("label", {}, h("small", {}, "y"), small("y", "y", key.y, 1, index === 0)),
      h("label", {}, h("small", {}, "size"), small("Scale", "scale", key.scale, 3, index === 0)),
      index === motion.path.length - 1 ? null : h("div", { class: "then" }, h("span", {}, "then"), easing));
  }

  function choice(label, value, options, apply, disabled) {
    const id = `field-${label.toLowerCase()}`;
    const select = h("select", { id, disabled, "data-focus": id, "onchange": () => apply(select.value) }, options.map(([name, text]) => h("option", { value: name, selected: name === value }, text)));
    return h("label", { class: "field wide", for: id }, h("span", {}, label), select);
  }

  function update() {
    const { motions } = app.doc;
    const now = JSON.stringify([motions.map(({ path, mask, ...rest }) => [rest, path]), app.ui.selected, app.video, app.video.fit, app.doc.image?.id]);
    if (now !== shownList) {
      shownList = now;
      const camera = motions.filter((one) => one.kind === "camera");
      const cameraRows = camera.length > 3 && !camera.some((one) => one.id === app.ui.selected)
        ? [h("li", { class: "object camera-group" }, h("button", { type: "button", class: "name", onclick: () => app.setUI({ panel: "camera", selected: camera[0].id }) }, icon("camera"), h("span", { class: "title" }, "Camera"), h("small", {}, `${camera.length} boxes`)))]
        : camera.map(row);
      const objects = motions.filter((one) => one.kind !== "camera").map(row);
      refill(list, objects.length || cameraRows.length ? [...objects, ...cameraRows]
        : [h("li", { class: "empty" }, app.doc.image ? "Nothing moves yet. Draw a box on the photo: B." : "Open a photo to begin.")]);
    }
    const selected = app.selected;
    const then = JSON.stringify([selected, app.ui.key, app.video, app.video.fit, selected && colorOf(app.doc, selected)]);
    if (then === shownDetail || (detail.contains(document.activeElement) && app.pointer?.busy)) return;
    if (typed && typed === document.activeElement && JSON.parse(shownDetail)[0]?.id === selected?.id) return;
    shownDetail = then;
    refill(detail, selected && app.doc.image ? details(selected) : []);
    detail.hidden = !selected;
  }

  return { update };
}
