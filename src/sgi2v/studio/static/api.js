// Everything the page asks of the server: same origin, JSON, errors as the server's own one-line messages.

export class ApiError extends Error {
  constructor(status, message, field) {
    super(message);
    Object.assign(this, { status, field });
  }
}

async function call(method, path, { json, body, headers = {}, signal, keepalive = false } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method, signal, keepalive,
      headers: { ...(json !== undefined ? { "Content-Type": "application/json" } : body ? { "Content-Type": "application/octet-stream" } : {}), ...headers },
      body: json !== undefined ? JSON.stringify(json) : body,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The studio's server does not answer. Is it still running?", "");
  }
  if (response.status === 401) location.assign("/login");
  if (!response.ok) {
    const { error } = await response.json().catch(() => ({}));
    throw new ApiError(response.status, error?.message || `The server answered ${response.status}.`, error?.field ?? "");
  }
  return response;
}

/** Send a file's bytes; `told` hears the share that has gone, 0..1. Fetch does not tell it. */
function send(path, blob, told = null) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.responseType = "json";
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (told) request.upload.onprogress = (event) => told(event.lengthComputable ? event.loaded / event.total : 0);
    request.onerror = () => reject(new ApiError(0, "The studio's server does not answer. Is it still running?", ""));
    request.onload = () => {
      if (request.status === 401) location.assign("/login");
      if (request.status >= 200 && request.status < 300) return resolve(request.response);
      const { error } = request.response ?? {};
      return reject(new ApiError(request.status, error?.message || `The server answered ${request.status}.`, error?.field ?? ""));
    };
    request.send(blob);
  });
}

const json = async (...args) => (await call(...args)).json();

export const getInfo = (recipe = null) => json("GET", recipe ? `/api/info?recipe=${encodeURIComponent(recipe)}` : "/api/info");
export const getExamples = () => json("GET", "/api/examples");
export const putImage = (blob, told) => send("/api/images", blob, told);
export const keep = (page, pictures) => call("POST", "/api/keep", { json: { page, pictures } });
export const plan = (request, signal) => json("POST", "/api/plan", { json: request, signal });
export const compileCamera = (request, signal) => json("POST", "/api/camera", { json: request, signal });
export const importVideo = (blob, told) => send("/api/import/video", blob, told);
export const verify = (blob) => send("/api/verify", blob);
export const importTraj = (blob, imageId) => send(`/api/import/traj?image=${imageId}`, blob);
export const importScene = (scene) => json("POST", "/api/import/scene", { json: scene });
export const exportCommand = (scene, photo) => json("POST", `/api/export/command?photo=${encodeURIComponent(photo)}`, { json: scene });
export const exportScene = async (scene) => (await call("POST", "/api/export/scene", { json: scene })).blob();

export const submit = (request, key) => json("POST", "/api/jobs", { json: request, headers: { "Idempotency-Key": key } });
/** Jobs with a number below `before`, newest first. */
export const getJobs = (before, limit) => json("GET", `/api/jobs?before=${before}&limit=${limit}`);
export const getJob = (id) => json("GET", `/api/jobs/${id}`);
export const cancelJob = (id) => json("POST", `/api/jobs/${id}/cancel`);
export const retryJob = (id, key) => json("POST", `/api/jobs/${id}/retry`, { headers: { "Idempotency-Key": key } });
export const deleteJob = (id) => call("DELETE", `/api/jobs/${id}`, { keepalive: true }); // also as the page goes

export const outline = (image, asked) => json("POST", "/api/mask", { json: { image, ...asked } });
export const importClip = (blob, told) => send("/api/import/clip?masks=false", blob, told);

export const imageUrl = (upload) => `/api/images/${upload.slice("upload:".length)}`;

/** The one stream of events; `handlers` has a function for each event's name, and `state(open)`.
 *
 *  Only while the page is seen: a browser opens six connections to a host for all its pages together, and every stream
 *  holds one. What was missed is in the snapshot that a stream begins with.
 */
export function listen(handlers) {
  let source = null;
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource("/api/events");
    for (const name of ["snapshot", "job", "progress", "deleted"]) {
      source.addEventListener(name, (event) => handlers[name](JSON.parse(event.data)));
    }
    source.onopen = () => handlers.state(true);
    source.onerror = () => {
      handlers.state(false);
      // The browser gives up for good on some answers (429, 503, a server that is gone while it connects).
      if (source.readyState !== EventSource.CLOSED) return;
      source = null;
      setTimeout(open, 2000);
    };
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return open();
    source?.close();
    source = null;
    return undefined;
  });
  open();
}
