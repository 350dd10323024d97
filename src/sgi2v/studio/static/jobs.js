// Making videos: submit, watch, cancel, try again; the history of all that was made here.

import * as api from "./api.js";
import { arrange, button, h, icon, secondsText, swap } from "./dom.js";
import { makeCompare } from "./compare.js";
import { fromScene } from "./state.js";
import { links, stateText } from "./results.js";

const LIVE = ["queued", "running"];
const PAGE = 200; // earlier jobs asked for at a time, and as many as a snapshot holds
const UNDO_SECONDS = 10;
const MOST = 500; // as many as the server gives at once

export function makeJobs(app) {
  const { byId } = app;
  const list = h("ol", { class: "jobs", id: "job-list" });
  const offline = h("p", { class: "note warned", id: "offline", hidden: true }, icon("warn"), "The server does not answer; trying again.");
  const overlay = h("input", { type: "checkbox", onchange: () => app.setUI({ overlay: overlay.checked }) });
  const earlier = button("down", "Show older", () => older(), { text: true, kind: "small", id: "older", hidden: true });
  const empty = h("li", { class: "empty" }, "Nothing made yet. Generate makes a video of the scene; it is kept here.");
  byId("panel-results").append(
    h("div", { class: "panel-head" }, h("h2", {}, "Results"), h("label", { class: "check" }, overlay, "Boxes over results")),
    offline, list, earlier);
  const rows = new Map();
  const unanswered = new Map(); // what was sent -> its key
  const leaving = new Map(); // jobs deleted here and not yet there, which can be brought back: id -> {job, timer}
  const gone = new Set(); // jobs that are known to be deleted
  const looked = new Set(); // jobs that the server is being asked for
  let making = false;
  let told = false; // whether the first snapshot has come
  let oldest = 0; // the number down to which the list is whole; 0 when the server has no more

  function connect() {
    api.listen({
      snapshot: ({ jobs: all, more }) => {
        const jobs = all.filter((job) => !leaving.has(job.id));
        const least = more ? all.at(-1).number : 0;
        // What this page has of earlier ones stays until it is known what became of them meanwhile.
        const before = [...app.jobs.values()];
        const kept = before.filter((job) => job.number < least);
        app.jobs = new Map([...jobs, ...kept].map((job) => [job.id, job]));
        oldest = kept.length ? Math.min(oldest, least) : least;
        told = true;
        looked.clear();
        app.stage.retryPictures();
        for (const job of before) if (app.jobs.has(job.id)) tell(job, app.jobs.get(job.id));
        if (kept.length) renew(least, Math.min(...kept.map((job) => job.number)));
        for (const id of app.ui.shown) if (app.jobs.get(id)) app.results.preload(app.jobs.get(id));
        app.redraw();
      },
      job: (job) => {
        if (leaving.has(job.id)) return;
        const before = app.jobs.get(job.id);
        app.jobs.set(job.id, job);
        tell(before, job);
        app.redraw();
      },
      progress: (progress) => {
        const job = app.jobs.get(progress.id);
        if (job && job.state === "running") app.jobs.set(job.id, { ...job, progress });
        app.redraw();
      },
      deleted: ({ id }) => forget(id),
      state: (open) => {
        app.connected = open;
        app.redraw();
      },
    });
  }

  function tell(before, job) {
    if (!app.ui.shown.includes(job.id) || !before || before.state === job.state) return;
    if (job.state === "done") {
      app.results.preload(job);
      app.say(`Result ${job.number} is ready${job.result?.seconds ? ` after ${secondsText(job.result.seconds)}` : ""}.`, "good");
    } else if (job.state === "failed") app.say(job.message ?? "The video failed.", "error");
  }

  function forget(id) {
    gone.add(id);
    app.jobs.delete(id);
    app.redraw();
  }

  /** Earlier jobs than those that the list is whole down to. */
  async function older() {
    const answer = await app.attempt(() => api.getJobs(oldest, PAGE));
    if (!answer) return;
    for (const job of answer.jobs) if (!gone.has(job.id)) app.jobs.set(job.id, job);
    oldest = answer.more ? answer.jobs.at(-1).number : 0;
    app.redraw();
  }

  /** What a snapshot is too short for, as it is by now: jobs from below a number down to another. */
  async function renew(before, least) {
    while (before > least) {
      const answer = await app.attempt(() => api.getJobs(before, MOST));
      if (!answer) return;
      const end = answer.more ? answer.jobs.at(-1).number : 0;
      const there = new Map(answer.jobs.map((job) => [job.id, job]));
      for (const [id, { number }] of app.jobs) {
        if (number < before && number >= end && !there.has(id)) app.jobs.delete(id);
      }
      for (const [id, job] of there) {
        // Those between, too: the list is whole down to `oldest`, below which there may be single ones.
        const listed = job.number >= Math.max(oldest, least) && !gone.has(id);
        if (listed || app.jobs.has(id)) app.jobs.set(id, job);
      }
      before = end;
    }
    app.redraw();
  }

  /** Ask for a job that is shown and is not in the list, which may only be older; whether it is known to be gone. */
  function missing(id) {
    if (!told || gone.has(id) || looked.has(id)) return gone.has(id);
    looked.add(id);
    api.getJob(id).then((job) => {
      if (gone.has(id)) return;
      app.jobs.set(id, job);
      app.results.preload(job);
      app.redraw();
    }, (error) => {
      if (error.status === 404) forget(id); // else the next snapshot has it asked again
    });
    return false;
  }

  const put = (job) => {
    if (!app.jobs.has(job.id)) app.jobs = new Map([[job.id, job], ...app.jobs]);
    return job;
  };

  /** Send with a key that stays the same until there is an answer: sent again after a lost one, it is still one job. */
  async function sendOnce(what, send) {
    if (!unanswered.has(what)) unanswered.set(what, app.newKey());
    const job = await app.attempt(() => send(unanswered.get(what)));
    if (job) unanswered.delete(what);
    return job;
  }

  /** One job from what is on the page. */
  async function generate() {
    if (!app.doc.image || making) return;
    making = true;
    app.redraw();
    const request = app.request();
    const { opened } = app.doc;
    const job = await sendOnce(JSON.stringify(request), (key) => api.submit(request, key));
    making = false;
    app.redraw();
    if (job) show(opened, [put(job).id]);
  }

  /** Show jobs, unless another scene was opened since they were asked for: they are in the list. */
  function show(opened, ids) {
    if (app.doc.opened === opened) app.results.show(ids);
    else app.redraw();
  }

  async function cancel(id) {
    const job = await app.attempt(() => api.cancelJob(id));
    // The event that it has ended may have come first.
    if (job && LIVE.includes(app.jobs.get(id)?.state)) app.jobs.set(id, job);
    app.redraw();
  }

  async function retry(id) {
    const job = await sendOnce(`retry ${id}`, (key) => api.retryJob(id, key));
    if (!job) return;
    put(job);
    app.results.show(app.ui.shown.includes(id) ? app.ui.shown.map((one) => (one === id ? job.id : one)) : [job.id], job.id);
  }

  /** Delete a result: from the page at once, from the server when it can no longer be undone. */
  function remove(id) {
    const job = app.jobs.get(id);
    leaving.set(id, { job, timer: setTimeout(() => removeNow(id), 1000 * UNDO_SECONDS) });
    forget(id);
    app.say(`Result ${job.number} is deleted.`, "note", { undo: () => bringBack(id), seconds: UNDO_SECONDS });
  }

  function bringBack(id) {
    const found = leaving.get(id);
    if (!found) return app.say("It is gone already.");
    clearTimeout(found.timer);
    leaving.delete(id);
    gone.delete(id);
    app.jobs.set(id, found.job);
    app.results.preload(found.job);
    return app.redraw();
  }

  async function removeNow(id) {
    const { job, timer } = leaving.get(id);
    clearTimeout(timer);
    leaving.delete(id);
    const done = await app.attempt(() => api.deleteJob(id).catch((error) => { if (error.status !== 404) throw error; return true; }));
    if (!done) { // it is still there
      gone.delete(id);
      app.jobs.set(id, job);
      app.redraw();
    }
  }

  const finish = () => { for (const id of [...leaving.keys()]) removeNow(id); };
  addEventListener("pagehide", finish);
  document.addEventListener("visibilitychange", () => { if (document.hidden) finish(); });

  /** The job's scene and settings come back into the editor. */
  async function reopen(id) {
    const job = await app.attempt(() => api.getJob(id));
    if (!job) return;
    const image = await measured(job.request.scene.image);
    if (!image) return app.say("The picture of this result is gone.", "error");
    await app.files.takeRun({ ...job.request, sampling: job.plan?.sampling ?? job.request.sampling, controller: job.plan?.controller ?? job.request.controller });
    app.files.show(fromScene(job.request.scene, { ...image, name: `result ${job.number}` }), `Scene of result ${job.number}`);
    return app.results.show([id]);
  }

  /** A picture of the server with its size. */
  function measured(upload) {
    const url = api.imageUrl(upload);
    return new Promise((resolve) => {
      const picture = new Image();
      picture.onload = () => resolve({ id: upload.slice(7), image: upload, url, width: picture.naturalWidth, height: picture.naturalHeight });
      picture.onerror = () => resolve(null);
      picture.src = url;
    });
  }

  function row(job) {
    const live = LIVE.includes(job.state);
    const image = h("img", { alt: "", loading: "lazy" });
    const state = h("p", { class: "job-state" });
    const bar = live ? h("progress", { "max": 1, "aria-label": "Progress" }) : null;
    const beside = () => app.results.show(
      compare.checked ? [...app.ui.shown, job.id] : app.ui.shown.filter((one) => one !== job.id), compare.checked ? job.id : undefined);
    const compare = h("input", { "type": "checkbox", "aria-label": `Result ${job.number} beside others`, "data-focus": `compare-${job.id}`, "onchange": beside });
    const element = h("li", { "class": `job ${job.state}`, "data-job": job.id, "data-state": job.state },
      h("button", { "type": "button", "class": "thumb", "aria-label": `Show result ${job.number}`, "data-focus": `thumb-${job.id}`, "onclick": () => app.results.show([job.id]) }, image),
      h("div", { class: "job-text" }, h("p", {}, h("strong", {}, `#${job.number} `), app.results.titleOf(job), ), state, bar,
        h("div", { class: "job-actions" }, job.result ? links(job) : null,
          live ? button("stop", "Cancel", () => cancel(job.id), { "kind": "small", "disabled": job.cancelling, "text": true, "data-focus": `cancel-${job.id}` }) : null,
          !live ? button("retry", `Make result ${job.number} again`, () => retry(job.id), { "kind": "small", "data-focus": `retry-${job.id}` }) : null,
          button("open", `Bring back the scene of result ${job.number}`, () => reopen(job.id), { "kind": "small", "data-focus": `reopen-${job.id}` }),
          !live ? button("trash", `Delete result ${job.number}`, () => remove(job.id), { "kind": "small", "data-focus": `delete-${job.id}` }) : null)),
      h("label", { class: "check compare-check", title: "Show beside others" }, compare));
    return { element, image, state, bar, compare };
  }

  /** What changes while a job is made, or is only chosen: the row stays, and with it a press or the focus on it. */
  function drawRow(job, { element, image, state, bar, compare }) {
    const live = LIVE.includes(job.state);
    const middle = job.result
      ? `/api/jobs/${job.id}/frames/${Math.floor(job.result.num_frames / 2)}.png`
      : job.progress?.preview ?? api.imageUrl(job.image);
    if (image.getAttribute("src") !== middle) image.src = middle;
    const words = `${stateText(job)}${live ? "" : ` · ${job.num_steps} steps`}${job.retry_of ? " · again" : ""}`;
    if (state.textContent !== words) state.textContent = words;
    if (bar && job.progress?.phase === "sample") bar.value = job.progress.fraction;
    else bar?.removeAttribute("value");
    compare.checked = app.ui.shown.includes(job.id);
    element.classList.toggle("chosen", job.id === app.ui.active);
  }

  /** A job's row on the page, made anew only where what it offers is another. */
  function rowOf(job) {
    const print = JSON.stringify([job.state, job.cancelling, job.result]);
    const old = rows.get(job.id);
    if (old?.print !== print) {
      rows.set(job.id, { print, ...row(job) });
      if (old) swap(old.element, rows.get(job.id).element);
    }
    drawRow(job, rows.get(job.id));
    return rows.get(job.id).element;
  }

  function update() {
    overlay.checked = app.ui.overlay;
    offline.hidden = app.connected;
    const jobs = [...app.jobs.values()].sort((a, b) => b.number - a.number);
    const running = jobs.filter((job) => LIVE.includes(job.state));
    byId("running").hidden = running.length === 0;
    byId("running").textContent = String(running.length);
    byId("generate").disabled = !app.doc.image || making;
    const now = running.find((job) => job.state === "running") ?? null;
    byId("strip").hidden = !running.length;
    byId("strip-bar").style.width = `${100 * (now?.progress?.phase === "sample" ? now.progress.fraction : now?.progress?.phase === "decode" ? 1 : 0.01)}%`;
    for (const id of rows.keys()) if (!app.jobs.has(id)) rows.delete(id);
    arrange(list, jobs.length ? jobs.map(rowOf) : [empty]);
    earlier.hidden = !oldest;
  }

  return { update, connect, generate, compare: makeCompare(app, put, show), cancel, retry, reopen, missing };
}
