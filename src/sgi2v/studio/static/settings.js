// The settings: a few simple ones, and all fields with their explanations, made from what the server says they are.

import * as api from "./api.js";
import { fits, wanted } from "./bounds.js";
import { button, h, icon, refill } from "./dom.js";

export function makeSettings(app) {
  const panel = app.byId("panel-settings");
  const simple = h("div", { class: "section", id: "simple-settings" });
  const all = h("details", { class: "section", id: "all-settings" });
  const verdict = h("p", { class: "note", id: "verdict", role: "status" });
  panel.append(h("div", { class: "panel-head" }, h("h2", {}, "Settings"), button("undo", "All back to the recommended values", reset, { kind: "small" })), simple, h("div", { class: "section verdict" }, verdict), all);
  let shown = "", checked = "", timer = null, request = null;

  const clip = h("input", { type: "file", accept: ".mp4,.mov,.webm,.mkv,.avi,.gif,.webp,video/*,image/gif,image/webp,image/apng", onchange: async () => {
    const { opened } = app.doc;
    const made = clip.files.length && await app.attempt(() => app.sending(clip.files[0], (told) => api.importClip(clip.files[0], told)));
    clip.value = "";
    if (!made || app.doc.opened !== opened) return;
    app.dispatch({ type: "scene", changes: { reference: { frames: made.pictures } } });
  } });

  async function reset() {
    await app.useRecipe(null);
    app.choose({ values: {}, sampling: {}, settings: {} });
    app.say("Settings are back at the recommended values.");
  }

  const method = () => app.backbone.controllers.find((one) => one.name === app.choices.controller) ?? app.backbone.controllers[0];

  /** Where a field's changed value lies: [holder, put]; methods and their parts keep their own. */
  function holder(group, part) {
    const { controller, values } = app.choices;
    if (group !== "controller") return [app.choices[group], (next) => app.choose({ [group]: next })];
    const own = values[controller] ?? {};
    const put = (next) => app.choose({ values: { ...values, [controller]: next } });
    if (!part) return [own, put];
    return [own[part.key] ?? {}, (next) => put({ ...own, [part.key]: Object.keys(next).length ? { ...next, name: part.name } : undefined })];
  }

  function field(group, spec, { part = null, help = true, prefix = "" } = {}) {
    const [held, put] = holder(group, part);
    const changed = held[spec.name] !== undefined;
    const value = changed ? held[spec.name] : spec.default;
    const id = `${prefix}set-${group}-${part ? `${part.key}-` : ""}${spec.name}`;
    const set = (next) => {
      const rest = { ...held };
      if (JSON.stringify(next) === JSON.stringify(spec.default)) delete rest[spec.name];
      else rest[spec.name] = next;
      put(rest);
    };
    const clear = () => { const rest = { ...held }; delete rest[spec.name]; put(rest); };
    const label = spec.name.charAt(0).toUpperCase() + spec.name.slice(1).replaceAll("_", " ");
    const back = changed ? button("undo", `${label}: back to ${text(spec.default)}`, clear, { kind: "small" }) : null;
    return h("div", { class: `setting ${changed ? "changed" : ""} ${spec.type}` },
      h("label", { for: id }, label), h("div", { class: "control" }, control(id, spec, value, set), back),
      help && spec.help ? h("p", { class: "help", id: `${id}-help` }, spec.help) : null);
  }

  const text = (value) => (value === null || value === undefined ? "unset" : Array.isArray(value) ? value.join(", ") : value.unit ? `${value.low} to ${value.high} ${value.unit}` : String(value));

  function control(id, spec, value, set) {
    const common = { id, "data-focus": id, "aria-describedby": spec.help ? `${id}-help` : null };
    if (spec.type === "boolean") {
      const box = h("input", { ...common, type: "checkbox", checked: Boolean(value), onchange: () => set(box.checked) });
      return box;
    }
    if (spec.type === "choice") {
      const select = h("select", { ...common, onchange: () => set(select.value || null) },
        spec.optional ? h("option", { value: "" }, "unset") : null, spec.choices.map((one) => h("option", { value: one, selected: one === value }, String(one))));
      return select;
    }
    if (spec.type === "strings") {
      const area = h("textarea", { ...common, rows: Math.min(5, Math.max(2, value?.length ?? 2)), spellcheck: "false", onchange: () => set(area.value.split(/[\s,]+/).filter(Boolean)) }, (value ?? []).join("\n"));
      return area;
    }
    if (spec.type === "range") {
      const ends = h("input", { ...common, type: "text", inputmode: "decimal", value: `${value.low}, ${value.high}`, onchange: () => {
        const numbers = ends.value.split(/[\s,;]+/).filter(Boolean).map(Number);
        const next = { low: numbers[0], high: numbers[1], unit: unit.value };
        const right = numbers.length === 2 && fits(spec, next);
        if (!right) app.say(`${spec.name}: give two numbers from ${spec.low} to ${spec.high}, the lower first, with a comma between them`, "error");
        if (!right) ends.value = `${value.low}, ${value.high}`;
        else set(next);
      } });
      const unit = h("select", { "id": `${id}-unit`, "data-focus": `${id}-unit`, "aria-label": `unit of ${spec.name}`, "onchange": () => set({ ...value, unit: unit.value }) },
        spec.choices.map((one) => h("option", { value: one, selected: one === value.unit }, one)));
      return h("span", { class: "range" }, ends, unit);
    }
    if (spec.type === "numbers") {
      const input = h("input", { ...common, type: "text", inputmode: "decimal", value: (value ?? []).join(", "), onchange: () => {
        const numbers = input.value.split(/[\s,;]+/).filter(Boolean).map(Number);
        const right = fits(spec, numbers);
        if (!right) app.say(`${wanted(spec)}, with commas between them`, "error");
        if (!right) input.value = (value ?? []).join(", ");
        else set(numbers);
      } });
      return input;
    }
    const numeric = spec.type === "number" || spec.type === "integer";
    const input = h("input", { ...common, type: numeric ? "number" : "text", min: numeric ? spec.low : null, max: numeric ? spec.high : null, maxlength: spec.max_length, step: spec.type === "integer" ? 1 : "any", value: value ?? "", placeholder: spec.optional ? "unset" : "", onchange: () => {
      if (input.value === "") return spec.optional ? set(null) : set(spec.default);
      const next = numeric ? Number(input.value) : input.value;
      if (fits(spec, next)) return set(next);
      app.say(wanted(spec), "error");
      input.value = value ?? "";
      return undefined;
    } });
    return input;
  }

  function groups(chosen) {
    return chosen.combination ? chosen.parts.map((part) => ({ title: `Method: ${part.name}`, part, fields: part.fields })) : [{ title: `Method: ${chosen.name}`, part: null, fields: chosen.fields }];
  }

  function simpleFields() {
    const model = app.backbone;
    const chosen = method();
    const models = app.info.backbones.length > 1 ? select("Model", "set-backbone", app.info.backbones.map((one) => [one.name, one.name]), model.name, async (name) => {
      await app.useRecipe(null);
      app.choose({ backbone: name, values: {}, sampling: {}, settings: {} });
    }) : null;
    const recipes = model.recipes?.length ? select("Recipe", "set-recipe", [["", "usual"], ...model.recipes.map((one) => [one, one])], app.choices.recipe ?? "", (name) => app.useRecipe(name || null)) : null;
    return [
      select("Method", "set-controller", model.controllers.map((one) => [one.name, one.name]), chosen.name, (name) => app.choose({ controller: name })),
      h("p", { class: "help" }, chosen.title), chosen.note ? h("p", { class: "note", id: "method-note" }, chosen.note) : null, models, recipes,
      ...model.sampling.filter((one) => one.simple).map((one) => (one.name === "seed" ? seedField(one) : field("sampling", one, { prefix: "simple-", help: false }))),
      ...groups(chosen).flatMap(({ part, fields }) => fields.filter((one) => one.simple).map((one) => field("controller", one, { part, prefix: "simple-" }))),
    ];
  }

  function seedField(spec) {
    const made = field("sampling", spec, { prefix: "simple-", help: false });
    made.querySelector(".control").append(button("retry", "Another seed", () => app.choose({ sampling: { ...app.choices.sampling, seed: Math.floor(Math.random() * 1e6) } }), { "kind": "small", "data-focus": "another-seed" }));
    return made;
  }

  function select(label, id, options, value, apply) {
    const made = h("select", { id, "data-focus": id, "onchange": () => apply(made.value) }, options.map(([name, shownName]) => h("option", { value: name, selected: name === value }, shownName)));
    return h("div", { class: "setting" }, h("label", { for: id }, label), h("div", { class: "control" }, made));
  }

  /** A field for words: where the model reads them, and where a scene holds some, to be seen and taken out. */
  function words(name, label, help) {
    if (!app.backbone.takes_text && !app.doc[name]) return [];
    const id = `set-${name}`;
    const area = h("textarea", { id, "rows": 2, "maxlength": 10000, "data-focus": id, "onchange": () => app.dispatch({ type: "scene", changes: { [name]: area.value } }) }, app.doc[name]);
    return [
      h("div", { class: "setting" }, h("label", { for: id }, label), h("div", { class: "control" }, area)),
      h("p", { class: "help" }, app.backbone.takes_text ? help : "This model reads no text and leaves it unread."),
    ];
  }

  function sceneFields() {
    return [
      select("Fit", "set-fit", [["aspect", "aspect: the photo's shape"], ["stretch", "stretch"], ["cover", "cover: cut"], ["contain", "contain: pad"]], app.doc.fit, (fit) => app.dispatch({ type: "scene", changes: { fit } })),
      h("p", { class: "help" }, "How a photo of another shape meets the model's; with aspect the video takes the photo's."),
      h("div", { class: "setting" }, h("span", {}, "As a command"), h("div", { class: "control" },
        button("copy", "Copy as command", () => app.files.copyCommand(), { text: true, kind: "small", disabled: !app.doc.image }))),
      ...words("prompt", "Prompt", "Words on what the video shows."),
      ...words("negative_prompt", "Negative prompt", "Words on what it should not show: guidance leads away from them."),
      h("div", { class: "setting" }, h("span", {}, "Reference clip"), h("div", { class: "control" },
        app.doc.reference ? h("span", {}, `${app.doc.reference.frames?.length ?? 0} pictures`) : null,
        button("load", app.doc.reference ? "Another" : "Choose", () => clip.click(), { text: true, kind: "small", disabled: !app.doc.image }),
        app.doc.reference ? button("trash", "Remove the reference clip", () => app.dispatch({ type: "scene", changes: { reference: null } }), { kind: "small" }) : null)),
      h("p", { class: "help" }, "A crude video of what is wanted (mp4, gif), which Time-to-Move starts from. Without one it cuts the things out and drags them."),
    ];
  }

  function draw() {
    const chosen = method();
    refill(simple, simpleFields().filter(Boolean));
    const sections = [
      ["Scene", sceneFields()],
      ...groups(chosen).map(({ title, part, fields }) => [title, fields.length ? fields.map((one) => field("controller", one, { part })) : [h("p", { class: "help" }, "Nothing to set.")]]),
      ["Sampling", app.backbone.sampling.map((one) => field("sampling", one))],
      ["Model", app.backbone.settings.map((one) => field("settings", one))],
    ];
    const focused = all.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    all.replaceChildren(h("summary", {}, icon("sliders"), "All settings"), ...sections.map(([title, made]) => h("fieldset", {}, h("legend", {}, title), made)));
    if (focused) all.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  /** Let the server check scene and settings while the person works, so that Generate holds no surprise. */
  function check() {
    if (!app.doc.image || app.pointer?.busy) return;
    const body = app.request();
    const now = JSON.stringify(body);
    if (now === checked) return;
    checked = now;
    clearTimeout(timer);
    const chosen = method();
    if (chosen.needs_motions && !app.doc.motions.length && !(chosen.takes_reference && app.doc.reference)) {
      request?.abort();
      say(`Draw a box: ${chosen.name} steers by them. The method none needs none.`);
      return;
    }
    timer = setTimeout(async () => {
      request?.abort();
      request = new AbortController();
      try {
        const plan = await api.plan(body, request.signal);
        const { width, height, num_frames, num_steps } = plan.sampling;
        const guided = plan.guided_iterations ? `, ${plan.guided_iterations} guided iterations` : "";
        const unsteered = plan.controller.name === "none" ? ", nothing steers" : "";
        const remarks = plan.warnings.map((one) => ` ${one[0].toUpperCase()}${one.slice(1)}.`).join("");
        say(`Ready: ${num_frames} frames of ${width}×${height}, ${num_steps} steps${guided}${unsteered}.${remarks}`);
      } catch (error) {
        if (error.name !== "AbortError") say(error.message, true);
      }
    }, 500);
  }

  function say(message, wrong = false) {
    verdict.replaceChildren(...(wrong ? [icon("warn")] : []), message);
    verdict.classList.toggle("warned", wrong);
  }

  function update() {
    check();
    const now = JSON.stringify([app.choices, app.doc.fit, app.doc.prompt, app.doc.negative_prompt, app.doc.reference?.frames?.length]);
    if (now === shown) return;
    shown = now;
    draw();
  }

  return { update };
}
