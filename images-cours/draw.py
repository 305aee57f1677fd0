"""Draw the diagrams of the notebooks and of the presentation as SVG files next to this script.

    python images-cours/draw.py [name ...]

Each function of DIAGRAMS draws one diagram, and finds its words in texts.en.yaml and texts.fr.yaml: NAME.svg is
English, NAME.fr.svg French. The numbers in these words are the project's own: read_numbers reads them where they stand.

Shapes are strings of plain SVG, in pixels of a page PAGE wide: the files stay small, their text can be searched, and
the same code writes the same bytes. There is no PNG beside them: GitHub, Jupyter and browsers, the presentation's
included, all show SVG.
"""

import re
import sys
from html import escape
from math import hypot, log2
from pathlib import Path
from string import Formatter

import numpy as np
import yaml

from fruits import french

FOLDER = Path(__file__).parent

# Okabe and Ito's colours, told apart by colour-blind readers. One colour is one thing in every diagram.
WEIGHTS, NETWORK, VECTOR, BAD, GOOD = "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#0072B2"
BYTES, FRUIT, LEAF = "#56B4E9", "#F2CF3B", "#3E8E41"
INK, QUIET, LINE, SOFT, WHITE = "#222222", "#595959", "#B3B3B3", "#F5F6F8", "#FFFFFF"

# These three share their letter widths, so lines keep their length on Windows, macOS and Linux.
FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
TEXT, STRONG, TITLE = 14, 16, 26  # font sizes; below 13 a projector loses the letters
PAGE, MARGIN = 960, 24
ROW = 1.3  # from one line of text to the next, in font sizes
CHIP = 28  # height of a box for one line

# --- Numbers and words ------------------------------------------------------------------------------------------------

TASKS, EXECUTORS = 1_000, 2  # of the example for the broadcast; as many executors as are drawn
CLOUD, SEED = 60, 122  # points of the PCA's example


def read_numbers():
    """Read the numbers that the diagrams tell, where the project has them: {name: number}."""
    from fruits import features  # imports Spark, so not before it is needed

    notebook = (FOLDER.parent / "notebooks" / "local.ipynb").read_text(encoding="utf-8")
    template = (FOLDER.parent / "emr-cluster.yaml").read_text(encoding="utf-8")
    defaults = dict(re.findall(r'^  (\w+):\n    Type: .*\n    Default: "?([\w.-]+)', template, re.M))
    return measure_network() | measure_cloud() | {
        "task_pictures": features.TASK_PICTURES,
        "batch": int(re.search(r"batch_size: int = (\d+)", notebook)[1]),
        "variance_kept": float(re.search(r"variance_kept: float = ([\d.]+)", notebook)[1]),
        "cores": int(re.search(r'spark\.executor\.cores: "(\d+)"', template)[1]),
        "core_nodes": int(defaults["CoreCount"]),
        "max_core_nodes": int(defaults["MaxCoreNodes"]),
        "max_task_nodes": int(defaults["MaxTaskNodes"]),
        "idle_minutes": int(defaults["IdleSeconds"]) // 60,
        "tasks": TASKS, "executors": EXECUTORS, "cloud": CLOUD,
    }  # fmt: skip


def measure_network():
    """Measure the default network: its weights (numbers and bytes), its sizes and the shape of each of its stages."""
    from fruits import backbones, efficientnet_lite0

    network = backbones.build_network(weights=None)
    extractor = backbones.cut_classifier(network)
    folded = backbones.fold_batch_norm(extractor)
    weight_bytes = sum(values.nbytes for values in folded.get_weights())
    blocks = [stage[0] for stage in efficientnet_lite0.STAGES]
    names = [f"stage{stage}_block{count - 1}_project" for stage, count in enumerate(blocks)]
    return {
        "weights": weight_bytes,
        "parameters": folded.count_params(),
        "weights_kept": extractor.count_params(),
        "weights_cut": network.count_params() - extractor.count_params(),
        "side": network.input_shape[1],
        "classes": network.output_shape[1],
        "features": extractor.output_shape[1],
        "stages": [network.get_layer(name).output.shape[1:] for name in [*names, "head"]],
        "sent_without": TASKS * weight_bytes,
        "sent_with": EXECUTORS * weight_bytes,
    }


