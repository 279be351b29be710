// Wide tables scroll in themselves: let the keyboard reach them. The theme wraps them when a page is shown.
document$.subscribe(() => requestAnimationFrame(() => {
  for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap")) wrap.tabIndex = 0;
}));
