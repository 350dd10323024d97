// Mouse, pen and touch on the plan: what was hit, what a drag does, pinch and wheel.

import { boxAt, center, defaultBox, frameTimes, keyOffset, sample } from "./geometry.js";
import * as edits from "./edits.js";

const CLICK = { mouse: 3, pen: 5, touch: 9 }; // pixels of the screen that a click may wander
const REACH = { mouse: 9, pen: 12, touch: 20 }; // pixels around a handle that are still the handle

export function makePointer(app) {
  const canvas = app.byId("plan");
  const pointers = new Map();
  let drag = null;
  let pinch = null;
  let gestures = 0;

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const away = ([ax, ay], [bx, by]) => Math.hypot(ax - bx, ay - by);
  const reach = (event) => (REACH[event.pointerType] ?? REACH.mouse) * app.stage.unit;
  const replace = (motion) => app.dispatch({ type: "replace", id: motion.id, motion, gesture: drag.gesture });

  function inside(box, [x, y], slack) {
    return x >= box.left - slack && x < box.right + slack && y >= box.top - slack && y < box.bottom + slack;
  }

  /** Motions from the topmost down: the selected one, then objects, then camera boxes. */
  function topmost() {
    const shown = app.doc.motions.filter((motion) => motion.visible).reverse();
    const rank = (motion) => (motion.id === app.ui.selected ? 0 : motion.kind === "camera" ? 2 : 1);
    return shown.sort((a, b) => rank(a) - rank(b));
  }

  function nearPath(motion, point, slack) {
    if (motion.path.length < 2) return false;
    const [dx, dy] = keyOffset(motion);
    return sample(motion, frameTimes(60)).some(({ x, y }) => away(app.stage.toScreen([x + dx, y + dy]), point) < slack);
  }

  /** What lies under a point of the screen. */
  function hit(point, slack) {
    const line = app.stage.wipeLine();
    if (line && Math.abs(point[0] - line.at) < slack) return { what: "wipe" };
    const { keys, corners } = app.stage.handles();
    const motion = app.selected;
    for (const { x, y, at: place } of corners) if (away(place, point) < slack) return { what: "corner", motion, x, y };
    const order = keys.map((place, index) => ({ place, index })).sort((a, b) => away(a.place, point) - away(b.place, point));
    if (order.length && away(order[0].place, point) < slack) return { what: order[0].index === 0 ? "start" : "key", motion, index: order[0].index };
    const where = app.stage.toImage(point);
    const loose = (slack * 0.4) / app.stage.view.scale;
    const inSize = (motion) => { const box = boxAt(motion, app.time); return (box.right - box.left) * (box.bottom - box.top); };
    const under = topmost().filter((one) => inside(boxAt(one, app.time), where, loose));
    // The selected one keeps what lies in it; else the smallest, or a large box would hide all it holds.
    const found = under.find((one) => one.id === app.ui.selected) ?? under.filter((one) => one.kind !== "camera").sort((a, b) => inSize(a) - inSize(b))[0] ?? under[0];
    if (found) return { what: "body", motion: found };
    const path = topmost().find((one) => nearPath(one, point, slack));
    if (path) return { what: "line", motion: path };
    const first = topmost().find((one) => one.path.length && inside(one.box, where, 0));
    return first ? { what: "line", motion: first } : { what: "nothing" };
  }

  function begin(event) {
    if (!app.doc.image || (event.pointerType === "mouse" && event.button === 2)) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    pointers.set(event.pointerId, at(event));
    if (pointers.size === 2) {
      cancel();
      const [a, b] = [...pointers.values()];
      pinch = { far: away(a, b), middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2] };
      return;
    }
    if (pointers.size > 2) return;
    event.preventDefault();
    const point = at(event);
    drag = { from: point, start: app.stage.toImage(point), gesture: `pointer-${++gestures}`, type: event.pointerType, moved: false, kind: "pan" };
    app.endGesture();
    if (event.button === 1 || app.ui.tool === "hand") return;
    const slack = reach(event);
    if (app.ui.tool === "box" || app.ui.tool === "pin") drag.kind = "newbox";
    else if (app.ui.tool === "path") beginPath(point, slack);
    else if (app.ui.tool === "brush") beginBrush();
    else if (app.ui.tool === "polygon" || app.ui.tool === "cutout") drag.kind = app.ui.tool;
    else beginSelect(point, slack);
  }

  function beginSelect(point, slack) {
    const found = hit(point, slack);
    drag.kind = found.what;
    drag.base = found.motion ?? null;
    Object.assign(drag, { index: found.index, x: found.x, y: found.y });
    if (found.what === "nothing") drag.kind = "pan";
    else if (found.motion) {
      const key = found.what === "key" || found.what === "start" ? found.index : null;
      app.setUI({ selected: found.motion.id, key });
      if (found.motion.locked) drag.kind = "none";
    }
  }

  function beginPath(point, slack) {
    const found = hit(point, slack);
    if (found.what === "body" && found.motion.kind !== "camera") {
      app.setUI({ selected: found.motion.id, key: null });
      drag.inside = true;
    }
    drag.base = app.selected;
    drag.kind = drag.base && !drag.base.locked ? "freehand" : "pan";
    if (!drag.base) app.say("Choose an object first, or draw a box.");
  }

  function beginBrush() {
    if (!app.selected || app.selected.locked) {
      drag.kind = "none";
      app.say("Choose an object to paint its mask.");
      return;
    }
    Object.assign(drag, { kind: "brush", base: app.selected });
    app.masks.stroke(drag.base, [drag.start, drag.start], app.ui.brush / app.stage.view.scale, app.ui.erase);
  }

  function follow(event) {
    const point = at(event);
    const where = app.stage.toImage(point);
    hover(point, where, event);
    if (!pointers.has(event.pointerId)) return;
    const before = pointers.get(event.pointerId);
    pointers.set(event.pointerId, point);
    if (pinch && pointers.size >= 2) return movePinch();
    if (!drag) return;
    if (!drag.moved && away(point, drag.from) < (CLICK[drag.type] ?? 3)) return;
    drag.moved = true;
    const [dx, dy] = [where[0] - drag.start[0], where[1] - drag.start[1]];
    const image = app.doc.image;
    switch (drag.kind) {
      case "pan":
        app.stage.panBy(point[0] - before[0], point[1] - before[1]);
        break;
      case "newbox":
        app.setUI({ draft: { box: edits.boxBetween(drag.start, where, image) } });
        break;
      case "wipe": {
        const { left, right } = app.stage.wipeLine() ?? { left: 0, right: 1 };
        app.setUI({ wipe: Math.min(Math.max((point[0] - left) / (right - left), 0), 1) });
        break;
      }
      case "body":
        replace(edits.dragged(drag.base, app.time, app.video.num_frames, dx, dy, image));
        break;
      case "line":
        replace(edits.translated(drag.base, dx, dy, image));
        break;
      case "start":
        replace(edits.startMoved(drag.base, dx, dy, image));
        break;
      case "key": {
        const key = drag.base.path[drag.index];
        replace(edits.keyChanged(drag.base, drag.index, { x: key.x + dx, y: key.y + dy }));
        break;
      }
      case "corner":
        moveCorner(where);
        break;
      case "freehand":
        moveFreehand(where);
        break;
      case "brush":
        app.masks.stroke(drag.base, [app.stage.toImage(before), where], app.ui.brush / app.stage.view.scale, app.ui.erase);
        break;
    }
  }

  /** A corner on the first frame changes the box; later it sets the size there, about the centre. */
  function moveCorner(where) {
    const motion = drag.base;
    if (app.time <= (motion.path[0]?.time ?? 0) || motion.path.length === 0) {
      const { box } = motion;
      const fixed = [drag.x === "left" ? box.right : box.left, drag.y === "top" ? box.bottom : box.top];
      const next = edits.boxBetween(fixed, where, app.doc.image);
      if (edits.isBox(next)) replace(edits.resized(motion, next));
      return;
    }
    const now = boxAt(motion, app.time);
    const [x, y] = center(now);
    const ratio = Math.hypot(where[0] - x, where[1] - y) / Math.hypot(now.right - x, now.bottom - y);
    const [{ scale }] = sample(motion, [app.time]);
    replace(edits.scaledAt(motion, app.time, app.video.num_frames, scale * Math.max(ratio, 0.02)));
  }

  function moveFreehand(where) {
    const [x, y] = center(drag.base.box);
    drag.line ??= [[x, y]];
    // From inside the box the line is shifted so that it starts in the middle.
    const [dx, dy] = drag.inside ? [x - drag.start[0], y - drag.start[1]] : [0, 0];
    if (!drag.inside && drag.line.length === 1) drag.line.push(drag.start);
    drag.line.push([where[0] + dx, where[1] + dy]);
    app.setUI({ draft: { line: drag.line } });
  }

  function movePinch() {
    const [a, b] = [...pointers.values()];
    const middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    app.stage.zoomBy(away(a, b) / pinch.far, middle);
    app.stage.panBy(middle[0] - pinch.middle[0], middle[1] - pinch.middle[1]);
    pinch = { far: away(a, b), middle };
  }

  function finish(event) {
    pointers.delete(event.pointerId);
    if (pinch) {
      if (pointers.size < 2) pinch = null;
      return;
    }
    if (!drag) return;
    const { kind, moved, start, line, base } = drag;
    const done = drag;
    drag = null;
    app.endGesture();
    if (kind === "newbox") placeBox(start, app.ui.draft?.box, moved);
    else if (kind === "freehand") placePath(base, line, moved, start, done.inside);
    else if (kind === "brush") app.masks.finish(base);
    else if (kind === "polygon") addCorner(start);
    else if (kind === "cutout") app.masks.cutOut(start);
    else if (kind === "pan" && !moved && app.ui.tool === "select") app.setUI({ selected: null, key: null });
  }

  function placeBox(start, drawn, moved) {
    const { image } = app.doc;
    const pin = app.ui.tool === "pin";
    app.setUI({ draft: null });
    if (app.doc.motions.length >= 256) return app.say("A scene holds at most 256 boxes.", "error");
    if (start[0] < 0 || start[1] < 0 || start[0] > image.width || start[1] > image.height) {
      if (!drawn || !edits.isBox(drawn)) return app.say("Click on the photo.");
    }
    const box = moved && drawn ? drawn : defaultBox(image.width, image.height, ...start);
    if (!edits.isBox(box)) return undefined;
    app.dispatch({ type: "add", motion: { box, kind: "object" } });
    app.setUI({ tool: pin ? "pin" : "path", frame: 0 });
    return undefined;
  }

  function placePath(base, line, moved, start, startedInside) {
    app.setUI({ draft: null });
    if (!moved && startedInside) return; // a click only chooses
    const motion = moved && line
      ? edits.pathThrough(base, line, { tolerance: 7 / app.stage.view.scale })
      : edits.pathExtended(base, ...start);
    app.dispatch({ type: "replace", id: base.id, motion });
    if (moved) app.setUI({ tool: "select" });
  }

  function addCorner(point) {
    if (!app.selected || app.selected.locked) return app.say("Choose an object to outline its mask.");
    const polygon = app.ui.draft?.polygon ?? [];
    const closes = polygon.length > 2 && away(app.stage.toScreen(polygon[0]), app.stage.toScreen(point)) < 12;
    if (closes) return closePolygon();
    return app.setUI({ draft: { polygon: [...polygon, point] } });
  }

  function closePolygon() {
    const polygon = app.ui.draft?.polygon ?? [];
    app.setUI({ draft: null });
    if (polygon.length > 2 && app.selected) app.masks.polygon(app.selected, polygon, app.ui.erase);
  }

  function hover(point, [x, y], event) {
    const { image } = app.doc;
    const on = image && x >= 0 && y >= 0 && x < image.width && y < image.height;
    app.byId("where").textContent = on ? `${Math.floor(x)}, ${Math.floor(y)} px` : "";
    if (app.ui.tool === "brush" && event.pointerType !== "touch") app.setUI({ draft: { cursor: [x, y] } });
    if (drag) return;
    const found = image && app.ui.tool === "select" ? hit(point, reach(event)).what : "";
    const sizes = { wipe: "ew-resize", key: "grab", start: "grab", corner: "nwse-resize", body: "move", line: "move" };
    const tools = { hand: "grab", brush: "none", select: sizes[found] ?? "default" };
    canvas.style.cursor = image ? tools[app.ui.tool] ?? "crosshair" : "default";
  }

  function cancel() {
    if (!drag) return;
    const { kind, base, moved } = drag;
    if (moved && base && ["body", "line", "start", "key", "corner"].includes(kind)) app.dispatch({ type: "replace", id: base.id, motion: base, gesture: drag.gesture });
    if (kind === "brush") app.masks.finish(base);
    drag = null;
    app.endGesture();
    app.setUI({ draft: null });
  }

  canvas.addEventListener("pointerdown", begin);
  canvas.addEventListener("pointermove", follow);
  canvas.addEventListener("pointerup", finish);
  canvas.addEventListener("pointercancel", (event) => { pointers.delete(event.pointerId); pinch = null; cancel(); });
  canvas.addEventListener("pointerleave", () => { app.byId("where").textContent = ""; if (app.ui.draft?.cursor) app.setUI({ draft: null }); });
  canvas.addEventListener("dblclick", () => { if (app.ui.tool === "polygon") closePolygon(); });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey) app.stage.panBy(-(event.deltaX || event.deltaY), 0);
    else app.stage.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : event.deltaMode ? 0.05 : 0.0015)), at(event));
  }, { passive: false });

  app.pointer = { cancel, closePolygon, get busy() { return drag !== null; } };
}