def measure_cloud():
    """Draw a cloud of points and compute its PCA: points (n, 2), their mean, axes (one a row) and share of variance."""
    draw = np.random.default_rng(SEED)
    spread = draw.normal(size=(CLOUD, 2)) * (60, 19)
    turn = np.deg2rad(35)
    points = spread @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + (146, 122)
    mean = points.mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov((points - mean).T))  # the smallest first
    axes = axes.T[::-1] * np.sign(axes.T[::-1].sum(axis=1, keepdims=True))
    shares = variance[::-1] / variance.sum()
    return {
        "points": points, "mean": mean, "axes": axes, "deviations": np.sqrt(variance[::-1]),
        "share": shares[0], "rest": shares[1],
    }  # fmt: skip


class Words(Formatter):
    """The words of one diagram in one language."""

    def __init__(self, language, diagram, numbers):
        texts = yaml.safe_load((FOLDER / f"texts.{language}.yaml").read_text(encoding="utf-8"))
        self.is_french, self.numbers = language == "fr", numbers
        self.texts = texts["shared"] | texts[diagram]

    def __call__(self, key, **numbers):
        """Say the words of a key, such as words("task", number=3), with the project's numbers and these in them."""
        text = self.vformat(self.texts[key], (), self.numbers | numbers)
        return french.add_spaces(text) if self.is_french else text

    def format_field(self, value, format_spec):
        """Write a number in the language. Two more formats: "million", and "size" for bytes (powers of ten)."""
        write = french.write_number if self.is_french else format
        if format_spec == "size":
            prefix, power = ("G", 1e9) if value >= 1e9 else ("M", 1e6)
            return f"{write(value / power, '.3g')} {prefix}{'o' if self.is_french else 'B'}"
        if format_spec == "million":
            return write(value / 1e6, ".3g")
        text = write(value, format_spec)
        return text if self.is_french else text.replace("%", " %")


# --- Shapes -----------------------------------------------------------------------------------------------------------


def caption(x, y, text, size=TEXT, color=INK, bold=False, anchor="start"):
    """Lines of text; `y` is the first one's baseline, `anchor` is start, middle or end."""
    weight = ' font-weight="bold"' if bold else ""
    style = f'font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}'
    return "\n".join(f'<text x="{x:g}" y="{y + row * ROW * size:g}" {style}>{escape(line)}</text>'
                     for row, line in enumerate(text.split("\n")) if line)  # fmt: skip


def box(x, y, width, height, text="", fill=WHITE, edge=LINE, bold=False, dashed=False, radius=8):
    """A box with rounded corners, its text in the middle."""
    top = y + height / 2 + TEXT * (0.36 - text.count("\n") * ROW / 2)  # 0.36: half the height of a capital
    dashes = ' stroke-dasharray="6 4"' if dashed else ""
    size = f'width="{width:g}" height="{height:g}" rx="{radius}"'
    rectangle = f'<rect x="{x:g}" y="{y:g}" {size} fill="{fill}" stroke="{edge}"{dashes}/>'
    return "\n".join(filter(None, [rectangle, caption(x + width / 2, top, text, bold=bold, anchor="middle")]))


def chip(x, y, width, text, color=LINE, bold=False):
    """A box for one line, filled with the colour of the thing that it names."""
    return box(x, y, width, CHIP, text, WHITE if color == LINE else color, color, bold)


def panel(x, y, width, height, title, note="", fill=SOFT, edge=LINE, color=INK, dashed=False):
    """A large box with its title at the upper left and a quiet note at the upper right."""
    return "\n".join(filter(None, [
        box(x, y, width, height, fill=fill, edge=edge, dashed=dashed),
        caption(x + 12, y + 24, title, STRONG, color, bold=True),
        caption(x + width - 12, y + 24, note, color=QUIET, anchor="end"),
    ]))  # fmt: skip


