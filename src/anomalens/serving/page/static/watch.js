// Watch: the page is asked for again now and then, and changed only where something has changed.

import { away } from "./api.js";
import { localTimes } from "./times.js";

const EVERY = 30_000;
let seen = new Date();

setInterval(async () => {
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  const text = answer?.ok ? await answer.text() : "";
  const later = new DOMParser().parseFromString(text, "text/html").querySelector("#watched");
  if (!later) return away(`The service does not answer. This is what was known at ${seen.toLocaleTimeString()}.`);
  away("");
  seen = new Date();
  localTimes(later);
  const shown = document.querySelector("#watched");
  if (later.innerHTML === shown.innerHTML) return;
  // Who walks by keys stays at the link that has them.
  const link = shown.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  shown.replaceWith(document.adoptNode(later));
  if (link) later.querySelector(`a[href="${CSS.escape(link)}"]`)?.focus({ preventScroll: true });
}, EVERY);
