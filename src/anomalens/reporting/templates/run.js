"use strict";
// Filters, the count at another threshold, and the pictures of an image large and side by side.
const part = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll("#images > li")];
const stored = part("scores") && JSON.parse(part("scores").textContent);
let threshold = stored && stored.threshold;

for (const element of document.querySelectorAll(".needs-script")) element.hidden = false;

// On paper nothing can be opened.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));

// ---- labels at the threshold
function label(card) {
  const { label, score, threshold: own } = card.dataset;
  if (label === "unusable" || !stored || threshold === stored.threshold) return label;
  return Number(score) > Number(own) + threshold - stored.threshold ? "anomalous" : "normal";
}

function above(value) {
  let low = 0, high = stored.scores.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (stored.scores[middle] > value) high = middle; else low = middle + 1;
  }
  return Math.round(((stored.scores.length - low) / stored.scores.length) * stored.judged);
}

function decide(value) {
  threshold = value;
  const same = value === stored.threshold;
  const anomalous = same ? stored.anomalous : above(value);
  const about = !same && stored.judged > stored.scores.length ? "about " : "";
  part("recount").textContent = `${about}${anomalous} anomalous, ${stored.judged - anomalous} normal`;
  part("threshold-flag").textContent = value.toFixed(4);
  const [low, high, start, end] = stored.axis;
  const mark = document.querySelector(".mark.decision");
  const at = start + (Math.min(Math.max(value, low), high) - low) / (high - low) * (end - start);
  if (mark) for (const name of ["x1", "x2"]) mark.setAttribute(name, at);
  for (const card of cards) {
    const verdict = card.querySelector(".verdict"), before = card.dataset.label, now = label(card);
    verdict.textContent = now;
    verdict.dataset.before = before;
    verdict.className = `verdict ${now}${now === before ? "" : " changed"}`;
  }
  show();
}

if (stored) {
  part("threshold").addEventListener("input", (event) => {
    part("threshold-number").value = Number(event.target.value).toFixed(4);
    decide(Number(event.target.value));
  });
  part("threshold-number").addEventListener("input", (event) => {
    if (event.target.value === "") return;
    part("threshold").value = event.target.value;
    decide(Number(event.target.value));
  });
  part("threshold-reset").addEventListener("click", () => {
    part("threshold").value = stored.threshold;
    part("threshold-number").value = stored.threshold.toFixed(4);
    decide(stored.threshold);
  });
}

// ---- which images are shown, and in which order
const value = (id) => part(id) ? part(id).value : "";
const rank = { anomalous: 0, unusable: 1, normal: 2 };
const score = (card) => Number(card.dataset.score);
const orders = {
  worst: (a, b) => rank[label(a)] - rank[label(b)] || margin(b) - margin(a),
  score: (a, b) => score(b) - score(a),
  name: (a, b) => full(a).localeCompare(full(b), undefined, { numeric: true }),
};
const margin = (card) => score(card) - Number(card.dataset.threshold);
const full = (card) => `${card.dataset.folder}/${card.dataset.name}`;

function fits(card) {
  const { object, folder } = card.dataset;
  return full(card).toLowerCase().includes(value("text").toLowerCase())
    && (!value("label") || value("label") === label(card))
    && (!value("object") || value("object") === object)
    && (!part("folder") || value("folder") === " " || value("folder") === folder)
    && (value("lowest") === "" || score(card) >= Number(value("lowest")))
    && (value("highest") === "" || score(card) <= Number(value("highest")));
}

function show() {
  if (!cards.length) return;
  let count = 0;
  for (const card of cards) {
    card.hidden = !fits(card);
    count += !card.hidden;
  }
  part("count").textContent = `${count} of ${cards.length} shown`;
  part("nothing").hidden = count > 0;
}

function sort() {
  part("images").append(...cards.sort(orders[value("order")]));
}

const form = document.querySelector(".filters");
if (form) {
  form.addEventListener("input", (event) => event.target.id === "order" ? sort() : show());
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { sort(); show(); }));
  part("show-all").addEventListener("click", () => form.reset());
}

// ---- the pictures of an image, large
const viewer = part("viewer");
let open = null;

function view(card) {
  open = card;
  const [image, overlay, mask] = [...card.querySelector(".pictures").children].map((picture) => picture.cloneNode(true));
  overlay.classList.add("over");
  part("stack").replaceChildren(image, overlay);
  part("marked").replaceChildren(mask);
  part("viewer-title").textContent = full(card).replace(/^\//, "");
  part("viewer-facts").replaceChildren(...[...card.querySelectorAll("p")].map((line) => line.cloneNode(true)));
  if (!viewer.open) viewer.showModal();
}

function step(by) {
  const visible = cards.filter((card) => !card.hidden);
  view(visible[(visible.indexOf(open) + by + visible.length) % visible.length]);
}

for (const card of cards) card.querySelector(".pictures").addEventListener("click", () => view(card));
part("previous").addEventListener("click", () => step(-1));
part("next").addEventListener("click", () => step(1));
part("close").addEventListener("click", () => viewer.close());
part("cut").addEventListener("input", (event) => part("stack").style.setProperty("--cut", `${event.target.value}%`));
viewer.addEventListener("close", () => open && open.querySelector(".pictures").focus());
viewer.addEventListener("keydown", (event) => {
  if (event.target.id === "cut") return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});

if (stored) decide(threshold); else show();