def arrow(x1, y1, x2, y2, color=QUIET, width=1.5, both=False, dashed=False):
    """A straight arrow to (x2, y2); with `both`, with a head at either end."""
    length, head = hypot(x2 - x1, y2 - y1), 5 + 2 * width
    right, down = head * (x2 - x1) / length, head * (y2 - y1) / length  # from a head's base to its tip

    def point(x, y, right, down):
        # A polygon, not a <marker>: the id of a marker can clash in a notebook that shows several SVGs.
        base_x, base_y = x - right, y - down
        corners = ((x, y), (base_x - down / 2, base_y + right / 2), (base_x + down / 2, base_y - right / 2))
        return f'<polygon fill="{color}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}"/>'

    heads = [point(x2, y2, right, down)]
    x2, y2 = x2 - right, y2 - down
    if both:
        heads.append(point(x1, y1, -right, -down))
        x1, y1 = x1 + right, y1 + down
    return "\n".join([line(x1, y1, x2, y2, color, width, dashed), *heads])


def line(x1, y1, x2, y2, color=QUIET, width=1.5, dashed=False):
    """A straight line."""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{color}" stroke-width="{width:g}"{dashes}/>'


def dot(x, y, radius, color, opacity=1):
    """A filled circle."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{color}" opacity="{opacity:g}"/>'


def picture(x, y, side):
    """A square picture of a fruit."""
    middle, radius = x + side / 2, 0.3 * side
    leaf = f"M{middle:g} {y + 0.3 * side:g}q{0.02 * side:g} {-0.2 * side:g} {0.26 * side:g} {-0.18 * side:g}"
    return "\n".join([
        f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" rx="4" fill="{WHITE}" stroke="{LINE}"/>',
        dot(middle, y + 0.58 * side, radius, FRUIT),
        f'<path d="{leaf}q{-0.06 * side:g} {0.2 * side:g} {-0.26 * side:g} {0.18 * side:g}z" fill="{LEAF}"/>',
    ])  # fmt: skip


def group(x, y, *shapes):
    """Shapes drawn together, their (0, 0) put at (x, y)."""
    return "\n".join([f'<g transform="translate({x:g} {y:g})">', *shapes, "</g>"])


def page(height, words, *shapes):
    """A whole SVG file: shapes on a white card, so that they read as well in a dark notebook."""
    # As wide as the page or the notebook's cell, whichever is less.
    frame = f'width="{PAGE}" style="max-width: 100%; height: auto" viewBox="0 0 {PAGE} {height}"'
    language = "fr" if words.is_french else "en"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="{FONT}" role="img" lang="{language}">',
        f"<title>{escape(words('title'))}</title>",
        f'<rect width="{PAGE}" height="{height}" rx="16" fill="{WHITE}"/>',
        caption(MARGIN, 46, words("title"), TITLE, bold=True),
        caption(MARGIN, 72, words("subtitle"), STRONG, QUIET),
        *shapes, "</svg>\n"])  # fmt: skip


# --- Spark ------------------------------------------------------------------------------------------------------------


def draw_spark(words):
    """Who does what: the driver plans, executors compute, storage holds what goes in and out."""
    return page(
        572, words,
        panel(24, 92, 208, 386, words("driver")),
        box(36, 130, 184, 64, words("notebook")), arrow(128, 194, 128, 224),
        box(36, 226, 184, 64, words("plan")), arrow(128, 290, 128, 320),
        *[chip(36, 322 + 36 * row, 184, words("task", number=9 + row)) for row in range(3)],
        caption(128, 446, "…", STRONG, anchor="middle"),
        caption(128, 466, words("queue"), color=QUIET, anchor="middle"),
        arrow(236, 182, 348, 182, width=3), caption(292, 170, words("down"), anchor="middle"),
        arrow(348, 318, 236, 318), caption(292, 306, words("up"), anchor="middle"),
        panel(352, 92, 352, 386, words("executors"), words("a_machine")),
        *[draw_machine(362, 128 + 174 * number, number, words) for number in range(2)],
        panel(796, 92, 140, 386, words("storage")),
        *[picture(816 + 54 * column, 132 + 54 * row, 46) for row in range(2) for column in range(2)],
        caption(866, 256, words("pictures"), anchor="middle"),
        *[chip(808, 304 + 36 * row, 116, folder, VECTOR if row == 0 else LINE)
          for row, folder in enumerate(("features/", "rejected/", "pca/", "projection/"))],
        caption(866, 464, "parquet", color=QUIET, anchor="middle"),
        arrow(792, 182, 708, 182, BYTES, 3), caption(750, 170, words("bytes"), anchor="middle"),
        arrow(708, 318, 792, 318, VECTOR, 3), caption(750, 306, words("vectors"), anchor="middle"),
        *draw_places(words))  # fmt: skip


def draw_machine(x, y, number, words):
    """An executor, a task on each of its cores, and a Python worker for each task."""
    cores = words.numbers["cores"]
    shapes = [shape for core in range(cores) for shape in (
        chip(9 + 80 * core, 34, 74, words("task", number=cores * number + core + 1)),
        draw_worker(46 + 80 * core, 62, words, 74))]  # fmt: skip
    return group(x, y, panel(0, 0, 332, 164, words("executor", number=number + 1), words("cores"), WHITE), *shapes)


def draw_worker(x, y, words, width=80):
    """A Python worker of an executor, centred on `x`, and the network that it builds from the weights."""
    return group(
        x - width / 2, y, arrow(width / 2, 0, width / 2, 18), box(0, 20, width, 74),
        caption(width / 2, 39, words("worker"), anchor="middle"),
        box(5, 64, width - 10, 24, words("network"), NETWORK, NETWORK))  # fmt: skip


def draw_places(words):
    """Where all that runs: on a laptop, on the cluster."""
    return [shape for x, place in ((24, "laptop"), (488, "cluster")) for shape in (
        box(x, 492, 448, 60, fill=WHITE), caption(x + 12, 516, words(place), bold=True),
        caption(x + 12, 537, words(f"{place}_text"), color=QUIET))]  # fmt: skip


# --- The broadcast ----------------------------------------------------------------------------------------------------


def draw_broadcast(words):
    """What a Spark broadcast saves: weights sent once per executor instead of in every task."""
    return page(
        622, words, draw_half(MARGIN, words, once=False), draw_half(492, words, once=True),
        # pyspark 3.5, rdd.py, _prepare_for_python_RDD: said because it changes what "without" costs.
        caption(PAGE / 2, 606, words("note"), color=QUIET, anchor="middle"))  # fmt: skip


def draw_half(x, words, once):
    """One half of the broadcast diagram: the way of the weights, then their bytes for every copy."""
    half, color = ("with", GOOD) if once else ("without", BAD)
    if once:
        ways = [arrow(70, 110, 70, 220), arrow(374, 110, 374, 220), arrow(198, 146, 150, 220, WEIGHTS, 5),
                arrow(246, 146, 294, 220, WEIGHTS, 5),
                arrow(196, 272, 248, 272, WEIGHTS, 2.5, both=True, dashed=True)]  # fmt: skip
    else:
        ways = [arrow(task, 146, task, 220, WEIGHTS, 5) for task in (70, 162, 254, 374)]
    copies = 1 if once else TASKS // EXECUTORS
    return group(
        x, 92, box(0, 0, 444, 490), caption(16, 30, words(f"{half}_title"), 18, color, bold=True),
        draw_queue(words, once),
        *[draw_executor(16 + 224 * number, number + 1, copies, words) for number in range(EXECUTORS)], *ways,
        caption(222, 415, words(f"{half}_notes"), color=QUIET, anchor="middle"),
        caption(258, 472, words(f"{half}_sum"), STRONG, anchor="end"),
        caption(266, 472, words(f"{half}_total"), TITLE, color, bold=True))  # fmt: skip


def draw_queue(words, once):
    """The driver and its queue of tasks; the weights lie in each task, or `once` beside them."""
    names = {12: 1, 104: 2, 196: 3, 316: TASKS}  # tasks by their left edge
    chips = [(131, words("weights"), 150)] if once else [(x, words("size"), 84) for x in names]
    return group(
        16, 44, panel(0, 0, 412, 110, words("driver"), words("with_tasks" if once else "without_tasks")),
        caption(298, 57, "…", STRONG, anchor="middle"),
        *[chip(x, 38, 84, words("task", number=number)) for x, number in names.items()],
        *[chip(x, 72, width, text, WEIGHTS, bold=True) for x, text, width in chips])  # fmt: skip


def draw_executor(x, number, copies, words):
    """An executor, the weights that it receives `copies` times, and its two Python workers."""
    depths = (2, 1, 0) if copies > 1 else (0,)  # a pile, from the bottom up
    pile = [box(10 + 3 * depth, 36 - 3 * depth, 168 - 6 * depth, CHIP, "" if depth else
                words("copies", copies=copies), WEIGHTS, WHITE, bold=True) for depth in depths]  # fmt: skip
    return group(
        x, 222, panel(0, 0, 188, 170, words("executor", number=number)), *pile,
        draw_worker(50, 66, words), draw_worker(138, 66, words))  # fmt: skip


# --- Transfer learning ------------------------------------------------------------------------------------------------


def draw_transfer_learning(words):
    """Where the network is cut: its stages stay, its classifier goes, a vector leaves."""
    return page(
        532, words, panel(152, 92, 580, 312, words("kept"), color=NETWORK), *draw_maps(words),
        arrow(172, 364, 648, 364),
        caption(172, 386, words("first_stages"), color=QUIET),
        caption(648, 386, words("last_stages"), color=QUIET, anchor="end"),
        *[box(682, 138 + 18 * row, 24, 18, fill=VECTOR, edge=WHITE, radius=2) for row in range(10)],
        caption(694, 338, words("average"), anchor="middle"),
        line(752, 92, 752, 404, BAD, 3, dashed=True), caption(762, 424, words("cut"), color=BAD, bold=True),
        panel(772, 92, 164, 312, words("gone"), color=QUIET, fill=WHITE, dashed=True),
        arrow(710, 228, 784, 228, LINE, dashed=True), box(786, 158, 136, 140, words("classifier"), fill=SOFT),
        caption(854, 338, words("gone_weights"), color=QUIET, anchor="middle"),
        arrow(694, 362, 694, 446, VECTOR, 5),
        *[box(514 + 20 * cell, 450, 20, 28, fill=VECTOR, edge=WHITE, radius=2) for cell in range(18)],
        caption(498, 470, words("vector"), STRONG, bold=True, anchor="end"),
        caption(PAGE / 2, 512, words("note"), color=QUIET, anchor="middle"))  # fmt: skip


def draw_maps(words):
    """The picture, then the maps of the last stage at each size: smaller and smaller, more and more of them."""
    middle, above, below = 228, 142, 320
    shapes = [picture(24, middle - 50, 100), caption(74, above + ROW * TEXT, words("picture"), anchor="middle"),
              caption(74, below, words("input"), anchor="middle"), arrow(130, middle, 162, middle)]  # fmt: skip
    last = {side: channels for side, _, channels in words.numbers["stages"]}
    x = 168
    for row, (side, channels) in enumerate(last.items()):
        edge, depth = 14.5 * log2(side / 3.5) + 10, round(1.2 * log2(channels)) - 3
        width = edge + 4 * depth
        shapes += [
            draw_pile(x, middle, edge, depth), arrow(x + width + 4, middle, x + width + 22, middle),
            caption(x + width / 2, above, words(f"size_{row + 1}"), anchor="middle"),
            caption(x + width / 2, below, words("shape", side=side, channels=channels), anchor="middle"),
        ]  # fmt: skip
        x += width + 26
    return shapes


def draw_pile(x, middle, edge, depth):
    """A pile of `depth` + 1 square maps, from the back to the front."""
    squares = [(x + 4 * back, middle - edge / 2 - 2 * depth + 4 * (depth - back)) for back in range(depth, -1, -1)]
    return "\n".join(f'<rect x="{left:.1f}" y="{top:.1f}" width="{edge:.1f}" height="{edge:.1f}" '
                     f'fill="{NETWORK}" stroke="{WHITE}"/>' for left, top in squares)  # fmt: skip


# --- The pandas UDF ---------------------------------------------------------------------------------------------------


def draw_pandas_udf(words):
    """From bytes to a vector or a reason, in one pass through a Python worker."""
    return page(
        610, words,
        panel(24, 92, 912, 84, words("storage")), panel(24, 200, 912, 114, words("executor")),
        panel(24, 346, 912, 246, words("python"), words("a_core")),
        *[picture(164 + 40 * number, 116, 36) for number in range(3)], caption(292, 140, words("pictures")),
        chip(596, 122, 150, "features/ (parquet)", VECTOR), box(770, 122, 150, CHIP, "rejected/ (parquet)", edge=BAD),
        arrow(222, 156, 222, 242, BYTES, 3), box(116, 244, 212, 52, words("read")),
        arrow(330, 270, 594, 270), caption(462, 258, words("stay"), color=QUIET, anchor="middle"),
        box(596, 244, 324, 52, words("write")),
        arrow(671, 242, 671, 154, VECTOR, 3), caption(661, 193, words("has_features"), color=QUIET, anchor="end"),
        arrow(845, 242, 845, 154, BAD, 3), caption(835, 193, words("has_reason"), color=QUIET, anchor="end"),
        arrow(222, 298, 222, 408, BYTES, 3), caption(236, 335, words("arrow_in"), color=QUIET),
        arrow(758, 388, 758, 298, VECTOR, 3), caption(744, 335, words("arrow_out"), color=QUIET, anchor="end"),
        *draw_batch(words))  # fmt: skip


def draw_batch(words):
    """What a worker does with a batch: decode, resize, the network; or the reason why not."""
    return [
        box(44, 410, 190, 64, words("decode")), arrow(236, 442, 258, 442),
        box(260, 410, 120, 64, words("resize")), arrow(382, 442, 404, 442),
        box(406, 410, 158, 64, words("network_batch"), NETWORK, NETWORK),
        chip(406, 362, 158, words("weights"), WEIGHTS), arrow(485, 390, 485, 408, WEIGHTS, 3),
        arrow(566, 442, 598, 442, VECTOR, 3), arrow(139, 476, 139, 516, BAD, 3), arrow(485, 476, 485, 516, BAD, 3),
        caption(153, 500, words("refused"), color=BAD), caption(499, 500, words("not_finite"), color=BAD),
        box(44, 518, 520, 46, words("reasons"), edge=BAD), arrow(566, 541, 598, 541, BAD, 3),
        box(600, 390, 316, 186, edge=QUIET), caption(758, 502, words("or"), color=QUIET, anchor="middle"),
        box(612, 410, 292, 64, words("features_out"), VECTOR, VECTOR),
        box(612, 518, 292, 46, words("reason_out"), edge=BAD),
    ]  # fmt: skip


# --- The PCA ----------------------------------------------------------------------------------------------------------


def draw_pca(words):
    """What a PCA does to a cloud of points: centre, find the directions, project."""
    bar = 912 * words.numbers["share"]
    return page(
        560, words, *[draw_step(24 + 312 * step, step, words) for step in range(3)],
        caption(MARGIN, 452, words("bar"), bold=True),
        box(MARGIN, 464, bar, 36, fill=GOOD, edge=GOOD),
        caption(MARGIN + bar / 2, 488, words("bar_first"), STRONG, WHITE, bold=True, anchor="middle"),
        box(MARGIN + bar + 3, 464, 912 - bar - 3, 36, fill=LINE),
        caption(MARGIN + bar + 3 + (909 - bar) / 2, 488, words("bar_second"), STRONG, anchor="middle", bold=True),
        caption(PAGE / 2, 536, words("note"), color=QUIET, anchor="middle"))  # fmt: skip


def draw_step(x, step, words):
    """One step of the PCA: its title, the points in their axes, and what it does in words."""
    draw = (draw_centring, draw_directions, draw_projection)[step]
    return group(
        x, 92, panel(0, 0, 288, 334, words(f"step_{step + 1}"), fill=WHITE), *draw(words),
        caption(144, 298, words(f"step_{step + 1}_text"), color=QUIET, anchor="middle"))  # fmt: skip


def place(points):
    """Turn points of the cloud, y upwards, into pixels of a step's panel: the same scale both ways."""
    return np.asarray(points) * (1, -1) + (0, 268)


