// The large picture: photo, heatmap and outline one above the other, regions as boxes; it can be enlarged and moved.

import { digits, element } from "./api.js";

const SIDE = 1600;
// Of the photo once it is enlarged.
const LARGE_SIDE = 4096;
const MOST_ZOOM = 8;

/** Return the address of a small picture of an inspection: "photo", "heat" or "outline". */
export const picture = (id, kind, side = SIDE) => `/pictures/${encodeURIComponent(id)}/${kind}.webp?side=${side}`;

export class Viewer {
  /** `root` is the figure.viewer of the page, `list` the list that its regions are named in. */
  constructor(root, list) {
    this.root = root;
    this.stage = root.querySelector(".stage");
    this.frame = root.querySelector(".frame");
    this.list = list;
    this.photo = root.querySelector(".photo");
    this.heat = root.querySelector(".heat");
    this.outline = root.querySelector(".outline");
    const mix = root.querySelector("[data-mix]");
    const outlined = root.querySelector("[data-outline]");
    const blend = () => {
      this.heat.style.opacity = mix.value / 100;
      mix.setAttribute("aria-valuetext", `${mix.value} per cent heatmap`);
    };
    mix.addEventListener("input", blend);
    blend();
    this.photo.addEventListener("load", () => this.frame.style.setProperty("--ratio", this.photo.naturalWidth / this.photo.naturalHeight));
    outlined.addEventListener("change", () => (this.outline.hidden = !outlined.checked));
    for (const button of root.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.enlarge(this.zoom * Number(button.dataset.zoom)));
    }
    this.stage.addEventListener("dblclick", (event) => this.enlarge(this.zoom > 1 ? 1 : 3, event));
    this.stage.addEventListener("pointerdown", (event) => this.drag(event));
    this.zoom = 1;
  }

  /** Show an inspection; `preview` is an address to show its photo from at once, if there is any. */
  show(inspection, preview) {
    const judged = inspection.label != null;
    if (inspection !== this.inspection) this.enlarge(1);
    this.inspection = inspection;
    if (preview || judged) this.photo.src = preview ?? picture(inspection.id, "photo");
    else this.photo.removeAttribute("src");
    this.photo.alt = inspection.name;
    this.root.classList.toggle("blank", !preview && !judged);
    for (const box of this.frame.querySelectorAll(".box")) box.remove();
    this.list.replaceChildren();
    for (const layer of [this.heat, this.outline]) layer.removeAttribute("src");
    if (!judged) return;
    this.heat.src = picture(inspection.id, "heat");
    this.outline.src = picture(inspection.id, "outline");
    this.regions(inspection);
  }

  /** Show the picture `zoom` times as large as fits; the point of an event, else the middle, stays in its place. */
  enlarge(zoom, { clientX, clientY } = {}) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    const x = (clientX ?? left + width / 2) - left, y = (clientY ?? top + height / 2) - top;
    const before = this.zoom;
    this.zoom = Math.min(MOST_ZOOM, Math.max(1, zoom));
    const grown = this.zoom / before;
    const [toX, toY] = [(this.stage.scrollLeft + x) * grown - x, (this.stage.scrollTop + y) * grown - y];
    this.frame.style.setProperty("--zoom", this.zoom);
    this.root.classList.toggle("enlarged", this.zoom > 1);
    this.stage.scrollTo(toX, toY);
    for (const button of this.root.querySelectorAll("[data-zoom]")) {
      button.disabled = button.dataset.zoom > 1 ? this.zoom === MOST_ZOOM : this.zoom === 1;
    }
    const { id, label } = this.inspection ?? {};
    if (this.zoom > 1 && label != null) this.photo.src = picture(id, "photo", LARGE_SIDE);
  }

  /** Move an enlarged picture by the mouse; fingers scroll it anyway. */
  drag(event) {
    if (this.zoom === 1 || event.button || event.pointerType !== "mouse") return;
    event.preventDefault();
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    const move = ({ movementX, movementY }) => this.stage.scrollBy(-movementX, -movementY);
    this.stage.addEventListener("pointermove", move);
    // However the drag ends.
    this.stage.addEventListener("lostpointercapture", () => this.stage.removeEventListener("pointermove", move), { once: true });
  }

  regions({ regions = [], width, height }) {
    regions.forEach((region, index) => this.list.append(element("li", {}, this.region(region, index + 1, width, height))));
  }

  region(region, number, width, height) {
    const [left, top, right, bottom] = region.box;
    const box = element("div", { class: top < 0.06 * height ? "box near" : "box", hidden: true }, element("span", { text: number }));
    Object.assign(box.style, {
      left: `${(100 * left) / width}%`,
      top: `${(100 * top) / height}%`,
      width: `${(100 * (right - left)) / width}%`,
      height: `${(100 * (bottom - top)) / height}%`,
    });
    this.frame.append(box);
    const button = element(
      "button",
      { type: "button", "aria-pressed": "false" },
      element("b", { text: number }),
      element("span", { text: sizeOf(region) }),
      element("span", { class: "sizes", text: `peak ${digits(region.peak)}` }),
    );
    const show = (shown) => (box.hidden = !shown && button.getAttribute("aria-pressed") !== "true");
    button.addEventListener("mouseenter", () => show(true));
    button.addEventListener("mouseleave", () => show(false));
    button.addEventListener("focus", () => show(true));
    button.addEventListener("blur", () => show(false));
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      show(true);
    });
    return button;
  }
}

/** Say how large a region is: in millimetres where the scale is known, else in pixels. */
function sizeOf({ box: [left, top, right, bottom], area, width_mm, height_mm, area_mm2 }) {
  if (width_mm != null) return `${digits(width_mm)} × ${digits(height_mm)} mm, ${digits(area_mm2)} mm²`;
  return `${right - left} × ${bottom - top} px, ${area.toLocaleString("en")} px²`;
}
