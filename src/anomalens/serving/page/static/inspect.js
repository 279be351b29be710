// Inspect: photos go up a few at a time, each answer is shown as it comes.

import { Refusal, ask, digits, element, megabytes, pause, requestName, tell, thumbnail } from "./api.js";
import { photosFrom } from "./drop.js";
import { labelAt, ThresholdPanel } from "./threshold.js";
import { picture, Viewer } from "./viewer.js";

// Photos on their way: a batch can fill, and the pictures that come back need room too.
const AT_ONCE = 4;
const WORDS = { waiting: "waiting", failed: "not read", normal: "normal", anomalous: "anomalous", unusable: "not judged" };

const MOST_BYTES = Number(document.querySelector(".drop").dataset.mostBytes);

const find = (selector) => document.querySelector(selector);
const shots = [];
const waiting = [];
let sending = 0, current = null;

const viewer = new Viewer(find(".viewer"), find(".regions"));
const panel = new ThresholdPanel(find("#threshold"), showLabels);
const recipe = find("#recipe"), object = find("#object"), order = find("#order");

photosFrom(find(".drop"), (files) => {
  for (const file of files) waiting.push(add({ file, name: file.name }, URL.createObjectURL(file)));
  next();
});
recipe?.addEventListener("change", byWords);
order.addEventListener("change", arrange);
find("#anew").addEventListener("click", () => {
  history.replaceState(null, "");
  location.reload();
});
addEventListener("beforeunload", (event) => (waiting.length || sending) && event.preventDefault());
byWords();
restore(history.state?.inspections ?? []);

/** Ask what the photos show where no recipe says it. */
function byWords() {
  for (const part of document.querySelectorAll("[data-by-words]")) part.hidden = Boolean(recipe?.value);
}

/** Show what this page had inspected before it was left: the browser keeps it with the entry of its history. */
async function restore(ids) {
  const asked = ids.map((id) => ask("GET", `/api/v1/inspections/${encodeURIComponent(id)}`).catch(() => null));
  for (const inspection of await Promise.all(asked)) {
    if (inspection) showInspection(add({ name: inspection.name }), inspection);
  }
}

/** Add a card for a photo, with its name and, before it is sent, its file; `preview` shows it until it is judged. */
function add({ file, name }, preview) {
  find(".drop").classList.remove("large");
  find("#bench").hidden = false;
  find("#recent")?.remove();
  const shot = { file, preview, number: shots.length, inspection: { name }, key: requestName() };
  shot.thumb = thumbnail(preview);
  // A kind of file that the browser cannot show; the service's own picture follows.
  shot.thumb.addEventListener("error", () => (shot.unseen = true), { once: true });
  shot.label = element("span", { class: "label waiting", text: WORDS.waiting });
  shot.score = element("span", { class: "score" });
  shot.button = element(
    "button",
    { type: "button", class: "shot", on: { click: () => choose(shot) } },
    shot.thumb,
    element("span", { class: "under" }, shot.label, element("span", { class: "name", text: name, title: name }), shot.score),
  );
  shot.item = element("li", {}, shot.button);
  find("#shots").append(shot.item);
  shots.push(shot);
  if (!current) choose(shot);
  return shot;
}

async function next() {
  showProgress();
  while (sending < AT_ONCE && waiting.length) {
    sending += 1;
    send(waiting.shift()).finally(() => {
      sending -= 1;
      next();
    });
  }
}

async function send(shot) {
  const form = new FormData();
  form.append("images", shot.file, shot.file.name);
  if (recipe?.value) form.append("recipe", recipe.value);
  else if (object.value.trim()) form.append("object", object.value.trim());
  form.append("wait", "true");
  try {
    // A file beyond the limit of a request would end the connection in the middle.
    if (shot.file.size > MOST_BYTES) {
      throw new Refusal(`${megabytes(shot.file.size)}, above the limit of ${megabytes(MOST_BYTES)} an image.`);
    }
    const answer = await ask("POST", "/api/v1/inspections", { form, headers: { "Idempotency-Key": shot.key } });
    showInspection(shot, await judged(answer.inspections[0]));
    const inspections = shots.map(({ inspection }) => inspection.id).filter(Boolean);
    history.replaceState({ inspections }, "");
  } catch (error) {
    showInspection(shot, { name: shot.file.name, error: error.message });
  }
}

