"""Kinds of fruit that the project draws: what each is made of. To add one, add an entry to KINDS.

Units: a picture spans -1..1 on both axes; x goes right, y up, z towards the camera.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """One layer of a skin: where its pattern is above level, it tints the skin and raises it by relief.

    amount: 0..1. scale: how fine. sharp: how hard the edges are.
    """

    pattern: str
    colour: str
    amount: float = 1
    scale: float = 4
    level: float = 0.5
    sharp: float = 1
    relief: float = 0


@dataclass(frozen=True)
class Paint:
    """A skin: "#rrggbb" colours from bottom to top, marks over them, shine, and how downy it is."""

    ramp: tuple[str, ...]
    marks: tuple[Mark, ...] = ()
    gloss: float = 0.2
    velvet: float = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where a part stands in its fruit: middle, turn in degrees about x, then y, then z, and size."""

    at: tuple[float, float, float] = (0, 0, 0)
    turn: tuple[float, float, float] = (0, 0, 0)
    size: float = 1


@dataclass(frozen=True)
class Solid(Part):
    """A solid of revolution about y: (radius, height) knots from bottom to top.

    bend: the curvature of its axis. ridges: how many run from pole to pole, and how deep.
    """

    profile: tuple[tuple[float, float], ...]
    paint: Paint
    bend: float = 0
    ridges: tuple[int, float] = (0, 0)


@dataclass(frozen=True)
class Berries(Part):
    """Balls in a spiral on a solid of revolution; jitter: how uneven, 0..1."""

    profile: tuple[tuple[float, float], ...]
    paint: Paint
    count: int
    radius: float
    jitter: float = 0.1


@dataclass(frozen=True)
class Leaves(Part):
    """Leaves in a spiral about y. Pairs go from the outermost leaf to the innermost.

    lift: degrees above the horizon. curl: degrees gained along the leaf. ring: distance from the axis.
    """

    paint: Paint
    count: int
    length: tuple[float, float]
    width: float
    lift: tuple[float, float]
    curl: float
    ring: tuple[float, float] = (0, 0)
    fold: float = 0.3


@dataclass(frozen=True)
class Kind:
    """A kind of fruit: its parts, how it is mounted (degrees about x, y, z) and its size."""

    parts: tuple[Part, ...]
    mount: tuple[float, float, float] = (0, 0, 0)
    size: float = 0.97


APPLE = ((0, -0.66), (0.16, -0.7), (0.34, -0.8), (0.56, -0.72), (0.8, -0.35), (0.93, 0.1), (0.86, 0.5),
         (0.62, 0.76), (0.38, 0.79), (0.18, 0.66), (0.07, 0.48), (0, 0.42))
BANANA = ((0, -1.03), (0.05, -1.02), (0.06, -0.96), (0.13, -0.82), (0.22, -0.5), (0.25, 0), (0.23, 0.4),
          (0.15, 0.68), (0.07, 0.84), (0.055, 1), (0.07, 1.08), (0, 1.1))
BARREL = ((0, -0.9), (0.2, -0.9), (0.48, -0.72), (0.66, -0.3), (0.68, 0.1), (0.58, 0.56), (0.34, 0.84),
          (0.14, 0.9), (0, 0.88))
BERRY = ((0, -0.98), (0.12, -0.95), (0.38, -0.62), (0.62, -0.15), (0.76, 0.3), (0.72, 0.62), (0.45, 0.8),
         (0.15, 0.78), (0, 0.74))
BUNCH = ((0, -0.9), (0.16, -0.72), (0.36, -0.3), (0.52, 0.15), (0.5, 0.5), (0.2, 0.62), (0, 0.62))
CITRUS = ((0, -0.9), (0.12, -0.93), (0.5, -0.8), (0.84, -0.44), (0.97, 0), (0.84, 0.44), (0.5, 0.79),
          (0.16, 0.9), (0, 0.86))
