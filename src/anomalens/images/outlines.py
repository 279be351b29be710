"""Trace the outline of a region along the edges of its pixels, as polygons that annotation tools read."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Polygon = list[tuple[int, int]]
"""Corners as x, y in pixels, clockwise on the screen; the last is joined to the first."""

# Steps along an edge to the right, down, left and up; each next one is a turn to the right.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def outlines(region: npt.NDArray[np.bool_]) -> tuple[list[Polygon], list[Polygon]]:
    """Return the outer outlines and the outlines of holes of what is True in `region` [H, W].

    Pixels that share a corner belong together: a connected region has one outer outline, which may touch itself.
    Filled, the outer outlines without the holes are exactly the pixels.
    """
    edges = _edges(region)
    outer: list[Polygon] = []
    holes: list[Polygon] = []
    while edges:
        corners = _loop(edges)
        (outer if _area(corners) > 0 else holes).append(corners)
    return outer, holes


def simplified(corners: Sequence[tuple[int, int]], tolerance: float) -> list[tuple[int, int]]:
    """Return the corners of a polygon that are needed to stay within `tolerance` pixels of it (Douglas and Peucker).

    At least three corners stay.
    """
    points = np.array([*corners, corners[0]], np.float64)
    # The corner farthest from the first one stays as well, so that both halves are lines with two ends.
    middle = int(np.hypot(*(points - points[0]).T).argmax())
    kept = {0, middle, len(corners)}
    open_lines = [(0, middle), (middle, len(corners))]
    while open_lines:
        first, last = open_lines.pop()
        if last - first < 2:
            continue
        across, along = points[first + 1 : last] - points[first], points[last] - points[first]
        distances = np.abs(across[:, 0] * along[1] - across[:, 1] * along[0]) / max(np.hypot(*along), 1e-9)
        farthest = first + 1 + int(distances.argmax())
        if distances.max() > tolerance or len(kept) < 4:
            kept.add(farthest)
            open_lines += [(first, farthest), (farthest, last)]
    return [corners[index] for index in sorted(kept - {len(corners)})]


def _edges(region: npt.NDArray[np.bool_]) -> dict[tuple[int, int], list[int]]:
    """Return the edges between inside and outside, which lies to their left: by their beginnings, their directions.

    The beginnings come row by row from the top, each row from the left.
    """
    inside = np.pad(region, 1).astype(np.int8)
    upright, level = np.diff(inside, axis=1), np.diff(inside, axis=0)
    begins: list[tuple[int, int, int]] = []
    # Direction of each kind of edge, where it is, and its beginning (dx, dy) beside that place; the padding counts one.
    for direction, places, dx, dy in (
        (0, level == 1, -1, 0),
        (1, upright == -1, 0, -1),
        (2, level == -1, 0, 0),
        (3, upright == 1, 0, 0),
    ):
        rows, columns = np.nonzero(places)
        begins += zip((rows + dy).tolist(), (columns + dx).tolist(), [direction] * len(rows), strict=True)
    edges: dict[tuple[int, int], list[int]] = {}
    for y, x, direction in sorted(begins):
        edges.setdefault((x, y), []).append(direction)
    return edges


def _loop(edges: dict[tuple[int, int], list[int]]) -> Polygon:
    """Take one closed line of edges out, and return the corners at which it turns."""
    # The first beginning left has no edge above it or to its left, so that only one line passes through it.
    start = place = next(iter(edges))
    direction = -1
    corners: Polygon = []
    while place in edges:
        directions = edges[place]
        # Where two pixels share only this corner the line turns left, which keeps them together.
        following = directions[0] if len(directions) == 1 else (direction - 1) % 4
        directions.remove(following)
        if not directions:
            del edges[place]
        if following != direction:
            corners.append(place)
        direction = following
        place = place[0] + _STEPS[direction][0], place[1] + _STEPS[direction][1]
        if place == start:
            break
    return corners


def _area(corners: Polygon) -> float:
    """Return twice the area of a polygon, above 0 where it is clockwise on the screen."""
    x, y = np.array(corners, np.float64).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))
