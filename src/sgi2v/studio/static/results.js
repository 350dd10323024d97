// Results on the time-line: exact frames as pictures, in tiles beside the plan or handed to the plan's canvas.

import * as api from "./api.js";
import { button, h, secondsText } from "./dom.js";
import { comesTo, shownPart } from "./geometry.js";
import { fromScene } from "./state.js";

const LIVE = ["queued", "running"];

export function makeResults(app) {
  const tiles = app.byId("tiles");
  const details = new Map(); // job id -> its request, for the boxes it was made with
  const made = new Map(); // job id -> its tile
  const previews = new Map(); // job id -> the newest picture that has come, shown until the next one has

  /** The picture of a job at a time: an exact frame, or the newest preview while it runs; null before that. */
  function frameOf(job, time) {
    if (!job) return null;
    if (job.result) {
      previews.delete(job.id);
      const { num_frames, width, height } = job.result;
      const frame = Math.round(time * (num_frames - 1));
      const image = app.stage.picture(`/api/jobs/${job.id}/frames/${frame}.png`);
      return image && { image, size: { width, height }, frame };
    }
    const preview = LIVE.includes(job.state) && job.progress?.preview;
    const image = preview ? app.stage.picture(preview) : null;
    if (image) previews.set(job.id, image);
    const shown = image ?? previews.get(job.id);
    return shown ? { image: shown, size: { width: job.width, height: job.height }, frame: null } : null;
  }

  const active = () => app.jobs.get(app.ui.active) ?? null;
  const frameNow = () => frameOf(active(), app.time);

  function preload(job) {
    if (job.result) for (let frame = 0; frame < job.result.num_frames; frame++) app.stage.picture(`/api/jobs/${job.id}/frames/${frame}.png`);
  }

  /** Show jobs side by side, the first of them as the one that is laid over the plan. */
  function show(ids, active = ids[0]) {
    const shown = [...new Set(ids)].slice(-12);
    const mode = app.ui.mode === "plan" && shown.length ? "beside" : app.ui.mode;
    app.setUI({ shown, active: active ?? null, mode: shown.length > 1 ? "beside" : mode });
    app.stage.retryPictures();
    for (const id of shown) if (app.jobs.get(id)) preload(app.jobs.get(id));
  }

  function titleOf(job) {
    return `${job.controller} · seed ${job.seed}`;
  }

  function requestOf(job) {
    if (!details.has(job.id)) {
      details.set(job.id, null);
      api.getJob(job.id).then((full) => {
        details.set(job.id, full.request);
        app.redraw();
      }, () => details.delete(job.id));
    }
    return details.get(job.id);
  }

  function tile(id) {
    const canvas = h("canvas", { role: "img" });
    const state = h("p", { class: "tile-state" });
    const bar = h("progress", { max: 1, "aria-label": "Progress" });
    const title = h("strong");
    const cancel = button("stop", "Cancel", () => app.jobsPanel.cancel(id), { text: true, kind: "small" });
    const retry = button("retry", "Try again", () => app.jobsPanel.retry(id), { text: true, kind: "small" });
    const close = button("close", "Take this result away from the plan", () => {
      const shown = app.ui.shown.filter((one) => one !== id);
      app.setUI({ shown, active: app.ui.active === id ? shown[0] ?? null : app.ui.active });
    }, { kind: "small" });
    const links = h("span", { class: "links" });
    const element = h("figure", { class: "tile" }, h("div", { class: "picture" }, canvas, h("div", { class: "live" }, state, bar, cancel, retry)),
      h("figcaption", {}, title, links, close));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      app.stage.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : event.deltaMode ? 0.05 : 0.0015)));
    }, { passive: false });
    canvas.addEventListener("click", () => app.setUI({ active: id }));
    return { element, canvas, state, bar, title, cancel, retry, links };
  }

  function drawTile(id, parts) {
    const job = app.jobs.get(id);
    const { canvas } = parts;
    parts.element.classList.toggle("active", id === app.ui.active && app.ui.shown.length > 1);
    if (!job) {
      const gone = app.jobsPanel.missing(id);
      parts.element.querySelector(".live").hidden = false;
      parts.title.textContent = gone ? "Deleted" : "";
      parts.state.textContent = gone ? "This result is no longer kept." : "Looking for it …";
      parts.bar.hidden = parts.cancel.hidden = parts.retry.hidden = true;
      return;
    }
    parts.title.textContent = parts.title.title = titleOf(job);
    canvas.setAttribute("aria-label", `Result ${job.number}, ${titleOf(job)}, ${job.state}`);
    const over = Boolean(job.result);
    parts.element.querySelector(".live").hidden = over;
    parts.state.textContent = stateText(job);
    parts.bar.hidden = !LIVE.includes(job.state);
    parts.cancel.hidden = !LIVE.includes(job.state) || job.cancelling;
    parts.retry.hidden = LIVE.includes(job.state) || over;
    if (job.progress && job.progress.phase === "sample") parts.bar.value = job.progress.fraction;
    else if (job.progress?.phase === "decode" || job.progress?.phase === "write") parts.bar.value = 1;
    else parts.bar.removeAttribute("value");
    if (over && !parts.links.childElementCount) parts.links.append(...links(job));
    drawFrame(job, canvas);
  }

  function drawFrame(job, canvas) {
    const dense = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * dense), height = Math.round(canvas.clientHeight * dense);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const frame = frameOf(job, app.time);
    if (!frame || !width) return;
    // A stretched photo is shown in its own shape, so that the result looks as the plan does.
    const image = job.image === app.doc.image?.image ? app.doc.image : null;
    const request = app.ui.overlay ? requestOf(job) : details.get(job.id);
    const part = image ? shownPart(image, frame.size, comesTo(request?.scene.fit ?? app.doc.fit, image, frame.size, true)) : { left: 0, top: 0, right: frame.size.width, bottom: frame.size.height };
    const zoomed = app.stage.zoomed;
    const scale = Math.min(width / (part.right - part.left), height / (part.bottom - part.top)) * 0.96 * (zoomed?.factor ?? 1);
    const [wide, high] = [(part.right - part.left) * scale, (part.bottom - part.top) * scale];
    // In the middle what the plan has in its middle.
    const shape = image ?? { width: wide / scale, height: high / scale };
    const [x, y] = zoomed
      ? [width / 2 - (zoomed.x * shape.width - (image ? part.left : 0)) * scale, height / 2 - (zoomed.y * shape.height - (image ? part.top : 0)) * scale]
      : [(width - wide) / 2, (height - high) / 2];
    canvas.dataset.shown = JSON.stringify([x, y, wide, high].map((one) => Math.round(one / dense)));
    context.imageSmoothingQuality = "high";
    context.drawImage(frame.image, x, y, wide, high);
    if (!app.ui.overlay || !request || !image || frame.frame === null) return;
    context.save();
    context.beginPath();
    context.rect(x, y, wide, high);
    context.clip();
    context.scale(dense, dense);
    const place = ([px, py]) => [(x + (px - part.left) * scale) / dense, (y + (py - part.top) * scale) / dense];
    app.stage.overlay(context, fromScene(request.scene, null).motions, frame.frame / Math.max(job.result.num_frames - 1, 1), place);
    context.restore();
  }

  function update() {
    const ids = app.ui.shown;
    for (const id of made.keys()) if (!ids.includes(id)) made.delete(id);
    for (const id of ids) if (!made.has(id)) made.set(id, tile(id));
    const wanted = ids.map((id) => made.get(id).element);
    if (!tiles.dataset.count || wanted.length !== Number(tiles.dataset.count) || wanted.some((one, k) => tiles.children[k] !== one)) {
      tiles.replaceChildren(...(wanted.length ? wanted : [h("p", { class: "empty" }, "No result yet. Generate makes one; Results has earlier ones.")]));
      tiles.dataset.count = String(wanted.length);
    }
    if (app.ui.mode === "beside") for (const id of ids) drawTile(id, made.get(id));
  }

  return { update, frameNow, frameOf, show, preload, titleOf, links };
}

