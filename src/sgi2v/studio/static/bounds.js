// What a number or a text may be: the server's own word (api/info), for fields, for what was kept and for what comes in.

/** Whether a value is one that a field can hold; `spec` is the field's description in api/info. */
export function fits(spec, value) {
  if (value === null) return Boolean(spec.optional) || spec.default === null;
  switch (spec.type) {
    case "boolean": return typeof value === "boolean";
    case "integer": return Number.isInteger(value) && inside(spec, value);
    case "number": return inside(spec, value);
    case "choice": return spec.choices.includes(value);
    case "text": return typeof value === "string" && value.length <= spec.max_length;
    case "strings": return Array.isArray(value) && value.every((one) => typeof one === "string");
    case "numbers": return Array.isArray(value) && (!spec.length || value.length === spec.length) && value.every((one) => inside(spec, one));
    case "range": return inside(spec, value.low) && inside(spec, value.high) && value.low <= value.high && spec.choices.includes(value.unit);
    default: return false;
  }
}

const inside = (spec, value) => typeof value === "number" && Number.isFinite(value) && value >= spec.low && value <= spec.high;

/** What to give where a number does not fit. */
export function wanted(spec) {
  const kind = spec.type === "integer" ? "a whole number" : spec.length ? `${spec.length} numbers` : spec.type === "number" ? "a number" : "numbers";
  return `${spec.name}: give ${kind} from ${spec.low} to ${spec.high}`;
}

/** Values without those that do not fit; what was left out is added to `out`, by name. */
function sifted(values, fields, out) {
  const known = new Map(fields.map((one) => [one.name, one]));
  return Object.fromEntries(Object.entries(values ?? {}).filter(([name, value]) => {
    if (value === undefined) return false;
    const right = known.has(name) && fits(known.get(name), value);
    if (!right) out.push(name);
    return right;
  }));
}

/** Choices that the page can draw and the server would look at: [choices, names of what was left out]. */
export function sane(choices, model) {
  const out = [];
  const values = {};
  for (const method of model.controllers) {
    const own = choices.values?.[method.name];
    if (!own) continue;
    if (!method.combination) values[method.name] = sifted(own, method.fields, out);
    else {
      values[method.name] = Object.fromEntries(method.parts.filter(({ key }) => own[key])
        .map(({ key, name, fields }) => [key, { ...sifted(withoutName(own[key]), fields, out), name }]));
    }
  }
  const sampling = sifted(choices.sampling, model.sampling, out), settings = sifted(choices.settings, model.settings, out);
  return [{ ...choices, values, sampling, settings }, out];
}

const withoutName = ({ name, ...rest }) => rest;

/** Whether a kept document is one that can be drawn: throws an Error that names what is wrong. */
export function checkDoc(doc, fromScene, toScene) {
  const { image } = doc;
  const side = (value) => Number.isInteger(value) && value > 0 && value <= 65_536;
  if (image !== null && !(side(image?.width) && side(image?.height) && typeof image.url === "string" && typeof image.image === "string")) throw new Error("image: its size is none");
  if (!Array.isArray(doc.motions) || !Number.isSafeInteger(doc.nextId)) throw new Error("motions: missing");
  const ids = doc.motions.map((motion) => motion.id);
  if (new Set(ids).size !== ids.length || !ids.every((id) => Number.isSafeInteger(id) && id < doc.nextId)) throw new Error("motions: numbered wrongly");
  const { motions } = fromScene(toScene(doc, ""), image);
  for (const { box, path, kind, curve } of motions) {
    if (![...Object.values(box), ...path.flatMap(({ x, y }) => [x, y])].every((one) => Math.abs(one) <= 1e8)) throw new Error("motions: too far away");
    if (!(box.left < box.right && box.top < box.bottom) || !["object", "camera"].includes(kind) || !["polyline", "spline"].includes(curve)) throw new Error("motions: no box");
    const rising = path.every(({ time, scale, easing }, k) => time >= 0 && time <= 1 && scale >= 1e-3 && scale <= 1e3
      && ["linear", "ease-in", "ease-out", "ease-in-out"].includes(easing) && (k === 0 || time > path[k - 1].time));
    if (!rising || path.length > 10_000) throw new Error("motions: no path");
  }
}
