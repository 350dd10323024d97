// The block in the Objects panel that says where a dropped clip is from: credentials, mark, record.

import * as api from "./api.js";
import { button, h, icon } from "./dom.js";

export function makeOrigin(app) {
  const block = h("section", { "class": "section origin", "id": "origin", "aria-label": "Where the clip is from", "hidden": true });
  app.byId("panel-objects").prepend(block);

  function clear() {
    block.hidden = true;
    block.replaceChildren();
  }

  /** Ask about a clip that was opened; a studio that cannot answer says so and nothing else is lost. */
  async function ask(file) {
    clear();
    let answer;
    try {
      answer = await api.verify(file);
    } catch (error) {
      answer = { changed: false, answers: [["provenance", error.message]] };
    }
    block.replaceChildren(
      h("div", { class: "panel-head" }, h("h2", {}, "Where it is from"), button("close", "Close", clear, { kind: "small" })),
      h("p", { class: `note ${answer.changed ? "warned" : ""}` }, answer.changed ? icon("warn") : null, answer.changed ? `${file.name}: changed since it was signed` : file.name),
      h("dl", {}, answer.answers.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])));
    block.hidden = false;
  }

  return { ask, clear };
}
