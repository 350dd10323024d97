// A mask says which pixels of its box are the thing: painted or outlined here, kept by the server as a picture.

import * as api from "./api.js";

const TINT_SIDE = 1024; // pixels of the longer side of what is drawn over the photo

export function makeMasks(app) {
  const ready = new Map(); // upload -> canvas, opaque where the mask is
  const tints = new Map(); // upload and colour -> canvas
  // motion id -> what is painted and not in the scene yet: {canvas, opened, strokes, sent}; `opened` is the document's
  const painting = new Map();

  function sheet(width, height) {
    return Object.assign(document.createElement("canvas"), { width, height });
  }

  /** The mask as a canvas that is opaque where the mask is; null until the picture has come. */
  function opened(upload) {
    if (ready.has(upload)) return ready.get(upload);
    const picture = app.stage.picture(api.imageUrl(upload));
    if (!picture) return null;
    const canvas = sheet(picture.naturalWidth, picture.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let k = 0; k < pixels.data.length; k += 4) pixels.data[k + 3] = pixels.data[k];
    context.putImageData(pixels, 0, 0);
    remember(ready, upload, canvas, 12);
    return canvas;
  }

  function remember(map, key, value, most) {
    if (map.size >= most) map.delete(map.keys().next().value);
    map.set(key, value);
  }

  /** The motion's mask in its colour, to lay over the photo; null without one. */
  function tinted(motion, color) {
    const own = paintedOf(motion);
    if (!own && !motion.mask) return null;
    if (own) return colored(own.canvas, color);
    const name = `${motion.mask} ${color}`;
    if (!tints.has(name)) {
      const mask = opened(motion.mask);
      if (!mask) return null;
      remember(tints, name, colored(mask, color), 24);
    }
    return tints.get(name);
  }

  function colored(mask, color) {
    const shrink = Math.min(1, TINT_SIDE / Math.max(mask.width, mask.height));
    const canvas = sheet(Math.max(1, Math.round(mask.width * shrink)), Math.max(1, Math.round(mask.height * shrink)));
    const context = canvas.getContext("2d");
    context.drawImage(mask, 0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = color;
    context.globalAlpha = 0.45;
    context.fillRect(0, 0, canvas.width, canvas.height);
    return canvas;
  }

  function paintedOf(motion) {
    const own = painting.get(motion.id);
    return own?.opened === app.doc.opened ? own : null;
  }

  function canvasFor(motion) {
    const own = paintedOf(motion);
    if (own) {
      own.strokes += 1;
      return own.canvas;
    }
    const { width, height } = app.doc.image;
    const canvas = sheet(width, height);
    const before = motion.mask ? opened(motion.mask) : null;
    if (before) canvas.getContext("2d").drawImage(before, 0, 0, width, height);
    painting.set(motion.id, { canvas, opened: app.doc.opened, strokes: 1, sent: 0 });
    return canvas;
  }

  /** Paint from one point of the image to another, `size` pixels of the image wide. */
  function stroke(motion, [[ax, ay], [bx, by]], size, erase) {
    const context = canvasFor(motion).getContext("2d");
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    Object.assign(context, { lineWidth: Math.max(1, size), lineCap: "round", strokeStyle: "#fff" });
    context.beginPath();
    context.moveTo(ax, ay);
    context.lineTo(bx + 1e-3, by);
    context.stroke();
    app.redraw();
  }

  function polygon(motion, points, erase) {
    const context = canvasFor(motion).getContext("2d");
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.fillStyle = "#fff";
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x, y);
    context.fill();
    return finish(motion);
  }

  /** Hand the painted mask to the server and name it in the scene: one undo step a stroke. */
  async function finish(motion) {
    const own = motion && paintedOf(motion);
    if (!own) return;
    const { canvas, strokes } = own;
    const number = ++own.sent;
    const drawn = sheet(canvas.width, canvas.height);
    const context = drawn.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, drawn.width, drawn.height);
    context.drawImage(canvas, 0, 0);
    const blob = await new Promise((resolve) => { drawn.toBlob(resolve, "image/png"); });
    const stored = await app.attempt(() => api.putImage(blob));
    // A later stroke holds this one too; and the motion, or the whole scene, may be another by now.
    if (painting.get(motion.id) !== own || own.sent !== number) return;
    const goesOn = own.strokes !== strokes;
    if (!goesOn) painting.delete(motion.id);
    if (stored && app.doc.opened === own.opened) {
      if (!goesOn) remember(ready, stored.image, canvas, 12);
      app.dispatch({ type: "set", id: motion.id, changes: { mask: stored.image } });
    }
    app.redraw();
  }

  /** Have the server find the thing under a point: a mask for the chosen box if it lies in that, else a box of its own. */
  async function cutOut([x, y]) {
    const { image, opened } = app.doc;
    if (!(x >= 0 && y >= 0 && x < image.width && y < image.height)) return app.say("Click on the photo.");
    const { selected } = app;
    const within = selected && selected.kind !== "camera" && !selected.locked
      && x >= selected.box.left && x < selected.box.right && y >= selected.box.top && y < selected.box.bottom;
    if (!within && app.doc.motions.length >= 256) return app.say("A scene holds at most 256 boxes.", "error");
    const box = within ? selected.box : undefined;
    const found = await app.attempt(() => api.outline(image.image, { at: [x, y], box }));
    if (!found || app.doc.opened !== opened) return undefined;
    if (!within) {
      app.dispatch({ type: "add", motion: { box: found.box, kind: "object", mask: found.image } });
      return app.setUI({ tool: "path", frame: 0 });
    }
    const now = app.doc.motions.find((one) => one.id === selected.id);
    if (now && JSON.stringify(now.box) === JSON.stringify(box)) app.dispatch({ type: "set", id: now.id, changes: { mask: found.image } });
    return undefined;
  }

  /** What was painted for a motion that is gone is not for the next one with its number. */
  function update() {
    const ids = new Set(app.doc.motions.map((motion) => motion.id));
    for (const [id, { opened }] of painting) if (opened === app.doc.opened && !ids.has(id)) painting.delete(id);
  }

  return { update, tinted, stroke, polygon, finish, cutOut };
}