def mark(point, text):
    """A large dot with its name below the cloud."""
    x, y = point
    return [line(x, y, x + 34, y + 62, INK, 1), dot(x, y, 6, INK), caption(x + 36, y + 76, text, bold=True)]


def draw_centring(words):
    """The cloud in the axes of two features, and the way from their zero to the mean."""
    mean = place(words.numbers["mean"])
    origin = place((24, 16))
    return [
        arrow(*origin, 276, origin[1]), arrow(*origin, origin[0], 48),
        caption(276, origin[1] + 18, words("feature", number=1), color=QUIET, anchor="end"),
        caption(origin[0] + 10, 58, words("feature", number=2), color=QUIET),
        *[dot(*point, 3.5, VECTOR) for point in place(words.numbers["points"])],
        arrow(*origin, *(mean + (-6, 4)), INK, 2, dashed=True), *mark(mean, words("mean")),
    ]  # fmt: skip


def draw_directions(words):
    """The cloud around its mean, and the two directions, each two standard deviations long."""
    mean, axes = words.numbers["mean"], words.numbers["axes"]
    tips = place(mean + 2 * words.numbers["deviations"][:, None] * axes)
    first, second = tips
    return [
        *[dot(*point, 3.5, VECTOR, 0.75) for point in place(words.numbers["points"])],
        arrow(*place(mean), *first, GOOD, 4), arrow(*place(mean), *second, INK, 4), dot(*place(mean), 6, INK),
        caption(first[0] - 26, first[1] - 24, words("component", number=1), color=GOOD, bold=True, anchor="end"),
        caption(second[0] - 14, second[1] - 26, words("component", number=2), bold=True, anchor="end"),
    ]  # fmt: skip