/** Wait for an answer that took the service longer than a request may. */
async function judged(inspection) {
  while (inspection.state === "waiting") {
    await pause(2000);
    inspection = await ask("GET", `/api/v1/inspections/${encodeURIComponent(inspection.id)}`);
  }
  return inspection;
}

function showInspection(shot, inspection) {
  shot.inspection = inspection;
  if (inspection.id && !inspection.error) {
    shot.thumb.src = picture(inspection.id, "photo", 320);
    if (shot.preview) URL.revokeObjectURL(shot.preview);
  }
  if (order.value) arrange();
  if (shot === current) choose(shot);
  else {
    showPanel();
    showLabel(shot);
  }
}

/** Put the cards in order; the one that has the keys keeps them. */
function arrange() {
  const rank = ({ inspection }) => inspection.score ?? -Infinity;
  shots.sort((a, b) => (order.value && rank(b) !== rank(a) ? rank(b) - rank(a) : a.number - b.number));
  const focused = document.activeElement;
  find("#shots").append(...shots.map((shot) => shot.item));
  focused.focus({ preventScroll: true });
}

function showProgress() {
  const done = shots.length - waiting.length - sending;
  const words = `${done} of ${shots.length} images answered`;
  find("#progress progress").max = shots.length;
  find("#progress progress").value = done;
  find("#progress").hidden = done === shots.length;
  find("#so-far").textContent = words;
  find("#said").textContent = done === shots.length ? words : "";
}

const group = (inspection) => JSON.stringify([inspection.recipe, inspection.object, inspection.threshold]);

function showPanel() {
  if (current?.inspection.threshold == null) return;
  const mine = group(current.inspection);
  panel.show(
    shots.map((shot) => shot.inspection).filter((inspection) => group(inspection) === mine),
    taughtScores(current.inspection.recipe?.name),
  );
}

/** Return the scores of the good photos that a recipe was taught with; none where nothing was taught. */
function taughtScores(name) {
  const option = [...(recipe?.options ?? [])].find((option) => name && option.value === name);
  return JSON.parse(option?.dataset.scores ?? "[]");
}

function labelOf(shot) {
  const { inspection } = shot;
  if (inspection.error) return "failed";
  if (inspection.label == null) return "waiting";
  const moved = current?.inspection.threshold != null && group(inspection) === group(current.inspection);
  return moved ? labelAt(inspection, panel.value) : inspection.label;
}

function showLabels() {
  shots.forEach(showLabel);
  if (current) showAnswer(current);
}

function showLabel(shot) {
  const label = labelOf(shot);
  shot.button.className = `shot ${label}`;
  shot.label.className = `label ${label}`;
  shot.label.textContent = WORDS[label];
  shot.score.textContent = shot.inspection.score == null ? "" : `score ${digits(shot.inspection.score)}`;
}

function choose(shot) {
  if (current) current.button.removeAttribute("aria-current");
  current = shot;
  shot.button.setAttribute("aria-current", "true");
  viewer.show(shot.inspection, shot.inspection.label == null && !shot.unseen ? shot.preview : undefined);
  showPanel();
  showLabels();
}

function showAnswer(shot) {
  const { inspection } = shot;
  const label = labelOf(shot);
  const said = find("#label");
  said.className = `label ${label}`;
  said.textContent = WORDS[label];
  find("#name").textContent = inspection.name;
  find("#why").textContent = inspection.error ?? inspection.reason ?? "The answer follows.";
  const moved = inspection.label != null && label !== inspection.label && !inspection.error;
  tell(find("#moved"), moved ? `With the threshold of the service it is called ${WORDS[inspection.label]}.` : "");
  find("#facts").hidden = inspection.score == null;
  find("#score").textContent = digits(inspection.score);
  find("#confidence").textContent = inspection.confidence == null ? "–" : `${inspection.confidence} of 100`;
  find("#cut").textContent = `${digits(inspection.threshold)} (${inspection.threshold_source})`;
  find("#rare").textContent = inspection.p_value == null ? "–" : digits(inspection.p_value);
  find("#regions").hidden = !inspection.regions?.length;
  find("#detail").hidden = !inspection.id;
  if (inspection.id) find("#detail").href = `/history/${encodeURIComponent(inspection.id)}`;
}

// Arrow keys walk through the images, except where they move something else.
addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step || !current || event.target.closest("input, select, textarea, .stage")) return;
  const shot = shots[shots.indexOf(current) + step];
  if (!shot) return;
  event.preventDefault();
  choose(shot);
  shot.button.focus();
});
