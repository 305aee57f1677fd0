"""Draw the diagrams of the notebooks as SVG files next to this script.

    python images-cours/draw.py [name ...]

Without a name, every diagram of DIAGRAMS is drawn. Shapes are strings of plain SVG, in pixels of a page PAGE
wide: the files stay small, their text can be searched, and the same code writes the same bytes.
"""

import sys
from html import escape
from math import hypot
from pathlib import Path

# Okabe and Ito's colours, told apart by colour-blind readers. One colour is one thing in every diagram.
WEIGHTS, NETWORK, BAD, GOOD = "#E69F00", "#009E73", "#D55E00", "#0072B2"
INK, QUIET, LINE, SOFT, WHITE = "#222222", "#595959", "#B3B3B3", "#F5F6F8", "#FFFFFF"

# These three share their letter widths, so lines keep their length on Windows, macOS and Linux.
FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
TEXT, STRONG, TITLE = 14, 16, 26  # font sizes; below 13 a projector loses the letters
PAGE, MARGIN = 960, 24

# What model.get_weights() holds once batch normalisation is folded: local.ipynb prints the same 13.4 MB.
PARAMETERS = 3_350_000
WEIGHT_BYTES = PARAMETERS * 4  # float32
# A run of 256,000 pictures, with features.tune_spark.
TASKS = 1_000
EXECUTORS = 2  # as many as are drawn


def caption(x, y, text, size=TEXT, color=INK, bold=False, anchor="start"):
    """One line of text; `y` is its baseline, `anchor` is start, middle or end."""
    weight = ' font-weight="bold"' if bold else ""
    style = f'font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'


def box(x, y, width, height, text="", fill=WHITE, edge=LINE, bold=False):
    """A rounded box with its text in the middle, one line of text a row."""
    lines = text.split("\n")
    top = y + height / 2 + TEXT * 0.36 - (len(lines) - 1) * TEXT * 0.6  # 0.36: half the height of a capital
    size = f'width="{width:g}" height="{height:g}" rx="8"'
    rectangle = f'<rect x="{x:g}" y="{y:g}" {size} fill="{fill}" stroke="{edge}"/>'
    rows = [caption(x + width / 2, top + row * TEXT * 1.2, line, bold=bold, anchor="middle")
            for row, line in enumerate(lines) if line]
    return "\n".join([rectangle, *rows])


def arrow(x1, y1, x2, y2, color=QUIET, width=1.5, both=False):
    """A straight arrow to (x2, y2); with `both`, dashed and with a head at either end."""
    length, head = hypot(x2 - x1, y2 - y1), 5 + 2 * width
    right, down = head * (x2 - x1) / length, head * (y2 - y1) / length  # from a head's base to its tip

    def point(x, y, right, down):
        # A polygon, not a <marker>: the id of a marker can clash in a notebook that shows several SVGs.
        base_x, base_y = x - right, y - down
        corners = ((x, y), (base_x - down / 2, base_y + right / 2), (base_x + down / 2, base_y - right / 2))
        return f'<polygon fill="{color}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}"/>'

    heads, dashes = [point(x2, y2, right, down)], ""
    x2, y2 = x2 - right, y2 - down
    if both:
        heads, dashes = [*heads, point(x1, y1, -right, -down)], ' stroke-dasharray="4 3"'
        x1, y1 = x1 + right, y1 + down
    line = f'd="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"'
    return "\n".join([f'<path {line} stroke="{color}" stroke-width="{width:g}"{dashes}/>', *heads])


def group(x, y, *shapes):
    """Shapes drawn together, their (0, 0) put at (x, y)."""
    return "\n".join([f'<g transform="translate({x:g} {y:g})">', *shapes, "</g>"])


def page(height, title, subtitle, *shapes):
    """A whole SVG file: shapes on a white card, so that they read as well in a dark notebook."""
    # As wide as the page or the notebook's cell, whichever is less.
    frame = f'width="{PAGE}" style="max-width: 100%; height: auto" viewBox="0 0 {PAGE} {height}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="{FONT}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{PAGE}" height="{height}" rx="16" fill="{WHITE}"/>',
        caption(MARGIN, 46, title, TITLE, bold=True),
        caption(MARGIN, 72, subtitle, STRONG, QUIET),
        *shapes, "</svg>\n"])