CUP = ((0, -0.9), (0.75, -0.8), (0.6, 0), (0.66, 0.6), (0.5, 0.7), (0, 0.3))
EGG = ((0, -0.95), (0.3, -0.88), (0.56, -0.62), (0.68, -0.2), (0.66, 0.2), (0.52, 0.62), (0.28, 0.88),
       (0, 0.95))
FIG = ((0, -0.7), (0.14, -0.74), (0.45, -0.68), (0.7, -0.38), (0.7, -0.05), (0.5, 0.3), (0.26, 0.56),
       (0.13, 0.78), (0.09, 0.95), (0, 0.98))
HEART = ((0, -0.84), (0.2, -0.78), (0.5, -0.45), (0.72, 0), (0.74, 0.38), (0.5, 0.66), (0.2, 0.66), (0, 0.6))
LEMON = ((0, -1), (0.1, -0.99), (0.17, -0.88), (0.4, -0.7), (0.62, -0.36), (0.69, 0), (0.62, 0.36),
         (0.4, 0.68), (0.15, 0.86), (0.09, 0.92), (0, 0.93))
PEAR = ((0, -0.82), (0.12, -0.88), (0.36, -0.88), (0.62, -0.68), (0.72, -0.36), (0.64, -0.02), (0.44, 0.3),
        (0.33, 0.58), (0.27, 0.8), (0.12, 0.92), (0, 0.9))
STALK = ((0, -1), (0.035, -1), (0.028, -0.5), (0.026, 0.3), (0.04, 0.85), (0.075, 0.97), (0.06, 1), (0, 1))
STICK = ((0, -1), (0.1, -0.98), (0.11, -0.6), (0.09, 0), (0.09, 0.6), (0.14, 0.9), (0.12, 1), (0, 1))
THIMBLE = ((0, -0.76), (0.26, -0.7), (0.5, -0.42), (0.62, 0), (0.64, 0.35), (0.52, 0.62), (0.25, 0.72),
           (0, 0.7))
TUN = ((0, -0.92), (0.3, -0.9), (0.58, -0.72), (0.72, -0.36), (0.76, 0), (0.72, 0.36), (0.58, 0.7),
       (0.3, 0.84), (0, 0.86))

WOOD = Paint(("#6b4a2a", "#7a5a34", "#4a3320"), (Mark("streaks", "#3a2616", 0.6, 8),), gloss=0.1)
GREEN_WOOD = Paint(("#8a9a3c", "#7f9a3a", "#6a5a30"))
CALYX = Paint(("#b84840", "#b04038", "#983830"), gloss=0.25)
CHERRY = Paint(("#820c19", "#96101e", "#860d1b"), (Mark("side", "#4a0410", 0.6, 0.7, 0.3),), gloss=0.95)


def make_stem(height, size, paint=WOOD):
    """Make a stem whose middle is on the axis of a fruit at this height."""
    return Solid(STICK, paint, bend=0.5, at=(0, height, 0), size=size)


def make_apple(*marks, ramp):
    """Make an apple: the marks are its own, the cavity and the stem are those of every apple."""
    top = Mark("top", "#8a7a3a", 0.7, level=0.2, sharp=5)
    bottom = Mark("bottom", "#5a4a2a", 0.8, level=0.1, sharp=8)
    body = Solid(APPLE, Paint(ramp, (*marks, top, bottom), gloss=0.5), ridges=(5, 0.012))
    return Kind((body, make_stem(0.66, 0.3)))


def make_grapes(*ramp):
    """Make a bunch of grapes, in bloom here and there, round a core that no light comes through."""
    skin = Paint(ramp, (Mark("clouds", "#c0c0d4", 0.18, 5, 0.3, 0.5),), gloss=0.65, velvet=0.25)
    grapes = Berries(BUNCH, skin, count=46, radius=0.22)
    return Kind((Solid(BUNCH, Paint(ramp[:1] * 2)), grapes, make_stem(0.85, 0.28, GREEN_WOOD)), size=0.93)


