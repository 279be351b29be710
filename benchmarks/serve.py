"""Load a service on the loopback interface: nothing lost or doubled, speed against the detector alone, flat memory.

    python benchmarks/serve.py                          200 images from 8 clients
    python benchmarks/serve.py --flat 2000              and memory over 2,000 requests

Starts `anomalens serve` as a process of its own, with the bundled detector. The detector alone (`predict_iter` over the
same files) runs in a process of its own too, before and after, so that ratios are of one run. Prints a table and exits
with 1 where an inspection is lost, doubled or without pictures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from measure import machine

_ALONE = """
import sys, time
from pathlib import Path
from anomalens import load_detector
paths = sorted(Path(sys.argv[1]).iterdir())
detector = load_detector()
list(detector.predict_iter(paths[:8]))
begin = time.perf_counter()
assert len(list(detector.predict_iter(paths))) == len(paths)
print(time.perf_counter() - begin)
begin = time.perf_counter()
for path in paths[:20]:
    detector.predict(path)
print((time.perf_counter() - begin) / 20)
"""


def draw_photos(folder: Path, count: int) -> list[Path]:
    """Write `count` different photographs of 512 x 512 pixels as JPEG files; return their paths."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = random.integers(0, 255, (16, 16, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC)
        noise = random.integers(0, 30, (512, 512, 3), np.uint8)
        path = folder / f"{number:04d}.jpg"
        Image.fromarray((np.asarray(picture) // 2 + noise).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


def alone(folder: Path) -> tuple[float, float]:
    """Return the seconds of `predict_iter` over a folder, and those of one `predict`, in a process of their own."""
    output = subprocess.run([sys.executable, "-c", _ALONE, str(folder)], check=True, capture_output=True, text=True)
    total, single = map(float, output.stdout.split())
    return total, single


class Running:
    """Hold a service that runs in a folder."""

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until it has judged an image."""
        command = [sys.executable, "-m", "anomalens", "--quiet", "serve", "--port", "0", "--json"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += self.process.stdout.readline()
        self.route = json.loads(text)["address"] + "/api/v1/inspections"

    def memory(self) -> float:
        """Return the megabytes that the process holds now."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def close(self) -> None:
        """Stop it in order."""
        self.process.terminate()
        self.process.wait(120)


def load(service: Running, paths: Sequence[Path], clients: int) -> tuple[list[str], list[float], float]:
    """Send every file once from several clients; return the ids, the seconds of each request, and of all."""

    def send(client: httpx.Client, path: Path) -> tuple[str, float]:
        begin = time.perf_counter()
        while True:
            response = client.post(service.route, params={"name": path.name}, content=path.read_bytes())
            if response.status_code != 503:
                break
            time.sleep(float(response.headers["retry-after"]))
        assert response.status_code == 200, response.text
        return response.json()["inspections"][0]["id"], time.perf_counter() - begin

    with httpx.Client(timeout=120) as client, ThreadPoolExecutor(clients) as pool:
        begin = time.perf_counter()
        answers = list(pool.map(lambda path: send(client, path), paths))
        seconds = time.perf_counter() - begin
    return [id for id, _ in answers], [time_each for _, time_each in answers], seconds


def stored(service: Running) -> list[dict[str, object]]:
    """Return every inspection that the service has."""
    rows: list[dict[str, object]] = []
    cursor: dict[str, str] = {}
    while True:
        page = httpx.get(service.route, params={"limit": "500"} | cursor, timeout=60).json()
        rows += page["inspections"]
        if page["next"] is None:
            return rows
        cursor = {"cursor": page["next"]}


def main() -> int:
    """Measure; return 1 where anything is lost, doubled or without pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--flat", type=int, default=0, help="also watch the memory over this many requests")
    asked = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as place:
        photos = Path(place) / "photos"
        photos.mkdir()
        paths = draw_photos(photos, asked.images)
        before, single = alone(photos)
        service = Running(Path(place))
        try:
            load(service, paths[:8], 2)
            ids, times, seconds = load(service, paths, asked.clients)
            memory = [service.memory()]
            for begin in range(0, asked.flat, 200):
                ids += load(
                    service, [paths[number % len(paths)] for number in range(begin, begin + 200)], asked.clients
                )[0]
                memory.append(service.memory())
            rows = stored(service)
            kept = {row["id"] for row in rows}
            whole = len(kept) == len(rows) == len(ids) + 8 and kept >= set(ids)
            whole = whole and all(row["state"] == "done" for row in rows)
        finally:
            service.close()
        after, _ = alone(photos)
    fastest = min(before, after)
    print(f"| images, clients | {asked.images}, {asked.clients} |\n|---|---|")
    print(f"| lost, doubled or unanswered | {'none' if whole else 'some'} |")
    print(
        f"| throughput against predict_iter | {100 * fastest / seconds:.0f} % ({asked.images / seconds:.1f} a second) |"
    )
    for share in (50, 95):
        value = float(np.percentile(times, share))
        print(f"| p{share} of a request against one predict | {value / single:.2f}x ({1000 * value:.0f} ms) |")
    print(f"| memory after each 200 requests, MB | {', '.join(f'{value:.0f}' for value in memory)} |")
    return int(not whole)


if __name__ == "__main__":
    sys.exit(main())
