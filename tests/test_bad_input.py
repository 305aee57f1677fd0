"""The notebook's own steps over one folder that holds every kind of file: each is featurized or rejected by name."""

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import walk
from PIL import Image

from fruits import backbones

SIZE = 96  # pixels a side
FEATURIZED = None


class Case(NamedTuple):
    """One file: what it holds, or what makes it; and what becomes of it: FEATURIZED, or a pattern for the reason."""

    content: bytes | Callable
    reason: str | None = FEATURIZED


class Outcome(NamedTuple):
    """What the steps wrote: {path below the folder: row} of both tables, and the values of the report."""

    features: dict
    rejected: dict
    values: dict
    rows: int


def draw_scene():
    """Draw a picture that is alike in no direction: uint8 (SIZE, SIZE, 3)."""
    row, column = np.mgrid[0:SIZE, 0:SIZE]
    scene = np.stack([2 * row, 2 * column, 255 - row - column], axis=-1).clip(0, 255).astype(np.uint8)
    scene[10:40, 50:80] = 255, 0, 0
    scene[60:70, 5:60] = 0, 0, 0
    return scene


def make_translucent(scene):
    """Give a scene a hole in which another colour is hidden, and a half-transparent band: uint8 RGBA."""
    alpha = np.full((SIZE, SIZE, 1), 255, np.uint8)
    alpha[20:50, 20:50], alpha[70:80] = 0, 128
    return np.concatenate([scene, alpha], axis=-1)


def flatten_on_white(rgba):
    """Flatten RGBA pixels on white by the definition of alpha: uint8 RGB."""
    share = rgba[..., 3:] / 255
    return (rgba[..., :3] * share + 255 * (1 - share)).round().astype(np.uint8)


