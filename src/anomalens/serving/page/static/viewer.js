// The large picture: photo, heatmap and outline one above the other, regions as boxes.

import { digits, element } from "./api.js";

const SIDE = 1600;

/** Return the address of a small picture of an inspection: "photo", "heat" or "outline". */
export const picture = (id, kind, side = SIDE) => `/pictures/${encodeURIComponent(id)}/${kind}.webp?side=${side}`;

export class Viewer {
  /** `root` is the figure.viewer of the page, `list` the list that its regions are named in. */
  constructor(root, list) {
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
  }

  /** Show an inspection; `preview` is an address to show its photo from at once, if there is any. */
  show(inspection, preview) {
    const judged = inspection.label != null;
    if (preview || judged) this.photo.src = preview ?? picture(inspection.id, "photo");
    else this.photo.removeAttribute("src");
    this.photo.alt = inspection.name;
    for (const box of this.frame.querySelectorAll(".box")) box.remove();
    this.list.replaceChildren();
    for (const layer of [this.heat, this.outline]) layer.removeAttribute("src");
    if (!judged) return;
    this.heat.src = picture(inspection.id, "heat");
    this.outline.src = picture(inspection.id, "outline");
    this.regions(inspection);
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
