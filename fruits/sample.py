"""A sample of fruit pictures in the layout of Fruits-360, drawn with NumPy and Pillow only.

Each fruit is a small scene in three dimensions: solids of revolution, clusters of berries, leaves. Rays
find the surface, a skin fixed to the solid colours it, one light shades it: the fruit turns before the
camera as on the motor of Fruits-360. What each kind is made of stands in kinds.py.

Units: a picture spans -1..1 on both axes; x goes right, y up, z towards the camera. Colours are linear light.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import zlib
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fruits.kinds import KINDS, Berries, Leaves, Solid

PICTURE_SIZE = 100  # pixels, as in Fruits-360
FINENESS = 2  # fine pixels along one pixel, so that edges are smooth
FINE_SIZE = PICTURE_SIZE * FINENESS
JPEG_OPTIONS = {"quality": 90, "subsampling": 0, "optimize": True}
PICTURES_PER_INDIVIDUAL = 6
DEGREES_PER_STEP = 30
CAMERA_ELEVATION = 18  # degrees
BLOCK = 4  # fine pixels along the side of a block, which one broad ray scouts
TRACE_STEPS, TOUCH = 15, 0.008
TABLE_REACH, TABLE_CELLS = 1.3, 96
NOISE_CELLS = 128  # a power of two
GOLDEN_ANGLE = np.pi * (3 - 5**0.5)
FAR = -9.0
DEPTH, NORMAL, COLOUR, RELIEF, GLOSS, VELVET, ROWS = 0, slice(1, 4), slice(4, 7), 7, 8, 9, 10
# An orthonormal frame askew to the axes, in which a grid of cells shows no rows.
ASKEW = np.array([[0.8, 0.6, 0], [-0.48, 0.64, 0.6], [0.36, -0.48, 0.8]], np.float32)


@dataclass(frozen=True)
class Individual:
    """What makes one fruit differ from the next of its kind; moods weaken or strengthen its marks."""

    stretch: np.ndarray
    lean: tuple[float, float, float]
    scale: float
    tint: np.ndarray
    moods: np.ndarray
    offset: np.ndarray
    light: np.ndarray


@dataclass(frozen=True)
class View:
    """How the camera sees a part: rotation (3, 3), centre (3, 1), size."""

    rotation: np.ndarray
    centre: np.ndarray
    size: float


@dataclass(frozen=True)
class Skin:
    """Points (3, N) in the frame of a part, their radius and angle about y, the offset (3, 1) of noise."""

    points: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    offset: np.ndarray


# --- Skins -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def make_noise():
    """Make a periodic cloud of fractal noise: float32 (NOISE_CELLS ** 3,), mean 0, deviation 1."""
    white = np.random.default_rng(360).standard_normal((NOISE_CELLS,) * 3, np.float32)
    squares = np.fft.fftfreq(NOISE_CELLS, 1 / NOISE_CELLS) ** 2
    frequency = squares[:, None, None] + squares[:, None] + squares[: NOISE_CELLS // 2 + 1]
    cloud = np.fft.irfftn(np.fft.rfftn(white) / (4 + frequency) ** 1.3, white.shape)
    return ((cloud - cloud.mean()) / cloud.std()).astype(np.float32).ravel()


def read_noise(points):
    """Read the cloud, which repeats every unit, at points (3, N)."""
    x, y, z = (points * NOISE_CELLS).astype(np.int32) & (NOISE_CELLS - 1)
    return make_noise()[(x * NOISE_CELLS + y) * NOISE_CELLS + z]


def ease(values):
    """Bring values to 0..1 with soft ends."""
    clipped = np.clip(values, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)


def find_clouds(skin, mark):
    """Find blotches of any shape."""
    noise = read_noise((skin.points + skin.offset) * (mark.scale / 16))
    return ease((noise - mark.level) * mark.sharp + 0.5)


def find_streaks(skin, mark):
    """Find streaks that run from pole to pole."""
    along = (skin.points[1] + skin.offset[1]) / 8
    circle = np.stack([np.cos(skin.angle), along, np.sin(skin.angle)])
    noise = read_noise(circle * np.float32(mark.scale / 16))
    return ease((noise - mark.level) * mark.sharp + 0.5)


def find_specks(skin, mark):
    """Find dots, one to each cell of a grid; level is their radius in cells."""
    places = turn_points(ASKEW, skin.points + skin.offset) * mark.scale
    cells = np.floor(places)
    seeds = np.einsum("i,in->n", np.array([73, 179, 283], np.float32), cells).astype(np.int32)
    scatter = seeds * np.array([[7919], [6271], [4513]], np.int32) & 1023
    centres = scatter / np.float32(2048) + np.float32(0.25)
    gaps = ((places - cells - centres) ** 2).sum(axis=0)
    return ease((mark.level**2 - gaps) * mark.sharp * 12)


def find_stripes(skin, mark):
    """Find wavering stripes from pole to pole; scale is how many."""
    warp = read_noise(skin.points / 3) + read_noise(skin.points[::-1]) / 2
    return ease((np.cos(mark.scale * skin.angle + 0.7 * warp) - mark.level) * mark.sharp + 0.5)


def find_side(skin, mark):
    """Find the side that the sun ripened."""
    x, y, _ = skin.points
    return ease((x * mark.scale + 0.3 * y + read_noise(skin.points / 4) / 4 - mark.level) * mark.sharp + 0.5)


def find_top(skin, mark):
    """Find what lies within a distance of the axis, above the middle; level is that distance."""
    rough = 1 + 0.2 * read_noise(skin.points / 4)
    return ease((mark.level - skin.radius * rough) * mark.sharp + 0.5) * (skin.points[1] > 0)


def find_bottom(skin, mark):
    """Find what lies within a distance of the axis, below the middle; level is that distance."""
    return ease((mark.level - skin.radius) * mark.sharp + 0.5) * (skin.points[1] < 0)


def find_seam(skin, mark):
    """Find the groove from pole to pole of a stone fruit."""
    return np.exp(-((skin.angle * skin.radius * mark.scale) ** 2)) * (np.abs(skin.angle) < 1.5)


def lay_lozenges(skin, mark):
    """Lay lozenges, scale of them around the axis: two coordinates (N,), -0.5..0.5 inside each."""
    around, up = skin.angle * (mark.scale / (2 * np.pi)), skin.points[1] * (mark.scale * mark.level)
    return [line - np.floor(line) - 0.5 for line in (around + up, around - up)]


def find_eyes(skin, mark):
    """Find the eyes of a pineapple."""
    first, second = lay_lozenges(skin, mark)
    return ease((0.5 - np.maximum(np.abs(first), np.abs(second))) * mark.sharp)


def find_seeds(skin, mark):
    """Find an upright seed in the middle of each lozenge."""
    first, second = lay_lozenges(skin, mark)
    return ease((0.16 - 2 * (first + second) ** 2 - 0.6 * (first - second) ** 2) * mark.sharp * 6)


PATTERNS = {
    "clouds": find_clouds, "streaks": find_streaks, "specks": find_specks, "stripes": find_stripes,
    "side": find_side, "top": find_top, "bottom": find_bottom, "seam": find_seam,
    "eyes": find_eyes, "seeds": find_seeds,
}  # fmt: skip


def read_colour(colour):
    """Turn "#rrggbb" into linear light: float32 (3, 1), 0..1. A square stands for the curve of sRGB."""
    return (np.array([[level] for level in bytes.fromhex(colour[1:])], np.float32) / 255) ** 2


def blend_ramp(ramp, shares):
    """Blend the colours of a ramp at shares (N,) of its length: (3, N)."""
    stops = np.linspace(0, 1, len(ramp))
    levels = np.hstack([read_colour(colour) for colour in ramp])
    return np.stack([np.interp(shares, stops, level) for level in levels]).astype(np.float32)


def paint_skin(paint, points, person):
    """Paint points (3, N): colours (3, N) and relief (N,)."""
    skin = Skin(points, np.hypot(points[0], points[2]), np.arctan2(points[2], points[0]), person.offset)
    colour = blend_ramp(paint.ramp, (points[1] + 1) / 2)
    relief = np.zeros_like(skin.radius)
    for mark, mood in zip(paint.marks, person.moods, strict=False):
        mask = PATTERNS[mark.pattern](skin, mark)
        colour += mask * min(1, mark.amount * mood) * (read_colour(mark.colour) - colour)
        relief += mark.relief * mask
    return colour * person.tint, relief


# --- Shapes: each part becomes a layer, the numbers of its fine pixels (N,) and their values (ROWS, N) ------


def make_layer(pixels, depth, normal, colour, relief, paint):
    """Gather what is known of fine pixels into a layer."""
    values = np.empty((ROWS, len(pixels)), np.float32)
    values[DEPTH], values[NORMAL], values[COLOUR], values[RELIEF] = depth, normal, colour, relief
    values[GLOSS], values[VELVET] = paint.gloss, paint.velvet
    return pixels, values


def turn_points(rotation, points):
    """Rotate points (3, N) in one thread: processes side by side must not fight for the cores."""
    return np.einsum("ij,jn->in", rotation, points)


@lru_cache(maxsize=2)
def lay_pixels(side=FINE_SIZE):
    """Lay the pixels of a square picture, row by row: x and y, float32 (2, side ** 2)."""
    axis = ((np.arange(side) + 0.5) * (2 / side) - 1).astype(np.float32)
    return np.stack([np.tile(axis, side), np.repeat(-axis, side)])


@lru_cache(maxsize=1)
def lay_blocks():
    """Number the fine pixels of each block: (blocks, BLOCK ** 2)."""
    side = FINE_SIZE // BLOCK
    numbers = np.arange(FINE_SIZE**2).reshape(side, BLOCK, side, BLOCK)
    return numbers.transpose(0, 2, 1, 3).reshape(side**2, BLOCK**2)


def smooth_profile(profile, steps=8):
    """Draw a Catmull-Rom curve through the knots of a profile: (M, 2) radii and heights."""
    knots = np.array(profile)
    knots = np.vstack([knots[1] * (-1, 1), knots, knots[-2] * (-1, 1)])  # flat where it crosses the axis
    before, start, end, after = (knots[first : len(knots) - 3 + first, None] for first in range(4))
    share = np.linspace(0, 1, steps, endpoint=False)[:, None]
    bow = (2 * before - 5 * start + 4 * end - after) * share**2
    twist = (3 * start - before - 3 * end + after) * share**3
    curve = (2 * start + (end - before) * share + bow + twist) / 2
    return np.maximum(np.vstack([curve.reshape(-1, 2), knots[-2]]), (0, -np.inf))


@lru_cache(maxsize=128)
def measure_profile(profile):
    """Tabulate the signed distance to a profile, its slope along radius and along height: (cells, 3)."""
    curve = smooth_profile(profile)
    step = TABLE_REACH / TABLE_CELLS
    height, radius = np.mgrid[-TABLE_CELLS : TABLE_CELLS + 1, 0 : TABLE_CELLS + 1] * step
    side_x, side_y = np.diff(curve, axis=0).T
    from_x, from_y = radius[..., None] - curve[:-1, 0], height[..., None] - curve[:-1, 1]
    share = np.clip((from_x * side_x + from_y * side_y) / (side_x**2 + side_y**2 + 1e-12), 0, 1)
    gap = np.hypot(from_x - share * side_x, from_y - share * side_y).min(axis=-1)
    crossed = (from_y >= 0) != (from_y >= side_y)
    beyond = crossed & (from_x < from_y * side_x / np.where(side_y == 0, 1e-9, side_y))
    distance = np.where(beyond.sum(axis=-1) % 2 == 1, -gap, gap)
    rise, run = np.gradient(distance, step)
    return np.stack([distance, run, rise], axis=-1).reshape(-1, 3).astype(np.float32)


def unbend(points, bend):
    """Straighten points (3, N) of a solid whose axis is an arc of this curvature."""
    if bend == 0:
        return points
    gap = 1 / bend - points[0]
    return np.stack([1 / bend - np.hypot(gap, points[1]), np.arctan2(points[1], gap) / bend, points[2]])


def measure_distance(solid, person, points):
    """Estimate the signed distance (N,) from points (3, N) to a solid, in its own units."""
    x, y, z = unbend(points, solid.bend)
    radius = np.hypot(x * person.stretch[0], z * person.stretch[1])
    count, ridge = solid.ridges
    if count:
        radius *= 1 + ridge * np.cos(count * np.arctan2(z, x))
    column, row = radius * (TABLE_CELLS / TABLE_REACH), (y + TABLE_REACH) * (TABLE_CELLS / TABLE_REACH)
    near_column = np.rint(np.minimum(column, TABLE_CELLS))
    near_row = np.rint(np.clip(row, 0, 2 * TABLE_CELLS))
    cells = (near_row * (TABLE_CELLS + 1) + near_column).astype(np.int32)
    distance, run, rise = measure_profile(solid.profile).take(cells, axis=0).T
    drift = (column - near_column) * run + (row - near_row) * rise
    distance = distance + drift * (TABLE_REACH / TABLE_CELLS)
    # Near the centre of the arc a bent frame is cramped, and a step in it is shorter than it seems.
    return distance * np.clip(1 - solid.bend * x, 0.2, 1) if solid.bend else distance


def find_normals(solid, person, points):
    """Find the outward directions (3, N) of a solid at points (3, N), from four distances around each."""
    normal = np.zeros_like(points)
    for corner in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
        arm = np.array(corner, np.float32)[:, None]
        normal += arm * measure_distance(solid, person, points + np.float32(0.02) * arm)
    return normal / np.maximum(np.sqrt((normal**2).sum(axis=0)), 1e-6)


def trace_rays(solid, person, heading, reach, start, width):
    """Follow rays of half this width from points (3, N): which ones touch the solid, and how far they go."""
    gone = np.zeros(start.shape[1], np.float32)
    touched = np.zeros(start.shape[1], bool)
    active, points, way = np.arange(start.shape[1]), start, gone
    for _ in range(TRACE_STEPS):
        room = measure_distance(solid, person, points) - np.float32(width)
        step = room + np.minimum(np.float32(0.2) * room, np.float32(0.01))  # further could leap a thin stalk
        way = way + step
        gone[active], touched[active] = way, room < TOUCH
        going = np.flatnonzero((room >= TOUCH) & (way < reach))
        points = (points + heading * step).take(going, axis=1)
        active, way, room = active[going], way[going], room[going]
    # Rays still creeping along an edge count as touching it: left out, they would be white slits.
    touched[active] = (width > 0) | (room < 0.04)
    hit = np.flatnonzero(touched)
    return hit, gone[hit]


def draw_solid(solid, view, person):
    """Cast rays at a solid of revolution."""
    reach = 1.08 * max(np.hypot(radius, height) for radius, height in solid.profile)
    heading = -view.rotation[2][:, None]
    follow = partial(trace_rays, solid, person, heading, 2 * reach)
    blocks = (lay_pixels(FINE_SIZE // BLOCK) - view.centre[:2]) / view.size
    aimed = np.flatnonzero((blocks**2).sum(axis=0) < reach**2)
    start = np.vstack([blocks[:, aimed], np.full((1, len(aimed)), reach, np.float32)])
    # One broad ray per block brings the fine ones close to the solid and leaves out the empty blocks.
    met, gone = follow(turn_points(view.rotation.T, start), width=1.5 * BLOCK / FINE_SIZE / view.size)
    pixels = lay_blocks()[aimed[met]].ravel()
    height = reach - np.repeat(gone, BLOCK**2)
    across = (lay_pixels().take(pixels, axis=1) - view.centre[:2]) / view.size
    start = turn_points(view.rotation.T, np.vstack([across, height[None]]))
    hit, gone = follow(start, width=0)
    points = start.take(hit, axis=1) + heading * gone
    normal = turn_points(view.rotation, find_normals(solid, person, points))
    colour, relief = paint_skin(solid.paint, unbend(points, solid.bend), person)
    depth = view.centre[2] + (height[hit] - gone) * view.size
    return make_layer(pixels[hit], depth, normal, colour, relief * view.size, solid.paint)


def place_berries(berries, person):
    """Place berries evenly on their solid: centres (3, count) and radii (count,)."""
    curve = smooth_profile(berries.profile)
    area = np.cumsum(np.hypot(*np.diff(curve, axis=0).T) * (curve[1:, 0] + curve[:-1, 0] + 0.02))
    ranks = (np.arange(berries.count) + 0.5) / berries.count
    radius, height = (np.interp(ranks, area / area[-1], line) for line in curve[1:].T)
    wobble = berries.jitter * read_noise(np.stack([ranks * 7 + person.offset[0], ranks * 13, ranks * 29]))
    angle = np.arange(berries.count) * GOLDEN_ANGLE + wobble
    centres = np.stack([radius * np.cos(angle), height, radius * np.sin(angle)])
    return centres * (1 + 0.5 * wobble), berries.radius * (1 + 0.8 * wobble)


def stack_balls(centres, radii):
    """Find the nearest of balls, (3, N) and (N,), at each fine pixel: its depth and its number."""
    x_plane, y_plane = lay_pixels().reshape(2, FINE_SIZE, FINE_SIZE)
    depth = np.full((FINE_SIZE, FINE_SIZE), FAR, np.float32)
    owner = np.zeros((FINE_SIZE, FINE_SIZE), np.int32)
    for number, (x, y, z, radius) in enumerate(zip(*centres.tolist(), radii.tolist(), strict=True)):
        left, top = (max(0, int((edge + 1) * FINE_SIZE / 2)) for edge in (x - radius, -y - radius))
        width = int(radius * FINE_SIZE) + 2
        box = np.s_[top : top + width, left : left + width]
        square = radius**2 - (x_plane[box] - x) ** 2 - (y_plane[box] - y) ** 2
        height = np.where(square > 0, np.sqrt(np.maximum(square, 0)) + z, FAR)
        nearer = height > depth[box]
        depth[box][nearer], owner[box][nearer] = height[nearer], number
    return depth.ravel(), owner.ravel()


def draw_berries(berries, view, person):
    """Draw balls, each a shade lighter or darker."""
    centres, radii = place_berries(berries, person)
    centres, radii = (view.rotation @ centres * view.size + view.centre), radii * view.size
    front = centres[2] > view.centre[2] - radii
    centres, radii = centres[:, front].astype(np.float32), radii[front].astype(np.float32)
    depth, owner = stack_balls(centres, radii)
    pixels = np.flatnonzero(depth > FAR)
    depth, owner = depth[pixels], owner[pixels]
    surface = np.vstack([lay_pixels()[:, pixels], depth[None]])
    points = turn_points(view.rotation.T, (surface - view.centre) / np.float32(view.size))
    colour, relief = paint_skin(berries.paint, points, person)
    colour *= 1 + 0.16 * np.sin(np.flatnonzero(front)[owner] * 2.4).astype(np.float32)
    normal = (surface - centres[:, owner]) / radii[owner]
    return make_layer(pixels, depth, normal, colour, relief * view.size, berries.paint)


def shape_leaves(leaves, person, segments=7):
    """Shape leaves: (count, segments + 1, 3, 3), the left edge, the rib and the right edge of each."""
    ranks = np.linspace(0, 1, leaves.count)[:, None]
    shares = np.linspace(0, 1, segments + 1)
    noise = read_noise(np.stack([ranks * 11 + person.offset[1], ranks * 5, ranks * 3]))
    uneven = 1 + 0.12 * noise
    lift = np.radians(np.interp(ranks, (0, 1), leaves.lift) * uneven + leaves.curl * shares)
    step = np.interp(ranks, (0, 1), leaves.length) * uneven / segments
    out = np.interp(ranks, (0, 1), leaves.ring) + np.cumsum(np.cos(lift) * step, axis=1)
    azimuth = np.arange(leaves.count)[:, None] * GOLDEN_ANGLE + 0.06 * noise
    outward = np.stack([np.cos(azimuth), 0 * azimuth, np.sin(azimuth)], axis=-1)
    sideways = np.stack([-np.sin(azimuth), 0 * azimuth, np.cos(azimuth)], axis=-1)
    upward = np.array([0, 1, 0])
    rib = out[..., None] * outward + np.cumsum(np.sin(lift) * step, axis=1)[..., None] * upward
    half = (leaves.width * np.sqrt(shares + 0.12) * (1 - shares**1.6) ** 0.8)[:, None]
    edge = half * leaves.fold * (np.cos(lift)[..., None] * upward - np.sin(lift)[..., None] * outward)
    return np.stack([rib - half * sideways + edge, rib, rib + half * sideways + edge], axis=2)


def number_facets(corners):
    """Number the nearest of facets (N, 4, 3) at each fine pixel, -1 where there is none."""
    ticket = Image.new("I", (FINE_SIZE, FINE_SIZE), -1)
    pencil = ImageDraw.Draw(ticket)
    outlines = (corners[:, :, :2] * (1, -1) + 1) * (FINE_SIZE / 2)
    order = np.argsort(corners[:, :, 2].mean(axis=1))
    for number, outline in zip(order.tolist(), outlines[order].reshape(-1, 8).tolist(), strict=True):
        pencil.polygon(outline, fill=number)
    return np.asarray(ticket).ravel()


def draw_leaves(leaves, view, person):
    """Draw leaves as flat facets, each leaf a shade lighter or darker."""
    mesh = shape_leaves(leaves, person) @ view.rotation.T * view.size + view.centre[:, 0]
    corners = np.stack([mesh[:, :-1, :-1], mesh[:, :-1, 1:], mesh[:, 1:, 1:], mesh[:, 1:, :-1]], axis=3)
    count, segments, sides = corners.shape[:3]
    corners = corners.reshape(-1, 4, 3)
    normal = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) * np.where(normal[:, 2:] < 0, -1, 1) + 1e-12
    shares = np.tile(np.repeat(np.linspace(0, 1, segments), sides), count)
    shade = 1 + 0.12 * np.sin(np.repeat(np.arange(count), segments * sides) * 2.4)
    colour = blend_ramp(leaves.paint.ramp, shares) * shade * person.tint
    owner = number_facets(corners)
    pixels = np.flatnonzero(owner >= 0)
    owner = owner[pixels]
    depth = corners[:, :, 2].mean(axis=1)
    return make_layer(pixels, depth[owner], normal.T[:, owner], colour[:, owner], 0, leaves.paint)


DRAWERS = {Solid: draw_solid, Berries: draw_berries, Leaves: draw_leaves}


# --- Light -------------------------------------------------------------------------------------------------


def blur(picture, reach):
    """Average a square picture (side, side) over windows of 2 * reach + 1 pixels."""
    side = len(picture)
    for _ in range(2):
        total = np.cumsum(np.pad(picture, ((reach + 1, reach), (0, 0))), axis=0, dtype=np.float32)
        picture = (total[2 * reach + 1 :] - total[:side]).T / (2 * reach + 1)
    return picture


def find_shade(depth, light):
    """Find how open each pixel of a square map of depths is to the sky and to the light: two maps, 0..1."""
    filled = (depth > FAR).astype(np.float32)
    around = blur(np.where(filled, depth, 0), 4) / np.maximum(blur(filled, 4), 1e-3)
    sky = 1 - np.clip((around - depth) * 4, 0, 0.6)
    blocked = np.zeros_like(depth)
    for step in (1.5, 3, 5, 8, 11, 15):
        shift = (round(step * light[1]), round(-step * light[0]))
        over = np.roll(depth, shift, axis=(0, 1)) - depth - step * light[2] * (2 / PICTURE_SIZE) - 0.015
        blocked = np.maximum(blocked, np.clip(over * 12, 0, 1))
    return sky, 1 - 0.75 * blur(blocked, 1)


def tilt_normals(canvas):
    """Tilt the normals of a canvas by the slopes of its relief: (3, FINE_SIZE ** 2)."""
    slope_y, slope_x = np.gradient(canvas[RELIEF].reshape(FINE_SIZE, FINE_SIZE), 2 / FINE_SIZE)
    normal = canvas[NORMAL].copy()
    normal[0] -= slope_x.ravel()
    normal[1] += slope_y.ravel()
    return normal


def light_canvas(canvas, light):
    """Light a canvas (ROWS, FINE_SIZE ** 2) from a direction (3,), on white: (3, FINE_SIZE, FINE_SIZE)."""
    seen = np.flatnonzero(canvas[DEPTH] > FAR)
    normal = tilt_normals(canvas).take(seen, axis=1)
    normal /= np.sqrt((normal**2).sum(axis=0))
    coarse_depth = canvas[DEPTH].reshape(FINE_SIZE, FINE_SIZE)[::FINENESS, ::FINENESS]
    grain = np.ones((FINENESS, FINENESS), np.float32)
    sky, direct = (np.kron(shade, grain).ravel()[seen] for shade in find_shade(coarse_depth, light))
    halfway = light + np.array([0, 0, 1], np.float32)
    mirror = np.maximum(np.einsum("i,in", halfway / np.linalg.norm(halfway), normal), 0) ** 16
    edge = 1 - np.clip(normal[2], 0, 1)
    wrap = np.array([[0.35], [0.27], [0.22]], np.float32)  # light that leaks under the skin comes out red
    key = np.maximum((np.einsum("i,in", light, normal) + wrap) / (1 + wrap), 0) * direct
    fill = (0.36 + 0.12 * normal[1] + 0.14 * np.maximum(-normal[1], 0) + 0.1 * edge) * sky
    colour, gloss, velvet = (canvas[row].take(seen, axis=-1) for row in (COLOUR, GLOSS, VELVET))
    shine = gloss * ((0.8 * mirror**4 + 0.16 * mirror) * direct + 0.3 * edge**4 * sky)
    lit = np.ones((3, FINE_SIZE**2), np.float32)
    lit[:, seen] = np.minimum(colour * (key + fill + velvet * edge**2) + shine, 1)
    return lit.reshape(3, FINE_SIZE, FINE_SIZE)


def shrink_light(lit):
    """Average light (3, FINE_SIZE, FINE_SIZE) over the fine pixels: uint8 (PICTURE_SIZE, PICTURE_SIZE, 3)."""
    corners = np.ndindex(FINENESS, FINENESS)
    mean = sum(lit[:, row::FINENESS, column::FINENESS] for row, column in corners) / FINENESS**2
    return (np.sqrt(mean) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)


# --- Pictures ----------------------------------------------------------------------------------------------


def rotate(axis, degrees):
    """Make the rotation (3, 3) about axis 0 (x), 1 (y) or 2 (z)."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def rotate_all(degrees):
    """Make the rotation (3, 3) about x, then y, then z."""
    return rotate(2, degrees[2]) @ rotate(1, degrees[1]) @ rotate(0, degrees[0])


