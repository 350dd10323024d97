// Photos, scenes, traj.npy and videos in, by choosing or dropping; scene JSON out; the example scenes.

import * as api from "./api.js";
import { button, download, h } from "./dom.js";
import { emptyDoc, fromScene } from "./state.js";

export function makeFiles(app) {
  const { byId } = app;
  const input = byId("file");

  byId("open").addEventListener("click", () => input.click());
  byId("save").addEventListener("click", save);
  byId("examples").addEventListener("click", examples);
  input.addEventListener("change", () => {
    open([...input.files]);
    input.value = "";
  });

  let depth = 0;
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragenter", (event) => { if (carries(event)) byId("drop").hidden = ++depth < 1; });
  document.addEventListener("dragleave", (event) => { if (carries(event)) byId("drop").hidden = --depth < 1; });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    byId("drop").hidden = true;
    if (event.dataTransfer.files.length) open([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) open(files);
  });

  const ending = (file) => file.name.split(".").pop().toLowerCase();
  const expected = (message) => Object.assign(new Error(message), { expected: true });

  /** Open what was given: a photo, a scene with or without its pictures, traj.npy, a video made here. */
  async function open(files) {
    await app.attempt(async () => {
      const video = files.find((file) => ["mp4", "gif"].includes(ending(file)));
      const scene = files.find((file) => ending(file) === "json");
      const traj = files.find((file) => ending(file) === "npy");
      const pictures = files.filter((file) => file.type.startsWith("image/") || ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"].includes(ending(file)));
      if (scene) await openScene(scene, pictures);
      else if (traj) await openTraj(traj, pictures[0]);
      else if (video) await openVideo(video, pictures[0]);
      else if (pictures.length) await openPhoto(pictures[0]);
      else throw expected(`${files[0].name}: not known here; open a photo, scene.json, traj.npy or an mp4 made by sgi2v`);
    });
  }

  async function openPhoto(file) {
    await limit(file, "image_bytes");
    const image = { ...(await app.sending(file, (told) => api.putImage(file, told))), name: file.name };
    show({ ...emptyDoc(), fit: "aspect", image }, `${file.name}: ${image.width} × ${image.height} pixels`);
    app.setUI({ tool: "box" });
  }

  /** Too large a file is told of before it is sent. */
  async function limit(file, name) {
    const most = app.info?.limits?.[name];
    if (most && file.size > most) throw expected(`${file.name}: ${(file.size / 2 ** 20).toFixed(0)} MiB; give at most ${(most / 2 ** 20).toFixed(0)} MiB`);
  }

  async function openScene(file, pictures) {
    await limit(file, "scene_bytes");
    let scene;
    try {
      scene = JSON.parse(await file.text());
    } catch (error) {
      throw expected(`${file.name}: not JSON as a scene needs it (${error.message})`);
    }
    if (scene?.format === "sgi2v-run" && scene.scene) scene = scene.scene;
    // Pictures that lie beside the JSON are chosen together with it.
    const stored = async (path, field) => {
      if (typeof path !== "string" || /^(data|upload):/.test(path)) return path;
      const picture = pictures.find((one) => one.name === path.split("/").pop());
      if (!picture) throw expected(`${field}: open ${path.split("/").pop()} together with ${file.name} (choose both, or drop both)`);
      return (await api.putImage(picture)).image;
    };
    scene.image = await stored(scene.image, "image");
    for (const [index, motion] of (Array.isArray(scene.motions) ? scene.motions : []).entries()) {
      if (motion?.mask) motion.mask = await stored(motion.mask, `motions[${index}].mask`);
    }
    const made = await api.importScene(scene);
    show(fromScene(made.scene, { ...made.image, name: file.name }), `${file.name}: ${made.scene.motions.length} motions`);
  }

  async function openTraj(file, picture) {
    if (!picture && !app.doc.image) throw expected(`${file.name}: open its picture first, or choose both together`);
    const image = picture ? { ...(await app.sending(picture, (told) => api.putImage(picture, told))), name: picture.name } : app.doc.image;
    const made = await api.importTraj(file, image.id);
    show(fromScene(made.scene, image), `${file.name}: ${made.scene.motions.length} motions`);
  }

  async function openVideo(file, picture) {
    await limit(file, "video_bytes");
    const asked = () => app.origin.ask(file); // after what opens, which clears the answer on the clip before
    try {
      const made = await app.sending(file, (told) => api.importVideo(file, told));
      await takeRun(made);
      show(fromScene(made.scene, { ...made.image, name: file.name }), made.backbone?.here === false
        ? `${file.name}: scene and settings are back; its model (${made.backbone.name}) is not here` : `${file.name}: scene and settings are back`);
      asked();
    } catch (error) {
      asked();
      if (!picture) throw error;
      await openPhoto(picture); // a gif from elsewhere is a photo
    }
  }

  /** The settings of a video or a job become the page's. */
  async function takeRun({ controller, sampling, settings, backbone, recipe = null }) {
    // First, for what was changed by hand is told from the recipe's own defaults. One that is no more is left out.
    await app.useRecipe(recipe);
    if (app.choices.recipe !== recipe) await app.useRecipe(null);
    const { name, ...values } = controller ?? {};
    const { dtype, ...rest } = sampling ?? {};
    const model = app.info.backbones.find((one) => one.name === (backbone?.name ?? backbone)) ?? app.backbone;
    const known = model.controllers.some((one) => one.name === name);
    app.choose({
      backbone: model.name, controller: known ? name : app.choices.controller,
      values: known ? { ...app.choices.values, [name]: differing(values, model.controllers.find((one) => one.name === name)) } : app.choices.values,
      sampling: withoutDefaults(rest, model.sampling), settings: withoutDefaults(settings ?? {}, model.settings),
    });
  }

  function differing(values, method) {
    if (!method.combination) return withoutDefaults(values, method.fields);
    return Object.fromEntries(method.parts.map((part) => [part.key, withoutDefaults(values[part.key] ?? {}, part.fields)])
      .filter(([, own]) => Object.keys(own).length).map(([key, own]) => [key, { ...own, name: method.parts.find((part) => part.key === key).name }]));
  }

  function withoutDefaults(values, fields) {
    const known = new Map(fields.map((one) => [one.name, JSON.stringify(one.default)]));
    return Object.fromEntries(Object.entries(values).filter(([name, value]) => known.has(name) && known.get(name) !== JSON.stringify(value)));
  }

  function show(doc, message) {
    app.origin.clear();
    app.stage.retryPictures();
    app.dispatch({ type: "load", doc: { ...doc, opened: app.newKey() } });
    const first = doc.motions.find((motion) => motion.kind === "object");
    app.setUI({ selected: first?.id ?? null, key: null, frame: 0, view: null, tool: "select", draft: null, shown: [], active: null, mode: "plan" });
    app.say(message);
  }

  async function save() {
    if (!app.doc.image) return;
    const blob = await app.attempt(() => api.exportScene(app.scene()));
    if (blob) download(blob, `${(app.doc.image.name ?? "scene").replace(/\.\w+$/, "") || "scene"}.scene.json`);
  }

  /** The scene as a command, to be pasted into a terminal beside the photo. */
  async function copyCommand() {
    if (!app.doc.image) return;
    const made = await app.attempt(() => api.exportCommand(app.scene(), app.doc.image.name ?? "photo.jpg"));
    if (!made) return;
    const text = h("textarea", { readonly: true, rows: 6, id: "command-text", "aria-label": "The command" }, made.command);
    const copied = await navigator.clipboard?.writeText(made.command).then(() => true, () => false);
    app.shell.dialog("As a command", text,
      h("p", { class: "note" }, [copied ? "It is in the clipboard." : "Copy it from here.", made.left_out.length ? ` It leaves out: ${made.left_out.join(", ")}.` : ""].join("")));
    text.select();
  }

  async function examples() {
    app.shell.dialog("Example scenes", h("p", { class: "note" }, "Looking …"));
    const answer = await app.attempt(api.getExamples);
    if (!answer) return byId("dialog").close();
    if (!byId("dialog").open) return undefined;
    const cards = answer.examples.map(({ name, scene, image }) => h("button", { type: "button", class: "example", onclick: () => {
      byId("dialog").close();
      show(fromScene(scene, { ...image, name }), `Example: ${name}`);
    } }, h("img", { src: image.url, alt: "", loading: "lazy" }), h("span", {}, name), h("small", {}, told(scene))));
    return app.shell.dialog("Example scenes", h("div", { class: "examples" }, cards), h("p", { class: "note" }, "What you have drawn can be brought back with Undo."));
  }

  function told({ motions }) {
    const camera = motions.filter((motion) => motion.kind === "camera").length;
    const moving = motions.filter((motion) => motion.kind !== "camera" && motion.path?.length).length;
    const pins = motions.length - camera - moving;
    return [moving && `${moving} moving`, pins && `${pins} pinned`, camera && "camera"].filter(Boolean).join(", ");
  }

  return { open, show, takeRun, copyCommand, update: null, button };
}
