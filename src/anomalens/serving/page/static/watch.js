// Watch: the page is asked for again now and then, and changed only where something has changed.

import { away } from "./api.js";

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
  const shown = document.querySelector("#watched");
  if (later.innerHTML !== shown.innerHTML) shown.replaceWith(document.adoptNode(later));
}, EVERY);
