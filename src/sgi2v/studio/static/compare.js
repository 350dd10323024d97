// Several methods or seeds of one scene, asked for together and shown side by side.

import * as api from "./api.js";
import { button, h } from "./dom.js";

/** The function that opens the dialog; `put` takes a new job into the list, `show` shows jobs of the open scene. */
export function makeCompare(app, put, show) {
  /** Several jobs of one scene: chosen methods times seeds, kept together as one group. */
  return function compare() {
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
      // All are of the scene and the settings as they are now, whatever is changed while they are sent.
      const asked = { ...app.request(), group: app.newKey() };
      const { values } = app.choices;
      const { opened } = app.doc;
      const [names, numbers] = [chosen(), listed()];
      const ids = [];
      for (const name of names) {
        for (const seed of numbers) {
          const controller = { name, ...(values[name] ?? {}) };
          const request = { ...asked, controller, sampling: { ...asked.sampling, seed } };
          const job = await app.attempt(() => api.submit(request, app.newKey()));
          if (!job) return;
          ids.push(put(job).id);
          show(opened, ids);
        }
      }
    }
  }
}
