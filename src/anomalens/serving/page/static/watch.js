// Watch: the page is asked for again now and then, and changed only where something has changed.

const EVERY = 30_000;

setInterval(async () => {
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok) return;
  const later = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#watched");
  const shown = document.querySelector("#watched");
  if (later && later.innerHTML !== shown.innerHTML) shown.replaceWith(document.adoptNode(later));
}, EVERY);
