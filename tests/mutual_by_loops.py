"""Mutual scoring as its definition reads, by loops."""

import numpy as np


def written_out(images: list[list[np.ndarray]], windows: tuple[int, ...], share: float) -> list[np.ndarray]:
    """Compute the definition by loops: zeros padded, windows divided by their full size, as in the public code."""
    count, kept = len(images), max(1, int(share * (len(images) - 1)))
    totals: list[np.ndarray] = [np.zeros(())] * count
    for level in range(len(images[0])):
        for r in windows:
            z = []
            for image in images:
                x = image[level].astype(np.float64)
                x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
                h, w, _ = x.shape
                padded = np.pad(x, ((r // 2, r // 2), (r // 2, r // 2), (0, 0)))
                rows = [padded[i : i + r, j : j + r].mean((0, 1)) for i in range(h) for j in range(w)]
                z.append([row / np.linalg.norm(row) for row in rows])
            for i in range(count):
                closest = []
                for patch in z[i]:
                    a = [min(np.linalg.norm(patch - other) for other in z[j]) for j in range(count) if j != i]
                    closest.append(np.mean(sorted(a)[:kept]))
                totals[i] = totals[i] + np.array(closest)
    passes = len(images[0]) * len(windows)
    return [(total / passes).reshape(image[0].shape[:2]) for total, image in zip(totals, images, strict=True)]
