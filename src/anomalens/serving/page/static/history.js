// History: walk through images by keys and say of each whether its decision was right.

import { ask, tell } from "./api.js";
import { Viewer } from "./viewer.js";

const VERDICTS = { r: "right", f: "false alarm", m: "missed", x: "unusable" };
// Said where there are keys.
const UNDO = matchMedia("(hover: none)").matches ? "" : " Press u to undo.";
const said = document.querySelector("#said");
const entries = [...document.querySelectorAll("[data-inspection]")];
const detail = document.querySelector("[data-detail]");
let current = detail ? entries[0] : null;

/** Store a verdict, or take the last one back where it is null, and show it. */
async function review(entry, verdict) {
  const path = `/api/v1/inspections/${encodeURIComponent(entry.dataset.inspection)}/review`;
  const comment = document.querySelector("#comment")?.value.trim() || undefined;
  try {
    const inspection = verdict ? await ask("POST", path, { json: { verdict, comment } }) : await ask("DELETE", path);
    showVerdict(entry, inspection.review?.verdict ?? "");
    tell(said, `${entry.dataset.name}: ${verdict ? `${verdict}.${UNDO}` : "review taken back."}`, "good");
    if (verdict && !detail) choose(entries[entries.indexOf(entry) + 1] ?? entry);
  } catch (error) {
    tell(said, error.message, "bad");
  }
}

function showVerdict(entry, verdict) {
  entry.querySelector("[data-verdict-shown]").textContent = verdict || "not reviewed";
  for (const button of entry.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
  }
}

function choose(entry) {
  current?.classList.remove("current");
  current = entry;
  entry.classList.add("current");
  const link = entry.matches("a") ? entry : entry.querySelector("a");
  link.focus({ preventScroll: true });
  entry.scrollIntoView({ block: "nearest" });
}

const reviewed = [];
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (VERDICTS[event.key] && current?.querySelector("[data-verdict-shown]")) {
    reviewed.push(current);
    review(current, VERDICTS[event.key]);
  } else if (event.key === "u" && (detail || reviewed.length)) {
    const entry = detail ? current : reviewed.pop();
    if (!detail) choose(entry);
    review(entry, null);
  } else if (event.key === "j" || event.key === "k") walk(event.key === "j" ? 1 : -1);
  else return;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-verdict], [data-undo], [data-delete]");
  const entry = button?.closest("[data-inspection]");
  if (!entry) return;
  if (button.dataset.delete !== undefined) remove(entry);
  else review(entry, button.dataset.verdict ?? null);
});

async function remove(entry) {
  if (!confirm(`Delete ${entry.dataset.name} and its pictures for good?`)) return;
  try {
    await ask("DELETE", `/api/v1/inspections/${encodeURIComponent(entry.dataset.inspection)}`);
    location.assign("/history");
  } catch (error) {
    tell(said, error.message, "bad");
  }
}

// ---- one after the other: the list that was looked at last is what a single image walks along

function walk(step) {
  if (!detail) {
    const entry = entries[current ? entries.indexOf(current) + step : 0];
    if (entry) choose(entry);
    return;
  }
  const link = document.querySelector(step > 0 ? "#next" : "#previous");
  if (!link.hidden) location.assign(link.href);
}

if (detail) {
  const names = JSON.parse(sessionStorage.getItem("inspections") || "[]");
  const place = names.indexOf(current.dataset.inspection);
  for (const [id, index] of [["#previous", place - 1], ["#next", place + 1]]) {
    const link = document.querySelector(id);
    link.hidden = place < 0 || names[index] === undefined;
    if (!link.hidden) link.href = `/history/${encodeURIComponent(names[index])}`;
  }
  new Viewer(document.querySelector(".viewer"), document.querySelector(".regions")).show(JSON.parse(detail.dataset.detail));
} else sessionStorage.setItem("inspections", JSON.stringify(entries.map((entry) => entry.dataset.inspection)));
