// Where a motion's box is at a time: the same sums as scene.py and curves.py, in the same order; tests compare them.

export const EASE_SLOPES = Object.freeze({
  "linear": [1, 1],
  "ease-in": [0, 1],
  "ease-out": [1, 0],
  "ease-in-out": [0, 0],
});
export const MIN_GAP = 1e-6; // time between two keys
const SAME_TIME = 1e-9; // a time this close to a key's is that key's time

/** The cubic on u = 0..1 with these values and slopes at its ends. */
function hermite(u, start, end, startSlope, endSlope) {
  const bend = u * (1 - u) * (startSlope * (1 - u) - endSlope * u);
  return start + (end - start) * u * u * (3 - 2 * u) + bend;
}

/** The share of a segment travelled after the share `u` of its time, both 0..1. */
export function ease(name, u) {
  const [start, end] = EASE_SLOPES[name];
  return hermite(u, 0, 1, start, end);
}

/** Slopes at the keys of one coordinate that keep it monotone between two keys (Fritsch & Butland 1984). */
export function pchipSlopes(knots, values) {
  const num = knots.length;
  const gap = [], chord = [];
  for (let k = 0; k + 1 < num; k++) {
    gap.push(knots[k + 1] - knots[k]);
    chord.push((values[k + 1] - values[k]) / gap[k]);
  }
  if (num === 2) return [chord[0], chord[0]];
  const slopes = new Array(num).fill(0);
  for (let k = 1; k + 1 < num; k++) {
    const before = chord[k - 1], after = chord[k];
    if (Math.sign(before) * Math.sign(after) <= 0) continue;
    const weightBefore = gap[k - 1] + 2 * gap[k], weightAfter = 2 * gap[k - 1] + gap[k];
    slopes[k] = (weightBefore + weightAfter) / (weightBefore / before + weightAfter / after);
  }
  const last = num - 1;
  for (const [end, near, far] of [[0, 0, 1], [last, last - 1, last - 2]]) {
    const h = gap[near], d = chord[near], hFar = gap[far], dFar = chord[far];
    let slope = ((2 * h + hFar) * d - h * dFar) / (h + hFar);
    if (Math.sign(slope) !== Math.sign(d)) slope = 0;
    slopes[end] = Math.sign(d) !== Math.sign(dFar) && Math.abs(slope) > 3 * Math.abs(d) ? 3 * d : slope;
  }
  return slopes;
}

