"""The drawing language of outlines and icons, on a 100 × 100 board.

An outline is a few strokes, drawn one over the other into a black-and-white mask: a polygon, an
ellipse, a box with round corners, a thick line, or the same as a hole.
"""

from typing import NamedTuple


class Stroke(NamedTuple):
    """One primitive of an outline."""

    shape: str  # polygon, ellipse, box, line
    points: tuple[float, ...]  # x0, y0, x1, y1, …
    size: float = 0.0  # radius of a box's corners, or width of a line
    hole: bool = False  # cuts out instead of filling


class Silhouette(NamedTuple):
    """What a product looks like from the front."""

    strokes: tuple[Stroke, ...]
    badge: tuple[float, float, float]  # centre and radius of the place for the theme's icon


def polygon(*points: float, hole: bool = False) -> Stroke:
    """A filled polygon through the points x0, y0, x1, y1, …"""
    return Stroke("polygon", points, hole=hole)


def ellipse(*corners: float, hole: bool = False) -> Stroke:
    """A filled ellipse in the rectangle x0, y0, x1, y1."""
    return Stroke("ellipse", corners, hole=hole)


def box(*corners: float, radius: float = 0.0, hole: bool = False) -> Stroke:
    """A filled rectangle x0, y0, x1, y1 with round corners."""
    return Stroke("box", corners, radius, hole)


def line(*points: float, width: float, hole: bool = False) -> Stroke:
    """A thick line with round joints and ends."""
    return Stroke("line", points, width, hole)
