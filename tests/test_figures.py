"""Figures: titles that say what is found, axes with units, labels as they are written, files that open."""

import ast
import re
from pathlib import Path
from string import Formatter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.text import Text
from PIL import Image

from fruits import figures, images, quality, reduction

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
    return figures.draw_two_components(labels, scores, np.array([0.5, 0.25, 0.25]))


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


def test_the_variance_figure_of_a_saved_pca_names_its_own_pictures_and_no_share_asked_for(tmp_path):
    figure = figures.draw_variance(make_pca([0.5, 0.25, 0.15, 0.1], rows=1142), 2, None)
    assert figure.axes[1].get_title(loc="left") == "2 of 4 keep 75.0 % (of 1,142 pictures fitted)"
    assert len(figure.axes[1].lines) == 3  # the curve, k and the point on it
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
    assert ("only" in figure.axes[0].get_title(loc="left")) == (k > 1)
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


def test_the_shares_of_a_saved_pca_are_told_as_those_of_the_pictures_fitted():
    figure = figures.draw_two_components(["Lemon"] * 3, np.eye(3), np.array([0.5, 0.25, 0.25]), fitted=1600)
    title = figure.axes[0].get_title(loc="left") + figure.axes[0].get_title()
    assert title == "Two components hold 75.0 % of the variance of 1,600 pictures fitted; 1 label(s) here"


