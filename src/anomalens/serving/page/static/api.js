// Talk to the service: one way to ask, one way to say what went wrong.

const token = document.querySelector("meta[name=csrf-token]").content;

export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Ask the service; return its JSON, null where there is none. Throws Refusal with a sentence for the reader. */
export async function ask(method, path, { form, json, headers = {} } = {}) {
  const request = { method, headers: { "X-CSRF-Token": token, Accept: "application/json", ...headers } };
  if (form) request.body = form;
  if (json !== undefined) {
    request.body = JSON.stringify(json);
    request.headers["Content-Type"] = "application/json";
  }
  for (;;) {
    let answer;
    try {
      answer = await fetch(path, request);
    } catch {
      throw new Refusal("The service cannot be reached. Is it running?", 0);
    }
    if (answer.status === 503) {
      await pause(1000 * Math.min(Number(answer.headers.get("Retry-After")) || 1, 30));
      continue;
    }
    if (answer.status === 204) return null;
    const body = await answer.json().catch(() => null);
    if (!answer.ok) throw new Refusal(sentence(body) || `The service answered ${answer.status}.`, answer.status);
    return body;
  }
}

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