def count_turn(index):
    """Give the axis a picture turns about (1: upright, 0: tumbling) and how many degrees so far."""
    thirds = index // 3
    if index % 3 == 2:
        return 0, (thirds + 1) * DEGREES_PER_STEP  # at 0 degrees it would be the upright picture once more
    return 1, (index - thirds) * DEGREES_PER_STEP


def grow_individual(label, number, seed):
    """Draw by lot what makes one fruit of a kind differ from the others."""
    lots = np.random.default_rng([seed, zlib.crc32(label.encode()), number])
    light = rotate(1, lots.uniform(-14, 14)) @ (-0.45, 0.62, 0.64)
    return Individual(
        stretch=lots.uniform(0.96, 1.05, 2).astype(np.float32),
        lean=(0, lots.uniform(0, 360), lots.uniform(-7, 7)),
        scale=lots.uniform(0.94, 1),
        tint=(lots.uniform(0.92, 1.06) * lots.uniform(0.95, 1.05, (3, 1))).astype(np.float32),
        moods=lots.uniform(0.7, 1.2, 8),
        offset=lots.uniform(8, 9, (3, 1)).astype(np.float32),
        light=(light / np.linalg.norm(light)).astype(np.float32),
    )


def check_request(label, index, seed):
    """Raise ValueError for a label that is not in KINDS, or a number below 0."""
    if label not in KINDS:
        raise ValueError(f"found the label {label!r}, expected one of {', '.join(KINDS)}: choose one")
    for name, number in (("index", index), ("seed", seed)):
        if number < 0:
            raise ValueError(f"found the {name} {number}, expected 0 or more: count from 0")


