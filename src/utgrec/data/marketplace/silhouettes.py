"""What each product type looks like from the front, and where its theme's icon sits."""

from utgrec.data.marketplace.shapes import Silhouette, box, ellipse, line, polygon

SILHOUETTES: dict[str, Silhouette] = {
    "mug": Silhouette(
        (
            ellipse(56, 33, 90, 69),
            ellipse(65, 41, 82, 61, hole=True),
            box(16, 20, 70, 84, radius=10),
        ),
        (43, 53, 17),
    ),
    "teapot": Silhouette(
        (
            ellipse(2, 38, 36, 72),
            ellipse(9, 45, 29, 65, hole=True),
            polygon(66, 68, 76, 52, 86, 34, 97, 34, 90, 56, 76, 76),
            ellipse(20, 32, 80, 84),
            polygon(32, 36, 68, 36, 60, 26, 40, 26),
            ellipse(44, 15, 56, 28),
            box(34, 80, 66, 87, radius=3),
        ),
        (50, 58, 17),
    ),
    "plate": Silhouette((ellipse(8, 8, 92, 92),), (50, 50, 21)),
    "bowl": Silhouette(
        (
            ellipse(8, 0, 92, 84),
            box(0, 0, 100, 39, hole=True),
            box(5, 36, 95, 44, radius=4),
            box(34, 80, 66, 88, radius=3),
        ),
        (50, 60, 15),
    ),
    "bottle": Silhouette(
        (
            box(39, 4, 61, 15, radius=3),
            polygon(42, 12, 58, 12, 58, 26, 70, 38, 30, 38, 42, 26),
            box(28, 32, 72, 95, radius=9),
        ),
        (50, 62, 16),
    ),
    "apron": Silhouette(
        (
            line(34, 20, 38, 7, 62, 7, 66, 20, width=4),
            polygon(33, 18, 67, 18, 71, 38, 86, 46, 84, 93, 16, 93, 14, 46, 29, 38),
            line(14, 47, 3, 56, width=4),
            line(86, 47, 97, 56, width=4),
        ),
        (50, 64, 17),
    ),
    "board": Silhouette(
        (
            box(41, 3, 59, 36, radius=7),
            ellipse(46, 9, 54, 17, hole=True),
            box(18, 27, 82, 95, radius=12),
        ),
        (50, 61, 18),
    ),
    "jar": Silhouette(
        (box(28, 7, 72, 21, radius=4), box(34, 18, 66, 30), box(20, 26, 80, 94, radius=14)),
        (50, 60, 18),
    ),
    "shirt": Silhouette(
        (
            polygon(34, 14, 66, 14, 94, 32, 83, 52, 72, 45, 72, 92, 28, 92, 28, 45, 17, 52, 6, 32),
            ellipse(38, 5, 62, 24, hole=True),
        ),
        (50, 54, 16),
    ),
    "trousers": Silhouette(
        (
            box(26, 6, 74, 18, radius=3),
            polygon(26, 14, 74, 14, 82, 95, 58, 95, 50, 42, 42, 95, 18, 95),
        ),
        (50, 30, 13),
    ),
    "dress": Silhouette(
        (
            line(39, 22, 37, 6, width=5),
            line(61, 22, 63, 6, width=5),
            polygon(35, 16, 65, 16, 62, 40, 88, 93, 12, 93, 38, 40),
            ellipse(41, 8, 59, 23, hole=True),
        ),
        (50, 67, 16),
    ),
    "cap": Silhouette(
        (
            ellipse(12, 22, 76, 98),
            box(0, 64, 100, 100, hole=True),
            ellipse(44, 54, 99, 76),
            box(12, 58, 70, 67, radius=3),
            ellipse(40, 17, 49, 26),
        ),
        (43, 45, 14),
    ),
    "scarf": Silhouette(
        (
            ellipse(16, 4, 84, 52),
            ellipse(32, 12, 68, 34, hole=True),
            polygon(34, 40, 62, 40, 58, 88, 28, 88),
            polygon(52, 42, 74, 34, 84, 74, 64, 80),
            *(line(x, 86, x, 96, width=3) for x in (31, 38, 45, 52, 56)),
        ),
        (46, 62, 13),
    ),
    "sock": Silhouette(
        (
            box(34, 4, 70, 17, radius=4),
            polygon(36, 12, 68, 12, 68, 66, 60, 78, 34, 94, 20, 94, 36, 60),
            ellipse(12, 64, 48, 97),
            ellipse(36, 52, 70, 86),
        ),
        (52, 40, 13),
    ),
    "shoe": Silhouette(
        (
            polygon(8, 30, 20, 26, 30, 32, 44, 26, 54, 34, 66, 50, 84, 57, 94, 66, 94, 76, 6, 76),
            ellipse(74, 56, 98, 84),
            box(3, 74, 98, 85, radius=5),
            line(8, 74, 94, 74, width=1.6, hole=True),
            line(48, 38, 56, 34, width=2, hole=True),
            line(54, 45, 62, 41, width=2, hole=True),
            line(60, 52, 68, 48, width=2, hole=True),
        ),
        (30, 55, 14),
    ),
    "bag": Silhouette(
        (
            ellipse(28, 4, 72, 68),
            ellipse(36, 12, 64, 68, hole=True),
            polygon(14, 40, 86, 40, 94, 92, 6, 92),
        ),
        (50, 66, 18),
    ),
    "notebook": Silhouette(
        (
            box(20, 6, 84, 94, radius=6),
            *(ellipse(12, y, 28, y + 8) for y in (14, 30, 46, 62, 78)),
            *(ellipse(22, y + 2, 26, y + 6, hole=True) for y in (14, 30, 46, 62, 78)),
        ),
        (54, 50, 18),
    ),
    "pencil": Silhouette(
        (
            box(34, 2, 66, 16, radius=6),
            box(34, 18, 66, 70),
            polygon(34, 72, 66, 72, 50, 99),
        ),
        (50, 44, 13),
    ),
    "envelope": Silhouette(
        (
            box(5, 22, 95, 82, radius=4),
            line(5, 25, 50, 56, 95, 25, width=3, hole=True),
        ),
        (50, 54, 14),
    ),
    "clipboard": Silhouette(
        (
            box(16, 12, 84, 96, radius=6),
            box(30, 15, 70, 23, radius=2, hole=True),
            box(34, 5, 66, 20, radius=5),
        ),
        (50, 58, 19),
    ),
    "calendar": Silhouette(
        (
            box(9, 16, 91, 86, radius=6),
            *(box(x, 6, x + 7, 28, radius=3) for x in (22, 46, 70)),
            line(13, 33, 87, 33, width=3, hole=True),
            polygon(24, 84, 76, 84, 86, 96, 14, 96),
        ),
        (50, 58, 17),
    ),
    "penpot": Silhouette(
        (
            line(36, 40, 26, 6, width=8),
            line(50, 40, 52, 4, width=8),
            line(63, 40, 76, 10, width=8),
            polygon(22, 38, 78, 38, 73, 95, 27, 95),
        ),
        (50, 66, 16),
    ),
    "scissors": Silhouette(
        (
            polygon(28, 2, 36, 4, 60, 62, 50, 66),
            polygon(72, 2, 64, 4, 40, 62, 50, 66),
            ellipse(12, 58, 46, 97),
            ellipse(54, 58, 88, 97),
            ellipse(21, 68, 37, 89, hole=True),
            ellipse(63, 68, 79, 89, hole=True),
            ellipse(34, 40, 66, 70),
        ),
        (50, 54, 14),
    ),
    "bookmark": Silhouette(
        (
            line(50, 12, 58, 2, 68, 8, width=3),
            polygon(30, 10, 70, 10, 70, 97, 50, 82, 30, 97),
        ),
        (50, 44, 16),
    ),
    "ball": Silhouette((ellipse(7, 7, 93, 93),), (50, 50, 20)),
    "car": Silhouette(
        (
            polygon(22, 50, 34, 24, 68, 24, 82, 50),
            polygon(38, 30, 50, 30, 50, 45, 32, 45, hole=True),
            box(4, 44, 96, 76, radius=10),
            ellipse(14, 62, 38, 88),
            ellipse(62, 62, 86, 88),
            ellipse(22, 70, 30, 80, hole=True),
            ellipse(70, 70, 78, 80, hole=True),
        ),
        (51, 58, 12),
    ),
    "kite": Silhouette(
        (
            polygon(50, 3, 84, 36, 50, 82, 16, 36),
            line(50, 80, 58, 88, 50, 93, 58, 98, width=3),
            polygon(60, 84, 70, 80, 68, 92),
        ),
        (50, 38, 16),
    ),
    "robot": Silhouette(
        (
            line(50, 12, 50, 3, width=4),
            box(30, 9, 70, 36, radius=5),
            ellipse(37, 17, 46, 26, hole=True),
            ellipse(54, 17, 63, 26, hole=True),
            box(43, 34, 57, 42),
            box(22, 39, 78, 80, radius=6),
            line(16, 44, 12, 70, width=8),
            line(84, 44, 88, 70, width=8),
            box(30, 78, 44, 97, radius=3),
            box(56, 78, 70, 97, radius=3),
        ),
        (50, 59, 15),
    ),
    "blocks": Silhouette(
        (
            box(28, 6, 72, 48, radius=5),
            box(5, 51, 49, 95, radius=5),
            box(52, 51, 96, 95, radius=5),
        ),
        (50, 27, 14),
    ),
    "boat": Silhouette(
        (
            polygon(48, 4, 48, 64, 12, 64),
            polygon(54, 16, 54, 64, 84, 64),
            polygon(4, 68, 96, 68, 80, 92, 20, 92),
        ),
        (50, 62, 14),
    ),
    "top": Silhouette(
        (
            line(50, 6, 50, 28, width=9),
            ellipse(6, 22, 94, 58),
            polygon(10, 46, 90, 46, 56, 86, 50, 98, 44, 86),
        ),
        (50, 47, 15),
    ),
    "rocket": Silhouette(
        (
            polygon(34, 60, 12, 88, 34, 82),
            polygon(66, 60, 88, 88, 66, 82),
            ellipse(30, 2, 70, 100),
            box(0, 84, 100, 100, hole=True),
            polygon(40, 84, 60, 84, 54, 98, 46, 98),
        ),
        (50, 46, 14),
    ),
    "planter": Silhouette(
        (
            ellipse(22, 4, 50, 34),
            ellipse(50, 4, 78, 34),
            ellipse(36, 0, 64, 30),
            box(30, 20, 70, 34),
            box(14, 32, 86, 48, radius=3),
            polygon(20, 44, 80, 44, 71, 95, 29, 95),
        ),
        (50, 68, 16),
    ),
    "can": Silhouette(
        (
            ellipse(24, 8, 72, 62),
            ellipse(33, 17, 63, 62, hole=True),
            polygon(66, 70, 90, 26, 98, 32, 74, 86),
            polygon(84, 18, 99, 30, 95, 36, 80, 26),
            box(18, 40, 76, 92, radius=7),
        ),
        (47, 66, 16),
    ),
    "birdhouse": Silhouette(
        (
            polygon(50, 4, 94, 44, 88, 50, 12, 50, 6, 44),
            box(20, 42, 80, 92, radius=3),
            ellipse(43, 22, 57, 36, hole=True),
            line(50, 92, 50, 99, width=8),
        ),
        (50, 66, 17),
    ),
    "lantern": Silhouette(
        (
            ellipse(36, 1, 64, 26),
            ellipse(42, 7, 58, 24, hole=True),
            polygon(30, 34, 40, 18, 60, 18, 70, 34),
            box(24, 32, 76, 40, radius=2),
            box(28, 38, 72, 86),
            box(22, 84, 78, 95, radius=3),
        ),
        (50, 62, 17),
    ),
    "spade": Silhouette(
        (
            box(34, 2, 66, 12, radius=4),
            box(44, 8, 56, 46),
            polygon(24, 42, 76, 42, 76, 70, 50, 99, 24, 70),
        ),
        (50, 62, 16),
    ),
    "glove": Silhouette(
        (
            box(30, 76, 74, 95, radius=4),
            box(28, 38, 76, 80, radius=9),
            line(34, 44, 30, 18, width=10),
            line(46, 44, 45, 8, width=10),
            line(58, 44, 59, 9, width=10),
            line(69, 44, 73, 19, width=10),
            line(30, 66, 13, 46, width=11),
        ),
        (52, 60, 15),
    ),
    "bench": Silhouette(
        (
            box(10, 14, 90, 28, radius=3),
            box(10, 32, 90, 46, radius=3),
            box(4, 54, 96, 68, radius=3),
            *(box(x, 14, x + 8, 92, radius=2) for x in (14, 78)),
        ),
        (50, 38, 17),
    ),
    "barrow": Silhouette(
        (
            line(66, 42, 97, 24, width=6),
            polygon(6, 30, 76, 30, 62, 68, 26, 68),
            ellipse(8, 62, 38, 94),
            ellipse(18, 72, 28, 84, hole=True),
            line(58, 66, 70, 92, width=6),
        ),
        (43, 47, 14),
    ),
}
"""Name of each product type → how it looks."""
