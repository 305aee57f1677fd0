"""Figures of a run. Each function returns a matplotlib Figure whose title is what it shows."""

from collections import Counter
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import yaml

from fruits import french, storage

TRANSLATION = Path(__file__).with_name("figures.fr.yaml")

# Okabe and Ito's colours, told apart by colour-blind readers ("Color Universal Design", 2008).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C7A00", "#4D4D4D")
MARKERS = "osD^vP*X"
STYLE = {
    "figure.dpi": 110,
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "figure.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
FAINTEST = 1e-5  # of the first; components beyond the number of pictures have none, which no axis can show
LABELS_NAMED = 24  # a legend of more is read by nobody
LABEL_LENGTH = 22  # characters
LABELS_CONFUSED = 12
DOTS = 150  # an inch, of the figures saved
TITLE_LENGTH = 66  # characters of a line beside the names of labels
METHODS = (  # of quality.Accuracy: how they are named and drawn
    ("logistic", "logistic regression", COLOURS[0], "o"),
    ("neighbours", "nearest neighbour", COLOURS[1], "s"),
)
_french = None  # {English text: French text}, while figures are drawn in French


@plt.rc_context(STYLE)
def draw_pictures(examples):
    """Draw a few pictures with their labels, six in a row.

    examples: sequence of images.Example, of 1 picture or more; an empty one gives a figure that says so.
    """
    rows = max(1, -(-len(examples) // 6))
    figure, axes = plt.subplots(rows, 6, figsize=(9, 1.75 * rows + 0.4), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, example in zip(axes.flat, examples, strict=False):
        axis.imshow(example.pixels)
        axis.set_title(_shorten(example.label), fontsize=8, loc="center", parse_math=False)
    count = len(examples)
    seen = say("{count} of the pictures, as the network sees them", count=count)
    _title(figure, seen if count else say("No picture could be decoded"))
    return figure


@plt.rc_context(STYLE)
def draw_variance(pca, k, variance_kept):
    """Draw the share of variance of each component and their sum, with the choice of k.

    pca: reduction.Pca with every component. k: components kept. variance_kept: share asked for, in (0, 1], or None for
    a saved PCA, whose components were chosen on the pictures that it was fitted on.
    """
    shares, cumulated = 100 * pca.variance_ratio, 100 * np.cumsum(pca.variance_ratio)
    shown = min(len(shares), pca.rows, max(2 * k, 10))  # what lies far beyond k is a flat line
    numbers = np.arange(1, shown + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.bar(numbers, shares[:shown], width=1, color=np.where(numbers <= k, COLOURS[0], "#B0B0B0"))
    left.set(xlabel=say("component"), ylabel=say("variance explained (%)"), yscale="log", xlim=(0.5, shown + 0.5))
    left.set_ylim(bottom=max(shares[shown - 1], shares[0] * FAINTEST) / 2)
    both, one = "The first explains {first:.1f} %, number {k} only {last:.2g} %", "The first explains {first:.1f} %"
    left.set_title(say(both if k > 1 else one, first=shares[0], k=k, last=shares[k - 1]))
    right.plot(numbers, cumulated[:shown], color=COLOURS[0], linewidth=2)
    right.axvline(k, color=COLOURS[4], linestyle="--", linewidth=1)
    right.plot(k, cumulated[k - 1], "o", color=COLOURS[4])
    right.annotate(
        say("k = {k}\n{share:.1f} %", k=k, share=cumulated[k - 1]),
        (k, cumulated[k - 1]),
        (12, -34),
        textcoords="offset points",
        color=COLOURS[4],
    )
    right.set(xlabel=say("components kept"), ylabel=say("variance explained, cumulated (%)"))
    right.set(xlim=(0, shown + 0.5), ylim=(0, 103))
    choice = {"k": k, "all": len(shares), "share": cumulated[k - 1]}
    if variance_kept:
        right.axhline(100 * variance_kept, color=COLOURS[4], linestyle="--", linewidth=1)
        told = say("{k:,} of {all:,} keep {share:.1f} % ({asked:g} % asked for)", asked=100 * variance_kept, **choice)
    else:
        told = say("{k:,} of {all:,} keep {share:.1f} % (of {rows:,} pictures fitted)", rows=pca.rows, **choice)
    right.set_title(told)
    return figure


@plt.rc_context(STYLE)
def draw_two_components(labels, scores, variance_ratio, fitted=None):
    """Draw pictures on their first two components, coloured by label.

    labels: sequence of n str. scores: (n, 2 or more), coordinates in units of the features. variance_ratio: share of
    variance of each component, in 0..1, also of those not kept. fitted: of a saved PCA, the number of pictures that it
    was fitted on, whose variance this is; None where it is that of these. With one component only, the second axis is
    zero.
    """
    scores = np.asarray(scores, float)
    across, up = scores[:, 0], scores[:, 1] if scores.shape[1] > 1 else np.zeros(len(scores))
    counts = Counter(labels)
    kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
    figure, axis = plt.subplots(figsize=(9.5, 6), layout="constrained")
    labels, named = np.asarray(labels, str), kinds[:LABELS_NAMED]

    def draw(is_drawn, colour, marker):
        axis.scatter(across[is_drawn], up[is_drawn], s=22, c=colour, marker=marker, alpha=0.75, linewidths=0)

    for position, kind in enumerate(named):
        marker = MARKERS[(position // len(COLOURS) + position) % len(MARKERS)]
        draw(labels == kind, COLOURS[position % len(COLOURS)], marker)
    if len(kinds) > len(named):
        draw(~np.isin(labels, named), "#B0B0B0", ".")
    shares = [*(100 * np.asarray(variance_ratio[: min(2, scores.shape[1])])), 0.0]  # of those that were kept
    axis.set(xlabel=say("first component ({share:.1f} % of variance)", share=shares[0]))
    axis.set(ylabel=say("second component ({share:.1f} % of variance)", share=shares[1]))
    decimal = say("{value:g}", value=0.5)[1]  # of the language now: numbers are written when the figure is drawn
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(lambda value, _: f"{value:g}".replace(".", decimal).replace("-", "−"))
    told = "Two components hold {share:.1f} % of the variance of {count} labels"
    if fitted:
        told = "Two components hold {share:.1f} % of the variance of {fitted:,} pictures fitted; {count} label(s) here"
    told = say(told, share=sum(shares[:2]), count=len(kinds), fitted=fitted)
    others = say(", the {count} most frequent named", count=LABELS_NAMED) if len(kinds) > LABELS_NAMED else ""
    axis.set_title(told + others)
    # Named here and not in scatter, which hides a label that begins with _ and reads $ as mathematics.
    names = [_shorten(kind) for kind in named]
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False, "fontsize": 8}
    for text in axis.legend(axis.collections[: len(names)], names, **beside).get_texts():
        text.set_parse_math(False)
    return figure


@plt.rc_context(STYLE)
def draw_accuracy(quality):
    """Draw how often the label is found, against the components kept, with the two choices of k.

    quality: quality.Quality. What was not measured is not drawn; where nothing was, the figure says why.
    """
    figure, axis = plt.subplots(figsize=(9, 4.5), layout="constrained")
    if quality.why_nothing:
        return _say_only(figure, say("Accuracy was not measured: {why}", why=_tell_why(quality)))
    for method, name, colour, marker in METHODS:
        known = [(row.k, 100 * getattr(row, method)) for row in quality.rows if getattr(row, method) is not None]
        axis.plot(*zip(*known, strict=True), marker=marker, color=colour, label=say(name)) if known else None
    thin, baseline = {"linewidth": 1}, 100 * quality.baseline
    axis.axhline(baseline, color="#4D4D4D", linestyle=":", label=say("always the most frequent label"), **thin)
    axis.axvline(quality.chosen_k, color=COLOURS[4], linestyle="--", label=say("kept by this run"), **thin)
    axis.set(xscale="log", xlabel=say("components kept (the last: the features themselves)"), ylim=(0, 103))
    axis.set(ylabel=say("labels found, of {count:,} pictures kept aside (%)", count=quality.tested))
    chosen = quality.chosen_k  # a number that would stand on its own is left out
    ticks = [row.k for row in quality.rows if row.k == chosen or abs(np.log10(row.k / chosen)) > 0.1]
    axis.set_xticks(ticks, [say("{k:,}", k=k) for k in ticks])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8, loc="center right")
    axis.set_title(_tell_accuracy(quality))
    return figure


def _tell_accuracy(quality):
    """Tell what the accuracies show."""
    enough, known = quality.find_enough(), {row.k: row.logistic for row in quality.rows}
    if enough is None:
        return say("The time did not suffice to compare every number of components")
    numbers = {"enough": enough, "share": 100 * known[enough], "chosen": quality.chosen_k}
    if enough == max(known):
        return say("Accuracy grows to the last of {enough:,} components: {share:.1f} % of labels found", **numbers)
    enough = "{enough:,} components are within a standard error of the best: {share:.1f} % of labels found\n"
    return say(enough + "(this run keeps {chosen:,})", **numbers)


def _tell_why(quality):
    """Tell why nothing was measured."""
    return quality.problem or say("the time was over")


@plt.rc_context(STYLE)
def draw_confusion(quality):
    """Draw the labels most often taken for one another: rows are the truth, columns what was answered.

    quality: quality.Quality.
    """
    figure, axis = plt.subplots(figsize=(8, 6.5), layout="constrained")
    if not quality.confusion:
        return _say_only(figure, say("Confusion was not measured: {why}", why=_tell_why(quality)))
    wrong = [entry for entry in quality.confusion if entry[0] != entry[1]]
    labels = list(dict.fromkeys(label for entry in wrong for label in entry[:2]))[:LABELS_CONFUSED]
    if not wrong:
        told = say("Each of the {count:,} pictures kept aside got its own label", count=quality.tested)
        return _say_only(figure, told)
    place = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), int)
    for truth, found, count in quality.confusion:
        if truth in place and found in place:
            counts[place[truth], place[found]] = count
    axis.grid(False)
    axis.imshow(np.where(np.eye(len(labels), dtype=bool), 0, counts), cmap="Blues")
    darkest = max(entry[2] for entry in wrong)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if row != column and count > darkest / 2 else "#4D4D4D"
        axis.text(column, row, count or "", ha="center", va="center", fontsize=8, color=colour)
    names = [_shorten(label) for label in labels]
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8, parse_math=False)
    axis.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    judges = {method: say(name) for method, name, *_ in METHODS}
    judge = judges.get(quality.judge, quality.judge)
    axis.set(xlabel=say("label answered by {judge} (pictures; errors in blue)", judge=judge))
    axis.set(ylabel=say("true label (pictures), the {count} most confused", count=len(labels)))
    truth, found, count = wrong[0]
    asked = sum(entry[2] for entry in quality.confusion if entry[0] == truth)
    pair = {"truth": _shorten(truth), "found": _shorten(found)}
    told = "Most often confused: {truth} taken for {found}, {count} of {asked}"
    axis.set_title(fill(say(told, count=count, asked=asked, **pair), TITLE_LENGTH))
    axis.title.set_parse_math(False)
    return figure


@plt.rc_context(STYLE)
def draw_extremes(extremes, pixels):
    """Draw the pictures at both ends of the first components, a component a row.

    extremes: pandas DataFrame of reduction.find_extremes. pixels: {path: uint8 (height, width, 3)}.
    """
    components = sorted(extremes["component"].unique())
    across = int(extremes.groupby(["component", "end"]).size().max())
    size = (1.15 * (2 * across + 1), 1.45 * len(components) + 0.5)
    figure, axes = plt.subplots(len(components), 2 * across + 1, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, component in zip(axes, components, strict=True):
        ends = extremes[extremes["component"] == component]
        low, high = (list(ends[ends["end"] == end].itertuples()) for end in ("low", "high"))
        for axis, entry in [*zip(row, low, strict=False), *zip(row[: -across - 1 : -1], high, strict=False)]:
            text = f"{_shorten(entry.label)}\n" + say("{score:+.1f}", score=entry.score)
            _show_picture(axis, pixels.get(entry.path), text)
        middle = say("low ← {component} → high", component=component)
        row[across].text(0.5, 0.5, middle, ha="center", va="center", fontsize=8)
    first = extremes[extremes["component"] == 1].groupby("end")["label"]
    ends = {end: _shorten(Counter(labels).most_common(1)[0][0]) for end, labels in first}
    _title(figure, say("The first component goes from {low} to {high}", **ends))
    return figure


@plt.rc_context(STYLE)
def draw_neighbours(neighbours, pixels):
    """Draw pictures, a row each, with those nearest to them in the projection.

    neighbours: pandas DataFrame of quality.find_neighbours. pixels: {path: uint8 (height, width, 3)}.
    """
    groups = list(neighbours.groupby("path", sort=False))
    across = int(neighbours.groupby("path").size().max()) if groups else 1
    size = (1.3 * (across + 1), 1.55 * max(1, len(groups)) + 0.5)
    figure, axes = plt.subplots(max(1, len(groups)), across + 1, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, (path, found) in zip(axes, groups, strict=False):
        asked = found.iloc[0]["label"]
        _show_picture(row[0], pixels.get(path), say("{label}?", label=_shorten(asked)), COLOURS[0])
        for axis, entry in zip(row[1:], found.itertuples(), strict=False):
            mark = "=" if entry.neighbour_label == asked else "≠"
            text = f"{mark} {_shorten(entry.neighbour_label)}\n" + say("{distance:.1f}", distance=entry.distance)
            _show_picture(axis, pixels.get(entry.neighbour), text, "black" if mark == "=" else COLOURS[4])
    if not groups:
        return _say_only(figure, say("There is no other picture to compare with"))
    same = int((neighbours["label"] == neighbours["neighbour_label"]).sum())
    told = "{same} of the {count} nearest neighbours have the label of the picture on the left"
    _title(figure, say(told, same=same, count=len(neighbours)))
    return figure


@plt.rc_context(STYLE)
def draw_scale(pictures, hours, walls, night_hours):
    """Draw what the steps of a run take as pictures grow, for several designs side by side, with their walls.

    pictures: (n,), growing. hours: {design: {step: (n,)}}. walls: {design: {wall: pictures}}; those beyond the last
    number of pictures are not drawn. night_hours: what a run may take.
    """
    size = (5.9 * len(hours), 4.8)
    figure, axes = plt.subplots(1, len(hours), figsize=size, layout="constrained", sharey=True, squeeze=False)
    names = list(dict.fromkeys(step for steps in hours.values() for step in steps))
    for axis, (design, steps) in zip(axes[0], hours.items(), strict=True):
        for step, values in steps.items():
            turn, colour = divmod(names.index(step), len(COLOURS))
            axis.plot(pictures, values, color=COLOURS[colour], linestyle="-" if turn == 0 else "-.", label=step)
        total = sum(map(np.asarray, steps.values()))
        axis.plot(pictures, total, color="black", linewidth=2, label="all")
        axis.axhline(night_hours, color=COLOURS[4], linestyle="--", linewidth=1)
        full = 10 ** np.interp(np.log(night_hours), np.log(total), np.log10(pictures))
        axis.set(xscale="log", yscale="log", xlabel="pictures", ylim=(1e-4, 1e5))
        axis.set_title(f"{design}: a night takes {full / 1e6:,.3g} million", fontsize=11)
        _mark_walls(axis, {wall: place for wall, place in walls[design].items() if place <= pictures[-1]})
    axes[0, 0].set_ylabel("time (hours)")
    lines = {line.get_label(): line for axis in axes[0] for line in axis.get_lines() if line.get_label()[0] != "_"}
    figure.legend([lines[name] for name in [*names, "all"]], [*names, "all"], loc="outside lower center", ncols=5)
    return figure


def _mark_walls(axis, walls):
    """Mark walls by lines, with their names beside them: the farthest one on top, where the curves leave room."""
    for position, (wall, place) in enumerate(sorted(walls.items(), key=lambda one: -one[1])):
        axis.axvline(place, color="#888888", linestyle=":", linewidth=1)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axis.text(place / 1.1, 4e4 / 2.6**position, wall, fontsize=7.5, ha="right", va="center", bbox=box)


@plt.rc_context(STYLE)
def draw_waste(slices, wasted, shares):
    """Draw which share of the cluster's time is wasted: by the size of a slice, and for what.

    slices: (n,) pictures a slot. wasted: {losses a machine and hour: (n,) shares}. shares: {run: {use: share}}, of
    which the first use is no waste.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for position, (losses, values) in enumerate(wasted.items()):
        label = f"{losses:g} lost a machine and hour"
        left.plot(slices, 100 * np.asarray(values), marker=MARKERS[position], color=COLOURS[position], label=label)
    calm = next(iter(wasted.values()))
    left.set(xscale="log", ylim=(0, None), xlabel="pictures of a slice, a slot", ylabel="time wasted (%)")
    left.set_xticks(slices, [f"{size:,}" for size in slices], rotation=30)
    left.minorticks_off()
    left.set_title(f"Slices of {slices[0]:,} waste {100 * calm[0]:.0f} %, of {slices[-1]:,} {100 * calm[-1]:.0f} %")
    left.legend(fontsize=8)
    start = np.zeros(len(shares))
    for position, use in enumerate(next(iter(shares.values()))):
        values = 100 * np.array([run[use] for run in shares.values()])
        right.barh(list(shares), values, left=start, color=COLOURS[position % len(COLOURS)], label=use)
        start = start + values
    best = max(shares, key=lambda run: next(iter(shares[run].values())))
    worst = min(shares, key=lambda run: next(iter(shares[run].values())))
    computing, least = (100 * next(iter(shares[run].values())) for run in (best, worst))
    right.invert_yaxis()
    right.set(xlabel="share of the time of all slots (%)", xlim=(0, 100))
    right.set_title(f"{best}: work is {computing:.0f} % of the time; {worst}: {least:.0f} %")
    right.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.15), ncols=4)
    return figure


def say(text, **values):
    """Say a text in the language of the figures. values: for its fields, as str.format has them."""
    return text.format(**values) if _french is None else french.say(_french[text], **values)


@contextmanager
def in_french():
    """Draw the figures of the block in French."""
    global _french
    _french = yaml.safe_load(TRANSLATION.read_text(encoding="utf-8"))
    try:
        yield
    finally:
        _french = None


def _title(figure, text):
    """Put a title over all the axes of a figure, where those of single axes stand."""
    figure.suptitle(text, x=0.01, ha="left", parse_math=False)


def _show_picture(axis, pixels, title, colour="black"):
    """Show a picture with a title; one that cannot be read leaves its title alone."""
    if pixels is not None:
        axis.imshow(pixels)
    axis.set_title(title, fontsize=7, loc="center", color=colour, parse_math=False)


def _say_only(figure, text):
    """Turn a figure with nothing to draw into a line that says why."""
    figure.set_size_inches(8, 1.2)
    figure.axes[0].axis("off")
    figure.axes[0].text(0.5, 0.5, text, ha="center", va="center", wrap=True, parse_math=False)
    return figure


def save_figure(figure, folder, name):
    """Write a figure as folder/figures/name.png."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=DOTS)
    storage.write_bytes(f"{folder}/figures/{name}.png", content.getvalue())


def load_figure(folder, name):
    """Load a figure that an earlier run saved, as it was drawn. Returns None where it is not there, or damaged."""
    path = f"{folder}/figures/{name}.png"
    if not storage.is_file(path):
        return None
    try:
        pixels = plt.imread(BytesIO(storage.read_bytes(path)))
    except (OSError, SyntaxError):  # as Pillow says it
        return None
    height, width, _ = pixels.shape
    figure = plt.figure(figsize=(width / DOTS, height / DOTS))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(pixels)
    axis.axis("off")
    return figure


def _shorten(label):
    """Shorten a label to what fits beside others."""
    return label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"
