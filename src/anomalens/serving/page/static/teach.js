// Teach: good photos become a draft, which is looked at and then saved; recipes are improved and rolled back.

import { Refusal, ask, digits, drawn, element, megabytes, tell, thumbnail } from "./api.js";
import { photosFrom } from "./drop.js";
import { finished, recipeVersion } from "./jobs.js";
import { RegionPicker } from "./region.js";
import { picture } from "./viewer.js";

const find = (selector) => document.querySelector(selector);
const said = find("#said");
const picker = new RegionPicker(find("#region"));
let photos = [];
let draft = null;
let unsaved = false;
addEventListener("beforeunload", (event) => unsaved && event.preventDefault());

// ---- photos

// Kinds of image that the service reads, though browsers may not show them.
const UNSHOWN = /\.(tiff?|jp2|hei[cf])$/i;

photosFrom(find(".drop"), (files) => {
  const before = photos.length;
  for (const file of files) if (!photos.some((photo) => same(photo.file, file))) addPhoto(file);
  find(".drop").classList.remove("large");
  for (const step of document.querySelectorAll("[data-step]")) step.hidden = false;
  const known = files.length - (photos.length - before);
  tell(said, known ? `${known} of these photos ${known === 1 ? "was" : "were"} here already.` : "");
  showPhotos();
});

const same = (a, b) => a.name === b.name && a.size === b.size && a.lastModified === b.lastModified;

function addPhoto(file) {
  const photo = { file, kept: true, thumb: thumbnail(URL.createObjectURL(file)) };
  photos.push(photo);
  photo.thumb.addEventListener("load", () => {
    if (!photo.remark && !picker.photo.getAttribute("src")) picker.photo.src = photo.thumb.src;
  }, { once: true });
  photo.thumb.addEventListener("error", () => {
    photo.remark = UNSHOWN.test(file.name) ? "not shown by this browser" : "not an image";
    photo.kept = UNSHOWN.test(file.name);
    showPhotos();
  }, { once: true });
}

function showPhotos() {
  const kept = photos.filter((photo) => photo.kept).length;
  find("#count").textContent = `${kept} of ${photos.length} photos are used. ${promise(kept)}`;
  find("#learn").disabled = !kept;
  find("#photos").replaceChildren(...photos.map((photo) => element("li", {}, photoCard(photo))));
}

/** Say what so many photos can promise; the service says the same of what it learned. */
function promise(count) {
  if (count < 2) return "No rate of false alarms can be promised of fewer than two.";
  return `At most 1 in ${Math.min(count + 1, 100)} sound images will be called anomalous.`;
}

function photoCard(photo) {
  const tick = element("input", {
    type: "checkbox",
    checked: photo.kept,
    "aria-label": `learn from ${photo.file.name}`,
    on: { change: (event) => ((photo.kept = event.target.checked), showPhotos()) },
  });
  const under = element(
    "span",
    { class: "under" },
    element("span", { class: "row" }, tick, element("span", { class: "name", text: photo.file.name, title: photo.file.name })),
  );
  if (photo.remark) under.append(element("span", { class: "soft", text: photo.remark }));
  if (photo.score != null) under.append(element("span", { class: "score", text: `score ${digits(photo.score)}` }));
  if (photo.odd) under.append(element("span", { class: "label anomalous", text: "unlike the others" }));
  return element("label", { class: `shot ${photo.odd ? "anomalous" : ""}` }, photo.thumb, under);
}

// ---- learning

find("#learn").addEventListener("click", async () => {
  const name = find("#name");
  if (!name.reportValidity()) return;
  const form = new FormData();
  form.append("name", name.value.trim());
  form.append("activate", "false");
  const rate = find("#rate").value;
  if (rate) form.append("fpr", rate);
  const mask = await picker.mask();
  if (mask) form.append("roi", mask, "roi.png");
  const kept = photos.filter((photo) => photo.kept).map((photo) => photo.file);
  for (const file of kept) form.append("images", file, file.name);
  await working(find("#learn"), async () => {
    checkBytes(kept);
    const before = draft;
    const job = await finished((await ask("POST", "/api/v1/recipes", { form })).job, showProgress);
    draft = job.recipe;
    unsaved = true;
    if (before?.name === draft.name) await discard(before);
    showDraft(await recipeVersion(draft));
  });
});

