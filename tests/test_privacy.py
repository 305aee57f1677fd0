"""A photo tells where, when and with what it was taken, and by whom: none of it leaves the photo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fruits import sample

ROOT = Path(__file__).parents[1]
# Tags of Exif 2.32: what they hold, and how it could show up in a text.
TAGS = {271: "Zentinel", 272: "Telefono 7", 305: "Cam-Soft 9.1", 306: "2019:03:04 05:06:07", 315: "Jeanne Zentinelle"}
PHOTO_TAGS = {0x9003: "2019:03:04 05:06:07", 0x9291: "4321", 0xA431: "SN-0815-4711", 0xA434: "Obiettivo Z"}
# 48.8583249 N, 2.2945049 E: digits enough that no number which a run computes holds them by chance.
GPS_TAGS = {1: "N", 2: (48, 51, 29.9697), 3: "E", 4: (2, 17, 40.2177), 27: "GPS-Zentinel", 29: "2019:03:04"}
TRACES = re.compile(
    r"z[ei]ntinel|telefono|cam-soft|jeanne|obiettivo|sn-0815|2019[:-]03[:-]04|05:06:07|"
    r"48\.858324|2\.294504|29\.9697|40\.2177|gpsinfo|exif",
    re.I,
)


def write_photo(path, kind, number, is_tagged):
    """Write a drawn picture as a phone would, lying on its side, with or without the rest of what a phone adds."""
    exif = Image.Exif()
    exif[274] = 6  # orientation: it has to be turned to be upright
    if is_tagged:
        exif.update(TAGS)
        exif.get_ifd(0x8769).update(PHOTO_TAGS)
        exif.get_ifd(0x8825).update(GPS_TAGS)
    comment = {"comment": b"Jeanne Zentinelle, 48.8583249 N"} if is_tagged else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    sample.draw_picture(kind, number).save(path, "JPEG", exif=exif, quality=95, **comment)


def read_texts(folder):
    """Read every file below a folder as text: {name: text}; parquet as its rows too, PNG as what it says of itself."""
    texts = {}
    for path in folder.rglob("*"):
        if path.is_file():
            texts[str(path)] = path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                texts[str(path)] += str(table.schema) + str(table.drop_columns(
                    [name for name in ("features", "pca") if name in table.schema.names]).to_pylist())  # fmt: skip
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    texts[str(path)] = str(picture.info) + str(dict(picture.getexif()))
    return texts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the notebook on tagged photos, and on a file that is refused, and gather all that it said and left."""
    folder = tmp_path_factory.mktemp("privacy")
    for number in range(4):
        for kind in ("Banana", "Lemon"):
            write_photo(folder / "pictures" / kind / f"{number}.jpg", kind, number, is_tagged=True)
    whole = (folder / "pictures" / "Lemon" / "0.jpg").read_bytes()
    (folder / "pictures" / "Lemon" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    command = [sys.executable, "-m", "papermill", "--log-output", ROOT / "notebooks" / "local.ipynb",
               folder / "executed.ipynb", "-p", "images_path", folder / "pictures", "-p", "output_path",
               folder / "output", "-p", "save_csv", "True", "-p", "quality_seconds", "5"]  # fmt: skip
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return folder, answer


def test_the_photos_hold_what_is_looked_for(run):
    folder, _ = run
    with Image.open(folder / "pictures" / "Lemon" / "0.jpg") as photo:
        exif = photo.getexif()
        seen = f"{dict(exif)} {exif.get_ifd(0x8769)} {exif.get_ifd(0x8825)} {photo.info.get('comment')}"
    assert {found.lower() for found in TRACES.findall(seen)} >= {"zentinel", "telefono", "jeanne", "2019:03:04"}
    assert exif.get_ifd(0x8825)[2] == (48, 51, 29.9697)


def test_nothing_of_it_is_in_any_file_that_a_run_leaves_or_in_its_log(run):
    folder, answer = run
    texts = read_texts(folder / "output") | {"log": answer.stdout + answer.stderr}
    texts["executed"] = re.sub(r'"image/png": "[^"]*"', "", (folder / "executed.ipynb").read_text())
    texts["executed"] = texts["executed"].replace("EXIF", "")  # the notebook's own words on orientation
    assert len(texts) > 15
    # What the notebook prints of the project's own code may name the format, but no value of it.
    found = {name: {trace.lower() for trace in TRACES.findall(text)} - {"exif"} for name, text in texts.items()}
    assert {name: traces for name, traces in found.items() if traces} == {}


def test_the_features_are_those_of_the_same_photos_without_it(run, tmp_path, feature_extractor):
    folder, _ = run
    rows = {row["path"][-20:]: row["features"] for row in pq.read_table(folder / "output" / "features").to_pylist()}
    assert len(rows) == 8
    for kind, number in (("Banana", 1), ("Lemon", 3)):
        bare = tmp_path / kind / f"{number}.jpg"
        write_photo(bare, kind, number, is_tagged=False)
        with Image.open(bare) as picture:
            upright = picture.transpose(Image.Transpose.ROTATE_270).convert("RGB")
            pixels = np.float32(upright.resize((224, 224), Image.Resampling.BICUBIC))
        expected = feature_extractor(pixels[None]).numpy()[0]
        (found,) = (row for path, row in rows.items() if path.endswith(f"/{kind}/{number}.jpg"))
        np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())
