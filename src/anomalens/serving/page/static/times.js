// Times: the service writes them in UTC, a page shows them in the zone of its browser.

const two = (number) => String(number).padStart(2, "0");
const dayOf = (time) => `${String(time.getFullYear()).padStart(4, "0")}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;

/** Show times below an element as clocks on the wall do; the words in UTC stay as a tooltip. */
export function localTimes(place) {
  for (const shown of place.querySelectorAll("time[datetime], [data-time]")) {
    const time = new Date(shown.dataset.time ?? shown.dateTime);
    shown.title = shown.textContent;
    shown.textContent = `${dayOf(time)} ${two(time.getHours())}:${two(time.getMinutes())}`;
  }
}

localTimes(document);

// A form asks for days as the browser counts them, and sends the moments at which they begin and end.
for (const day of document.querySelectorAll("input[data-bound]")) {
  const last = day.name === "until";
  const name = day.labels[0].firstChild;
  name.data = name.data.replace(", UTC", "");
  // The last moment that counts lies before the end.
  if (day.value) day.value = dayOf(new Date(Date.parse(day.dataset.bound) - (last ? 1 : 0)));
  day.form.addEventListener("formdata", ({ formData }) => {
    if (!day.value) return;
    const moment = new Date(`${day.value}T00:00`);
    if (last) moment.setDate(moment.getDate() + 1);
    formData.set(day.name, moment.toISOString());
  });
}
