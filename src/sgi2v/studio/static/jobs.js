// Making videos: submit, watch, cancel, try again; the history of all that was made here.

import * as api from "./api.js";
import { button, h, icon, refill, secondsText } from "./dom.js";
import { fromScene } from "./state.js";
import { links, stateText } from "./results.js";

const LIVE = ["queued", "running"];

export function makeJobs(app) {
  const { byId } = app;
  const list = h("ol", { class: "jobs", id: "job-list" });
  const offline = h("p", { class: "note warned", id: "offline", hidden: true }, icon("warn"), "The server does not answer; trying again.");
  const overlay = h("input", { type: "checkbox", onchange: () => app.setUI({ overlay: overlay.checked }) });
  byId("panel-results").append(
    h("div", { class: "panel-head" }, h("h2", {}, "Results"), h("label", { class: "check" }, overlay, "Boxes over results")), offline, list);
  const rows = new Map();
  const unanswered = new Map(); // what was sent -> its key
  let making = false;
  let shownRows = 0;

  function connect() {
    api.listen({
      snapshot: ({ jobs }) => {
        app.jobs = new Map(jobs.map((job) => [job.id, job]));
        for (const id of app.ui.shown) if (app.jobs.get(id)) app.results.preload(app.jobs.get(id));
        app.redraw();
      },
      job: (job) => {
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
      deleted: ({ id }) => {
        app.jobs.delete(id);
        app.redraw();
      },
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
    const job = await sendOnce(JSON.stringify(request), (key) => api.submit(request, key));
    making = false;
    app.redraw();
    if (job) app.results.show([put(job).id]);
  }

  /** Several jobs of one scene: chosen methods times seeds, kept together as one group. */
  function compare() {
    const methods = app.backbone.controllers;
    const boxes = methods.map((one) => h("label", { class: "check" }, h("input", { type: "checkbox", value: one.name, checked: !one.combination }), h("span", {}, one.name, h("small", {}, one.title))));
    const first = Number(app.choices.sampling.seed ?? app.backbone.sampling.find((one) => one.name === "seed")?.default ?? 0);
    const seeds = h("input", { type: "text", id: "compare-seeds", value: String(first), inputmode: "numeric" });
    const go = button("compare", "Generate", () => start(), { text: true, kind: "primary" });
    const count = h("p", { class: "note", role: "status" });
    const chosen = () => boxes.map((one) => one.querySelector("input")).filter((one) => one.checked).map((one) => one.value);
    const listed = () => [...new Set(seeds.value.split(/[\s,;]+/).filter(Boolean).map(Number))];
    const tally = () => {
      const wrong = listed().some((one) => !Number.isInteger(one) || one < 0);
      const number = chosen().length * listed().length;
      count.textContent = wrong ? "Seeds are whole numbers with commas between them." : `${number} ${number === 1 ? "video" : "videos"}${number > 12 ? "; at most 12 at once" : ""}.`;
      go.disabled = wrong || number < 1 || number > 12;
    };
    const some = button("plus", "Three more seeds", () => { seeds.value = [...listed(), ...[1, 2, 3].map((k) => Math.max(...listed()) + k)].join(", "); tally(); }, { text: true, kind: "small" });
    const box = app.shell.dialog("Side by side",
      h("p", {}, "Several videos of this scene, on one time-line."),
      h("fieldset", { class: "checks" }, h("legend", {}, "Methods"), boxes),
      h("div", { class: "row" }, h("label", { class: "field wide", for: "compare-seeds" }, h("span", {}, "Seeds"), seeds), some),
      h("div", { class: "actions" }, go, count));
    box.addEventListener("input", tally);
    tally();

    async function start() {
      box.close();
      const group = app.newKey();
      const ids = [];
      for (const name of chosen()) {
        for (const seed of listed()) {
          const request = app.request();
          request.controller = { name, ...(app.choices.values[name] ?? {}) };
          request.sampling = { ...request.sampling, seed };
          request.group = group;
          const job = await app.attempt(() => api.submit(request, app.newKey()));
          if (!job) return;
          ids.push(put(job).id);
          app.results.show(ids);
        }
      }
    }
  }

  async function cancel(id) {
    const job = await app.attempt(() => api.cancelJob(id));
    if (job) app.jobs.set(id, job);
    app.redraw();
  }

  async function retry(id) {
    const job = await sendOnce(`retry ${id}`, (key) => api.retryJob(id, key));
    if (!job) return;
    put(job);
    app.results.show(app.ui.shown.includes(id) ? app.ui.shown.map((one) => (one === id ? job.id : one)) : [job.id], job.id);
  }

  async function remove(id) {
    if (await app.attempt(() => api.deleteJob(id))) app.jobs.delete(id);
    app.redraw();
  }

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
    const shown = app.ui.shown.includes(job.id);
    const middle = job.result ? `/api/jobs/${job.id}/frames/${Math.floor(job.result.num_frames / 2)}.png` : job.progress?.preview ?? api.imageUrl(job.image);
    const state = h("p", { class: "job-state" }, `${stateText(job)}${live ? "" : ` · ${job.num_steps} steps`}${job.retry_of ? " · again" : ""}`);
    const bar = live ? h("progress", { "max": 1, "aria-label": "Progress", ...(job.progress?.phase === "sample" ? { value: job.progress.fraction } : {}) }) : null;
    const compare = h("input", { "type": "checkbox", "checked": shown, "aria-label": `Result ${job.number} beside others`, "data-focus": `compare-${job.id}`, "onchange": () => app.results.show(compare.checked ? [...app.ui.shown, job.id] : app.ui.shown.filter((one) => one !== job.id), compare.checked ? job.id : undefined) });
    return h("li", { "class": `job ${job.state} ${job.id === app.ui.active ? "chosen" : ""}`, "data-job": job.id, "data-state": job.state },
      h("button", { "type": "button", "class": "thumb", "aria-label": `Show result ${job.number}`, "data-focus": `thumb-${job.id}`, "onclick": () => app.results.show([job.id]) }, h("img", { src: middle, alt: "", loading: "lazy" })),
      h("div", { class: "job-text" }, h("p", {}, h("strong", {}, `#${job.number} `), app.results.titleOf(job), ), state, bar,
        h("div", { class: "job-actions" }, job.result ? links(job) : null,
          live ? button("stop", "Cancel", () => cancel(job.id), { "kind": "small", "disabled": job.cancelling, "text": true, "data-focus": `cancel-${job.id}` }) : null,
          !live ? button("retry", `Make result ${job.number} again`, () => retry(job.id), { "kind": "small", "data-focus": `retry-${job.id}` }) : null,
          button("open", `Bring back the scene of result ${job.number}`, () => reopen(job.id), { "kind": "small", "data-focus": `reopen-${job.id}` }),
          !live ? button("trash", `Delete result ${job.number}`, () => remove(job.id), { "kind": "small", "data-focus": `delete-${job.id}` }) : null)),
      h("label", { class: "check compare-check", title: "Show beside others" }, compare));
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
    const wanted = jobs.map((job) => {
      const print = JSON.stringify([job, app.ui.shown.includes(job.id), app.ui.active === job.id]);
      if (rows.get(job.id)?.print !== print) rows.set(job.id, { print, element: row(job) });
      return rows.get(job.id).element;
    });
    for (const id of rows.keys()) if (!app.jobs.has(id)) rows.delete(id);
    if (list.childElementCount === 0 || wanted.length !== shownRows || wanted.some((one, k) => list.children[k] !== one)) {
      shownRows = wanted.length;
      refill(list, wanted.length ? wanted : [h("li", { class: "empty" }, "Nothing made yet. Generate makes a video of the scene; it is kept here.")]);
    }
  }

  return { update, connect, generate, compare, cancel, retry, reopen };
}
