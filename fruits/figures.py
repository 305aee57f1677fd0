"""Figures of a run. Each function returns a matplotlib Figure whose title is what it shows."""

from collections import Counter
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np

from fruits import storage

# Okabe and Ito's colours, told apart by colour-blind readers ("Color Universal Design", 2008).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C7A00", "#4D4D4D")
MARKERS = "osD^vP*X"
STYLE = {
    "figure.dpi": 110,
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
FAINTEST = 1e-5  # of the first; components beyond the number of pictures have none, which no axis can show
LABELS_NAMED = 24  # a legend of more is read by nobody
LABEL_LENGTH = 22  # characters


def draw_pictures(examples):
    """Draw a few pictures with their labels, six in a row.

    examples: sequence of images.Example, of 1 picture or more; an empty one gives a figure that says so.
    """
    rows = max(1, -(-len(examples) // 6))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, 6, figsize=(9, 1.75 * rows + 0.4), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, example in zip(axes.flat, examples, strict=False):
        axis.imshow(example.pixels)
        axis.set_title(_shorten(example.label), fontsize=8, loc="center", parse_math=False)
    count = len(examples)
    figure.suptitle(f"{count} of the pictures, as the network sees them" if count else "No picture could be decoded")
    return figure


def draw_variance(pca, k, variance_kept):
    """Draw the share of variance of each component and their sum, with the choice of k.

    pca: reduction.Pca with every component. k: components kept. variance_kept: share asked for, in (0, 1].
    """
    shares, cumulated = 100 * pca.variance_ratio, 100 * np.cumsum(pca.variance_ratio)
    shown = min(len(shares), pca.rows, max(2 * k, 10))  # what lies far beyond k is a flat line
    numbers = np.arange(1, shown + 1)
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.bar(numbers, shares[:shown], width=1, color=np.where(numbers <= k, COLOURS[0], "#B0B0B0"))
    left.set(xlabel="component", ylabel="variance explained (%)", yscale="log", xlim=(0.5, shown + 0.5))
    left.set_ylim(bottom=max(shares[shown - 1], shares[0] * FAINTEST) / 2)
    left.set_title(f"The first explains {shares[0]:.1f} %, number {k} only {shares[k - 1]:.2g} %")
    right.plot(numbers, cumulated[:shown], color=COLOURS[0], linewidth=2)
    right.axhline(100 * variance_kept, color=COLOURS[4], linestyle="--", linewidth=1)
    right.axvline(k, color=COLOURS[4], linestyle="--", linewidth=1)
    right.plot(k, cumulated[k - 1], "o", color=COLOURS[4])
    right.annotate(
        f"k = {k}\n{cumulated[k - 1]:.1f} %",
        (k, cumulated[k - 1]),
        (12, -34),
        textcoords="offset points",
        color=COLOURS[4],
    )
    right.set(xlabel="components kept", ylabel="variance explained, cumulated (%)")
    right.set(xlim=(0, shown + 0.5), ylim=(0, 103))
    asked = f"({100 * variance_kept:g} % asked for)"
    right.set_title(f"{k:,} of {len(shares):,} keep {cumulated[k - 1]:.1f} % {asked}")
    return figure


def draw_two_components(labels, scores, variance_ratio):
    """Draw pictures on their first two components, coloured by label.

    labels: sequence of n str. scores: (n, 2 or more), coordinates in units of the features. variance_ratio: share of
    variance of each component, in 0..1. With one component only, the second axis is zero.
    """
    scores = np.asarray(scores, float)
    across, up = scores[:, 0], scores[:, 1] if scores.shape[1] > 1 else np.zeros(len(scores))
    counts = Counter(labels)
    kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(9.5, 6), layout="constrained")
    for position, kind in enumerate(kinds):
        is_kind = np.asarray([label == kind for label in labels])
        named = position < LABELS_NAMED
        colour = COLOURS[position % len(COLOURS)] if named else "#B0B0B0"
        marker = MARKERS[(position // len(COLOURS) + position) % len(MARKERS)] if named else "."
        axis.scatter(across[is_kind], up[is_kind], s=22, c=colour, marker=marker, alpha=0.75, linewidths=0)
    shares = [*(100 * np.asarray(variance_ratio[:2])), 0.0]
    axis.set(xlabel=f"first component ({shares[0]:.1f} % of variance)")
    axis.set(ylabel=f"second component ({shares[1]:.1f} % of variance)")
    others = f", the {LABELS_NAMED} most frequent named" if len(kinds) > LABELS_NAMED else ""
    held = shares[0] + shares[1]
    axis.set_title(f"Two components hold {held:.1f} % of the variance of {len(kinds)} labels{others}")
    # Named here and not in scatter, which hides a label that begins with _ and reads $ as mathematics.
    names = [_shorten(kind) for kind in kinds[:LABELS_NAMED]]
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False, "fontsize": 8}
    for text in axis.legend(axis.collections[: len(names)], names, **beside).get_texts():
        text.set_parse_math(False)
    return figure


def save_figure(figure, folder, name):
    """Write a figure as folder/figures/name.png, at 150 dots an inch."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=150)
    storage.write_bytes(f"{folder}/figures/{name}.png", content.getvalue())


def _shorten(label):
    """Shorten a label to what fits beside others."""
    return label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"
