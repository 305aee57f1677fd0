"""Figures: titles that say what is found, axes with units, labels as they are written, files that open."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from fruits import figures, images, reduction

ODD_LABELS = ["_hidden", "$5 a $kilo", "$x_{$", r"\frac{1}{", "100 %", "pêche & <b>", "日本梨"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def make_pca(ratios, rows=100):
    return reduction.Pca(np.zeros(len(ratios)), np.eye(len(ratios)), np.asarray(ratios, float), rows)


def make_examples(labels):
    return [
        images.Example(f"file:/x/{label}/0.jpg", label, np.zeros((8, 8, 3), np.uint8)) for label in labels
    ]


def draw_points(labels, components=3):
    scores = np.random.default_rng(0).normal(size=(len(labels), components))
    return figures.draw_two_components(labels, scores, np.array([0.5, 0.25, 0.25])[:components])


def read_legend(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def render(figure, tmp_path):
    """Write a figure and read it back with Pillow."""
    figures.save_figure(figure, str(tmp_path), "figure")
    with Image.open(tmp_path / "figures" / "figure.png") as picture:
        picture.load()
        return picture


@pytest.mark.parametrize(("count", "axes"), [(1, 6), (6, 6), (7, 12), (12, 12)])
def test_pictures_are_drawn_six_in_a_row_with_their_labels(tmp_path, count, axes):
    labels = [f"fruit {number}" for number in range(count)]
    figure = figures.draw_pictures(make_examples(labels))
    assert len(figure.axes) == axes
    assert [axis.get_title() for axis in figure.axes if axis.images] == labels
    assert figure.get_suptitle().startswith(f"{count} of the pictures")
    assert render(figure, tmp_path).format == "PNG"


def test_a_figure_without_pictures_says_so(tmp_path):
    figure = figures.draw_pictures([])
    assert "No picture" in figure.get_suptitle()
    render(figure, tmp_path)


def test_the_variance_figure_states_and_draws_the_choice(tmp_path):
    figure = figures.draw_variance(make_pca([0.5, 0.25, 0.15, 0.1]), 2, 0.7)
    left, right = figure.axes
    assert "50.0 %" in left.get_title(loc="left") + left.get_title()
    assert "2 of 4 keep 75.0 % (70 % asked for)" in right.get_title(loc="left") + right.get_title()
    assert "component" in left.get_xlabel()
    assert "components" in right.get_xlabel()
    assert all("(%)" in axis.get_ylabel() for axis in figure.axes)
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in right.lines]
    assert ([2, 2], [0, 1]) in drawn
    assert ([0, 1], [70, 70]) in drawn
    assert any("k = 2" in text.get_text() for text in right.texts)
    np.testing.assert_allclose(right.lines[0].get_ydata(), [50, 75, 90, 100])
    assert len({tuple(bar.get_facecolor()) for bar in left.patches[:2]}) == 1
    assert tuple(left.patches[1].get_facecolor()) != tuple(left.patches[2].get_facecolor())
    render(figure, tmp_path)


@pytest.mark.parametrize(
    ("pca", "k"),
    [
        (make_pca([1.0]), 1),
        (make_pca([1, 0, 0]), 1),
        (make_pca(np.ones(1280)), 900),
        (make_pca([3, 2, 1, 0], 3), 3),
    ],
    ids=["one component", "one direction", "1280 components", "fewer rows than columns"],
)
def test_the_variance_figure_is_drawn_in_extreme_cases(tmp_path, pca, k):
    figure = figures.draw_variance(pca, k, 0.95)
    assert any(f"k = {k}\n" in text.get_text() for text in figure.axes[1].texts)
    render(figure, tmp_path)


def test_the_two_components_are_drawn_with_their_shares_and_every_picture():
    figure = draw_points(["Lemon", "Fig", "Lemon", "Plum"])
    axis = figure.axes[0]
    title = axis.get_title(loc="left") + axis.get_title()
    assert "75.0 %" in title
    assert "3 labels" in title
    assert axis.get_xlabel() == "first component (50.0 % of variance)"
    assert axis.get_ylabel() == "second component (25.0 % of variance)"
    assert sum(len(points.get_offsets()) for points in axis.collections) == 4
    assert read_legend(figure) == ["Lemon", "Fig", "Plum"]


def test_131_labels_are_drawn_and_the_most_frequent_named(tmp_path):
    labels = [f"kind {number}" for number in range(131) for _ in range(1 + number // 100)]
    figure = draw_points(labels)
    named = read_legend(figure)
    assert len(named) <= figures.LABELS_NAMED
    assert set(named) <= {f"kind {number}" for number in range(100, 131)}
    axis = figure.axes[0]
    assert "131 labels" in axis.get_title(loc="left") + axis.get_title()
    assert sum(len(points.get_offsets()) for points in axis.collections) == len(labels)
    render(figure, tmp_path)


def test_one_component_is_drawn_on_a_line(tmp_path):
    figure = draw_points(["Lemon", "Fig"], components=1)
    assert [points.get_offsets()[0][1] for points in figure.axes[0].collections] == [0, 0]
    render(figure, tmp_path)


def test_colours_and_markers_tell_named_labels_apart():
    figure = draw_points([f"kind {number}" for number in range(24)])
    looks = {
        (tuple(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes())
        for points in figure.axes[0].collections
    }
    assert len(looks) == 24


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("label", ODD_LABELS)
def test_a_label_of_odd_characters_is_shown_as_it_is_written(tmp_path, label):
    points, pictures = draw_points([label, "Fig", "Fig"]), figures.draw_pictures(make_examples([label]))
    assert read_legend(points) == ["Fig", label]
    texts = [*points.axes[0].get_legend().get_texts(), pictures.axes[0].title]
    assert [text.get_text() for text in texts[1:]] == [label, label]
    assert not any(text.get_parse_math() for text in texts if "$" in text.get_text())
    render(points, tmp_path)
    render(pictures, tmp_path)


def test_a_long_label_is_shortened():
    figure = draw_points(["Granny Smith of the northern orchards", "Fig"])
    (short,) = [text for text in read_legend(figure) if text != "Fig"]
    assert short.startswith("Granny Smith of the")
    assert short.endswith("…")


def test_drawing_leaves_the_style_of_matplotlib_as_it_was():
    before = dict(plt.rcParams)
    draw_points(["Fig"])
    assert dict(plt.rcParams) == before