def draw_projection(words):
    """Each point dropped onto the first direction: what is kept of it is one number."""
    mean, first = words.numbers["mean"], words.numbers["axes"][0]
    points = words.numbers["points"]
    feet = mean + np.outer((points - mean) @ first, first)
    ends = place(mean + np.outer((-142, 142), first))
    return [
        arrow(*ends[0], *ends[1], GOOD, 2),
        *[line(*point, *foot, LINE, 1) for point, foot in zip(place(points), place(feet), strict=True)],
        *[dot(*point, 3, VECTOR, 0.35) for point in place(points)],
        *[dot(*foot, 3.5, GOOD) for foot in place(feet)], *mark(place(mean), words("zero")),
    ]  # fmt: skip


# --- AWS --------------------------------------------------------------------------------------------------------------


def draw_aws(words):
    """The stack of emr-cluster.yaml: what runs where, and what can reach what."""
    return page(
        664, words,
        panel(24, 134, 148, 418, words("laptop")),
        *[box(34, y, 128, 60, words(name)) for name, y in (("orders", 170), ("files", 288), ("browser", 412))],
        panel(196, 92, 740, 472, words("region"), fill=WHITE, edge=GOOD, color=GOOD),
        *draw_services(words), panel(512, 134, 412, 418, words("vpc"), words("closed")),
        box(524, 264, 96, 108, words("gateway"), edge=GOOD), box(524, 412, 96, 128, words("interfaces"), edge=GOOD),
        panel(648, 168, 264, 372, words("cluster"), fill=WHITE),
        *[draw_node(y, words, *node) for y, node in (
            (206, ("primary", "JupyterHub", "Livy")), (318, ("core", words("spark_driver"), words("one_executor"))),
            (430, ("task_nodes", words("one_executor"), words("one_executor"))))],
        arrow(840, 294, 840, 328), *draw_ways(), *draw_roles(words))  # fmt: skip


