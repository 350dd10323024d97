// The time-line: one slider for plan and results, a row of keys for every object, playback.

import { frameTimes, speeds } from "./geometry.js";
import * as edits from "./edits.js";
import { h, refill, setIcon } from "./dom.js";
import { colorOf, titleOf } from "./state.js";

export function makeTimeline(app) {
  const { byId } = app;
  const rows = byId("rows");
  const scrub = byId("scrub");
  let shown = "";
  let timer = null;

  scrub.addEventListener("input", () => app.setFrame(Number(scrub.value)));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("play").addEventListener("click", () => play(!app.ui.playing));
  byId("add-key").addEventListener("click", () => {
    const motion = app.selected;
    if (!motion) return;
    const made = edits.keyed(motion, app.time, app.video.num_frames);
    app.dispatch({ type: "replace", id: motion.id, motion: made.motion });
    app.setUI({ key: made.index });
  });

  function step(by) {
    const count = app.video.num_frames;
    app.setFrame((app.ui.frame + by + count) % count);
  }

  function play(on) {
    clearInterval(timer);
    app.setUI({ playing: on });
    if (on) timer = setInterval(() => step(1), 1000 / Math.max(1, app.video.fps));
  }

  function row(motion) {
    const title = titleOf(app.doc, motion);
    const color = colorOf(app.doc, motion);
    const times = frameTimes(app.video.num_frames);
    const most = app.video.max_speed;
    const fast = motion.path.length ? speeds(motion, app.doc.image, app.video, app.doc.fit) : [];
    const lane = h("div", { class: "lane" });
    const place = (element, left, right = null) => {
      element.style.left = `${100 * left}%`;
      if (right !== null) element.style.width = `${100 * (right - left)}%`;
      lane.append(element);
      return element;
    };
    if (motion.path.length) {
      const bar = place(h("div", { class: "span" }), motion.path[0].time, motion.path[motion.path.length - 1].time);
      bar.style.background = color;
      fast.forEach((speed, j) => {
        if (speed > most) place(h("div", { class: "fast", title: `Frame ${j + 1} to ${j + 2}: ${speed.toFixed(1)} px, ${most} can be followed` }), times[j], times[j + 1]);
      });
      if (motion.path.length <= 60) motion.path.forEach((key, index) => place(diamond(motion, key, index, title, color, lane), key.time));
    } else place(h("div", { class: "span pin" }), 0, 1).style.background = color;
    lane.addEventListener("dblclick", (event) => {
      const time = timeAt(lane.getBoundingClientRect(), event);
      const frame = Math.round(time * (app.video.num_frames - 1));
      app.setUI({ selected: motion.id });
      app.setFrame(frame);
      byId("add-key").click();
    });
    const name = h("button", { "type": "button", "class": "lane-name", "aria-pressed": String(motion.id === app.ui.selected), "data-focus": `lane-${motion.id}`, "onclick": () => app.setUI({ selected: motion.id, key: null }) }, title);
    return h("div", { class: `lane-row ${motion.id === app.ui.selected ? "chosen" : ""} ${motion.visible ? "" : "faint"}` }, name, lane);
  }

  const timeAt = (box, event) => Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);

  /** A key: drag it or use the arrow keys to change its time. */
  function diamond(motion, key, index, title, color, lane) {
    const chosen = motion.id === app.ui.selected && app.ui.key === index;
    const frame = key.time * (app.video.num_frames - 1);
    const element = h("button", { "type": "button", "class": `key ${chosen ? "chosen" : ""}`, "data-focus": `lanekey-${motion.id}-${index}`, "aria-pressed": String(chosen),
      "aria-label": `Key ${index + 1} of ${title}, time ${key.time.toFixed(2)}${key.scale !== 1 ? `, size ${key.scale}` : ""}, ${key.easing}`, "title": `Key ${index + 1}: time ${key.time.toFixed(3)}, ${key.easing}` });
    element.style.setProperty("--color", color);
    const retime = (time, gesture) => app.dispatch({ type: "replace", id: motion.id, motion: edits.keyChanged(motion, index, { time }), gesture });
    element.addEventListener("click", () => { app.setUI({ selected: motion.id, key: index }); app.setFrame(frame); });
    element.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      retime(key.time + by * (event.shiftKey ? 0.1 : 0.01), `retime-${motion.id}-${index}`);
    });
    element.addEventListener("pointerdown", (event) => {
      if (motion.locked) return;
      event.preventDefault();
      const gesture = `timeline-${Date.now()}`;
      const from = event.clientX;
      // Once: every move draws the lanes anew, and one that is no longer on the page has no place.
      const box = lane.getBoundingClientRect();
      let moved = false;
      const follow = (now) => {
        if (!moved && Math.abs(now.clientX - from) < 3) return;
        moved = true;
        // Near a frame the key lands on it.
        const time = timeAt(box, now), count = app.video.num_frames - 1;
        const near = Math.round(time * count) / count;
        retime(Math.abs(near - time) * box.width < 6 ? near : time, gesture);
      };
      const end = () => {
        window.removeEventListener("pointermove", follow);
        app.endGesture();
        if (moved) app.setUI({ selected: motion.id, key: index });
      };
      window.addEventListener("pointermove", follow);
      window.addEventListener("pointerup", end, { once: true });
      window.addEventListener("pointercancel", end, { once: true });
    });
    return element;
  }

  function update() {
    const { ui, video, doc, selected } = app;
    const last = video.num_frames - 1;
    scrub.max = last;
    scrub.value = ui.frame;
    scrub.setAttribute("aria-valuetext", `frame ${ui.frame + 1} of ${video.num_frames}, time ${app.time.toFixed(2)}`);
    const bold = h("b", {}, String(ui.frame + 1));
    byId("time").replaceChildren(bold, ` / ${video.num_frames}`, h("span", {}, `  ·  ${app.time.toFixed(2)}`));
    setIcon(byId("play"), ui.playing ? "pause" : "play");
    byId("play").setAttribute("aria-label", ui.playing ? "Pause" : "Play");
    byId("add-key").disabled = !selected || selected.locked;
    rows.style.setProperty("--now", String(app.time));
    const listed = doc.image ? doc.motions.filter((one) => one.kind !== "camera" || one.id === ui.selected) : [];
    const camera = doc.motions.filter((one) => one.kind === "camera").length;
    const now = JSON.stringify([listed, ui.selected, ui.key, video, doc.fit, doc.image?.id, camera]);
    if (now === shown) return;
    shown = now;
    const ticks = h("div", { class: "lane ticks", "aria-hidden": "true" });
    const every = Math.max(1, Math.ceil(video.num_frames / 24));
    frameTimes(video.num_frames).forEach((time, j) => {
      if (j % every && j !== last) return;
      const tick = h("span", {}, String(j + 1));
      tick.style.left = `${100 * time}%`;
      ticks.append(tick);
    });
    ticks.addEventListener("pointerdown", (event) => {
      const box = ticks.getBoundingClientRect();
      const follow = (one) => app.setFrame(timeAt(box, one) * last);
      follow(event);
      window.addEventListener("pointermove", follow);
      window.addEventListener("pointerup", () => window.removeEventListener("pointermove", follow), { once: true });
    });
    const cameraRow = camera && !listed.some((one) => one.kind === "camera")
      ? [h("div", { class: "lane-row camera" }, h("button", { type: "button", class: "lane-name", onclick: () => app.setUI({ panel: "camera" }) }, `Camera (${camera} boxes)`), h("div", { class: "lane" }, h("div", { class: "span whole" })))]
      : [];
    refill(rows, [h("div", { class: "lane-row ruler" }, h("span", { class: "lane-name" }), ticks), ...listed.map(row), ...cameraRow]);
  }

  return { update };
}
