// A place where photos are dropped, chosen or taken with a phone's camera.

const MOST_FOLDERS = 1000;

/** Call `take(files)` with every lot of photos that comes in at `zone`, a .drop element with its file inputs. */
export function photosFrom(zone, take) {
  for (const input of zone.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      if (input.files.length) take([...input.files]);
      input.value = "";
    });
  }
  for (const button of zone.querySelectorAll("[data-opens]")) {
    button.addEventListener("click", () => document.getElementById(button.dataset.opens).click());
  }
  // Photos may be dropped anywhere on the page: a file beside the frame would otherwise replace the page.
  let inside = 0;
  addEventListener("dragenter", () => zone.classList.toggle("over", ++inside > 0));
  addEventListener("dragleave", () => zone.classList.toggle("over", --inside > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    inside = 0;
    zone.classList.remove("over");
    const files = await filesOf(event.dataTransfer);
    if (files.length) take(files);
  });
  addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) take(files);
  });
}

/** Return the files that were dropped, those in folders too, by name. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const files = [];
  let folders = 0;
  const walk = async (entry) => {
    if (entry.isFile) files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else if (++folders <= MOST_FOLDERS) {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!some.length) break;
        for (const inner of some) await walk(inner);
      }
    }
  };
  for (const entry of entries) await walk(entry);
  return files.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
}
