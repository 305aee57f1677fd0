"""Draw the diagrams of the notebooks as SVG files next to this script.

    python images-cours/draw.py [name ...]

Without a name, every diagram of DIAGRAMS is drawn. Shapes are strings of plain SVG, in pixels of a page PAGE wide:
the files stay small, their text can be searched, and the same code writes the same bytes.
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

# EfficientNet-Lite0 has 4,652,008 trained numbers, 1,281,000 of them in the classifier that is cut away.
# Batch normalisation keeps 42,016 running averages besides: 1 %, left out here.
PARAMETERS = 4_652_008 - 1_281_000
WEIGHT_BYTES = PARAMETERS * 4  # float32
# Spark puts 32 small files in a task (128 MB a partition, 4 MB to open a file): 32,000 pictures.
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
    length = hypot(x2 - x1, y2 - y1)
    along, across = (x2 - x1) / length, (y2 - y1) / length
    reach = 5 + 1.5 * width

    def head(x, y, way):
        """The two strokes of a head; drawn, not a <marker>, whose id could clash in a page of several SVGs."""
        back_x, back_y = x - way * reach * along, y - way * reach * across
        side_x, side_y = 0.6 * reach * across, -0.6 * reach * along
        return (f"M{back_x + side_x:.1f} {back_y + side_y:.1f}L{x:.1f} {y:.1f}"
                f"L{back_x - side_x:.1f} {back_y - side_y:.1f}")

    stroke = f'fill="none" stroke="{color}" stroke-width="{width:g}" stroke-linejoin="round"'
    dashes = ' stroke-dasharray="5 4"' if both else ""
    heads = head(x2, y2, 1) + (head(x1, y1, -1) if both else "")
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" {stroke}{dashes}/>\n<path d="{heads}" {stroke}/>'


def group(x, y, *shapes):
    """Shapes drawn together, their (0, 0) put at (x, y)."""
    return "\n".join([f'<g transform="translate({x:g} {y:g})">', *shapes, "</g>"])


def page(height, title, subtitle, *shapes):
    """A whole SVG file: shapes on a white card, so that they read as well in a dark notebook."""
    frame = f'width="{PAGE}" height="{height}" viewBox="0 0 {PAGE} {height}"'
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


def draw_executor(x, number, copies):
    """An executor, the weights it receives `copies` times, and two Python workers that build the network."""
    received = f"{copies:,g} × {name_size(WEIGHT_BYTES)}"
    pile = [box(10 + 3 * n, 36 - 3 * n, 168 - 6 * n, 28, fill=WEIGHTS, edge=WHITE) for n in (2, 1) if copies > 1]
    workers = [[arrow(x, 66, x, 84), box(x - 40, 86, 80, 74, "Python\nworker\n"),
                box(x - 35, 130, 70, 24, "network", NETWORK, NETWORK)] for x in (50, 138)]
    return group(
        x, 222, box(0, 0, 188, 170, fill=SOFT), caption(12, 24, f"Executor {number}", STRONG, bold=True),
        *pile, box(10, 36, 168, 28, received, WEIGHTS, WHITE, bold=True), *sum(workers, []))


def draw_half(x, title, once, sender, senders, notes, color):
    """One half of the broadcast diagram, with or without it, down to the bytes received."""
    if once:
        ways = [arrow(70, 110, 70, 219), arrow(374, 110, 374, 219), arrow(198, 146, 150, 219, WEIGHTS, 5),
                arrow(246, 146, 294, 219, WEIGHTS, 5), arrow(199, 272, 245, 272, WEIGHTS, 2.5, both=True)]
    else:
        ways = [arrow(way, 146, way, 219, WEIGHTS, 5) for way in (70, 162, 254, 374)]
    copies = 1 if once else TASKS / EXECUTORS
    return group(
        x, 92, box(0, 0, 444, 480), caption(16, 30, title, 18, color, bold=True), draw_driver(once),
        draw_executor(16, 1, copies), draw_executor(240, 2, copies), *ways,
        *[caption(222, 416 + 20 * row, note, color=QUIET, anchor="middle") for row, note in enumerate(notes)],
        caption(16, 466, f"{senders:,} {sender} × {name_size(WEIGHT_BYTES)} =", STRONG),
        caption(428, 466, name_size(senders * WEIGHT_BYTES), TITLE, color, bold=True, anchor="end"))


def draw_broadcast():
    """What a Spark broadcast saves: weights sent once per executor instead of in every task."""
    network = "EfficientNet-Lite0 cut before its classifier"
    return page(
        612, "What a Spark broadcast saves",
        f"{network}: {PARAMETERS / 1e6:.1f} million float32 weights = {name_size(WEIGHT_BYTES)}",
        draw_half(MARGIN, "Without: in every task", False, "tasks", TASKS,
                  ["JSON + weights → network, again in every task"], BAD),
        draw_half(492, "Broadcast: once per executor", True, "executors", EXECUTORS,
                  ["JSON + weights → network, once per Python worker",
                   "executors also pass blocks to each other, torrent-like"], GOOD),
        # pyspark 3.5, rdd.py, _prepare_for_python_RDD: said here, for a reader who knows it would object.
        caption(PAGE / 2, 596, "PySpark 3.5 itself broadcasts a closure over 1 MiB, yet every task unpickles it: "
                f"{name_size(TASKS * WEIGHT_BYTES)} decoded, not sent.", color=QUIET, anchor="middle"))


DIAGRAMS = {"broadcast": draw_broadcast}


if __name__ == "__main__":
    for name in sys.argv[1:] or DIAGRAMS:
        Path(__file__).with_name(f"{name}.svg").write_text(DIAGRAMS[name](), encoding="utf-8", newline="\n")