def claim_size(png, width, height):
    """Rewrite the size that a PNG claims in its header, with the right checksum."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def make_file(path, content):
    """Write a file into a new folder."""
    path.parent.mkdir()
    path.write_bytes(content)


def make_file_behind_link(path, content):
    """Write a file into a folder elsewhere, and make the folder that it seems to lie in a link to that one."""
    elsewhere = path.parents[1].with_name(f"{path.parents[1].name} elsewhere")
    make_file(elsewhere / path.name, content)
    path.parent.rmdir()
    path.parent.symlink_to(elsewhere)


def make_cases(encode):
    """Make every kind of file: {path: Case}. In a path, \\xe9 stands for a byte that is not UTF-8."""
    scene = draw_scene()
    grey, rgba = scene[..., 0], make_translucent(scene)
    jpeg, png = encode(scene, "JPEG"), encode(scene, "PNG")
    frames = [Image.fromarray(255 - scene), Image.new("RGB", (SIZE, SIZE), "blue")]
    animation = {"save_all": True, "append_images": frames}
    turned = Image.Exif()
    turned[274] = 6  # the first row is seen on the right: stored a quarter turn too far to the left
    bomb = claim_size(encode(np.zeros((1, 1), bool), "PNG"), 20_000, 20_000)
    opened = {
        "Kinds/rgb.png": png,
        "Kinds/rgb.jpg": jpeg,
        "Kinds/rgb.webp": encode(scene, "WEBP", lossless=True),
        "Kinds/UPPER.JPG": jpeg,
        "Kinds/long.jpeg": jpeg,
        "Kinds/jpeg named.txt": jpeg,
        "Kinds/jpeg without extension": jpeg,
        "Kinds/png named.jpg": png,
        "Kinds/grey.png": encode(grey, "PNG"),
        "Kinds/grey as rgb.png": encode(np.stack([grey] * 3, axis=-1), "PNG"),
        "Kinds/grey of 16 bits.png": encode(grey.astype(np.uint16) * 257, "PNG"),
        "Kinds/palette.gif": encode(scene, "GIF"),
        "Kinds/palette.png": encode(scene, "PNG", mode="P"),
        "Kinds/cmyk.jpg": encode(scene, "JPEG", mode="CMYK", quality=95),
        "Kinds/rgba.png": encode(rgba, "PNG"),
        "Kinds/rgba flattened.png": encode(flatten_on_white(rgba), "PNG"),
        "Kinds/turned.png": encode(np.rot90(scene), "PNG", exif=turned),
        "Kinds/animated.webp": encode(scene, "WEBP", lossless=True, **animation),
        "Kinds/animated.png": encode(scene, "PNG", **animation),
        "Kinds/one pixel.png": encode(np.uint8([[(255, 0, 0)]]), "PNG"),
        "Pêche jaune/été à Nîmes.png": png,
        "Süß 果/果.png": png,
        "n#2 50%/a%20b c#1 50%.png": png,
        "_key=1/_key=1.png": png,
        "12:30/a folder's colon.png": png,
        "deep/er/Deepest/0.png": png,
        "A link/0.png": lambda path: make_file_behind_link(path, png),
        "in the root.png": png,
        "Kinds/IMG 12:30:00.png": png,
        "Kinds/older checksum.png": png,
    }
    refused = {
        "Bad/empty.jpg": (b"", r"empty file: 0 bytes$"),
        "Bad/truncated.jpg": (jpeg[: len(jpeg) // 2], r"damaged or truncated picture: \w+"),
        "Bad/truncated.png": (png[:-200], r"damaged or truncated picture: \w+"),
        "Bad/text named.jpg": (b"a banana, in words", r"not a picture: none of JPEG, PNG"),
        "Bad/page.png": (b"<!DOCTYPE html><html><body>404</body></html>", r"not a picture: none of JPEG, PNG"),
        "Bad/phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"HEIC picture.*send it as JPEG"),
        "Bad/bomb.png": (bomb, r"decompression bomb: .*(20,000 x 20,000|400000000) pixels"),
        "Bad/.hidden.jpg": (jpeg, r"hidden file: .*'.hidden.jpg'"),
        "Bad/_draft.jpg": (jpeg, r"hidden file: .*'_draft.jpg'"),
        "Bad/_metadata.jpg": (jpeg, r"hidden file: .*'_metadata.jpg'"),
        "_private/0.jpg": (jpeg, r"hidden file: .*'_private'"),
        "Kinds/.older checksum.png.crc": (b"crc\0\0\0\2\0\1\2\3\4", r"hidden file: "),  # Hadoop's, of other bytes
        "Bad/Thumbs.db": (bytes(512), r"not a picture: none of JPEG, PNG"),
        "Bad/caf\\xe9.jpg": (jpeg, r"not opened: the name .* is not UTF-8"),
        "Caf\\xe9": (lambda folder: make_file(folder / "0.jpg", jpeg), r"not opened: the name .* is not UTF-8"),
    }
    return {path: Case(content) for path, content in opened.items()} | {
        path: Case(content, f"^{reason}") for path, (content, reason) in refused.items()
    }


@pytest.fixture(scope="module")
def cases():
    """Make every kind of file, once."""

    def encode(pixels, picture_format, mode=None, **options):
        picture = Image.fromarray(pixels)
        content = io.BytesIO()
        (picture.convert(mode) if mode else picture).save(content, picture_format, **options)
        return content.getvalue()

    link = Case(lambda path: path.symlink_to(path.with_name("nothing")), "^a link to nothing: what it points")
    return make_cases(encode) | {"Bad/link to nothing.jpg": link}


@pytest.fixture(scope="module")
def walk_files(spark, walk_notebook, tmp_path_factory):
    """Run the notebook, up to its features, on the files of a folder, and read what it wrote.

    walk_files({path: content}), where a function of a path makes the file.
    """

    def walk_folder(files):
        folder, output = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("output")
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            content(folder / path) if callable(content) else (folder / path).write_bytes(content)
        paths = {"images_path": str(folder), "output_path": str(output)}
        names = walk_notebook(paths, walk.FEATURES, backbones.build_network)
        start = f"file:{folder}/"
        tables = [spark.read.parquet(f"{output}/{table}").collect() for table in ("features", "rejected")]
        by_path = [{row.path.removeprefix(start): row for row in rows} for rows in tables]
        return Outcome(*by_path, names["run"].values, sum(map(len, tables)))

    return walk_folder


@pytest.fixture(scope="module")
def outcome(walk_files, cases):
    """Run the steps, once, on every kind of file."""
    return walk_files({path.replace(r"\xe9", os.fsdecode(b"\xe9")): case.content for path, case in cases.items()})


def test_every_file_is_either_featurized_or_rejected(outcome, cases):
    assert set(outcome.features) == {path for path, case in cases.items() if case.reason is FEATURIZED}
    assert set(outcome.rejected) == {path for path, case in cases.items() if case.reason is not FEATURIZED}
    assert outcome.rows == len(cases)


def test_the_account_adds_up(outcome, cases):
    featurized = sum(case.reason is FEATURIZED for case in cases.values())
    assert outcome.values["images_found"] == len(cases)
    assert outcome.values["images_featurized"] == featurized
    assert outcome.values["images_rejected"] == len(cases) - featurized


def test_every_rejected_file_has_its_reason_in_words(outcome, cases):
    for path, row in outcome.rejected.items():
        assert re.match(cases[path].reason, row.reason), (path, row.reason)
        assert not re.search(r"0x[0-9a-f]{4}|object at|Traceback|\n", row.reason), (path, row.reason)


def test_the_label_is_the_folder_that_the_picture_lies_in(outcome):
    folders = {path: os.path.dirname(path).rpartition("/")[2] for path in outcome.features}
    root = outcome.features["in the root.png"]
    folders["in the root.png"] = root.path.split("/")[-2]
    assert {path: row.label for path, row in outcome.features.items()} == folders
    assert {"Pêche jaune", "Süß 果", "n#2 50%", "Deepest", "A link"} <= set(folders.values())


def test_features_are_finite_numbers_of_one_length(outcome):
    vectors = np.array([row.features for row in outcome.features.values()])
    assert vectors.shape == (len(outcome.features), 1280)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("alike", [
    ["Kinds/rgb.png", "Kinds/rgb.webp", "Kinds/png named.jpg", "Kinds/turned.png", "Kinds/animated.webp",
     "Kinds/animated.png", "Pêche jaune/été à Nîmes.png", "Süß 果/果.png", "n#2 50%/a%20b c#1 50%.png",
     "_key=1/_key=1.png", "12:30/a folder's colon.png", "deep/er/Deepest/0.png", "A link/0.png", "in the root.png"],
    ["Kinds/rgb.jpg", "Kinds/UPPER.JPG", "Kinds/long.jpeg", "Kinds/jpeg named.txt", "Kinds/jpeg without extension"],
    ["Kinds/grey as rgb.png", "Kinds/grey.png", "Kinds/grey of 16 bits.png"],
    ["Kinds/rgba flattened.png", "Kinds/rgba.png"],
], ids=lambda alike: alike[0])  # fmt: skip
def test_pictures_that_a_person_sees_alike_have_the_same_features(outcome, alike):
    vectors = [np.array(outcome.features[path].features) for path in alike]
    for path, vector in zip(alike, vectors, strict=True):
        np.testing.assert_allclose(vector, vectors[0], atol=2e-3 * np.abs(vectors[0]).max(), err_msg=path)


@pytest.mark.parametrize("path", ["Kinds/cmyk.jpg", "Kinds/palette.gif", "Kinds/palette.png", "Kinds/rgb.jpg"])
def test_a_lossy_kind_stays_nearer_to_its_picture_than_another_picture_is(outcome, path):
    def compare(one, other):
        one, other = (np.array(outcome.features[path].features) for path in (one, other))
        return one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    assert compare(path, "Kinds/rgb.png") > max(0.6, compare("Kinds/one pixel.png", "Kinds/rgb.png"))


def test_features_are_those_of_plain_keras(outcome, feature_extractor):
    pixels = np.asarray(Image.fromarray(draw_scene()).resize((224, 224), Image.Resampling.BICUBIC))
    expected = feature_extractor(pixels[None].astype(np.float32)).numpy()[0]
    np.testing.assert_allclose(outcome.features["Kinds/rgb.png"].features, expected, atol=1e-3 * expected.max())


def test_a_file_too_heavy_to_open_is_not_opened(walk_files, cases, monkeypatch):
    png = cases["Kinds/rgb.png"].content
    monkeypatch.setattr("fruits.images.MAX_BYTES", len(png))
    outcome = walk_files({"Lemon/0.png": png, "Lemon/heavy.png": png + bytes(1)})
    assert set(outcome.features) == {"Lemon/0.png"}
    assert set(outcome.rejected) == {"Lemon/heavy.png"}
    assert "that one picture may weigh" in outcome.rejected["Lemon/heavy.png"].reason


def test_a_run_on_another_folder_leaves_all_of_the_one_before_but_a_figure(walk_notebook, cases, tmp_path):
    output = tmp_path / "output"
    for name in ("mine", "another"):
        (tmp_path / name / "Lemon").mkdir(parents=True)
        (tmp_path / name / "Lemon" / "0.png").write_bytes(cases["Kinds/rgb.png"].content)
    paths = {"images_path": str(tmp_path / "mine"), "output_path": str(output)}
    walk_notebook(paths, walk.FEATURES, backbones.build_network)
    made_anew = {"listing", "changes", "figures"}
    kept = [path for path in output.rglob("*") if path.is_file() and not made_anew & set(path.parts)]
    before = {path: path.read_bytes() for path in kept}
    with pytest.raises(ValueError, match="none of the 1 pictures known .* Set output_path elsewhere"):
        walk_notebook(paths | {"images_path": str(tmp_path / "another")}, walk.FEATURES, backbones.build_network)
    assert {path: path.read_bytes() for path in before} == before
    assert any(path.name == "report.json" for path in before)
