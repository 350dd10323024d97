// Random actions on the page's reducer, by a small generator of its own: the document after every one is kept, and undo
// and redo must pass through exactly those. Gives back what went wrong, in words (tests/test_studio_page.py).
(seeds) => {
  const { states, edits } = sgi2v, wrong = [];
  for (const seed of seeds) {
    let n = seed * 2654435761 % 2147483647 || 1;
    const random = (most) => (n = n * 48271 % 2147483647) / 2147483647 * most;
    const pick = (list) => list[Math.floor(random(list.length))];
    const image = { width: 200, height: 100 };
    let history = states.newHistory({ ...states.emptyDoc(), image });
    const kept = [history.present];
    for (let k = 0; k < 40; k++) {
      const { motions } = history.present, one = motions.length ? pick(motions) : null;
      const frozen = JSON.stringify(history.present);
      const box = { left: random(90), top: random(40), right: 100 + random(99), bottom: 50 + random(49) };
      const replace = (motion) => ({ type: "replace", id: one.id, motion });
      const action = !one ? { type: "add", motion: { box } } : pick([
        () => ({ type: "add", motion: { box } }),
        () => replace(edits.translated(one, random(80) - 40, random(80) - 40, image)),
        () => replace(edits.dragged(one, random(1), 8, random(40), random(40), image)),
        () => replace(edits.scaledAt(one, random(1), 8, 0.2 + random(3))),
        () => replace(edits.resized(one, box)),
        () => replace(edits.pathThrough(one, [[0, 0], [random(200), random(100)], [random(200), random(100)]])),
        () => replace(edits.pathExtended(one, random(200), random(100))),
        () => replace(edits.keyRemoved(one, Math.floor(random(one.path.length)))),
        () => replace(edits.keyChanged(one, Math.floor(random(one.path.length)), { time: random(1), x: random(200), scale: 0.5 + random(2) })),
        () => replace(edits.evened(one)),
        () => replace(edits.startMoved(one, random(40) - 20, random(40) - 20, image)),
        () => ({ type: "duplicate", id: one.id, changes: {} }),
        () => ({ type: "remove", ids: [one.id] }),
        () => ({ type: "order", id: one.id, to: Math.floor(random(motions.length)) }),
        () => ({ type: "flags", id: one.id, changes: { locked: random(1) < 0.3, visible: random(1) < 0.5 } }),
        () => ({ type: "set", id: one.id, changes: { curve: pick(["spline", "polyline"]) } }),
        () => ({ type: "camera", motions: [{ box, kind: "camera" }] }),
        () => ({ type: "scene", changes: { fit: pick(["cover", "stretch"]) } }),
      ])();
      const before = history;
      history = states.advance(history, action);
      if (JSON.stringify(before.present) !== frozen) wrong.push(`${seed}.${k} ${action.type} changed the past`);
      if (history !== before) kept.push(history.present);
      else if (history.present !== before.present) wrong.push(`${seed}.${k} changed without a step`);
      if (one?.locked && !["flags", "order", "camera", "scene", "add", "duplicate"].includes(action.type)) {
        const after = history.present.motions.find((motion) => motion.id === one.id);
        if (after !== one) wrong.push(`${seed}.${k} ${action.type} changed what is locked`);
      }
      for (const { box, path, id } of history.present.motions) {
        if (!(box.left >= 0 && box.top >= 0 && box.right <= 200 && box.bottom <= 100 && box.left < box.right)) wrong.push(`${seed}.${k} ${action.type}: box ${JSON.stringify(box)}`);
        if (path.length === 1 || path.some((key, j) => j && key.time - path[j - 1].time < 1e-6)) wrong.push(`${seed}.${k} ${action.type}: times`);
        if (path.some(({ time, scale }, j) => time < 0 || time > 1 || (j === 0 && scale !== 1))) wrong.push(`${seed}.${k} ${action.type}: key`);
      }
      if (new Set(history.present.motions.map((motion) => motion.id)).size !== history.present.motions.length) wrong.push(`${seed}.${k} an id twice`);
    }
    const last = history.present;
    for (const doc of kept.toReversed().slice(1)) {
      history = states.advance(history, { type: "undo" });
      if (history.present !== doc) wrong.push(`${seed} undo`);
    }
    if (states.advance(history, { type: "undo" }) !== history) wrong.push(`${seed} more to undo`);
    for (const doc of kept.slice(1)) {
      history = states.advance(history, { type: "redo" });
      if (history.present !== doc) wrong.push(`${seed} redo`);
    }
    if (history.present !== last || history.future.length) wrong.push(`${seed} end`);
    const branch = states.advance(states.advance(history, { type: "undo" }), { type: "scene", changes: { prompt: "new" } });
    if (kept.length > 1 && branch.future.length) wrong.push(`${seed} redo after another action`);
  }
  return wrong;
}
