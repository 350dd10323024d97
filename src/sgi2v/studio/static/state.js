// The document (a scene and what the editor adds to it), its reducer and the undo stack: pure, no page needed.

export const FORMAT = "sgi2v-scene";
export const NEWEST = 2; // it knows a reference clip, 2.1 a negative prompt, 2.2 the fit aspect; without them 1 is written (docs/records.md)
export const MAX_MOTIONS = 256;
const MAX_UNDO = 200;

// As draw.py paints previews and videos: hues that the colour-blind tell apart, lightened for photographs.
export const PALETTE = ["#ffe033", "#4bbeff", "#ff78c8", "#00d696", "#ff801e", "#968cff", "#e13c3c"];
export const CAMERA_COLOR = "#ffffff";

/** `opened` is another for every photo or scene that is opened: motions' numbers begin at 1 in each. */
export function emptyDoc() {
  return { opened: null, image: null, fit: "stretch", prompt: "", negative_prompt: "", reference: null, motions: [], nextId: 1 };
}

/** The document after an action; the same object where nothing changes. Locked motions change by `flags` only. */
export function reduce(doc, action) {
  switch (action.type) {
    case "load":
      return { ...emptyDoc(), ...action.doc };
    case "image":
      return { ...doc, image: action.image };
    case "scene":
      return { ...doc, ...pick(action.changes, ["fit", "prompt", "negative_prompt", "reference"]) };
    case "add":
      return added(doc, [action.motion], action.at);
    case "replace":
      return change(doc, action.id, () => ({ ...action.motion, id: action.id }));
    case "set":
      return change(doc, action.id, (motion) => ({ ...motion, ...action.changes, id: motion.id }));
    case "flags":
      return change(doc, action.id, (motion) => ({ ...motion, ...pick(action.changes, ["locked", "visible", "color", "name"]) }), true);
    case "remove": {
      const motions = doc.motions.filter((motion) => !action.ids.includes(motion.id) || motion.locked);
      return motions.length === doc.motions.length ? doc : { ...doc, motions };
    }
    case "duplicate": {
      const index = doc.motions.findIndex((motion) => motion.id === action.id);
      if (index < 0) return doc;
      const copy = { ...doc.motions[index], locked: false, ...action.changes };
      return added(doc, [copy], index + 1);
    }
    case "order": {
      const motions = doc.motions.slice();
      const from = motions.findIndex((motion) => motion.id === action.id);
      if (from < 0 || action.to === from || action.to < 0 || action.to >= motions.length) return doc;
      motions.splice(action.to, 0, ...motions.splice(from, 1));
      return { ...doc, motions };
    }
    case "camera": {
      const rest = doc.motions.filter((motion) => motion.kind !== "camera");
      if (rest.length === doc.motions.length && action.motions.length === 0) return doc;
      return added({ ...doc, motions: rest }, action.motions);
    }
    default:
      throw new Error(`no action ${action.type}`);
  }
}

function pick(changes, names) {
  return Object.fromEntries(Object.entries(changes).filter(([name]) => names.includes(name)));
}

function added(doc, motions, at = doc.motions.length) {
  const room = motions.slice(0, MAX_MOTIONS - doc.motions.length);
  if (room.length === 0 && motions.length) return doc;
  const made = room.map((motion, k) => ({ ...blank(), ...motion, id: doc.nextId + k }));
  return { ...doc, motions: [...doc.motions.slice(0, at), ...made, ...doc.motions.slice(at)], nextId: doc.nextId + made.length };
}

function blank() {
  return { name: "", kind: "object", box: null, curve: "polyline", path: [], mask: null, color: null, locked: false, visible: true };
}

function change(doc, id, update, evenLocked = false) {
  const index = doc.motions.findIndex((motion) => motion.id === id);
  if (index < 0 || (doc.motions[index].locked && !evenLocked)) return doc;
  const motions = doc.motions.slice();
  motions[index] = update(motions[index]);
  return { ...doc, motions };
}

export function newHistory(doc = emptyDoc()) {
  return { past: [], present: doc, future: [], gesture: null };
}

/** The history after an action. Actions of one gesture (a drag, typing in one field) are undone together. */
export function advance(history, action) {
  if (action.type === "undo") {
    if (!history.past.length) return history;
    const past = history.past.slice();
    const present = past.pop();
    return { past, present, future: [history.present, ...history.future], gesture: null };
  }
  if (action.type === "redo") {
    if (!history.future.length) return history;
    const [present, ...future] = history.future;
    return { past: [...history.past, history.present], present, future, gesture: null };
  }
  const present = reduce(history.present, action);
  if (present === history.present) return history;
  const gesture = action.gesture ?? null;
  if (gesture !== null && gesture === history.gesture) return { ...history, present, future: [] };
  return { past: [...history.past, history.present].slice(-MAX_UNDO), present, future: [], gesture };
}