def name_size(count):
    """Bytes in MB or GB (powers of ten), with three digits."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def draw_driver(once):
    """The driver and its queue of tasks; the weights lie in each task, or `once` beside them."""
    names = {12: "task 1", 104: "task 2", 196: "task 3", 316: f"task {TASKS:,}"}  # by their left edge
    size = name_size(WEIGHT_BYTES)
    chips = [(131, "weights " + size, 150)] if once else [(x, size, 84) for x in names]
    note = "tasks carry only a reference" if once else "every task carries the weights"
    return group(
        16, 44, box(0, 0, 412, 110, fill=SOFT), caption(12, 24, "Driver", STRONG, bold=True),
        caption(400, 24, note, color=QUIET, anchor="end"), caption(298, 57, "…", STRONG, anchor="middle"),
        *[box(x, 38, 84, 28, name) for x, name in names.items()],
        *[box(x, 72, width, 28, text, WEIGHTS, WEIGHTS, bold=True) for x, text, width in chips])


def draw_worker(x):
    """A Python worker of an executor, centred on `x`, and the network that it builds from the weights."""
    return group(
        x - 40, 66, arrow(40, 0, 40, 18), box(0, 20, 80, 74),
        caption(40, 39, "Python", anchor="middle"), caption(40, 55, "worker", anchor="middle"),
        box(5, 64, 70, 24, "network", NETWORK, NETWORK))


def draw_executor(x, number, copies):
    """An executor, the weights that it receives `copies` times, and its two Python workers."""
    depths = (2, 1, 0) if copies > 1 else (0,)  # a pile, from the bottom up
    pile = [box(10 + 3 * depth, 36 - 3 * depth, 168 - 6 * depth, 28, "" if depth else
                f"{copies:,g} × {name_size(WEIGHT_BYTES)}", WEIGHTS, WHITE, bold=True) for depth in depths]
    return group(
        x, 222, box(0, 0, 188, 170, fill=SOFT), caption(12, 24, f"Executor {number}", STRONG, bold=True),
        *pile, draw_worker(50), draw_worker(138))


def draw_half(x, once, title, color, count, unit, *notes):
    """One half of the broadcast diagram: the way of the weights, then their bytes for `count` copies."""
    if once:
        ways = [arrow(70, 110, 70, 220), arrow(374, 110, 374, 220), arrow(198, 146, 150, 220, WEIGHTS, 5),
                arrow(246, 146, 294, 220, WEIGHTS, 5), arrow(196, 272, 248, 272, WEIGHTS, 2.5, both=True)]
    else:
        ways = [arrow(task, 146, task, 220, WEIGHTS, 5) for task in (70, 162, 254, 374)]
    copies = 1 if once else TASKS / EXECUTORS
    return group(
        x, 92, box(0, 0, 444, 490), caption(16, 30, title, 18, color, bold=True), draw_driver(once),
        draw_executor(16, 1, copies), draw_executor(240, 2, copies), *ways,
        *[caption(222, 415 + 20 * row, note, color=QUIET, anchor="middle") for row, note in enumerate(notes)],
        caption(258, 472, f"{count:,} {unit} × {name_size(WEIGHT_BYTES)} =", STRONG, anchor="end"),
        caption(266, 472, name_size(count * WEIGHT_BYTES), TITLE, color, bold=True))


def draw_broadcast():
    """What a Spark broadcast saves: weights sent once per executor instead of in every task."""
    return page(
        622, "What a Spark broadcast saves",
        f"EfficientNet-Lite0 without its classifier: {PARAMETERS / 1e6:.2f} million weights, "
        f"{name_size(WEIGHT_BYTES)}. Example: {TASKS:,} tasks of 256 pictures",
        draw_half(MARGIN, False, "Without a broadcast: in every task", BAD, TASKS, "tasks",
                  "JSON + weights → network, again in every task", f"the same bytes, {TASKS:,} times over"),
        draw_half(492, True, "With a broadcast: once per executor", GOOD, EXECUTORS, "executors",
                  "JSON + weights → network, once per Python worker",
                  "executors also pass blocks to each other, torrent-like"),
        # pyspark 3.5, rdd.py, _prepare_for_python_RDD: said because it changes what "without" costs.
        caption(PAGE / 2, 606, "PySpark 3.5 itself broadcasts a closure over 1 MiB, yet every task unpickles "
                f"it: {name_size(TASKS * WEIGHT_BYTES)} decoded, not sent.", color=QUIET, anchor="middle"))


DIAGRAMS = {"broadcast": draw_broadcast}


if __name__ == "__main__":
    for name in sys.argv[1:] or DIAGRAMS:
        Path(__file__).with_name(f"{name}.svg").write_text(DIAGRAMS[name](), encoding="utf-8", newline="\n")