def draw_services(words):
    """The services of AWS that laptop and cluster call, one below the other."""
    folders = ("project/", "images/", "output/", "jupyter/", "logs/")
    places = ((246, 286), (315, 286), (384, 286), (280, 319), (349, 319))
    return [
        box(236, 170, 224, 60, words("makers")),
        panel(236, 250, 224, 136, words("bucket"), words("bucket_note"), fill=WHITE),
        *[chip(x, y, 66, name) for name, (x, y) in zip(folders, places, strict=True)],
        caption(348, 371, words("bucket_text"), color=QUIET, anchor="middle"),
        box(236, 412, 224, 60, words("tunnel")), box(236, 480, 224, 60, words("kms")),
    ]  # fmt: skip


def draw_node(y, words, name, *programs):
    """One kind of machine of the cluster, and what it runs."""
    return group(
        660, y, box(0, 0, 240, 98, fill=SOFT), caption(12, 38, words(name), bold=True),
        caption(12, 57, words(f"{name}_text"), color=QUIET),
        *[chip(130, 12 + 46 * row, 100, program) for row, program in enumerate(programs)])  # fmt: skip


def draw_ways():
    """The ways between laptop, services and network."""
    return [
        arrow(164, 200, 234, 200), arrow(462, 200, 646, 200),
        *[arrow(start, 318, end, 318, BYTES, 3, both=True) for start, end in ((164, 234), (462, 522), (622, 646))],
        arrow(164, 442, 234, 442, both=True), arrow(462, 442, 522, 442, both=True),
        arrow(462, 510, 522, 510, both=True), arrow(622, 476, 646, 476, both=True),
    ]  # fmt: skip


