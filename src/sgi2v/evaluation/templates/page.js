// All clips of a report in step: one slider, boxes and tracked centres drawn over the frames, scenes sorted by a metric.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const COLORS = ["#ffe033", "#4bbeff", "#ff78c8", "#00d696", "#ff801e", "#968cff", "#e13c3c"];
const state = { frame: 0, playing: false, last: 0 };
const clips = []; // those on the page: canvas, picture, scene, clip

function option(select, value, text) {
  const item = document.createElement("option");
  item.value = value;
  item.textContent = text;
  select.append(item);
}

data.metrics.forEach((m) => option(byId("metric"), m.name, m.title));
data.methods.forEach((m) => option(byId("method"), m, m));
["every kind", ...data.kinds].forEach((k) => option(byId("kind"), k, k));
if (data.methods.includes(data.first)) byId("method").value = data.first;
byId("frame").max = data.num_frames - 1;
state.frame = Math.min(Number(new URLSearchParams(location.search).get("frame")) || 0, data.num_frames - 1);

function valueOf(scene, method, metric) {
  const clip = scene.clips[method];
  const value = clip ? clip.metrics[metric] : null;
  return value === null || value === undefined ? null : value;
}

function sorted() {
  const metric = data.metrics.find((m) => m.name === byId("metric").value);
  const method = byId("method").value;
  const kind = byId("kind").value;
  const sign = (byId("worst").checked ? 1 : -1) * metric.better;
  const scenes = data.scenes.filter((s) => kind === "every kind" || s.kinds.includes(kind));
  return scenes.slice().sort((a, b) => {
    const [x, y] = [valueOf(a, method, metric.name), valueOf(b, method, metric.name)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (x - y);
  });
}

function caption(scene, method, metric) {
  const line = document.createElement("figcaption");
  const name = document.createElement("b");
  name.textContent = method;
  const value = valueOf(scene, method, metric.name);
  line.append(name, " ", value === null ? "–" : (value * metric.factor).toFixed(metric.digits));
  return line;
}

function build() {
  clips.length = 0;
  const metric = data.metrics.find((m) => m.name === byId("metric").value);
  const host = byId("scenes");
  host.replaceChildren();
  for (const scene of sorted()) {
    const part = document.createElement("section");
    part.className = "scene";
    const title = document.createElement("h3");
    const kinds = document.createElement("small");
    kinds.textContent = scene.kinds.join(", ");
    title.append(scene.name, " ", kinds);
    const row = document.createElement("div");
    row.className = "clips";
    for (const method of data.methods) {
      const clip = scene.clips[method];
      if (!clip) continue;
      const figure = document.createElement("figure");
      const canvas = document.createElement("canvas");
      canvas.width = data.shown[0];
      canvas.height = data.shown[1];
      const picture = new Image();
      const one = { canvas, picture, scene, clip };
      picture.onload = () => draw(one);
      picture.loading = "lazy";
      picture.src = clip.picture;
      clips.push(one);
      figure.append(canvas, caption(scene, method, metric));
      row.append(figure);
    }
    part.append(title, row);
    host.append(part);
  }
  show();
}

function draw(one) {
  const pen = one.canvas.getContext("2d");
  const [width, height] = data.shown;
  if (one.picture.complete && one.picture.naturalWidth) {
    const across = one.picture.naturalWidth / data.columns;
    const down = one.picture.naturalHeight / Math.ceil(data.num_frames / data.columns);
    pen.imageSmoothingEnabled = across >= width / 2;
    const [x, y] = [state.frame % data.columns, Math.floor(state.frame / data.columns)];
    pen.drawImage(one.picture, x * across, y * down, across, down, 0, 0, width, height);
  }
  const [sx, sy] = [width / data.size[0], height / data.size[1]];
  one.scene.boxes.forEach((boxes, index) => {
    const color = COLORS[index % COLORS.length];
    const [left, top, right, bottom] = boxes[state.frame];
    if (byId("boxes").checked) {
      for (const [style, thick] of [["#0c0e14aa", 4], [color, 2]]) {
        pen.strokeStyle = style;
        pen.lineWidth = thick;
        pen.strokeRect(left * sx, top * sy, (right - left) * sx, (bottom - top) * sy);
      }
    }
    const track = one.clip.centers[index];
    if (byId("found").checked && track) {
      pen.beginPath();
      pen.arc(track[state.frame][0] * sx, track[state.frame][1] * sy, 4, 0, 7);
      pen.fillStyle = color;
      pen.fill();
      pen.lineWidth = 1.5;
      pen.strokeStyle = "#0c0e14";
      pen.stroke();
    }
  });
}

function show() {
  byId("frame").value = state.frame;
  byId("at").textContent = `frame ${state.frame + 1} of ${data.num_frames}`;
  clips.forEach(draw);
}

function tick(now) {
  if (!state.playing) return;
  if (now - state.last >= 1000 / Number(byId("speed").value)) {
    state.last = now;
    state.frame = (state.frame + 1) % data.num_frames;
    show();
  }
  requestAnimationFrame(tick);
}

byId("play").onclick = () => {
  state.playing = !state.playing;
  byId("play").textContent = state.playing ? "Pause" : "Play";
  byId("play").setAttribute("aria-pressed", state.playing);
  requestAnimationFrame(tick);
};
byId("frame").oninput = () => { state.frame = Number(byId("frame").value); show(); };
["boxes", "found"].forEach((id) => { byId(id).onchange = show; });
["metric", "method", "worst", "kind"].forEach((id) => { byId(id).onchange = build; });

// Tables: a click on a head sorts by its column, numbers by their first figure.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("th").forEach((head, index) => {
    head.querySelector("button").onclick = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      const key = (row) => {
        const text = row.cells[index].textContent;
        const number = parseFloat(text);
        return Number.isNaN(number) ? text : number;
      };
      const rank = (value) => (typeof value === "number" ? 0 : 1);
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        const order = rank(x) - rank(y) || (x < y ? -1 : x > y ? 1 : 0);
        return up ? order : -order;
      });
      body.append(...rows);
    };
  });
}
build();