KINDS = {
    "Apple Golden 1": make_apple(
        Mark("side", "#e08a3a", 0.5, 0.8), Mark("clouds", "#c8b23a", 0.5, 6),
        Mark("specks", "#8a6a2a", 0.6, 8, 0.16, 2),
        ramp=("#d9b93c", "#e2c54a", "#cfc24a"),
    ),
    "Apple Granny Smith": make_apple(
        Mark("clouds", "#a5cc50", 0.5, 5), Mark("specks", "#dcecaa", 0.8, 8, 0.18, 2),
        ramp=("#7fae2c", "#86b834", "#7cb02c"),
    ),
    "Apple Red 1": make_apple(
        Mark("streaks", "#dc5040", 0.55, 24, 0.5, 0.6), Mark("side", "#5e0a18", 0.55, 0.7, 0.3),
        Mark("specks", "#e0a080", 0.6, 9, 0.2, 2),
        ramp=("#8e1420", "#a5121e", "#9a1a1e"),
    ),
    "Avocado": Kind((Solid(PEAR, Paint(("#2e3a1c", "#34421e", "#3c4a22"), (
        Mark("specks", "#5a6a34", 0.5, 13, 0.42, relief=0.03), Mark("clouds", "#22261a", 0.7, 8, relief=0.02),
    ), gloss=0.4)), make_stem(0.93, 0.08))),
    "Banana": Kind((Solid(BANANA, Paint(
        ("#4a3c1c", "#dcb92e", "#ecc936", "#f0cf3a", "#efcd3a", "#e4c83c", "#b0a838", "#6a5a28"), (
            Mark("streaks", "#b98a1e", 0.3, 8, 0.8), Mark("clouds", "#6a3a12", 0.75, 26, 1.6, 2.5),
            Mark("clouds", "#c8b040", 0.5, 4, 0.8),
        )), bend=0.95, ridges=(5, 0.045), at=(-0.24, 0, 0)),), mount=(0, 0, -38)),
    "Cherimoya": Kind((
        Solid(HEART, Paint(("#4a6a2a", "#4a6a2a")), size=0.96),
        Berries(HEART, Paint(("#8aa858", "#8fae5c", "#9ab868"), (Mark("clouds", "#5a6a30", 0.5, 4, 0.6),)),
                count=90, radius=0.2, jitter=0.06),
        make_stem(0.75, 0.25),
    ), size=0.9),
    "Cherry": Kind((
        Solid(APPLE, CHERRY, size=0.5, at=(-0.4, -0.55, 0)),
        Solid(APPLE, CHERRY, size=0.5, at=(0.42, -0.48, 0.1)),
        Solid(STALK, GREEN_WOOD, bend=0.5, at=(-0.3, 0.3, 0), turn=(0, 0, -20), size=0.72),
        Solid(STALK, GREEN_WOOD, bend=0.6, at=(0.33, 0.32, 0.05), turn=(0, 180, 20), size=0.7),
    ), size=0.92),
    "Fig": Kind((Solid(FIG, Paint(("#42223e", "#482640", "#523244", "#625244", "#8a9450"), (
        Mark("streaks", "#886674", 0.5, 9, 0.5, 0.35, 0.01), Mark("specks", "#a08a8a", 0.7, 12, 0.2, 2),
        Mark("bottom", "#8a4038", 0.9, level=0.1, sharp=9, relief=-0.04),
    ), velvet=0.2), ridges=(7, 0.02)),), mount=(0, 0, 20)),
    "Grape Blue": make_grapes("#2a2048", "#352a58", "#4a3c70"),
    "Grape White": make_grapes("#a4b444", "#b8c858", "#ccd470"),
    "Kiwi": Kind((Solid(BARREL, Paint(("#645230", "#7a6438", "#6c5832"), (
        Mark("clouds", "#54462a", 0.6, 5, 0.3, 0.4), Mark("streaks", "#9c8a58", 0.25, 70, 0.4, 0.5, 0.006),
        Mark("clouds", "#a89868", 0.35, 110, 0.6, 0.6, 0.012),
        Mark("top", "#3a2814", 1, level=0.13, sharp=9, relief=0.06),
        Mark("bottom", "#3e2a16", 0.9, level=0.08, sharp=12),
    ), gloss=0.05, velvet=0.9)),), mount=(0, 0, 60)),
    "Lemon": Kind((Solid(LEMON, Paint(("#e8c21c", "#f4d728", "#f4d528", "#ecd030", "#b8b83a"), (
        Mark("specks", "#c79c10", 0.35, 17, 0.42, relief=-0.012), Mark("clouds", "#f8e468", 0.4),
    ), gloss=0.4)),), mount=(0, 0, 62)),
    "Lime": Kind((Solid(LEMON, Paint(("#6f9a22", "#4f8a1e", "#4a861e", "#4f8a1e", "#8a9a3a"), (
        Mark("specks", "#2e6410", 0.4, 17, 0.42, relief=-0.012), Mark("clouds", "#86b03a", 0.5, 4, 0.8),
    ), gloss=0.45)),), mount=(0, 0, 62), size=0.9),
    "Mango": Kind((Solid(EGG, Paint(("#eaa030", "#eaa62e", "#dca634", "#8a9c3c"), (
        Mark("clouds", "#8a9c3c", 0.45, 3, 0.7, 0.4), Mark("side", "#c8382c", 0.85, 0.9, 0.25, 0.6),
        Mark("specks", "#f4dc90", 0.6, 12, 0.16, 2),
    ), gloss=0.4), bend=0.35), make_stem(0.93, 0.08)), mount=(0, 0, 50)),
    "Orange": Kind((Solid(CITRUS, Paint(("#ee7a10", "#f5860f", "#f28410"), (
        Mark("specks", "#c95a06", 0.4, 17, 0.42, relief=-0.014), Mark("clouds", "#f9a02c", 0.4),
        Mark("top", "#6a7a2a", 1, level=0.09, sharp=14, relief=0.02),
    ), gloss=0.42)),)),
    "Peach": Kind((Solid(CITRUS, Paint(("#f0a858", "#f4b868", "#f0b05e"), (
        Mark("side", "#c8303a", 0.85, 0.9, 0.15, 0.7), Mark("clouds", "#d8503e", 0.45, 5, 0.6, 0.5),
        Mark("seam", "#b83a30", 0.5, 10, relief=-0.06),
        Mark("top", "#b0582c", 0.8, level=0.16, sharp=4, relief=-0.08),
    ), gloss=0.06, velvet=0.5)),)),
    "Pear": Kind((Solid(PEAR, Paint(("#b9b43a", "#c9c448", "#bcc048", "#a8b040"), (
        Mark("side", "#c8703a", 0.5, 0.9), Mark("specks", "#7a6a24", 0.7, 12, 0.2, 2),
        Mark("clouds", "#9a7a34", 0.5, 7, 1.2, 0.6), Mark("bottom", "#4a3a1a", 0.9, level=0.08, sharp=10),
        Mark("top", "#8a6a30", 0.6, level=0.2, sharp=5),
    ), gloss=0.3), at=(0, -0.13, 0)), make_stem(0.86, 0.2)), size=0.95),
    "Pineapple": Kind((
        Solid(TUN, Paint(("#8a5a20", "#8a5e22", "#7a6428", "#6a6a2c"), (
            Mark("eyes", "#d89a34", 0.9, 12, 0.21, 3, 0.12), Mark("clouds", "#7a7a2a", 0.5, 6, 0.4, 0.6),
            Mark("seeds", "#6a4a1e", 0.8, 12, 0.21, 0.9, 0.05),
            Mark("seeds", "#e8cc80", 0.8, 12, 0.21, 3, 0.03),
        ), gloss=0.25), size=0.72, at=(0, -0.32, 0)),
        Leaves(Paint(("#a8b870", "#5a8a4a", "#3f7a44", "#6a8a4c"), gloss=0.3), count=42, length=(0.52, 0.7),
               width=0.075, lift=(10, 88), curl=16, ring=(0.2, 0.02), at=(0, 0.26, 0)),
    ), size=0.93),
    "Plum": Kind((Solid(EGG, Paint(("#3a1a4a", "#42204e", "#4a2450"), (
        Mark("clouds", "#8a80b0", 0.5, 5, 0.4, 0.6), Mark("side", "#7a2040", 0.5, 0.9),
        Mark("seam", "#2a1038", 0.7, 12, relief=-0.03),
    ), gloss=0.3, velvet=0.15)), make_stem(0.98, 0.14)), mount=(0, 0, 25), size=0.92),
    "Pomegranate": Kind((
        Solid(CITRUS, Paint(("#d89a68", "#c85850", "#b83c40"), (
            Mark("clouds", "#dc8a50", 0.6, 4, 0.6, 0.45), Mark("side", "#7a1020", 0.6, 0.7, 0.4, 0.8),
            Mark("specks", "#5a2418", 0.6, 9, 0.2, 2), Mark("clouds", "#983838", 0.4, 14, 0.6, 0.6),
        ), gloss=0.35), ridges=(6, 0.025), size=0.88, at=(0, -0.17, 0)),
        Solid(CUP, CALYX, ridges=(6, 0.05), size=0.3, at=(0, 0.66, 0)),
        Leaves(CALYX, count=6, length=(0.28, 0.28), width=0.12, lift=(72, 80), curl=-16, ring=(0.18, 0.18),
               fold=0.1, at=(0, 0.72, 0)),
    )),
    "Raspberry": Kind((
        Solid(THIMBLE, Paint(("#8a0c24", "#8a0c24")), at=(0, -0.1, 0)),
        Berries(THIMBLE, Paint(("#a81030", "#c41e3e", "#d03450"), (Mark("clouds", "#e06078", 0.4, 9),),
                               gloss=0.5, velvet=0.35), count=72, radius=0.165, jitter=0.05, at=(0, -0.1, 0)),
        Leaves(Paint(("#9abc58", "#7aa848", "#5a8a34")), count=6, length=(0.62, 0.55), width=0.13,
               lift=(14, 22), curl=-20, at=(0, 0.7, 0)),
        make_stem(0.85, 0.2, GREEN_WOOD),
    )),
    "Strawberry": Kind((
        Solid(BERRY, Paint(("#b80f16", "#d01820", "#d81e22", "#e05030"), (
            Mark("seeds", "#98060e", 0.9, 15, 0.32, 0.8, -0.06),
            Mark("seeds", "#e8c860", 1, 15, 0.32, 3, 0.03), Mark("clouds", "#f04030", 0.5),
        ), gloss=0.65), at=(0, -0.1, 0)),
        Leaves(Paint(("#7fae3a", "#5a9a2c", "#3f7f22")), count=12, length=(0.72, 0.5), width=0.17,
               lift=(2, 40), curl=-36, ring=(0.06, 0.03), at=(0, 0.72, 0)),
        make_stem(0.82, 0.2, GREEN_WOOD),
    ), size=0.95),
    "Watermelon": Kind((Solid(CITRUS, Paint(("#9ab85a", "#8fb050", "#93b454"), (
        Mark("stripes", "#1e4a1c", 0.95, 10, 0.25, 1.6), Mark("clouds", "#2e6a26", 0.35, 16),
        Mark("top", "#b8b070", 0.8, level=0.08, sharp=10),
    ), gloss=0.4)),), mount=(0, 0, 70)),
}  # fmt: skip