def draw_roles(words):
    """What the roles of IAM allow, and what both refuse."""
    return [
        caption(MARGIN + 12, 599, words("roles"), STRONG, bold=True),
        box(MARGIN, 576, 912, 70, fill="none"),
        *[caption(x, 599 + 19 * row, words(f"{role}{part}"), color=GOOD if role == "both" else INK, bold=not part)
          for row, role in enumerate(("emr", "machines", "both")) for x, part in ((196, ""), (300, "_role"))],
    ]  # fmt: skip


DIAGRAMS = {
    "spark": draw_spark,
    "broadcast": draw_broadcast,
    "transfer-learning": draw_transfer_learning,
    "pandas-udf": draw_pandas_udf,
    "pca": draw_pca,
    "aws": draw_aws,
}
LANGUAGES = {"en": "", "fr": ".fr"}  # what stands before .svg


def draw_all(names=DIAGRAMS):
    """Draw diagrams in every language: {file name: SVG}."""
    numbers = read_numbers()
    return {f"{name}{suffix}.svg": DIAGRAMS[name](Words(language, name, numbers))
            for name in names for language, suffix in LANGUAGES.items()}  # fmt: skip


if __name__ == "__main__":
    for file, content in draw_all(sys.argv[1:] or DIAGRAMS).items():
        (FOLDER / file).write_text(content, encoding="utf-8", newline="\n")
