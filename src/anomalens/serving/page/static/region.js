// Mark a region of interest on a photo: by mouse, finger or numbers in per cent.

const MASK_SIDE = 512;
const EDGES = ["left", "top", "width", "height"];

export class RegionPicker {
  /** `root` holds the .roi frame with its photo, the four numbers and the two shapes. */
  constructor(root) {
    this.root = root;
    this.frame = root.querySelector(".roi");
    this.photo = this.frame.querySelector("img");
    this.area = this.frame.querySelector(".area");
    this.inputs = EDGES.map((name) => root.querySelector(`[data-edge=${name}]`));
    this.shape = root.querySelector("[data-shape]");
    this.box = null;
    this.inputs.forEach((input) => input.addEventListener("change", () => this.byNumbers()));
    this.shape.addEventListener("change", () => this.draw());
    root.querySelector("[data-clear]").addEventListener("click", () => this.set(null));
    this.frame.addEventListener("pointerdown", (event) => this.begin(event));
  }

  begin(event) {
    if (event.button) return;
    event.preventDefault();
    const [x, y] = this.place(event);
    this.frame.setPointerCapture(event.pointerId);
    const move = (later) => {
      const [toX, toY] = this.place(later);
      this.set([Math.min(x, toX), Math.min(y, toY), Math.abs(toX - x), Math.abs(toY - y)]);
    };
    const end = () => {
      this.frame.removeEventListener("pointermove", move);
      // A click marks nothing.
      if (this.box && (this.box[2] < 1 || this.box[3] < 1)) this.set(null);
    };
    this.frame.addEventListener("pointermove", move);
    this.frame.addEventListener("pointerup", end, { once: true });
    this.frame.addEventListener("pointercancel", end, { once: true });
  }

  /** Return where in the photo an event is, in per cent. */
  place({ clientX, clientY }) {
    const { left, top, width, height } = this.photo.getBoundingClientRect();
    return [(clientX - left) / width, (clientY - top) / height].map((share) => 100 * Math.min(1, Math.max(0, share)));
  }

  byNumbers() {
    const [left, top, width, height] = this.inputs.map((input) => input.valueAsNumber);
    if (![left, top, width, height].every(Number.isFinite)) return;
    const keep = (value, most) => Math.min(most, Math.max(0, value));
    const x = keep(left, 99), y = keep(top, 99);
    this.set([x, y, Math.max(1, keep(width, 100 - x)), Math.max(1, keep(height, 100 - y))]);
  }

  set(box) {
    this.box = box;
    this.inputs.forEach((input, index) => (input.value = box ? Math.round(box[index]) : ""));
    this.draw();
  }

  draw() {
    this.area.hidden = !this.box;
    this.area.classList.toggle("ellipse", this.shape.value === "ellipse");
    if (!this.box) return;
    EDGES.forEach((name, index) => (this.area.style[name] = `${this.box[index]}%`));
  }

  /** Return the region as a PNG that is white inside, null where all of the photo counts. */
  mask() {
    if (!this.box) return Promise.resolve(null);
    // Where the browser cannot show the photo, its sides count as equal: the mask is stretched over it anyway.
    const width = this.photo.naturalWidth || 1, height = this.photo.naturalHeight || 1;
    const scale = MASK_SIDE / Math.max(width, height);
    const canvas = Object.assign(document.createElement("canvas"), {
      width: Math.max(1, Math.round(width * scale)),
      height: Math.max(1, Math.round(height * scale)),
    });
    const [left, top, across, down] = this.box.map((share, index) => (share / 100) * (index % 2 ? canvas.height : canvas.width));
    const pen = canvas.getContext("2d");
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = "white";
    if (this.shape.value === "ellipse") {
      pen.beginPath();
      pen.ellipse(left + across / 2, top + down / 2, across / 2, down / 2, 0, 0, 2 * Math.PI);
      pen.fill();
    } else pen.fillRect(left, top, across, down);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }
}
