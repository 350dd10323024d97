// What a hand does to one motion, as pure functions motion -> motion; the reducer puts the result into the scene.

import { MIN_GAP, boxAt, center, evenTimes, frameTimes, keyOffset, sample, simplified } from "./geometry.js";

export const MIN_SIDE = 2; // pixels a drawn box has at least
const KEY_GAP = 0.001; // the least time between keys set by hand
const FAR = 1e6;

const round = (value) => Math.round(value * 100) / 100;
const clamp = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));

/** A box between two corners in any order, inside the image. */
export function boxBetween([ax, ay], [bx, by], image) {
  const left = clamp(Math.min(ax, bx), 0, image.width), right = clamp(Math.max(ax, bx), 0, image.width);
  const top = clamp(Math.min(ay, by), 0, image.height), bottom = clamp(Math.max(ay, by), 0, image.height);
  return { left: round(left), top: round(top), right: round(right), bottom: round(bottom) };
}

/** The whole motion moved: its first box, which stays inside the image, and its path with it. */
export function translated(motion, dx, dy, image) {
  const { box } = motion;
  dx = clamp(dx, -box.left, image.width - box.right);
  dy = clamp(dy, -box.top, image.height - box.bottom);
  return {
    ...motion,
    box: { left: round(box.left + dx), top: round(box.top + dy), right: round(box.right + dx), bottom: round(box.bottom + dy) },
    path: motion.path.map((key) => ({ ...key, x: round(key.x + dx), y: round(key.y + dy) })),
  };
}

/** The first box alone moved: the path's later keys stay where they are on the picture. */
export function startMoved(motion, dx, dy, image) {
  const box = translated({ ...motion, path: [] }, dx, dy, image).box;
  const [fromX, fromY] = keyOffset(motion);
  const [x, y] = center(box);
  const path = motion.path.map((key, k) => (k === 0
    ? { ...key, x: round(x), y: round(y) }
    : { ...key, x: round(key.x + fromX), y: round(key.y + fromY) }));
  return { ...motion, box, path };
}

/** Another first box; the path goes with its centre. */
export function resized(motion, box) {
  const [x, y] = center(box), [oldX, oldY] = center(motion.box);
  const path = motion.path.map((key) => ({ ...key, x: round(key.x + x - oldX), y: round(key.y + y - oldY) }));
  return { ...motion, box, path };
}

/** The index of the key at a time, within half a frame of it; -1 for none. */
export function keyAt(motion, time, numFrames) {
  const near = 0.45 / Math.max(numFrames - 1, 1);
  let found = -1, least = near;
  motion.path.forEach((key, index) => {
    const away = Math.abs(key.time - time);
    if (away <= least) [found, least] = [index, away];
  });
  return found;
}

/** The motion with a key at a time, at its own place there, and the key's index. A pin gets a path by this. */
export function keyed(motion, time, numFrames) {
  const there = keyAt(motion, time, numFrames);
  if (there >= 0) return { motion, index: there };
  if (motion.path.length === 0) {
    const [x, y] = center(motion.box).map(round);
    const ends = time > 0 ? [0, time] : [0, 1];
    const path = ends.map((at) => ({ time: at, x, y, scale: 1, easing: "linear" }));
    return { motion: { ...motion, path }, index: time > 0 ? 1 : 0 };
  }
  const [{ x, y, scale }] = sample(motion, [time]);
  let index = motion.path.findIndex((key) => key.time > time);
  if (index < 0) index = motion.path.length;
  const easing = motion.path[Math.max(0, index - 1)].easing;
  const key = { time, x: round(x), y: round(y), scale: index === 0 ? 1 : tidyScale(scale), easing };
  const path = [...motion.path.slice(0, index), key, ...motion.path.slice(index)];
  return { motion: { ...motion, path }, index };
}

const tidyScale = (scale) => clamp(Math.round(scale * 1e4) / 1e4, 1e-3, 1e3);

/** A key with other values. Its time stays between its neighbours'; the first key's scale stays 1. */
export function keyChanged(motion, index, changes) {
  if (!motion.path[index]) return motion;
  const key = { ...motion.path[index], ...changes };
  const low = index > 0 ? motion.path[index - 1].time + KEY_GAP : 0;
  const high = index + 1 < motion.path.length ? motion.path[index + 1].time - KEY_GAP : 1;
  if ("time" in changes) key.time = high > low ? clamp(Math.round(key.time * 1e6) / 1e6, low, high) : motion.path[index].time;
  if (index > 0 && key.time - motion.path[index - 1].time < MIN_GAP) return motion;
  key.x = clamp(round(key.x), -FAR, FAR);
  key.y = clamp(round(key.y), -FAR, FAR);
  key.scale = index === 0 ? 1 : tidyScale(key.scale);
  const path = motion.path.slice();
  path[index] = key;
  return { ...motion, path };
}