export function center(box) {
  return [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
}

/** {x, y, scale} of a motion at each of some times 0..1: exactly a key's values at its own time. */
export function sample(motion, times) {
  const path = motion.path ?? [];
  if (path.length === 0) {
    const [x, y] = center(motion.box);
    return times.map(() => ({ x, y, scale: 1 }));
  }
  const knots = path.map((key) => key.time);
  const columns = [path.map((key) => key.x), path.map((key) => key.y), path.map((key) => Math.log(key.scale ?? 1))];
  const smooth = motion.curve === "spline";
  const slopes = smooth ? columns.map((values) => pchipSlopes(knots, values)) : null;
  const last = knots.length - 1;
  return times.map((wanted) => {
    const time = Math.min(Math.max(wanted, knots[0]), knots[last]);
    let segment = 0, above = last;
    while (above - segment > 1) {
      const middle = (segment + above) >> 1;
      if (knots[middle] <= time) segment = middle;
      else above = middle;
    }
    for (const key of [segment + 1, segment]) {
      if (Math.abs(time - knots[key]) < SAME_TIME) {
        return { x: path[key].x, y: path[key].y, scale: path[key].scale ?? 1 };
      }
    }
    const gap = knots[segment + 1] - knots[segment];
    const eased = ease(path[segment].easing ?? "linear", (time - knots[segment]) / gap);
    const [x, y, size] = columns.map((values, axis) => {
      const start = values[segment], end = values[segment + 1];
      const value = smooth
        ? hermite(eased, start, end, gap * slopes[axis][segment], gap * slopes[axis][segment + 1])
        : start + (end - start) * eased;
      return Math.min(Math.max(value, Math.min(start, end)), Math.max(start, end));
    });
    return { x, y, scale: Math.exp(size) };
  });
}

/** The box at each of some times: scaled about its centre, moved by centre(t) - centre(0). */
export function boxesAt(motion, times) {
  const [start, ...placed] = sample(motion, [0, ...times]);
  return placed.map(({ x, y, scale }) => moved(scaled(motion.box, scale), x - start.x, y - start.y));
}

export function boxAt(motion, time) {
  return boxesAt(motion, [time])[0];
}

export function moved(box, dx, dy) {
  return { left: box.left + dx, top: box.top + dy, right: box.right + dx, bottom: box.bottom + dy };
}

export function scaled(box, factor) {
  const dx = ((factor - 1) * (box.right - box.left)) / 2, dy = ((factor - 1) * (box.bottom - box.top)) / 2;
  return { left: box.left - dx, top: box.top - dy, right: box.right + dx, bottom: box.bottom + dy };
}

/** From a key's coordinates to where the box's centre is then: a path need not start at the box's centre. */
export function keyOffset(motion) {
  const [x, y] = center(motion.box);
  const [start] = sample(motion, [0]);
  return [x - start.x, y - start.y];
}

/** The box of a click: a square of `fraction` of the shorter side, shifted to stay inside (scene.default_box). */
export function defaultBox(width, height, x, y, fraction = 0.1) {
  const side = Math.max(fraction * Math.min(width, height), Math.min(1, width, height));
  const left = Math.min(Math.max(x - side / 2, 0), width - side);
  const top = Math.min(Math.max(y - side / 2, 0), height - side);
  return { left, top, right: Math.min(left + side, width), bottom: Math.min(top + side, height) };
}

export function frameTimes(numFrames) {
  return Array.from({ length: numFrames }, (_, j) => j / Math.max(numFrames - 1, 1));
}

const UNSEEN = 0.02, MAX_AREA = 1.15, MIN_AREA = 0.6, AREA_WEIGHT = 0.25;

/** The size of a video that takes an image's shape, among those a model makes (shape.nearest_size). */
export function nearestSize(image, model) {
  const area = model.width * model.height, wanted = Math.log(image.width / image.height);
  const badness = ({ width, height }) => Math.abs(Math.log(width / height) - wanted) + AREA_WEIGHT * Math.abs(Math.log(width * height / area));
  let best = { width: model.width, height: model.height };
  if (!model.multiple) return best;
  const [low, high] = model.aspects;
  const longest = Math.floor(Math.sqrt(MAX_AREA * area * Math.max(high, 1 / low)));
  for (let width = model.multiple; width <= longest; width += model.multiple) {
    for (let height = model.multiple; height <= longest; height += model.multiple) {
      const share = width * height / area, one = { width, height };
      if (width / height >= low && width / height <= high && share >= MIN_AREA && share <= MAX_AREA && badness(one) < badness(best)) best = one;
    }
  }
  return best;
}

/** What a scene's fit comes to (shape.shaped): `aspect` is stretch where nobody sees it, else contain, or cover for a size that was asked for. */
export function comesTo(fit, image, video, asked) {
  if (fit !== "aspect" || !image) return fit;
  if (Math.abs(video.width / video.height / (image.width / image.height) - 1) <= UNSEEN) return "stretch";
  return asked ? "cover" : "contain";
}

/** The rectangle of the source image, in its pixels, that a video of width x height shows (grid.fit_image). */
export function shownPart(image, video, fit) {
  if (fit === "stretch" || !video.width || !video.height) {
    return { left: 0, top: 0, right: image.width, bottom: image.height };
  }
  const ratios = [video.width / image.width, video.height / image.height];
  const factor = fit === "contain" ? Math.min(...ratios) : Math.max(...ratios);
  const dx = video.width / factor / 2, dy = video.height / factor / 2;
  return { left: image.width / 2 - dx, top: image.height / 2 - dy, right: image.width / 2 + dx, bottom: image.height / 2 + dy };
}

/** Pixels of the video that a motion's centre goes from each frame to the next. */
export function speeds(motion, image, video, fit) {
  const part = shownPart(image, video, fit);
  const across = video.width / (part.right - part.left), down = video.height / (part.bottom - part.top);
  const centers = sample(motion, frameTimes(video.num_frames));
  return centers.slice(1).map(({ x, y }, j) => Math.hypot((x - centers[j].x) * across, (y - centers[j].y) * down));
}

/** Whether a motion's centre lies outside the video's frame in any of its frames. */
export function leaves(motion, image, video, fit) {
  const { left, top, right, bottom } = shownPart(image, video, fit);
  return boxesAt(motion, frameTimes(video.num_frames)).map(center).some(([x, y]) => x < left || x > right || y < top || y > bottom);
}

/** Points of a freehand line without those that lie within `tolerance` of it (Ramer, Douglas and Peucker). */
export function simplified(points, tolerance) {
  if (points.length < 3) return points.slice();
  const [ax, ay] = points[0], [bx, by] = points[points.length - 1];
  const length = Math.hypot(bx - ax, by - ay);
  let far = 0, index = 0;
  for (let k = 1; k + 1 < points.length; k++) {
    const [x, y] = points[k];
    const away = length === 0
      ? Math.hypot(x - ax, y - ay)
      : Math.abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length;
    if (away > far) [far, index] = [away, k];
  }
  if (far <= tolerance) return [points[0], points[points.length - 1]];
  return [...simplified(points.slice(0, index + 1), tolerance).slice(0, -1), ...simplified(points.slice(index), tolerance)];
}

/** Times 0..1 for points passed at one speed. */
export function evenTimes(points) {
  const lengths = [0];
  for (let k = 1; k < points.length; k++) {
    lengths.push(lengths[k - 1] + Math.hypot(points[k][0] - points[k - 1][0], points[k][1] - points[k - 1][1]));
  }
  const total = lengths[lengths.length - 1];
  const times = lengths.map((length, k) => (total > 0 ? length / total : k / Math.max(points.length - 1, 1)));
  // Points on one spot must not share a time.
  for (let k = 1; k < times.length; k++) times[k] = Math.max(times[k], times[k - 1] + 1e-4);
  const last = times[times.length - 1];
  return times.map((time) => time / last);
}