/** What to take home of a finished job. */
export function links(job) {
  const link = (address, label, tip) => h("a", {
    "href": `${address}?download=1`, "download": true, "class": "button small", "title": tip, "aria-label": tip,
    "data-focus": `${label}-${job.id}`,
  }, label);
  const { mp4, gif, zip, scene } = job.result;
  return [link(mp4, "mp4", "Download the video"), link(gif, "gif", "Download as a gif"), link(zip, "frames", "Download the frames, lossless"), link(scene, "scene", "Download the scene this was made of")];
}

/** A job's state in words. */
export function stateText(job) {
  if (job.state === "queued") return job.position ? `Waiting; ${job.position} before it` : "Waiting";
  if (job.state === "running") {
    if (job.cancelling) return "Stopping after this step …";
    const { progress } = job;
    if (!progress) return "Starting …";
    const phases = { load: "Loading the model …", encode: "Reading the photo …", decode: "Painting the frames …", write: "Writing …" };
    if (phases[progress.phase]) return phases[progress.phase];
    const parts = [`Step ${progress.step} of ${progress.num_steps}`];
    if (progress.iteration) parts.push(`iteration ${progress.iteration} of ${progress.num_iterations}`);
    if (progress.loss !== null && progress.loss !== undefined) parts.push(`loss ${progress.loss.toPrecision(3)}`);
    if (progress.seconds_left !== null && progress.seconds_left !== undefined) parts.push(`${secondsText(progress.seconds_left)} left`);
    return parts.join(" · ");
  }
  const took = job.result?.seconds ? ` in ${secondsText(job.result.seconds)}` : "";
  const words = { done: `Done${took}`, failed: "Failed", cancelled: "Cancelled", interrupted: "Interrupted" };
  return job.message ? `${words[job.state]}: ${job.message}` : words[job.state];
}
