"""The drawn sample: layout and names, determinism, likeness within a kind, clear errors, committed files."""

from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fruits import sample

COMMITTED = Path(sample.__file__).parents[1] / "data" / "images"
TWO_KINDS = ["Banana", "Lemon"]


def count_colours(picture):
    """Count the colours of a picture that are not the white ground: 512 shares that add up to 1."""
    levels = np.asarray(picture).reshape(-1, 3)
    levels = levels[levels.min(axis=1) < 240] // 32
    counts = np.bincount(levels @ (64, 8, 1), minlength=512)
    return counts / counts.sum()


def pass_through_jpeg(picture):
    """Give back the levels of a picture as its JPEG file holds them: float (100, 100, 3)."""
    file = BytesIO()
    picture.save(file, "JPEG", **sample.JPEG_OPTIONS)
    return np.asarray(Image.open(file), float)


def read_tree(folder):
    """Read every JPEG file below a folder: {relative path: bytes}."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_a_sample_has_one_folder_per_kind_and_names_as_in_fruits_360(tmp_path):
    assert sample.draw_sample(tmp_path, pictures_per_kind=4, kinds=TWO_KINDS, processes=1) == 8
    names = {"0_100.jpg", "30_100.jpg", "r_30_100.jpg", "60_100.jpg"}
    assert set(read_tree(tmp_path)) == {f"{label}/{name}" for label in TWO_KINDS for name in names}


def test_every_index_has_its_own_name():
    assert len({sample.picture_name(index) for index in range(5000)}) == 5000


@pytest.mark.parametrize("label", sample.KINDS)
def test_a_picture_is_100_pixels_wide_rgb_and_a_fruit_on_white(label):
    picture = sample.draw_picture(label, 0)
    assert (picture.size, picture.mode) == ((100, 100), "RGB")
    pixels = np.asarray(picture)
    assert pixels[[0, 0, -1, -1], [0, -1, 0, -1]].min() >= 250
    assert 0.1 < (pixels.min(axis=2) < 240).mean() < 0.9


def test_the_files_are_jpeg(tmp_path):
    sample.draw_sample(tmp_path, pictures_per_kind=1, kinds=["Pear"], processes=1)
    with Image.open(tmp_path / "Pear" / "0_100.jpg") as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (100, 100), "RGB")


def test_the_same_seed_draws_the_same_pixels():
    first, again = (sample.draw_picture("Cherry", 7, seed=3).tobytes() for _ in range(2))
    assert first == again


def test_another_seed_draws_another_fruit():
    first, other = (sample.draw_picture("Cherry", 7, seed).tobytes() for seed in (3, 4))
    assert first != other


def test_a_picture_does_not_depend_on_how_many_are_drawn_nor_on_the_processes(tmp_path):
    sample.draw_sample(tmp_path / "few", pictures_per_kind=2, kinds=["Lemon"], processes=1)
    sample.draw_sample(tmp_path / "many", pictures_per_kind=8, kinds=TWO_KINDS, processes=2)
    few, many = read_tree(tmp_path / "few"), read_tree(tmp_path / "many")
    assert few == {name: many[name] for name in few}


def test_a_sample_can_be_drawn_again_over_itself(tmp_path):
    sample.draw_sample(tmp_path, pictures_per_kind=2, kinds=TWO_KINDS, processes=1)
    before = read_tree(tmp_path)
    (tmp_path / "Lemon" / "0_100.jpg").write_bytes(b"cut short")
    assert sample.draw_sample(tmp_path, pictures_per_kind=2, kinds=TWO_KINDS, processes=1) == 4
    assert read_tree(tmp_path) == before


def test_a_fruit_turns_from_one_picture_to_the_next_and_gives_way_to_another():
    pictures = [sample.draw_picture("Apple Red 1", index).tobytes() for index in range(12)]
    assert len(set(pictures)) == 12
    first, other = (sample.grow_individual("Apple Red 1", number, seed=0) for number in (0, 1))
    assert not np.allclose(first.tint, other.tint)


def test_kinds_differ_more_than_pictures_of_one_kind():
    indexes = (0, 2, 6)  # one fruit upright, the same one tumbled, another one
    pictures = [[sample.draw_picture(label, index) for index in indexes] for label in sample.KINDS]
    counts = [[count_colours(picture) for picture in row] for row in pictures]
    within = [np.abs(row[0] - other).sum() for row in counts for other in row[1:]]
    across = [np.abs(one[0] - other[0]).sum() for one, other in combinations(counts, 2)]
    assert np.median(across) > 1.5 * np.median(within)


def test_there_are_at_least_12_kinds():
    assert len(sample.KINDS) >= 12


def test_an_unknown_label_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="found the label 'Apple', expected one of .*Apple Red 1.*choose"):
        sample.draw_picture("Apple", 0)


@pytest.mark.parametrize(("index", "seed"), [(-1, 0), (0, -1)])
def test_a_number_below_0_is_refused(index, seed):
    with pytest.raises(ValueError, match="found the (index|seed) -1, expected 0 or more"):
        sample.draw_picture("Lemon", index, seed)


def test_no_picture_per_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found 0 pictures per kind, expected 1 or more"):
        sample.draw_sample(tmp_path, pictures_per_kind=0)
    assert not list(tmp_path.iterdir())


def test_the_command_spreads_the_pictures_evenly_over_the_kinds(tmp_path, capsys):
    total = len(sample.KINDS) + 2
    assert sample.main(["--output", str(tmp_path), "--pictures", str(total), "--processes", "1"]) == 0
    counts = sorted(len(list(folder.iterdir())) for folder in tmp_path.iterdir())
    assert counts == [1] * (len(sample.KINDS) - 2) + [2, 2]
    assert f"{total} pictures of {len(sample.KINDS)} kinds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pictures", "0"], "argument --pictures: found '0', expected a whole number of 1 or more"),
        (["--per-kind", "many"], "argument --per-kind: found 'many', expected a whole number of 1 or more"),
        (["--pictures", "5", "--per-kind", "5"], "not allowed with argument"),
        (["--processes", "-1"], "expected"),
        (["--seed", "x"], "argument --seed: found 'x', expected a whole number of 0 or more"),
        (["--output", __file__], "expected a folder"),
    ],
)
def test_the_command_explains_a_wrong_value(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        sample.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_ctrl_c_ends_the_command_without_a_traceback(tmp_path, capsys, monkeypatch):
    def interrupt(_task):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "write_picture", interrupt)
    assert sample.main(["--output", str(tmp_path), "--per-kind", "1", "--processes", "1"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_the_committed_pictures_are_what_the_code_draws():
    names = {sample.picture_name(index): index for index in range(12)}
    assert {path.name for path in COMMITTED.iterdir()} == set(sample.KINDS)
    for label in sample.KINDS:
        assert {path.name for path in (COMMITTED / label).iterdir()} == set(names)
    for rank, label in enumerate(sample.KINDS):
        name, index = list(names.items())[rank % 12]
        with Image.open(COMMITTED / label / name) as picture:
            gap = np.asarray(picture, float) - pass_through_jpeg(sample.draw_picture(label, index))
        assert np.abs(gap).mean() < 1, f"{label}/{name}: draw data/images again with python -m fruits.sample"


def test_the_committed_pictures_are_small():
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*.jpg")) < 1_200_000
