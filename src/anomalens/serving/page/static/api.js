// Talk to the service: one way to ask, one way to say what went wrong.

const token = document.querySelector("meta[name=csrf-token]").content;

export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// Longest pause between two attempts to reach the service, in seconds.
const LONGEST_PAUSE = 10;
// Requests that have not come through yet.
const delayed = new Set();

/**
 * Ask the service; return its JSON, null where there is none. Throws Refusal with a sentence for the reader.
 *
 * What may be sent twice without harm is sent again until it is answered: while the service has no room, cannot be
 * reached, or knows the reader no longer. Other requests wait for room alone.
 */
export async function ask(method, path, { form, json, headers = {} } = {}) {
  const request = { method, headers: { "X-CSRF-Token": token, Accept: "application/json", ...headers } };
  if (form) request.body = form;
  if (json !== undefined) {
    request.body = JSON.stringify(json);
    request.headers["Content-Type"] = "application/json";
  }
  const repeatable = method === "GET" || "Idempotency-Key" in headers;
  try {
    for (let seconds = 1; ; seconds = Math.min(2 * seconds, LONGEST_PAUSE)) {
      const answer = await fetch(path, request).catch(() => null);
      const reason = await hindrance(answer);
      if (!reason) return await resultOf(answer);
      if (!answer && form) await checkFiles(form);
      if (!repeatable && answer?.status !== 503) throw new Refusal(reason, answer?.status ?? 0);
      delayed.add(request);
      away(`${reason} This page goes on by itself as soon as it can.`);
      await pause(1000 * Math.min(Number(answer?.headers.get("Retry-After")) || seconds, LONGEST_PAUSE));
    }
  } finally {
    if (delayed.delete(request) && !delayed.size) away("");
  }
}

async function resultOf(answer) {
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refusal(sentence(body) || `The service answered ${answer.status}.`, answer.status);
  return body;
}

/** Return why an answer, null without one, says nothing yet; an empty text where it says something. */
async function hindrance(answer) {
  if (!answer) return "The service cannot be reached.";
  if (answer.status === 401) return "You are signed out: sign in again in another tab.";
  if (answer.status !== 503) return "";
  const reason = sentence(await answer.json().catch(() => null)) || "no room";
  return `The service cannot take this just now (${reason}).`;
}

/** Throw Refusal where a file to be sent was moved, changed or taken away: the browser then sends nothing. */
async function checkFiles(form) {
  for (const value of form.values()) {
    if (!(value instanceof File)) continue;
    await value.slice(0, 1).arrayBuffer().catch(() => {
      throw new Refusal(`${value.name} was moved or changed; choose it again.`, 0);
    });
  }
}

/** Say above everything that the service does not answer; an empty text says nothing. */
export const away = (text) => tell(document.querySelector("#away"), text, "warn");

function sentence(body) {
  const detail = body?.detail ?? body?.error;
  if (Array.isArray(detail)) return detail.map((part) => part.msg).join("; ");
  return typeof detail === "string" ? detail : "";
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Return a name that no other request has, by which the service knows a repeated one. */
export function requestName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Make an element: attributes as given, `text` as its text, listeners under `on`; nothing is ever parsed as HTML. */
export function element(tag, { text, on = {}, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  if (text != null) made.textContent = text;
  for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
  made.append(...children);
  return made;
}

/** Make a small picture; a sign takes its place where the browser cannot show it. */
export function thumbnail(address) {
  const picture = element("img", { class: "thumb", src: address ?? NO_PICTURE, alt: "" });
  picture.addEventListener("error", () => (picture.src = NO_PICTURE), { once: true });
  return picture;
}

const NO_PICTURE = "/static/no-picture.svg";

/** Write a number of bytes as people read it. */
export const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 0)} MB`;

/** Make an SVG element. */
export function drawn(tag, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text != null) made.textContent = text;
  return made;
}

/** Write a score as people read it: three digits that count. */
export const digits = (value) => (value == null ? "–" : String(Number(Number(value).toPrecision(3))));

/** Say something to readers of the screen and, where `kind` is given, show it. */
export function tell(place, text, kind = "") {
  place.textContent = text;
  place.className = `notice ${kind}`;
  place.hidden = !text;
}
