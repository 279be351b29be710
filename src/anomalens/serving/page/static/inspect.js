// Inspect: photos go up a few at a time, each answer is shown as it comes.

import { ask, digits, element, requestName, tell } from "./api.js";
import { photosFrom } from "./drop.js";
import { labelAt, ThresholdPanel } from "./threshold.js";
import { picture, Viewer } from "./viewer.js";

// Photos on their way: a batch can fill, and the pictures that come back need room too.
const AT_ONCE = 4;
const WORDS = { waiting: "waiting", failed: "not read", normal: "normal", anomalous: "anomalous", unusable: "not judged" };

const find = (selector) => document.querySelector(selector);
const shots = [];
const waiting = [];
let sending = 0, current = null;

const viewer = new Viewer(find(".viewer"), find(".regions"));
const panel = new ThresholdPanel(find("#threshold"), showLabels);
const recipe = find("#recipe"), object = find("#object");

photosFrom(find(".drop"), (files) => {
  find(".drop").classList.remove("large");
  find("#bench").hidden = find("#progress").hidden = false;
  find("#recent")?.remove();
  for (const file of files) add(file);
  next();
});

recipe?.addEventListener("change", () => (find("#object-field").hidden = recipe.value !== ""));

function add(file) {
  const shot = { file, preview: URL.createObjectURL(file), inspection: { name: file.name }, name: requestName() };
  const thumb = element("img", { class: "thumb", src: shot.preview, alt: "" });
  // A kind of file that the browser cannot show; the service's own picture follows.
  thumb.addEventListener("error", () => (shot.unseen = true), { once: true });
  shot.thumb = thumb;
  shot.label = element("span", { class: "label waiting", text: WORDS.waiting });
  shot.score = element("span", { class: "score" });
  shot.button = element(
    "button",
    { type: "button", class: "shot", on: { click: () => choose(shot) } },
    thumb,
    element("span", { class: "under" }, shot.label, element("span", { class: "name", text: file.name, title: file.name }), shot.score),
  );
  find("#shots").append(element("li", {}, shot.button));
  shots.push(shot);
  waiting.push(shot);
  if (!current) choose(shot);
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
    const answer = await ask("POST", "/api/v1/inspections", { form, headers: { "Idempotency-Key": shot.name } });
    shot.inspection = answer.inspections[0];
    if (!shot.inspection.error) {
      shot.thumb.src = picture(shot.inspection.id, "photo", 320);
      URL.revokeObjectURL(shot.preview);
    }
  } catch (error) {
    shot.inspection = { name: shot.file.name, error: error.message };
  }
  if (shot === current) choose(shot);
  else {
    showPanel();
    showLabel(shot);
  }
}

function showProgress() {
  const done = shots.length - waiting.length - sending;
  find("#progress progress").max = shots.length;
  find("#progress progress").value = done;
  find("#progress").hidden = done === shots.length;
  find("#said").textContent = done === shots.length ? `${done} of ${shots.length} images answered` : "";
}

const group = (inspection) => JSON.stringify([inspection.recipe, inspection.object, inspection.threshold]);

function showPanel() {
  if (current?.inspection.threshold == null) return;
  const mine = group(current.inspection);
  panel.show(
    shots.map((shot) => shot.inspection).filter((inspection) => group(inspection) === mine),
    current.inspection.recipe ? taughtScores() : [],
  );
}

const taughtScores = () => JSON.parse(recipe?.selectedOptions[0]?.dataset.scores || "[]");

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
  if (!step || !current || event.target.closest("input, select, textarea")) return;
  const shot = shots[shots.indexOf(current) + step];
  if (!shot) return;
  event.preventDefault();
  choose(shot);
  shot.button.focus();
});