def draw_picture(label: str, index: int, seed: int = 0) -> Image.Image:
    """Draw one picture of a kind; the same arguments draw the same pixels.

    label: of KINDS. index: 0 or more; six pictures in a row show one individual, turned between them.
    Returns 100 x 100 RGB. Raises ValueError for an unknown label, a negative index or seed.
    """
    check_request(label, index, seed)
    kind, person = KINDS[label], grow_individual(label, index // PICTURES_PER_INDIVIDUAL, seed)
    pose = rotate(0, CAMERA_ELEVATION) @ rotate(*count_turn(index))
    pose = pose @ rotate_all(kind.mount) @ rotate_all(person.lean)
    size = kind.size * person.scale
    canvas = np.zeros((ROWS, FINE_SIZE**2), np.float32)
    canvas[DEPTH] = FAR
    for part in kind.parts:
        rotation = (pose @ rotate_all(part.turn)).astype(np.float32)
        centre = (pose @ part.at * size).astype(np.float32)[:, None]
        pixels, values = DRAWERS[type(part)](part, View(rotation, centre, part.size * size), person)
        nearer = values[DEPTH] > canvas[DEPTH, pixels]
        canvas[:, pixels[nearer]] = values[:, nearer]
    return Image.fromarray(shrink_light(light_canvas(canvas, person.light)))


def picture_name(index: int) -> str:
    """Name a picture by the degrees turned so far: 30_100.jpg, or r_30_100.jpg where the fruit tumbles."""
    axis, degrees = count_turn(index)
    return f"{'' if axis == 1 else 'r_'}{degrees}_{PICTURE_SIZE}.jpg"


def draw_sample(
    folder: str | Path, pictures_per_kind: int = 12, kinds=None, seed: int = 0, processes: int | None = None
) -> int:
    """Write folder/label/name.jpg for each kind; files already there are written again.

    kinds: labels, all of KINDS where None. processes: how many draw at once, one per core where None.
    Returns the number of pictures. Raises ValueError for an unknown label, a negative seed or no picture.
    """
    if pictures_per_kind < 1:
        raise ValueError(f"found {pictures_per_kind} pictures per kind, expected 1 or more: ask for more")
    return write_pictures(Path(folder), dict.fromkeys(kinds or KINDS, pictures_per_kind), seed, processes)


def write_pictures(folder, counts, seed, processes):
    """Write the first pictures of each kind, counts of them ({label: number}), and return how many in all."""
    for label in counts:
        check_request(label, 0, seed)
        Path(folder, label).mkdir(parents=True, exist_ok=True)
    tasks = [(folder, label, index, seed) for label, count in counts.items() for index in range(count)]
    workers = min(processes or os.cpu_count() or 1, len(tasks))
    if workers == 1:
        show_progress(map(write_picture, tasks), len(tasks))
    else:
        with start_workers(workers) as pool:
            show_progress(pool.imap_unordered(write_picture, tasks, PICTURES_PER_INDIVIDUAL), len(tasks))
    return len(tasks)


def write_picture(task):
    """Draw one picture (folder, label, index, seed) into its file."""
    folder, label, index, seed = task
    draw_picture(label, index, seed).save(Path(folder, label, picture_name(index)), **JPEG_OPTIONS)


def start_workers(count):
    """Start processes that leave Ctrl-C to this one."""
    # Spawned: they inherit the ignored signal from their first line on, and no lock held by a thread.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return multiprocessing.get_context("spawn").Pool(count)
    finally:
        signal.signal(signal.SIGINT, previous)


def show_progress(steps, total):
    """Run steps and tell the error stream how far they are: one line in a terminal, else five."""
    in_terminal = sys.stderr.isatty()
    pause = max(1, total // (100 if in_terminal else 5))
    for done, _ in enumerate(steps, start=1):
        if done % pause == 0 or done == total:
            end = "\r" if in_terminal and done < total else "\n"
            print(f"{done} of {total} pictures drawn", end=end, file=sys.stderr, flush=True)


# --- Command line ------------------------------------------------------------------------------------------


def read_number(text, smallest):
    """Read a whole number from the command line."""
    if not text.isdecimal() or int(text) < smallest:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of {smallest} or more")
    return int(text)


def read_options(arguments):
    """Read the command line: a namespace of output, pictures, per_kind, seed and processes."""
    count = partial(read_number, smallest=1)
    parser = argparse.ArgumentParser(prog="python -m fruits.sample", description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default="data/images", help="folder; default %(default)s")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--pictures", type=count, help="how many in all, spread evenly over the kinds")
    amount.add_argument("--per-kind", type=count, default=12, help="how many of each; default %(default)s")
    seed = partial(read_number, smallest=0)
    parser.add_argument("--seed", type=seed, default=0, help="another draws other fruits; default 0")
    parser.add_argument("--processes", type=count, help="how many draw at once; default one per core")
    options = parser.parse_args(arguments)
    if options.output.exists() and not options.output.is_dir():
        parser.error(f"argument --output: found the file {options.output}, expected a folder: choose another")
    return options


def spread_pictures(total):
    """Spread a number of pictures over the kinds, {label: number}; the first kinds take what is left over."""
    share, left = divmod(total, len(KINDS))
    counts = {label: share + (rank < left) for rank, label in enumerate(KINDS)}
    return {label: count for label, count in counts.items() if count}


def main(arguments=None):
    """Run the command line: 0 where the sample is drawn, 130 where Ctrl-C stopped it."""
    options = read_options(arguments)
    every = dict.fromkeys(KINDS, options.per_kind)
    counts = spread_pictures(options.pictures) if options.pictures else every
    try:
        drawn = write_pictures(options.output, counts, options.seed, options.processes)
    except KeyboardInterrupt:
        print("\nstopped; the same command draws them all again", file=sys.stderr)
        return 130
    print(f"{drawn} pictures of {len(counts)} kinds in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
