"""The icon of each theme."""

import math

from utgrec.data.marketplace.shapes import Stroke, ellipse, line, polygon

ICONS: dict[str, tuple[Stroke, ...]] = {
    "star": (
        polygon(
            *(
                50 + radius * trig(math.pi * corner / 5)
                for corner in range(10)
                for radius in ((48, 20)[corner % 2],)
                for trig in (math.sin, lambda angle: -math.cos(angle))
            )
        ),
    ),
    "leaf": (
        polygon(50, 2, 68, 18, 78, 40, 74, 62, 50, 80, 26, 62, 22, 40, 32, 18),
        line(50, 70, 50, 98, width=8),
        line(50, 30, 50, 74, width=5, hole=True),
        line(38, 42, 50, 54, 62, 42, width=4, hole=True),
    ),
    "heart": (
        ellipse(6, 10, 53, 57),
        ellipse(47, 10, 94, 57),
        polygon(12, 48, 50, 24, 88, 48, 50, 96),
    ),
    "wave": tuple(
        line(
            *(
                value
                for x in range(2, 99, 4)
                for value in (x, height + 9 * math.sin(x / 100 * 4 * math.pi))
            ),
            width=10,
        )
        for height in (26, 50, 74)
    ),
    "moon": (ellipse(8, 6, 94, 94), ellipse(36, -2, 112, 76, hole=True)),
    "mountain": (
        polygon(0, 88, 36, 18, 58, 58, 68, 42, 100, 88),
        polygon(36, 18, 26, 40, 34, 36, 39, 44, 46, 38, hole=True),
        ellipse(70, 8, 90, 28),
    ),
    "flower": (
        *(
            ellipse(
                *(
                    50 + 29 * trig(math.pi * 2 * petal / 6) + side
                    for side in (-19, 19)
                    for trig in (math.sin, math.cos)
                )
            )
            for petal in range(6)
        ),
        ellipse(38, 38, 62, 62, hole=True),
    ),
    "fish": (
        ellipse(2, 24, 76, 76),
        polygon(64, 50, 98, 22, 90, 50, 98, 78),
        ellipse(16, 38, 26, 48, hole=True),
        line(42, 36, 48, 50, 42, 64, width=5, hole=True),
    ),
}
"""Theme → its icon."""
