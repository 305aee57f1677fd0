"""Twenty runs over a folder in which everything happens to pictures, against a model in plain Python."""

import io
import os
import random

import numpy as np
import pytest
import runs
import walk
from PIL import Image

RUNS = 20
BEGINNING = 1_700_000_000  # seconds since 1970, the date of the first file
SMALL_FILES = 8  # that a table may hold here, so that twenty runs are enough to pass it
FILES_AT_MOST = 12  # these, and two for each of two cores
LABELS = ("Apple", "Été", "Fig 50%")
TEXT = b"a letter that is no picture"


def draw_content(number):
    """Draw a picture unlike any other, in a format of its own: bytes. Those of BMP all have the same length."""
    draw = np.random.default_rng(number)
    small = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    content = io.BytesIO()
    small.resize((72, 72), Image.Resampling.BICUBIC).save(content, ("BMP", "PNG", "JPEG")[number % 3])
    return content.getvalue()


class Folder:
    """A folder of pictures, and what is known of each file: {path: (content, its date in seconds)}."""

    def __init__(self, root, seed):
        """Begin with nothing. seed: of all that will happen."""
        self.root, self.files, self.random = root, {}, random.Random(seed)
        self.drawn, self.contents, self.clock = 0, {}, BEGINNING

    def write(self, path, content, date=None):
        """Write a file, with a date of its own unless one is given."""
        self.clock += 1
        self.files[path] = content, date or self.clock
        file = self.root / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (self.files[path][1],) * 2)

    def draw(self, kind=None):
        """Draw the next picture. kind: its number's rest by 3, for one of that format."""
        self.drawn += 1
        while kind is not None and self.drawn % 3 != kind:
            self.drawn += 1
        return draw_content(self.drawn)

    def choose(self, condition=lambda path, content: True):
        """Choose a file for which a condition holds, at random; None where there is none."""
        fitting = sorted(path for path, (content, _) in self.files.items() if condition(path, content))
        return self.random.choice(fitting) if fitting else None

    def move(self, old, new):
        """Give a file another name; it keeps its date."""
        (self.root / old).rename(self.root / new)
        self.files[new] = self.files.pop(old)

    def name_another(self, start=""):
        """Make a name that was never there before."""
        self.clock += 1
        return f"{self.random.choice(LABELS)}/{start}{self.clock}.img"

    def act(self, name):
        """Let one thing happen to a file that it can happen to, if there is one."""
        if name == "add":
            self.write(self.name_another(), self.draw())
        elif name == "add no picture":
            self.write(self.name_another(), TEXT)
        elif name == "mend":
            if path := self.choose(lambda path, content: content in (b"", TEXT)):
                self.write(path, self.draw())
        elif path := self.choose(lambda path, content: is_opened(path, content) and content != TEXT):
            content, date = self.files[path]
            if name == "delete":
                (self.root / path).unlink()
                del self.files[path]
            elif name == "rename":
                self.move(path, self.name_another())
            elif name == "hide":
                self.move(path, self.name_another("_"))
            elif name == "empty":
                self.write(path, b"")
            elif name == "damage":
                self.write(path, TEXT)
            elif name == "other date":
                self.write(path, self.draw(0) if content[:2] == b"BM" else content)
            elif name == "other length":
                self.write(path, self.draw(1) if content[:2] == b"BM" else self.draw(0), date)

    def list_versions(self):
        """List what Spark opens: {path: (date in seconds, length)}."""
        return {path: (date, len(content)) for path, (content, date) in self.files.items() if is_opened(path, content)}


ACTIONS = {
    "add": 5, "delete": 2, "rename": 1, "other date": 1, "other length": 1, "damage": 1, "mend": 1, "hide": 1,
    "empty": 1, "add no picture": 1,
}  # fmt: skip


def is_opened(path, content):
    """Say whether Spark opens a file."""
    return len(content) > 0 and not path.rpartition("/")[2].startswith("_")


def get_version(row):
    """Get what tells one picture from another under its name: (date in seconds, length); None for no date."""
    return row["modificationTime"] and int(row["modificationTime"].timestamp()), row["length"]


def check_tables(tables, folder):
    """See that the tables hold what the model says, each file once."""
    opened = folder.list_versions()
    pictures = {path: version for path, version in opened.items() if folder.files[path][0] != TEXT}
    assert {path: get_version(row) for path, row in tables.features.items()} == pictures
    assert {path: get_version(row) for path, row in tables.rejected.items()} == {
        path: opened.get(path, (None, len(content)))
        for path, (content, _) in folder.files.items()
        if path not in pictures
    }
    assert all(row["label"] == path.split("/")[0] for path, row in tables.features.items())


def check_counts(report, folder, known):
    """See that the report counts what happened. known: list_versions' after the run before."""
    now = folder.list_versions()
    expected = {
        "found": len(folder.files),
        "new": len(now.keys() - known.keys()),
        "changed": sum(now[path] != known[path] for path in now.keys() & known.keys()),
        "unchanged": sum(now[path] == known[path] for path in now.keys() & known.keys()),
        "deleted": len(known.keys() - folder.files.keys()),
    }
    assert {name: report[f"images_{name}"] for name in expected} == expected


def check_features(tables, folder, vectors):
    """See that each picture has the features of its present content. vectors: {content: computed by Keras} so far."""
    contents = {folder.files[path][0] for path in tables.features}
    if missing := sorted(contents - vectors.keys()):
        vectors |= zip(missing, runs.featurize_by_keras(missing), strict=True)
    paths = sorted(tables.features)
    expected = np.array([vectors[folder.files[path][0]] for path in paths])
    found = np.array([tables.features[path]["features"] for path in paths])
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max(), rtol=0)


@pytest.mark.parametrize("seed", [0])
def test_whatever_happens_to_pictures_the_tables_are_as_a_model_says(walk_here, tmp_path, seed, monkeypatch):
    monkeypatch.setattr("fruits.increments.SMALL_FILES", SMALL_FILES)
    folder, output = Folder(tmp_path / "pictures", seed), tmp_path / "output"
    folder.root.mkdir()
    for _ in range(12):
        folder.act("add")
    known, vectors, counts = {}, {}, []
    for number in range(RUNS):
        until = walk.PROJECTION if number % 5 == 4 else walk.FEATURES
        tables = walk_here(folder.root, output, until, seed=number)
        check_tables(tables, folder)
        check_counts(tables.report, folder, known)
        check_features(tables, folder, vectors)
        if until == walk.PROJECTION:
            assert runs.read_once(output, "projection", folder.root).keys() == tables.features.keys()
        counts.append(len(runs.list_files(output, "features")))
        assert len(tables.report["history"]) == number + 1
        known = folder.list_versions()
        for name in folder.random.choices(list(ACTIONS), list(ACTIONS.values()), k=folder.random.randint(4, 9)):
            folder.act(name)
    assert max(counts) <= FILES_AT_MOST
    assert any(after < before / 2 for before, after in zip(counts, counts[1:], strict=False)), "none was ever merged"