/** Throw Refusal where photos are more than one request may hold; the service would end it in the middle. */
function checkBytes(files) {
  const bytes = files.reduce((sum, file) => sum + file.size, 0), most = Number(find(".drop").dataset.mostBytes);
  if (bytes <= most) return;
  throw new Refusal(`These photos have ${megabytes(bytes)} together, and a lesson takes ${megabytes(most)}: take some ticks away, or make the photos smaller.`, 0);
}

function showProgress(job) {
  const bar = find("#progress progress");
  find("#progress").hidden = job.state === "done" || job.state === "failed";
  bar.max = job.total || 1;
  bar.value = job.done;
  find("#progress p").textContent = job.state === "waiting" ? "Waiting for another lesson to end." : `Learning: ${job.done} of ${job.total} photos`;
}

function showDraft(version) {
  const scored = [...version.photos];
  for (const photo of photos) {
    const index = photo.kept ? scored.findIndex((candidate) => candidate.name === photo.file.name) : -1;
    const [facts] = index < 0 ? [{}] : scored.splice(index, 1);
    Object.assign(photo, { score: facts.score, odd: facts.odd });
  }
  // The oddest first: those are to be looked at.
  photos.sort((a, b) => (b.odd ?? 0) - (a.odd ?? 0) || (b.score ?? -1e9) - (a.score ?? -1e9));
  showPhotos();
  find("#result").hidden = false;
  drawStrip(version);
  find("#promise").textContent = `Threshold ${digits(version.threshold)}. ${version.threshold_source}.`;
  const odd = version.photos.filter((photo) => photo.odd).map((photo) => photo.name);
  tell(find("#odd"), odd.length ? `Unlike the other photos: ${odd.join(", ")}. Have a look whether they are good; take the tick away and learn again if not.` : "", "warn");
  tell(find("#left-out"), version.left_out?.length ? `Left out: ${version.left_out.join("; ")}.` : "", "warn");
  find("#save").disabled = false;
  find("#result").scrollIntoView({ block: "nearest" });
}

/** Draw each photo's score, compared with the others, beside the threshold. */
function drawStrip({ photos: scored, threshold }) {
  const chart = find(".strip"), width = chart.clientWidth, left = 10, base = 70;
  const scores = scored.map((photo) => photo.score);
  const low = Math.min(...scores, threshold), high = Math.max(...scores, threshold), room = 0.06 * (high - low) || 0.1;
  const at = (score) => left + ((score - low + room) / (high - low + 2 * room)) * (width - 2 * left);
  chart.setAttribute("viewBox", `0 0 ${width} 96`);
  chart.replaceChildren(drawn("line", { class: "axis", x1: left, x2: width - left, y1: base, y2: base }));
  const placed = [];
  for (const { name, score, odd } of [...scored].sort((a, b) => a.score - b.score)) {
    const x = at(score);
    const level = placed.filter((other) => Math.abs(other - x) < 11).length;
    placed.push(x);
    const dot = drawn("circle", { class: odd ? "dot odd" : "dot", cx: x, cy: base - 9 - (level % 5) * 11, r: 5.5 });
    dot.append(drawn("title", {}, `${name}: ${digits(score)}`));
    chart.append(dot);
  }
  const cut = at(threshold), end = cut > width / 2;
  chart.append(
    drawn("line", { class: "cut", x1: cut, x2: cut, y1: 6, y2: base + 4 }),
    drawn("text", { x: cut + (end ? -6 : 6), y: 14, "text-anchor": end ? "end" : "start" }, `threshold ${digits(threshold)}`),
    drawn("text", { x: left, y: base + 18 }, digits(low - room)),
    drawn("text", { x: width - left, y: base + 18, "text-anchor": "end" }, digits(high + room)),
  );
  chart.setAttribute("aria-label", `Scores of ${scored.length} photos, each compared with the others, from ${digits(Math.min(...scores))} to ${digits(Math.max(...scores))}; threshold ${digits(threshold)}`);
}