/** The colour a motion is drawn in: its own, or by its place among the objects, as in previews and videos. */
export function colorOf(doc, motion) {
  if (motion.color) return motion.color;
  if (motion.kind === "camera") return CAMERA_COLOR;
  const objects = doc.motions.filter((other) => other.kind !== "camera");
  return PALETTE[Math.max(0, objects.findIndex((other) => other.id === motion.id)) % PALETTE.length];
}

/** What to call a motion: its name, or its place among its kind. */
export function titleOf(doc, motion) {
  if (motion.name) return motion.name;
  const place = doc.motions.filter((other) => other.kind === motion.kind).findIndex((other) => other.id === motion.id) + 1;
  return motion.kind === "camera" ? `Camera box ${place}` : `Object ${place}`;
}

/** The project's own scene JSON (docs/scene.md). Colour, lock and visibility have no place there. */
export function toScene(doc, image) {
  const motions = doc.motions.map((motion) => {
    const { left, top, right, bottom } = motion.box;
    const data = { ...(motion.name ? { name: motion.name } : {}), kind: motion.kind, box: { left, top, right, bottom } };
    if (motion.path.length) Object.assign(data, { curve: motion.curve, path: motion.path.map(keyToJSON) });
    else if (motion.curve !== "polyline") data.curve = motion.curve;
    if (motion.mask) data.mask = motion.mask;
    return data;
  });
  const words = Object.fromEntries(["prompt", "negative_prompt"].filter((name) => doc[name]).map((name) => [name, doc[name]]));
  const extras = { ...words, ...(doc.reference ? { reference: doc.reference } : {}) };
  return { format: FORMAT, version: doc.fit === "aspect" ? "2.2" : doc.negative_prompt ? "2.1" : doc.reference ? 2 : 1, image, fit: doc.fit, ...extras, motions };
}

function keyToJSON({ time, x, y, scale, easing }) {
  return { time, x, y, ...(scale !== 1 ? { scale } : {}), ...(easing !== "linear" ? { easing } : {}) };
}

/** A document of scene JSON, whose image the caller has stored as `image`; throws an Error that names the field.
 *  The server checks all of it again, by the Python classes. */
export function fromScene(scene, image) {
  if (scene?.format !== FORMAT) throw new Error(`format: ${JSON.stringify(scene?.format)} is not a scene; it says "${FORMAT}"`);
  const major = Math.trunc(Number(scene.version)); // of a newer minor version ("2.1") what is known here is taken
  if (!(major >= 1 && major <= NEWEST)) throw new Error(`version: ${JSON.stringify(scene.version)} is not known here; it is 1 to ${NEWEST}`);
  if (!Array.isArray(scene.motions)) throw new Error("motions: missing; give a list, maybe empty");
  if (scene.motions.length > MAX_MOTIONS) throw new Error(`motions: ${scene.motions.length} of them; at most ${MAX_MOTIONS}`);
  const motions = scene.motions.map((motion, index) => {
    const field = `motions[${index}]`;
    const box = numbers(`${field}.box`, motion?.box, ["left", "top", "right", "bottom"]);
    const path = (motion.path ?? []).map((key, k) => ({
      ...numbers(`${field}.path[${k}]`, { scale: 1, ...key }, ["time", "x", "y", "scale"]),
      easing: key.easing ?? "linear",
    }));
    if (path.length === 1) throw new Error(`${field}.path: 1 key; two or more, or none to pin the box`);
    return {
      ...blank(), id: index + 1, name: motion.name ?? "", kind: motion.kind ?? "object", box,
      curve: motion.curve ?? "polyline", path, mask: motion.mask ?? null,
    };
  });
  return { image, fit: scene.fit ?? (Number(scene.version) >= 2.2 ? "aspect" : "stretch"), prompt: scene.prompt ?? "", negative_prompt: scene.negative_prompt ?? "", reference: scene.reference ?? null, motions, nextId: motions.length + 1 };
}

function numbers(field, data, names) {
  return Object.fromEntries(names.map((name) => {
    if (typeof data?.[name] !== "number" || !Number.isFinite(data[name])) {
      throw new Error(`${field}.${name}: ${JSON.stringify(data?.[name])} is not a number`);
    }
    return [name, data[name]];
  }));
}