def test_131_labels_are_drawn_and_the_most_frequent_named(tmp_path):
    labels = [f"kind {number}" for number in range(131) for _ in range(1 + number // 100)]
    figure = draw_points(labels)
    named = read_legend(figure)
    assert len(named) <= figures.LABELS_NAMED
    assert set(named) <= {f"kind {number}" for number in range(100, 131)}
    axis = figure.axes[0]
    assert "131 labels" in axis.get_title(loc="left") + axis.get_title()
    assert len(axis.collections) == figures.LABELS_NAMED + 1  # one more for each label would take minutes
    assert sum(len(points.get_offsets()) for points in axis.collections) == len(labels)
    render(figure, tmp_path)


def test_one_component_is_drawn_on_a_line(tmp_path):
    figure = draw_points(["Lemon", "Fig"], components=1)
    (axis,) = figure.axes
    assert [points.get_offsets()[0][1] for points in axis.collections] == [0, 0]
    assert axis.get_ylabel() == "second component (0.0 % of variance)"
    assert axis.get_title(loc="left").startswith("Two components hold 50.0 % of the variance")
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


def make_quality(rows=((2, 0.4, 0.3), (50, 0.91, 0.9), (100, 0.92, 0.9), (1280, 0.92, 0.9)), **changes):
    """Make what quality.measure might find: 4 labels, 100 pictures kept aside. rows: (k, logistic, neighbours)."""
    confusion = [("Fig", "Fig", 30), ("Plum", "Plum", 30), ("Kiwi", "Kiwi", 20), ("Lime", "Lime", 10)]
    confusion += [("Lime", "Kiwi", 6), ("Fig", "Plum", 3), ("Plum", "Fig", 1)]
    values = {"chosen_k": 100, "n_features": 1280, "tested": 100, "baseline": 0.33, "confusion": confusion}
    return quality.Quality(**values | {"rows": [quality.Accuracy(*row) for row in rows]} | changes)


def read_title(axis):
    return axis.get_title(loc="left") + axis.get_title()


def test_accuracy_is_drawn_for_both_classifiers_against_the_components(tmp_path):
    figure = figures.draw_accuracy(make_quality())
    (axis,) = figure.axes
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}
    np.testing.assert_allclose(lines["logistic regression"], [[2, 50, 100, 1280], [40, 91, 92, 92]])
    np.testing.assert_allclose(lines["nearest neighbour"], [[2, 50, 100, 1280], [30, 90, 90, 90]])
    assert lines["always the most frequent label"][1] == [33, 33]
    assert lines["kept by this run"][0] == [100, 100]
    assert read_title(axis) == (
        "50 components are within a standard error of the best: 91.0 % of labels found\n(this run keeps 100)"
    )
    assert "100 pictures kept aside (%)" in axis.get_ylabel()
    render(figure, tmp_path)


def test_the_title_of_accuracy_lies_inside_its_figure_however_many_components():
    rows = ((2, 0.4, 0.3), (1024, 1.0, 0.9), (2048, 1.0, 0.9))
    figure = figures.draw_accuracy(make_quality(rows=rows, chosen_k=1024, n_features=2048))
    figure.canvas.draw()
    drawn = figure.get_tightbbox()  # inches
    assert 0 <= drawn.x0 < drawn.x1 <= figure.get_figwidth()


@pytest.mark.parametrize(("changes", "told"), [
    ({"rows": ((2, 0.4, 0.3), (1280, 0.9, 0.9))}, "Accuracy grows to the last of 1,280 components: 90.0 %"),
    ({"rows": ((2, 0.4, 0.3), (1280, None, 0.9))}, "The time did not suffice to compare every number of components"),
    ({"rows": ((2, None, None), (1280, None, None))}, "The time did not suffice to compare every number of components"),
])  # fmt: skip
def test_the_title_of_accuracy_says_what_was_found_or_was_not(tmp_path, changes, told):
    figure = figures.draw_accuracy(make_quality(**changes))
    assert read_title(figure.axes[0]).startswith(told)
    render(figure, tmp_path)


def test_the_labels_confused_are_drawn_the_most_confused_first(tmp_path):
    figure = figures.draw_confusion(make_quality())
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["Lime", "Kiwi", "Fig", "Plum"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["Lime", "Kiwi", "Fig", "Plum"]
    written = [text.get_text() for text in axis.texts]
    assert np.reshape(written, (4, 4)).tolist() == [
        ["10", "6", "", ""], ["", "20", "", ""], ["", "", "30", "3"], ["", "", "1", "30"],
    ]  # fmt: skip
    assert read_title(axis) == "Most often confused: Lime taken for Kiwi, 6 of 16"
    render(figure, tmp_path)


def test_of_131_confused_labels_the_most_confused_are_drawn(tmp_path):
    pairs = [(f"kind {number}", f"kind {number + 1}", 200 - number) for number in range(130)]
    figure = figures.draw_confusion(make_quality(confusion=pairs))
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == [f"kind {number}" for number in range(figures.LABELS_CONFUSED)]
    render(figure, tmp_path)


@pytest.mark.parametrize(("changes", "told"), [
    ({"problem": "1 label(s)", "rows": [], "confusion": []}, "not measured: 1 label(s)"),
    ({"rows": [], "confusion": []}, "not measured: the time was over"),
])  # fmt: skip
@pytest.mark.parametrize("draw", [figures.draw_accuracy, figures.draw_confusion])
def test_what_was_not_measured_is_said_instead_of_drawn(tmp_path, draw, changes, told):
    figure = draw(make_quality(**changes))
    assert told in figure.axes[0].texts[0].get_text()
    render(figure, tmp_path)


def test_no_confusion_is_said():
    figure = figures.draw_confusion(make_quality(confusion=[("Fig", "Fig", 60), ("Plum", "Plum", 40)]))
    assert figure.axes[0].texts[0].get_text() == "Each of the 100 pictures kept aside got its own label"


def make_extremes(components=3, count=2):
    rows = [
        (number, end, f"file:/{number}{end}{place}", f"{end} {number}", place + 1.0)
        for number in range(1, components + 1) for end in ("low", "high") for place in range(count)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["component", "end", "path", "label", "score"])


@pytest.mark.parametrize(("components", "count"), [(3, 4), (1, 1), (2, 3)])
def test_both_ends_of_each_component_are_drawn_from_the_outside_inwards(tmp_path, components, count):
    extremes = make_extremes(components, count)
    pixels = {path: np.full((4, 4, 3), number, np.uint8) for number, path in enumerate(extremes["path"])}
    figure = figures.draw_extremes(extremes, pixels)
    assert figure.get_suptitle() == "The first component goes from low 1 to high 1"
    grid = np.reshape(figure.axes, (components, 2 * count + 1))
    for number, row in enumerate(grid, 1):
        drawn = [axis.images[0].get_array()[0, 0, 0] for axis in (*row[:count], *row[count + 1 :])]
        of = extremes[extremes["component"] == number]
        assert drawn == [*of[of["end"] == "low"].index, *of[of["end"] == "high"].index[::-1]]
        assert row[0].get_title() == f"low {number}\n+1.0"
    render(figure, tmp_path)


def test_the_title_of_the_ends_shortens_a_long_label():
    extremes = make_extremes().replace("low 1", "a label of many words " * 15)
    title = figures.draw_extremes(extremes, {}).get_suptitle()
    assert title.endswith("… to high 1")
    assert len(title) < 80


def test_neighbours_are_drawn_beside_the_picture_asked_for_and_counted(tmp_path):
    rows = [("a", "Fig", "b", "Fig", 1.0), ("a", "Fig", "c", "Plum", 2.0), ("d", "$5", "e", "$5", 0.5)]
    neighbours = pd.DataFrame(rows, columns=["path", "label", "neighbour", "neighbour_label", "distance"])
    pixels = {name: np.zeros((4, 4, 3), np.uint8) for name in "abcd"}  # e could not be read
    figure = figures.draw_neighbours(neighbours, pixels)
    assert figure.get_suptitle() == "2 of the 3 nearest neighbours have the label of the picture on the left"
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["Fig?", "= Fig\n1.0", "≠ Plum\n2.0", "$5?", "= $5\n0.5", ""]
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 1, 0, 0]
    render(figure, tmp_path)


def test_the_title_of_the_confusion_lies_within_the_figure_whatever_the_labels():
    names = ["Granny Smith of the northern orchards", "Apple Red Delicious of the south"]
    figure = figures.draw_confusion(make_quality(confusion=[(*names, 1234), (names[0], names[0], 8765)]))
    figure.canvas.draw()
    (title,) = (text for text in figure.axes[0].get_children() if getattr(text, "get_text", str)().startswith("Most"))
    drawn = title.get_window_extent()
    assert 0 <= drawn.x0 < drawn.x1 <= figure.bbox.width
    assert drawn.y1 <= figure.bbox.height


def test_all_titles_stand_at_the_left():
    drawn = [figures.draw_accuracy(make_quality()), figures.draw_confusion(make_quality()), draw_points(["Fig"])]
    drawn.append(figures.draw_variance(make_pca([0.5, 0.25, 0.15, 0.1]), 2, 0.7))
    assert all(axis.get_title(loc="left") and not axis.get_title() for figure in drawn for axis in figure.axes)


def test_a_long_label_is_shortened():
    figure = draw_points(["Granny Smith of the northern orchards", "Fig"])
    (short,) = [text for text in read_legend(figure) if text != "Fig"]
    assert short.startswith("Granny Smith of the")
    assert short.endswith("…")


def test_a_figure_of_an_earlier_run_is_shown_as_it_was_saved(tmp_path):
    drawn = draw_points(["Fig", "Lemon"])
    figures.save_figure(drawn, str(tmp_path), "two_components")
    loaded = figures.load_figure(str(tmp_path), "two_components")
    with Image.open(tmp_path / "figures" / "two_components.png") as saved:
        pixels = np.asarray(saved.convert("RGB"))
    (shown,) = loaded.axes[0].get_images()
    np.testing.assert_array_equal((shown.get_array()[..., :3] * 255).round(), pixels)
    np.testing.assert_allclose(loaded.get_size_inches(), drawn.get_size_inches(), atol=1 / figures.DOTS)
    assert figures.load_figure(str(tmp_path), "extremes") is None
    file = tmp_path / "figures" / "two_components.png"
    for content in (file.read_bytes()[:5000], b"", b"no picture"):
        file.write_bytes(content)
        assert figures.load_figure(str(tmp_path), "two_components") is None  # so it is drawn anew


def test_drawing_leaves_the_style_of_matplotlib_as_it_was():
    before = dict(plt.rcParams)
    draw_points(["Fig"])
    assert dict(plt.rcParams) == before


# --- In French --------------------------------------------------------------------------------------------------------


def find_said():
    """Find the texts that the code says: those of say, and those kept in names or tables before."""
    package = Path(figures.__file__).parent
    files = (package / "figures.py", package.parent / "benchmarks" / "volume_results.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_text_has_its_french_with_the_same_numbers_in_it():
    french = yaml.safe_load(figures.TRANSLATION.read_text(encoding="utf-8"))
    for english, text in french.items():
        fields = [sorted(field for _, field, *_ in Formatter().parse(one) if field) for one in (english, text)]
        assert fields[0] == fields[1], english
    assert {text for text in french if not any(text.endswith(said) for said in find_said())} == set()


@pytest.mark.parametrize("name", ["variance", "two components", "accuracy", "confusion", "neighbours", "extremes"])
def test_a_figure_is_drawn_in_french_and_the_next_one_in_english_again(name):
    measured = quality.Quality(3, 5, tested=1234, baseline=0.25, rows=[quality.Accuracy(3, 0.875, 0.5)])
    measured.confusion = [("Pomme", "Poire", 2), ("Pomme", "Pomme", 8)]
    near = {"path": ["a"], "label": ["Pomme"], "neighbour": ["b"], "neighbour_label": ["Poire"], "distance": [1.5]}
    ends = {"component": [1, 1], "end": ["low", "high"], "path": ["a", "b"], "label": ["x", "y"], "score": [-1.5, 2.5]}
    draw, said = {
        "variance": (lambda: figures.draw_variance(make_pca([0.8, 0.15, 0.05]), 2, 0.95), "variance expliquée (%)"),
        "two components": (lambda: draw_points(["Pomme", "Poire"]), "première composante (50,0\xa0% de la variance)"),
        "accuracy": (lambda: figures.draw_accuracy(measured), "sur 1\xa0234\xa0images mises de côté"),
        "confusion": (lambda: figures.draw_confusion(measured), "Pomme pris pour Poire, 2 sur 10"),
        "neighbours": (lambda: figures.draw_neighbours(pd.DataFrame(near), {}), "≠ Poire\n1,5"),
        "extremes": (lambda: figures.draw_extremes(pd.DataFrame(ends), {}), "−1,5"),
    }[name]
    with figures.in_french():
        french = " ".join(text.get_text() for text in draw().findobj(Text))
    english = " ".join(text.get_text() for text in draw().findobj(Text))
    assert said in french
    assert said not in english
    assert not re.search(r"\b(the|of|components?|pictures?)\b|\d\.\d", french)


def test_the_axes_of_a_french_figure_keep_their_commas_when_it_is_drawn_later():
    scores = np.array([[0.0, 0.0], [0.5, -0.5]])
    with figures.in_french():
        figure = figures.draw_two_components(["a", "b"], scores, np.array([0.6, 0.4]))
    figure.canvas.draw()
    numbers = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert "0,2" in numbers
    assert not any("." in number for number in numbers)