find("#save").addEventListener("click", () =>
  working(find("#save"), async () => {
    await activate(draft);
    unsaved = false;
    location.assign(`/teach?saved=${encodeURIComponent(draft.name)}`);
  }),
);

// ---- recipes

const path = ({ name }) => `/api/v1/recipes/${encodeURIComponent(name)}`;
const activate = (version) => ask("POST", `${path(version)}/activate`, { json: { version: version.version } });
const discard = (version) => ask("DELETE", `${path(version)}/${version.version}`);

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-does]");
  if (!button) return;
  const version = { name: button.dataset.recipe, version: Number(button.dataset.version) };
  const does = { activate, discard }[button.dataset.does];
  if (button.dataset.does === "discard" && !confirm(`Delete version ${version.version} of ${version.name} for good?`)) return;
  working(button, async () => {
    if (button.dataset.does === "improve") return improve(button);
    await does(version);
    location.assign("/teach");
  });
});

async function improve(button) {
  const form = new FormData();
  const entries = { name: button.dataset.recipe, base: "active", reviewed: "true", activate: "false" };
  for (const [name, value] of Object.entries(entries)) form.append(name, value);
  const card = button.closest("[data-recipe-card]");
  const place = card.querySelector("[data-comparison]");
  const job = await finished((await ask("POST", "/api/v1/recipes", { form })).job, (now) => {
    tell(place.querySelector("[role=status]"), now.state === "done" ? "" : `Learning from reviewed images: ${now.done} of ${now.total}`);
  });
  place.append(comparison(job));
  button.hidden = true;
}

/** Return what an improved recipe does on the reviewed images, before and after, with the choice to use it. */
function comparison({ recipe, comparison: rows }) {
  const wrong = (when, truth) => rows.filter((row) => row.truth === truth && row[when].label === (truth === "normal" ? "anomalous" : "normal")).length;
  const summary = element("ul", { class: "counts" });
  for (const [truth, text] of [["normal", "false alarms"], ["anomalous", "missed"]]) {
    const before = wrong("before", truth), after = wrong("after", truth);
    summary.append(element("li", { class: after > before ? "worse" : "", text: `${text}: ${before} before, ${after} after` }));
  }
  const table = element("table", { class: "versions" }, element("caption", { text: "Reviewed images, before and after" }));
  const head = ["image", "is", "before", "after"].map((text) => element("th", { scope: "col", text }));
  const cell = (when, { label, score }) =>
    element("td", { "data-means": when }, element("span", { class: `label ${label}`, text: label }), element("small", { text: digits(score) }));
  const body = rows.map((row) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, thumbnail(picture(row.id, "photo", 320)), element("a", { href: `/history/${encodeURIComponent(row.id)}`, text: row.name })),
      element("td", { "data-means": "is", text: row.truth }),
      cell("before", row.before),
      cell("after", row.after),
    ),
  );
  table.append(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  const choice = (does, text, kind) =>
    element("button", { type: "button", class: kind, "data-does": does, "data-recipe": recipe.name, "data-version": recipe.version, text });
  return element(
    "div",
    { class: "stack" },
    summary,
    element("p", { class: "soft", text: "It has learned from the normal ones, so these score lower by nature; look at what would be missed." }),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Reviewed images, before and after" }, table),
    element("div", { class: "row" }, choice("activate", `Use version ${recipe.version}`, "main"), choice("discard", "Discard it", "")),
  );
}

/** Run `job` while its button rests; say what went wrong. */
async function working(button, job) {
  button.disabled = true;
  tell(said, "");
  try {
    await job();
  } catch (error) {
    find("#progress").hidden = true;
    tell(said, error.message, "bad");
    said.scrollIntoView({ block: "nearest" });
  } finally {
    button.disabled = false;
  }
}