/** Without a key; fewer than two are no path, and the box becomes a pin. */
export function keyRemoved(motion, index) {
  const path = motion.path.filter((_, k) => k !== index);
  if (path.length < 2) return { ...motion, path: [] };
  // The start belongs to the box: without its key the box waits there for the next key's time.
  if (index === 0) path[0] = { ...motion.path[0], time: motion.path[1].time, easing: motion.path[1].easing };
  return { ...motion, path };
}

/** The box dragged at a time: at the path's start the whole motion moves, later a key is set there. */
export function dragged(motion, time, numFrames, dx, dy, image) {
  if (time <= (motion.path[0]?.time ?? 0)) return translated(motion, dx, dy, image);
  const made = keyed(motion, time, numFrames);
  if (made.index === 0) return translated(motion, dx, dy, image);
  const { x, y } = made.motion.path[made.index];
  return keyChanged(made.motion, made.index, { x: x + dx, y: y + dy });
}

/** The box scaled at a time after the start: sets the scale of the key there. */
export function scaledAt(motion, time, numFrames, scale) {
  const made = keyed(motion, time, numFrames);
  return made.index === 0 ? motion : keyChanged(made.motion, made.index, { scale });
}

/** A path through points (x, y) at one speed; it starts at the box's centre. A freehand line is thinned out first. */
export function pathThrough(motion, points, { tolerance = 0, easing = "linear" } = {}) {
  const line = tolerance > 0 ? simplified(points, tolerance) : points;
  const [x, y] = center(motion.box);
  const all = [[x, y], ...line.slice(1)];
  if (all.length < 2) return { ...motion, path: [] };
  const times = evenTimes(all);
  const path = all.map(([px, py], k) => ({ time: round6(times[k]), x: round(px), y: round(py), scale: 1, easing }));
  return { ...motion, path, curve: all.length > 2 ? "spline" : motion.curve };
}

const round6 = (value) => Math.round(value * 1e6) / 1e6;

/** One more key at the end, at (x, y); all keys are passed at one speed. */
export function pathExtended(motion, x, y) {
  const [dx, dy] = keyOffset(motion);
  const points = motion.path.length ? motion.path.map((key) => [key.x + dx, key.y + dy]) : [center(motion.box)];
  const longer = pathThrough(motion, [...points, [x, y]]);
  const path = longer.path.map((key, k) => ({ ...key, scale: motion.path[k]?.scale ?? 1, easing: motion.path[k]?.easing ?? "linear" }));
  return { ...longer, path };
}

/** The whole path turned back to one speed from its first key's time to its last's. */
export function evened(motion) {
  if (motion.path.length < 3) return motion;
  const from = motion.path[0].time, span = motion.path[motion.path.length - 1].time - from;
  const times = evenTimes(motion.path.map((key) => [key.x, key.y]));
  return { ...motion, path: motion.path.map((key, k) => ({ ...key, time: round6(from + span * times[k]) })) };
}

/** A copy that does not lie exactly on what it was copied from. */
export function offsetCopy(motion, image) {
  const step = 0.04 * Math.min(image.width, image.height);
  const name = motion.name ? `${motion.name} copy` : "";
  const right = motion.box.right + step <= image.width ? step : -step;
  const down = motion.box.bottom + step <= image.height ? step : -step;
  return { ...translated(motion, right, down, image), name, mask: null };
}

/** Whether a box can be seen or grabbed; thinner ones are clicks. */
export function isBox(box) {
  return box.right - box.left >= MIN_SIDE && box.bottom - box.top >= MIN_SIDE;
}

/** The corners' bounding box of where a motion goes, for zooming to it. */
export function extent(motion, numFrames) {
  const boxes = frameTimes(numFrames).map((time) => boxAt(motion, time));
  return {
    left: Math.min(...boxes.map((box) => box.left)), top: Math.min(...boxes.map((box) => box.top)),
    right: Math.max(...boxes.map((box) => box.right)), bottom: Math.max(...boxes.map((box) => box.bottom)),
  };
}
