// Move the threshold and see at once what would be decided; nothing is changed at the service.

import { digits, drawn } from "./api.js";

const BINS = 30, WIDTH = 360, HEIGHT = 130, BASE = 108, LEFT = 6;

/** Return the label an inspection has at a threshold: its own at its own, since small regions may not count. */
export function labelAt(inspection, threshold) {
  if (inspection.error) return "failed";
  if (inspection.label === "unusable") return "unusable";
  if (inspection.score <= threshold) return "normal";
  const ownIsTooSmall = inspection.label === "normal" && inspection.score > inspection.threshold;
  return ownIsTooSmall ? "normal" : "anomalous";
}

export class ThresholdPanel {
  /** Call `moved()` whenever decisions change. */
  constructor(root, moved) {
    this.root = root;
    this.slider = root.querySelector("[data-threshold]");
    this.number = root.querySelector("[data-threshold-number]");
    this.chart = root.querySelector(".histogram");
    this.counts = root.querySelector(".counts");
    this.own = this.value = null;
    this.moved = moved;
    this.slider.addEventListener("input", () => this.set(Number(this.slider.value)));
    this.number.addEventListener("change", () => {
      if (Number.isFinite(this.number.valueAsNumber)) this.set(this.number.valueAsNumber);
    });
    root.querySelector("[data-reset]").addEventListener("click", () => this.set(this.own));
  }

  /** Show inspections that were judged by one threshold, and the scores of the good photos taught with, if any. */
  show(inspections, taught = []) {
    this.inspections = inspections.filter((inspection) => inspection.score != null);
    this.taught = taught;
    this.root.hidden = !this.inspections.length;
    if (this.root.hidden) return;
    const own = this.inspections[0].threshold;
    if (own !== this.own) this.own = this.value = own;
    const scores = [...this.inspections.map((inspection) => inspection.score), ...taught, this.own, this.value];
    const low = Math.min(...scores), high = Math.max(...scores), room = 0.05 * (high - low) || 0.05;
    this.low = low - room;
    this.high = high + room;
    this.slider.min = this.low;
    this.slider.max = this.high;
    this.slider.step = (this.high - this.low) / 400;
    this.draw();
  }

  set(value) {
    this.value = value;
    this.draw();
    this.moved();
  }

  draw() {
    this.slider.value = this.value;
    this.slider.setAttribute("aria-valuetext", digits(this.value));
    this.number.value = digits(this.value);
    const bins = Array.from({ length: BINS }, () => ({ under: 0, over: 0, taught: 0 }));
    const span = this.high - this.low;
    const binOf = (score) => bins[Math.max(0, Math.min(BINS - 1, Math.floor(((score - this.low) / span) * BINS)))];
    for (const score of this.taught) binOf(score).taught += 1;
    const counts = { anomalous: 0, normal: 0, unusable: 0 };
    for (const inspection of this.inspections) {
      const label = labelAt(inspection, this.value);
      counts[label] += 1;
      if (label !== "unusable") binOf(inspection.score)[label === "anomalous" ? "over" : "under"] += 1;
    }
    const most = Math.max(1, ...bins.map((bin) => bin.under + bin.over + bin.taught));
    const wide = (WIDTH - 2 * LEFT) / BINS;
    this.chart.replaceChildren();
    bins.forEach((bin, index) => {
      let top = BASE;
      for (const kind of ["taught", "under", "over"]) {
        const height = (bin[kind] / most) * (BASE - 10);
        top -= height;
        if (height) this.chart.append(drawn("rect", { class: kind, x: LEFT + index * wide + 0.5, y: top, width: wide - 1, height }));
      }
    });
    const at = LEFT + ((this.value - this.low) / span) * (WIDTH - 2 * LEFT);
    this.chart.append(
      drawn("line", { class: "axis", x1: LEFT, x2: WIDTH - LEFT, y1: BASE, y2: BASE }),
      drawn("line", { class: "cut", x1: at, x2: at, y1: 2, y2: BASE + 4 }),
      drawn("text", { x: LEFT, y: HEIGHT - 8 }, digits(this.low)),
      drawn("text", { x: WIDTH - LEFT, y: HEIGHT - 8, "text-anchor": "end" }, digits(this.high)),
    );
    const said = `${counts.anomalous} anomalous, ${counts.normal} normal, ${counts.unusable} not judged`;
    this.chart.setAttribute("aria-label", `Scores of ${this.inspections.length} images; at the threshold ${digits(this.value)}: ${said}`);
    this.counts.querySelector("[data-over]").textContent = `${counts.anomalous} anomalous`;
    this.counts.querySelector("[data-under]").textContent = `${counts.normal} normal`;
    this.counts.querySelector("[data-unusable]").textContent = `${counts.unusable} not judged`;
    this.counts.querySelector("[data-taught]").hidden = !this.taught.length;
    this.root.querySelector("[data-reset]").disabled = this.value === this.own;
  }
}
