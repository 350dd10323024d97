// Draws the plan: photo, result, masks, paths, boxes and handles, and knows where a point of the image is on the screen.

import { boxAt, boxesAt, center, frameTimes, keyOffset, sample, shownPart, speeds } from "./geometry.js";
import { colorOf, titleOf } from "./state.js";

const HALO = "rgb(12 14 20 / .65)";
const WARN = "#ff5a4d";

export function makeStage(app) {
  const canvas = app.byId("plan");
  const context = canvas.getContext("2d");
  const photos = new Map();
  let view = { scale: 1, x: 0, y: 0 };
  let size = { width: 0, height: 0 };
  let rem = 14, unit = 1; // text size, and how much wider lines are where it is larger than on a laptop

  new ResizeObserver(() => app.redraw()).observe(canvas);

  /** The picture at an address of this server, or null until it has come. */
  function picture(url) {
    if (!url) return null;
    if (!photos.has(url)) {
      if (photos.size > 400) photos.delete(photos.keys().next().value);
      const image = new Image();
      image.onload = () => app.redraw();
      image.onerror = () => {
        image.failed = true;
        if (url === app.doc.image?.url) app.say("The server no longer has this scene's picture; open the photo again.", "error");
      };
      image.src = url;
      photos.set(url, image);
    }
    const image = photos.get(url);
    return image.complete && image.naturalWidth ? image : null;
  }

  /** Pictures that did not come are asked for anew: what was wrong may be over. */
  function retryPictures() {
    for (const [url, image] of photos) if (image.failed) photos.delete(url);
  }

  function fitted() {
    const { width, height } = app.doc.image;
    const narrow = matchMedia("(max-width: 760px)").matches; // the tools lie below then
    const edge = narrow ? 10 : Math.max(24, 0.05 * Math.min(size.width, size.height));
    const left = narrow ? edge : edge + 2.9 * rem; // room for the tools
    const scale = Math.min((size.width - left - edge) / width, (size.height - 2 * edge) / height);
    return { scale, x: left + (size.width - left - edge - scale * width) / 2, y: (size.height - scale * height) / 2 };
  }

  const toScreen = ([x, y]) => [x * view.scale + view.x, y * view.scale + view.y];
  const toImage = ([x, y]) => [(x - view.x) / view.scale, (y - view.y) / view.scale];

  function zoomBy(factor, at = [size.width / 2, size.height / 2]) {
    if (!app.doc.image) return;
    const least = 0.25 * fitted().scale;
    const scale = Math.min(Math.max(view.scale * factor, Math.min(least, 1)), 60);
    const [x, y] = toImage(at);
    app.setUI({ view: { scale, x: at[0] - x * scale, y: at[1] - y * scale } });
  }

  function panBy(dx, dy) {
    app.setUI({ view: { ...view, x: view.x + dx, y: view.y + dy } });
  }

  /** A polyline on its halo, in pixels of the screen. */
  function stroke(points, color, thin, { dash = [], alpha = 1 } = {}) {
    if (points.length < 2) return;
    const width = thin * unit;
    context.save();
    context.globalAlpha = alpha;
    context.lineJoin = context.lineCap = "round";
    context.setLineDash(dash.map((one) => one * unit));
    context.beginPath();
    points.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
    for (const [ink, wide] of [[HALO, width + 2.2], [color, width]]) {
      Object.assign(context, { strokeStyle: ink, lineWidth: wide });
      context.stroke();
    }
    context.restore();
  }

  function corners({ left, top, right, bottom }) {
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]].map(toScreen);
  }

  function dot([x, y], small, fill, rim = "#0c0e14") {
    const radius = small * unit;
    context.beginPath();
    context.arc(x, y, radius + 1.6 * unit, 0, 2 * Math.PI);
    context.fillStyle = rim;
    context.fill();
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = fill;
    context.fill();
  }

  function diamond([x, y], small, fill) {
    for (const [r, ink] of [[(small + 2) * unit, "#0c0e14"], [small * unit, fill]]) {
      context.beginPath();
      context.moveTo(x, y - r);
      context.lineTo(x + r, y);
      context.lineTo(x, y + r);
      context.lineTo(x - r, y);
      context.fillStyle = ink;
      context.fill();
    }
  }

  function arrow(points, color, width) {
    const [x, y] = points[points.length - 1];
    const reach = (4.5 * width + 3) * unit;
    const from = points.findLast(([px, py]) => Math.hypot(px - x, py - y) >= reach) ?? points[0];
    const angle = Math.atan2(y - from[1], x - from[0]);
    context.beginPath();
    for (const [turn, far] of [[0, 1], [2.55, 0.9], [Math.PI, 0.35], [-2.55, 0.9]]) {
      context.lineTo(x + far * reach * Math.cos(angle + turn), y + far * reach * Math.sin(angle + turn));
    }
    context.closePath();
    Object.assign(context, { strokeStyle: HALO, lineWidth: 2.2, fillStyle: color, lineJoin: "round" });
    context.stroke();
    context.fill();
  }

  function label(text, [x, y], color) {
    context.font = `600 ${0.86 * rem}px system-ui, sans-serif`;
    const short = text.length > 24 ? `${text.slice(0, 23)}…` : text;
    const width = context.measureText(short).width + 0.8 * rem, height = 1.35 * rem;
    const left = Math.min(Math.max(x - 1, 2), size.width - width - 2);
    const top = y - height - 4 > 2 ? y - height - 4 : y + 4;
    context.fillStyle = "rgb(12 14 20 / .78)";
    context.beginPath();
    context.roundRect(left, top, width, height, 0.3 * rem);
    context.fill();
    context.fillStyle = color;
    context.textBaseline = "middle";
    context.fillText(short, left + 0.4 * rem, top + height / 2 + 0.5);
  }

  function drawPath(motion, color, chosen) {
    const times = frameTimes(Math.max(48, 4 * motion.path.length, app.video.num_frames * 4));
    const [dx, dy] = keyOffset(motion);
    const points = sample(motion, times).map(({ x, y }) => toScreen([x + dx, y + dy]));
    const camera = motion.kind === "camera";
    const width = camera ? 1.3 : chosen ? 2.6 : 2;
    const now = times.findLastIndex((time) => time <= app.time + 1e-9);
    const dash = camera ? [5, 4] : [];
    stroke(points.slice(now), color, width, { alpha: 0.62, dash });
    stroke(points.slice(0, now + 1), color, width, { dash });
    const frames = frameTimes(app.video.num_frames);
    const ticks = sample(motion, frames).map(({ x, y }) => toScreen([x + dx, y + dy]));
    speeds(motion, app.doc.image, app.video, app.video.fit).forEach((speed, j) => {
      if (speed > app.video.max_speed) stroke([ticks[j], ticks[j + 1]], WARN, width + 0.6, { dash: [7, 5] });
    });
    if (!camera) for (const tick of ticks.slice(1, -1)) dot(tick, 1.7, color, HALO);
    arrow(points, color, width);
  }

  function drawMotion(motion, { chosen = false } = {}) {
    const color = colorOf(app.doc, motion);
    const camera = motion.kind === "camera";
    const moves = motion.path.length > 0;
    const now = boxAt(motion, app.time);
    if (moves && app.ui.frame > 0) stroke(corners(motion.box), color, 1.2, { alpha: 0.65, dash: [3, 4] });
    if (moves && app.ui.frame < app.video.num_frames - 1 && !camera) stroke(corners(boxAt(motion, 1)), color, 1.1, { alpha: 0.35 });
    if (moves) drawPath(motion, color, chosen);
    stroke(corners(now), color, camera ? 1.5 : chosen ? 2.6 : 2, { dash: camera ? [7, 5] : [] });
    const middle = toScreen(center(now));
    if (!moves) dot(middle, camera ? 2 : 3.5, camera ? color : "#fff", HALO);
    else dot(middle, chosen ? 5 : 3.2, "#fff", color);
    if (chosen || (!camera && size.width > 34 * rem)) label(titleOf(app.doc, motion), toScreen([now.left, now.top]), color);
  }

  /** Handles of the selected motion: keys and corners. Their places are what pointer.js looks for. */
  function handles() {
    const motion = app.selected;
    if (!motion || motion.locked || !motion.visible) return { keys: [], corners: [] };
    const [dx, dy] = keyOffset(motion);
    const box = boxAt(motion, app.time);
    return {
      keys: motion.path.map((key) => toScreen([key.x + dx, key.y + dy])),
      corners: [["left", "top"], ["right", "top"], ["right", "bottom"], ["left", "bottom"]].map(([x, y]) => ({ x, y, at: toScreen([box[x], box[y]]) })),
    };
  }

  function drawHandles() {
    const motion = app.selected;
    if (!motion) return;
    const color = colorOf(app.doc, motion);
    const { keys, corners: places } = handles();
    if (keys.length <= 60) keys.forEach((at, k) => diamond(at, app.ui.key === k ? 7 : 5, app.ui.key === k ? "#fff" : color));
    for (const { at: [x, y] } of places) {
      Object.assign(context, { fillStyle: "#fff", strokeStyle: "#0c0e14", lineWidth: 1.5 });
      context.beginPath();
      context.rect(x - 4 * unit, y - 4 * unit, 8 * unit, 8 * unit);
      context.fill();
      context.stroke();
    }
  }

  function drawResult(photo) {
    const frame = app.results.frameNow();
    if (!frame || !["wipe", "under", "difference"].includes(app.ui.mode)) return;
    const part = shownPart(app.doc.image, frame.size, app.video.fit);
    const [left, top] = toScreen([part.left, part.top]), [right, bottom] = toScreen([part.right, part.bottom]);
    context.save();
    context.imageSmoothingQuality = "high";
    if (app.ui.mode === "wipe") {
      const x = left + app.ui.wipe * (right - left);
      context.beginPath();
      context.rect(x, top, right - x, bottom - top);
      context.clip();
    }
    if (app.ui.mode === "difference" && photo) context.globalCompositeOperation = "difference";
    context.drawImage(frame.image, left, top, right - left, bottom - top);
    context.restore();
    if (app.ui.mode === "wipe") {
      const x = left + app.ui.wipe * (right - left);
      stroke([[x, top], [x, bottom]], "#fff", 2);
      dot([x, (top + bottom) / 2], 9, "#fff");
      stroke([[x - 4, (top + bottom) / 2], [x + 4, (top + bottom) / 2]], "#223", 1.5);
    }
  }

  /** The wipe's line on the screen, or null in other modes. */
  function wipeLine() {
    const frame = app.ui.mode === "wipe" && app.doc.image ? app.results.frameNow() : null;
    if (!frame) return null;
    const part = shownPart(app.doc.image, frame.size, app.video.fit);
    const [left] = toScreen([part.left, 0]), [right] = toScreen([part.right, 0]);
    return { left, right, at: left + app.ui.wipe * (right - left) };
  }

  function update() {
    const box = canvas.getBoundingClientRect();
    const dense = window.devicePixelRatio || 1;
    size = { width: box.width, height: box.height };
    rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    unit = Math.max(1, rem / 15);
    const [width, height] = [Math.round(box.width * dense), Math.round(box.height * dense)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, size.width, size.height);
    if (app.doc.image && size.width) view = app.ui.view ?? fitted();
    app.byId("zoom-fit").textContent = app.doc.image ? `${Math.round(100 * view.scale)} %` : "Fit";
    if (!app.doc.image || !size.width) return;
    const photo = picture(app.doc.image.url);
    const [left, top] = toScreen([0, 0]), [right, bottom] = toScreen([app.doc.image.width, app.doc.image.height]);
    context.fillStyle = "#1b1e25";
    context.fillRect(left, top, right - left, bottom - top);
    context.imageSmoothingEnabled = view.scale < 6;
    context.imageSmoothingQuality = "high";
    if (photo) context.drawImage(photo, left, top, right - left, bottom - top);
    context.imageSmoothingEnabled = true;
    drawResult(photo);
    for (const motion of app.doc.motions) {
      const tint = motion.visible && app.masks.tinted(motion, colorOf(app.doc, motion));
      if (tint) context.drawImage(tint, left, top, right - left, bottom - top);
    }
    const shown = app.doc.motions.filter((motion) => motion.visible && motion.id !== app.ui.selected);
    for (const motion of [...shown.filter((one) => one.kind === "camera"), ...shown.filter((one) => one.kind !== "camera")]) drawMotion(motion);
    if (app.selected?.visible) drawMotion(app.selected, { chosen: true });
    drawHandles();
    drawDraft();
  }

  function drawDraft() {
    const draft = app.ui.draft;
    if (!draft) return;
    const color = app.selected ? colorOf(app.doc, app.selected) : "#fff";
    if (draft.box) stroke(corners(draft.box), "#fff", 2, { dash: [6, 4] });
    if (draft.line) stroke(draft.line.map(toScreen), color, 2.6);
    if (draft.polygon) {
      stroke(draft.polygon.map(toScreen), color, 2, { dash: [5, 4] });
      draft.polygon.forEach((point, k) => dot(toScreen(point), k ? 3 : 5, "#fff", color));
    }
    if (draft.cursor) {
      context.beginPath();
      context.arc(...toScreen(draft.cursor), app.ui.brush / 2, 0, 2 * Math.PI);
      Object.assign(context, { strokeStyle: "#fff", lineWidth: 1.5 });
      context.stroke();
    }
  }

  /** Boxes and paths over a result's tile: the motion at a time, from image to tile pixels. */
  function overlay(ctx, motions, time, place) {
    for (const motion of motions) {
      const color = colorOf({ motions }, motion);
      const [box] = boxesAt(motion, [time]);
      const [left, top] = place([box.left, box.top]), [right, bottom] = place([box.right, box.bottom]);
      for (const [ink, wide] of [[HALO, 3.4], [color, 1.6]]) {
        Object.assign(ctx, { strokeStyle: ink, lineWidth: wide * unit });
        ctx.setLineDash(motion.kind === "camera" ? [5, 4] : []);
        ctx.strokeRect(left, top, right - left, bottom - top);
      }
      if (motion.path.length < 2) continue;
      const [dx, dy] = keyOffset(motion);
      ctx.beginPath();
      sample(motion, frameTimes(40)).forEach(({ x, y }, k) => (k ? ctx.lineTo(...place([x + dx, y + dy])) : ctx.moveTo(...place([x + dx, y + dy]))));
      ctx.stroke();
    }
    ctx.setLineDash([]);
  }

  return {
    update, toScreen, toImage, zoomBy, panBy, handles, wipeLine, picture, retryPictures, overlay,
    get view() { return view; },
    /** How the plan is zoomed, for the results beside it: times its fitted size, and the place in its middle as shares. */
    get zoomed() {
      if (!app.ui.view || !app.doc.image) return null;
      const [x, y] = toImage([size.width / 2, size.height / 2]);
      return { factor: view.scale / fitted().scale, x: x / app.doc.image.width, y: y / app.doc.image.height };
    }, get unit() { return unit; },
  };
}
