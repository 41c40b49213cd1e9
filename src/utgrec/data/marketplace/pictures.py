"""Draw an item: its product's outline in its colour and pattern, its material's feel, its theme.

Everything is put together from a few masks that are drawn once per size and kept, so that a
picture costs a few milliseconds. Pictures are RGB.

Shapes: S pixels of the canvas, twice the picture's size: the final halving smooths all edges.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from utgrec.data.marketplace.icons import ICONS
from utgrec.data.marketplace.shapes import Stroke
from utgrec.data.marketplace.silhouettes import SILHOUETTES

Mask = npt.NDArray[np.float32]
"""(S, S), from 0 to 1, or a brightness around 1."""

_CANVAS = 2  # pictures are put together at twice their size
_OVERSAMPLING = 3  # and masks drawn larger still
_MARGIN = 0.11  # share of the canvas that stays free around the board
_PAPER = np.array([250.0, 248.0, 243.0], dtype=np.float32)
_BADGE = np.array([255.0, 252.0, 244.0], dtype=np.float32)

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (206, 54, 58),
    "orange": (240, 134, 40),
    "yellow": (246, 205, 64),
    "green": (84, 164, 80),
    "teal": (30, 152, 150),
    "blue": (58, 104, 196),
    "purple": (130, 78, 176),
    "pink": (240, 138, 176),
    "brown": (134, 90, 60),
    "grey": (138, 144, 152),
}
"""Colour → its RGB value, 0 to 255."""


class Pose(NamedTuple):
    """How a product lies before the camera; the only thing that two equal items differ in."""

    angle: float = 0.0  # degrees
    scale: float = 1.0  # of the usual size
    shift: tuple[float, float] = (0.0, 0.0)  # share of the picture's width and height
    light: float = 1.0  # brightness of the room


def draw_pose(rng: np.random.Generator) -> Pose:
    """A slightly different view for every item."""
    return Pose(
        angle=float(rng.uniform(-7, 7)),
        scale=float(rng.uniform(0.9, 1.02)),
        shift=(float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.03))),
        light=float(rng.uniform(0.96, 1.03)),
    )


def draw_picture(product: str, style: dict[str, str], pose: Pose, size: int) -> Image.Image:
    """The picture of one item, size × size pixels, RGB.

    Args:
        product: Name of the product type.
        style: Kind of style → value; colour, pattern, material and theme are shown.
        pose: How the product lies.
        size: Width and height of the picture (pixels).
    """
    canvas = size * _CANVAS
    colour = np.array(COLOURS[style["colour"]], dtype=np.float32)
    outline = _silhouette(product, canvas)  # (S, S)
    pattern = _pattern(style["pattern"], canvas)[..., None]
    second = colour + (255.0 - colour) * 0.62  # the pattern is a pale tone of the same colour
    body = colour + (second - colour) * pattern  # (S, S, 3)
    body = body * _texture(style["material"], canvas)[..., None] * _shading(canvas)[..., None]
    rim = np.clip(_grown(product, canvas) - outline, 0.0, 1.0)[..., None]
    body = body * (1.0 - rim) + colour * 0.45 * rim
    disc, icon = _badge(product, style["theme"], canvas)
    body += (_BADGE - body) * disc[..., None]
    body += (colour * 0.4 - body) * icon[..., None]
    cover = np.maximum(_grown(product, canvas), disc)
    layer = np.dstack([body, cover * 255.0]).clip(0.0, 255.0).astype(np.uint8)  # (S, S, 4)
    product_layer = _posed(Image.fromarray(layer), pose, canvas)
    room = _room(canvas) * pose.light
    picture = Image.fromarray(room.clip(0.0, 255.0).astype(np.uint8))
    picture.paste(product_layer, mask=product_layer.getchannel("A"))
    return picture.reduce(_CANVAS)


def _posed(layer: Image.Image, pose: Pose, canvas: int) -> Image.Image:
    """Turn, scale and shift a layer around its centre."""
    angle = math.radians(pose.angle)
    cosine, sine = math.cos(angle) / pose.scale, math.sin(angle) / pose.scale
    middle = canvas / 2
    x, y = (middle + share * canvas for share in pose.shift)
    affine = (
        *(cosine, sine, middle - cosine * x - sine * y),
        *(-sine, cosine, middle + sine * x - cosine * y),
    )
    return layer.transform(
        (canvas, canvas), Image.Transform.AFFINE, affine, resample=Image.Resampling.BILINEAR
    )


@functools.lru_cache(maxsize=256)
def _silhouette(product: str, canvas: int) -> Mask:
    return _mask(SILHOUETTES[product].strokes, canvas)


@functools.lru_cache(maxsize=256)
def _grown(product: str, canvas: int) -> Mask:
    """The outline with a thin rim around it."""
    outline = Image.fromarray((_silhouette(product, canvas) * 255.0).astype(np.uint8))
    blurred = outline.filter(ImageFilter.GaussianBlur(canvas * 0.009))
    grown: Mask = np.asarray(blurred, dtype=np.float32) / 255.0
    return (grown * 6.0 - 0.3).clip(0.0, 1.0)


@functools.lru_cache(maxsize=1024)
def _badge(product: str, theme: str, canvas: int) -> tuple[Mask, Mask]:
    """The light disc at a product's place for it, and the icon on the disc."""
    x, y, radius = SILHOUETTES[product].badge
    disc = _mask((Stroke("ellipse", (x - radius, y - radius, x + radius, y + radius)),), canvas)
    ratio = radius * 0.72 / 50  # an icon's board of 100 on the disc
    strokes = tuple(
        stroke._replace(
            points=tuple(
                (x, y)[place % 2] + (value - 50) * ratio
                for place, value in enumerate(stroke.points)
            ),
            size=stroke.size * ratio,
        )
        for stroke in ICONS[theme]
    )
    return disc, _mask(strokes, canvas)


def _mask(strokes: tuple[Stroke, ...], canvas: int) -> Mask:
    """Strokes on the 100 × 100 board as an (S, S) mask with a margin around the board."""
    side = canvas * _OVERSAMPLING
    unit = side * (1.0 - 2.0 * _MARGIN) / 100.0
    board = Image.new("L", (side, side))
    pen = ImageDraw.Draw(board)
    for stroke in strokes:
        points = [_MARGIN * side + unit * value for value in stroke.points]
        ink = 0 if stroke.hole else 255
        size = max(stroke.size * unit, 1.0)
        if stroke.shape == "line":
            _thick_line(pen, points, size, ink)
        elif stroke.shape == "polygon":
            pen.polygon(points, fill=ink)
        elif stroke.shape == "ellipse":
            pen.ellipse(points, fill=ink)
        else:
            pen.rounded_rectangle(points, radius=stroke.size * unit, fill=ink)
    mask: Mask = np.asarray(board.reduce(_OVERSAMPLING), dtype=np.float32) / 255.0
    return mask


def _thick_line(pen: ImageDraw.ImageDraw, points: list[float], width: float, ink: int) -> None:
    pen.line(points, fill=ink, width=max(round(width), 1), joint="curve")
    for x, y in zip(points[::2], points[1::2], strict=True):
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=ink)


@functools.lru_cache(maxsize=64)
def _grid(canvas: int) -> tuple[Mask, Mask]:
    """x and y of every pixel, 0 to 1."""
    axis = (np.arange(canvas, dtype=np.float32) + 0.5) / canvas
    return np.tile(axis, (canvas, 1)), np.repeat(axis[:, None], canvas, axis=1)


@functools.lru_cache(maxsize=64)
def _pattern(name: str, canvas: int) -> Mask:
    """Where the second tone of a pattern shows, about ten repeats over the picture."""
    x, y = _grid(canvas)
    period = 0.1
    across, down = (x / period) % 1.0 - 0.5, (y / period) % 1.0 - 0.5
    edge = period * canvas / 2  # makes the step of a pattern's edge about one pixel wide
    if name == "plain":
        return np.zeros_like(x)
    if name == "stripes":
        inside = 0.25 - np.abs(across)
    elif name == "dots":
        odd = np.floor(y / period) % 2 * 0.5
        inside = 0.3 - np.hypot((x / period + odd) % 1.0 - 0.5, down)
    elif name == "checks":
        inside = (0.25 - np.abs(across)) * (0.25 - np.abs(down)) * 4.0
    elif name == "zigzag":
        inside = 0.22 - np.abs((y / period + np.abs(across)) % 1.0 - 0.5)
    else:
        inside = np.minimum(down + 0.38, 0.5 - 1.1 * np.abs(across) - 0.55 * (down + 0.5))
    mask: Mask = (inside * edge + 0.5).clip(0.0, 1.0).astype(np.float32)
    return mask


@functools.lru_cache(maxsize=64)
def _texture(material: str, canvas: int) -> Mask:
    """Brightness of a material's surface, around 1."""
    x, y = _grid(canvas)
    grain = np.random.default_rng(0).standard_normal((canvas // 4, canvas // 4)).astype(np.float32)
    rough = np.kron(grain, np.ones((4, 4), dtype=np.float32))  # spots of two final pixels
    rough = np.pad(rough, (0, canvas - len(rough)), mode="edge")
    tau = 2.0 * math.pi
    if material == "wood":
        shine = 0.1 * np.sin(tau * (9.0 * y + 0.8 * np.sin(tau * 0.9 * x) + 0.3 * x))
    elif material == "bamboo":
        shine = 0.07 * np.cos(tau * 7.0 * x) - 0.25 * (np.abs((y * 3.0) % 1.0 - 0.5) < 0.03)
    elif material == "metal":
        shine = 0.22 * np.sin(tau * 1.6 * (x + 0.6 * y)) ** 3
    elif material == "glass":
        shine = 0.28 * (np.abs(x + 0.5 * y - 0.62) < 0.05) + 0.1 + 0.15 * (y - 0.5)
    elif material == "ceramic":
        shine = 0.35 * np.exp(-(((x - 0.34) / 0.09) ** 2 + ((y - 0.36) / 0.16) ** 2))
    elif material == "cotton":
        shine = 0.05 * np.sin(tau * canvas / 8 * x) * np.sin(tau * canvas / 8 * y)
    elif material == "wool":
        shine = 0.1 * np.sin(tau * (20.0 * y + 0.7 * np.abs((x * 20.0) % 1.0 - 0.5)))
    elif material == "leather":
        shine = 0.07 * rough - 0.04
    else:
        shine = 0.03 * rough + 0.06 * (np.abs((x + y) % 0.5 - 0.25) < 0.006)
    return np.asarray(1.0 + shine, dtype=np.float32)


@functools.lru_cache(maxsize=8)
def _shading(canvas: int) -> Mask:
    """Light from the upper left."""
    x, y = _grid(canvas)
    return np.asarray(1.1 - 0.1 * x - 0.14 * y, dtype=np.float32)


@functools.lru_cache(maxsize=8)
def _room(canvas: int) -> Mask:
    """A pale wall and a table with a soft shadow under the product. Shapes: → (S, S, 3)."""
    x, y = _grid(canvas)
    light = 1.0 - 0.05 * y - 0.05 * (y > 0.86)
    shadow = np.exp(-(((x - 0.5) / 0.3) ** 2 + ((y - 0.9) / 0.035) ** 2))
    room: Mask = (light - 0.22 * shadow)[..., None].astype(np.float32) * _PAPER
    return room
