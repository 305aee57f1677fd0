"""What is new, changed and gone, against plain Python; tables tidied wherever a run was killed; pictures packed."""

import itertools
import json
import os
import shutil
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from fruits import features, images, increments, report

FINGERPRINT = {"backbone": "MobileNetV2", "input_size": [224, 224], "weights_sha256": "ab" * 32}
TASKS = "spark.sql.files.minPartitionNum"
READER_OPTIONS = dict.fromkeys(("recursiveFileLookup", "ignoreMissingFiles", "ignoreCorruptFiles"), "true")


class Place:
    """A folder of pictures, and the folder of results beside it, walked as the notebook walks them.

    A picture's bytes are its features, so that no network is needed; a picture that begins with "bad" is refused.
    """

    def __init__(self, spark, root):
        self.spark, self.pictures, self.output = spark, root / "pictures", root / "output"
        self.tables = increments.list_tables(str(self.output))
        self.reader = spark.read.format("binaryFile").options(**READER_OPTIONS)

    def write(self, name, content="1", date=1_700_000_000):
        """Write one picture, with a date of its own, in seconds."""
        path = self.pictures / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        os.utime(path, (date, date))

    def look(self):
        """List the folder and find what changed."""
        listing = images.survey(self.spark, str(self.pictures), str(self.output))
        return increments.find_changes(self.spark, listing, self.tables, f"{self.output}/changes")

    def load(self):
        return images.label_pictures(self.reader.load(str(self.pictures)))

    def featurize(self, changes, per_core=1000, pictures=None):
        """Write the two tables, slice by slice. Returns the number of pictures in each slice."""
        sizes = []
        for part in increments.cut_slices(pictures or self.load(), changes, per_core):
            rows = part.withColumn("text", F.decode("content", "UTF-8")).persist()
            sizes.append(rows.count())
            good = rows.where("text NOT LIKE 'bad%'").withColumn("features", F.expr("array(CAST(text AS float))"))
            increments.append(good, "features", self.tables["features"])
            bad = rows.where("text LIKE 'bad%'").withColumn("reason", F.col("text"))
            increments.append(bad, "rejected", self.tables["rejected"])
            rows.unpersist()
        return sizes

    def run(self):
        """Do a whole run. Returns the Changes that it began with."""
        changes = self.look()
        self.featurize(changes)
        increments.tidy(self.spark, changes, self.tables)
        return changes

    def read(self, table="features", column="features"):
        """Read a table without Spark: [(path below the folder, value)], sorted, twice where a row is there twice."""
        rows = pq.read_table(self.tables[table], columns=["path", column]).to_pylist()
        start = len(f"file:{self.pictures}/")
        return sorted((row["path"][start:], row[column][0] if column == "features" else row[column]) for row in rows)

    def list_files(self, table="features"):
        return sorted(path for path in os.listdir(self.tables[table]) if path.endswith(".parquet"))


@pytest.fixture
def place(spark, tmp_path):
    """A folder with five pictures, two labels, one of them refused, and one file that Spark skips."""
    place = Place(spark, tmp_path)
    for number in range(4):
        place.write(f"{'AB'[number % 2]}/{number}.jpg", str(number))
    place.write("B/broken.jpg", "bad picture")
    place.write("B/.hidden", "1")
    return place


LEFT = [
    pytest.param(None, id="nothing"),
    pytest.param((".keep", "1"), id="a hidden file"),
    pytest.param(("empty.jpg", ""), id="an empty file"),
]


def leave(place, file):
    """Take all pictures away, as a disk that goes does, and leave a file, (name, content), where it was mounted."""
    for entry in place.pictures.iterdir():
        shutil.rmtree(entry)
    if file:
        place.write(*file)


def act_before_look(monkeypatch, number, act):
    """Do something right before the folder is listed for that time, counted from now on, 1 the next."""
    survey, numbers = images.survey, itertools.count(1)

    def act_and_survey(*arguments):
        if next(numbers) == number:
            act()
        return survey(*arguments)

    monkeypatch.setattr(images, "survey", act_and_survey)


def test_everything_is_new_at_first_and_nothing_afterwards(place):
    changes = place.run()
    assert changes.counts == {"new": 5, "changed": 0, "unchanged": 0, "deleted": 0, "skipped": 1}
    assert (changes.found, changes.to_do, changes.is_empty) == (6, 5, False)
    assert place.read() == [("A/0.jpg", 0), ("A/2.jpg", 2), ("B/1.jpg", 1), ("B/3.jpg", 3)]
    reasons = dict(place.read("rejected", "reason"))
    assert reasons.pop("B/.hidden").startswith("hidden file")
    assert reasons == {"B/broken.jpg": "bad picture"}
    before = place.list_files()
    again = place.run()
    assert again.counts == {"new": 0, "changed": 0, "unchanged": 5, "deleted": 0, "skipped": 1}
    assert again.is_empty
    assert place.list_files() == before
    assert str(again) == "0 new, 0 changed, 5 unchanged, 0 deleted, 1 skipped"


@pytest.mark.parametrize(("content", "date"), [("77", 1_700_000_000), ("7", 1_700_000_009), ("7", 1_600_000_000)],
                         ids=["another length", "later", "earlier, as a backup has it"])  # fmt: skip
def test_a_picture_replaced_under_its_name_is_featurized_again_and_its_old_row_is_gone(place, content, date):
    place.run()
    place.write("A/2.jpg", content, date)
    assert place.run().counts == {"new": 0, "changed": 1, "unchanged": 4, "deleted": 0, "skipped": 1}
    assert dict(place.read()) == {"A/0.jpg": 0, "A/2.jpg": int(content), "B/1.jpg": 1, "B/3.jpg": 3}
    assert len(place.read()) == 4
    assert place.run().is_empty


def test_a_deleted_picture_is_counted_once_and_its_row_is_gone(place):
    place.run()
    for name in ("A/0.jpg", "B/broken.jpg"):
        (place.pictures / name).unlink()
    assert place.run().counts == {"new": 0, "changed": 0, "unchanged": 3, "deleted": 2, "skipped": 1}
    assert place.read() == [("A/2.jpg", 2), ("B/1.jpg", 1), ("B/3.jpg", 3)]
    assert [path for path, _ in place.read("rejected", "reason")] == ["B/.hidden"]
    assert place.run().is_empty


def test_a_picture_moves_between_the_tables_as_it_is_mended_and_broken(place):
    place.run()
    place.write("B/broken.jpg", "9")
    place.write("A/0.jpg", "bad now")
    assert place.run().counts["changed"] == 2
    assert place.read() == [("A/2.jpg", 2), ("B/1.jpg", 1), ("B/3.jpg", 3), ("B/broken.jpg", 9)]
    assert dict(place.read("rejected", "reason"))["A/0.jpg"] == "bad now"
    assert len(place.read("rejected", "reason")) == 2


def test_a_picture_that_becomes_empty_or_hidden_leaves_the_features(place):
    place.run()
    place.write("A/0.jpg", "")
    (place.pictures / "B" / "1.jpg").rename(place.pictures / "B" / "_1.jpg")
    place.run()
    assert place.read() == [("A/2.jpg", 2), ("B/3.jpg", 3)]
    refused = {path for path, _ in place.read("rejected", "reason")}
    assert refused == {"A/0.jpg", "B/_1.jpg", "B/.hidden", "B/broken.jpg"}


def test_what_is_skipped_now_and_was_not_before_is_a_change_and_so_is_the_reverse(place):
    place.run()
    place.write("A/0.jpg", "")
    assert [place.run().is_empty, place.run().is_empty] == [False, True]
    place.write("B/_new.jpg")
    assert [place.run().is_empty, place.run().is_empty] == [False, True]
    (place.pictures / "B" / ".hidden").unlink()
    assert [place.run().is_empty, place.run().is_empty] == [False, True]
    assert {path for path, _ in place.read("rejected", "reason")} == {"A/0.jpg", "B/_new.jpg", "B/broken.jpg"}


def test_a_file_deleted_after_the_listing_is_named_and_tried_again_when_it_is_back(place):
    changes = place.look()
    (place.pictures / "A" / "2.jpg").unlink()
    place.featurize(changes)
    increments.tidy(place.spark, changes, place.tables)
    assert dict(place.read("rejected", "reason"))["A/2.jpg"].startswith("not readable")
    place.write("A/2.jpg", "2")
    assert place.run().counts == {"new": 1, "changed": 0, "unchanged": 4, "deleted": 0, "skipped": 1}
    assert len(place.read()) == 4
    assert "A/2.jpg" not in dict(place.read("rejected", "reason"))


def test_a_picture_that_changes_between_listing_and_reading_is_there_once_and_known(place):
    place.run()
    place.write("A/0.jpg", "5", date=1_700_000_001)
    changes = place.look()
    place.write("A/0.jpg", "6", date=1_700_000_002)
    place.featurize(changes)
    increments.tidy(place.spark, changes, place.tables)
    assert dict(place.read())["A/0.jpg"] == 6
    assert len(place.read()) == 4
    assert place.run().is_empty


def test_slices_together_are_all_that_is_to_do_and_each_holds_about_as_many_as_asked(place):
    for number in range(495):  # so many that none is empty by chance
        place.write(f"C/{number}.jpg", str(number))
    changes = place.look()
    sizes = place.featurize(changes, per_core=46)  # two cores
    assert sum(sizes) == 500
    assert len(sizes) == 6
    assert max(sizes) <= 190
    assert len(place.read()) == 499


def test_slices_among_pictures_that_are_known_name_no_more_than_are_to_do(place, monkeypatch):
    monkeypatch.setattr(increments, "SLICE_NAMES", 50)
    place.run()
    for number in range(495):
        place.write(f"C/{number}.jpg", str(number))
    sizes = place.featurize(place.look(), per_core=46)  # two cores, but one's share at a time
    assert sum(sizes) == 495
    assert len(sizes) == 11
    assert len(place.read()) == 499


def test_a_slice_opens_its_own_files_only_and_is_planned_without_naming_them(place):
    for number in range(95):
        place.write(f"C/{number} é+%20.jpg", str(number))
    opened = []
    for part in increments.cut_slices(place.load(), place.look(), per_core=10):
        plan = part._jdf.queryExecution()
        assert ".jpg" not in plan.toString()
        rows = part._jdf.collect()
        scan = plan.executedPlan().collectLeaves().apply(0)
        opened.append((scan.metrics().apply("numFiles").value(), len(rows)))
    assert len(opened) == 5
    assert all(files == rows for files, rows in opened)
    assert sum(rows for _, rows in opened) == 100


def test_dates_of_long_ago_are_written_and_read_as_they_are(place, tuned_spark):
    rows = tuned_spark.sql("SELECT 'a' path, TIMESTAMP '1601-01-01' modificationTime, 1L length, 'no picture' reason")
    increments.append(rows, "rejected", place.tables["rejected"])
    written = tuned_spark.read.parquet(place.tables["rejected"])
    assert written.selectExpr("string(modificationTime)").head()[0] == "1601-01-01 00:00:00"


def test_slices_grow_with_the_cores_of_the_cluster_and_hold_each_picture_once(place, spark, monkeypatch):
    for number in range(1995):  # a slice may be off by half, 6 standard deviations
        place.write(f"C/{number}.jpg", str(number))
    cores, parts = {"now": 1}, []
    monkeypatch.setattr(type(spark.sparkContext), "defaultParallelism", property(lambda _: cores["now"]))
    changes = place.look()
    slices = increments.cut_slices(place.load(), changes, per_core=154)
    for cores["now"] in (1, 2, 8, 2):
        parts.append({row.path for row in next(slices).select("path").collect()})
        assert 77 * cores["now"] < len(parts[-1]) < 231 * cores["now"]
    assert next(slices, None) is None
    assert changes.to_do == 2000
    assert sum(map(len, parts)) == len(set.union(*parts)) == 2000


@pytest.mark.parametrize("slices", [1, 3])
def test_what_was_committed_before_a_crash_is_not_to_do_again(place, slices):
    for number in range(55):
        place.write(f"C/{number}.jpg", str(number))
    parts = increments.cut_slices(place.load(), place.look(), per_core=6)
    done = 0
    for part, _ in zip(parts, range(slices), strict=False):
        rows = part.withColumn("features", F.array(F.lit(1.0).cast("float")))
        increments.append(rows, "features", place.tables["features"])
        done += rows.count()
    assert 0 < done < 60
    assert place.look().counts == {"new": 60 - done, "changed": 0, "unchanged": done, "deleted": 0, "skipped": 1}


def test_a_damaged_file_of_a_table_is_named_and_once_deleted_its_pictures_are_done_again(place):
    place.run()
    before = {name: place.read(name, "path") for name in place.tables}
    for name in place.tables:
        file, *others = Path(place.tables[name]).glob("*.parquet")
        for other in others:
            other.unlink()
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"{file} is damaged: delete it; its pictures are then new"):
            place.look()
        file.unlink()
    assert place.run().to_do == 5
    assert {name: place.read(name, "path") for name in place.tables} == before


def test_rows_that_a_crash_left_twice_are_there_once_after_the_next_run(place):
    place.run()
    folder = place.output / "features"
    for name in place.list_files():
        shutil.copy(folder / name, folder / f"again-{name}")
    assert len(place.read()) == 8
    assert not place.run().is_empty
    assert place.read() == [("A/0.jpg", 0), ("A/2.jpg", 2), ("B/1.jpg", 1), ("B/3.jpg", 3)]


def test_what_a_killed_task_left_in_temporary_folders_is_no_data(place):
    place.run()
    folder = place.output / "features" / "_temporary" / "0" / "task"
    folder.mkdir(parents=True)
    (folder / "part-0.parquet").write_bytes(b"half a file")
    assert place.run().is_empty
    assert len(place.read()) == 4


def test_what_a_killed_run_had_not_committed_is_not_committed_by_the_next(place, monkeypatch):
    monkeypatch.setattr(increments, "SMALL_FILES", 0)
    place.run()
    folder = place.output / "features"
    task = folder / "_temporary" / "0" / "task_202611260000000000000000_0000_m_000000"  # one that had ended
    task.mkdir(parents=True)
    for name in place.list_files():
        shutil.copy(folder / name, task / f"again-{name}")
    (place.pictures / "A" / "0.jpg").unlink()
    place.run()
    assert place.read() == [("A/2.jpg", 2), ("B/1.jpg", 1), ("B/3.jpg", 3)]


def test_many_small_files_become_few_and_no_row_changes(place, monkeypatch):
    monkeypatch.setattr(increments, "SMALL_FILES", 0)  # and two for each of two cores
    for number in range(8):
        place.write(f"C/{number}.jpg", str(100 + number))
        place.run()
        assert len(place.list_files()) <= 5
        assert len(place.read()) == 5 + number
    assert [value for path, value in place.read() if path.startswith("C")] == sorted(
        (100 + number for number in range(8)), key=lambda value: f"{value - 100}.jpg"
    )


def test_what_lies_below_a_tables_folder_is_left_alone(place, monkeypatch):
    monkeypatch.setattr(increments, "SMALL_FILES", 0)
    place.run()
    others = [place.output / "features" / name for name in ("mine/0.parquet", "mine/letter.txt", "mine/deep/1.parquet")]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"mine")
    changes = place.look()._replace(unsettled=1)  # so that it tidies
    for number in range(3):
        (place.output / "features" / f"{number}.parquet").write_bytes(
            (place.output / "features" / place.list_files()[-1]).read_bytes()
        )
    increments.tidy(place.spark, changes, place.tables)
    assert [file.read_bytes() for file in others] == [b"mine"] * 3
    assert len(pq.read_table(place.output / "features", ignore_prefixes=["mine", "_", "."]).to_pylist()) == 4


def test_large_files_are_left_as_they_are(place, monkeypatch):
    monkeypatch.setattr(increments, "SMALL_FILES", 0)
    monkeypatch.setattr(increments, "FILE_BYTES", 2)
    place.run()
    for number in range(3):
        place.write(f"C/{number}.jpg", str(number))
        before = set(place.list_files())
        place.run()
        assert before <= set(place.list_files())


def test_names_of_every_kind_are_known_again(place):
    for name in ("a+b", "100%", "a%20b", "é 果", "12:30 [1]", "q?*", "#;,=&'\"", "{brace}"):
        place.write(f"{name}/{name}.jpg", "1")
    place.run()
    assert place.run().is_empty
    assert len(place.read()) == 12


def test_features_of_another_network_are_refused_with_both_named(tmp_path):
    increments.claim_features(str(tmp_path), FINGERPRINT)
    increments.claim_features(str(tmp_path), FINGERPRINT)
    (tmp_path / "features" / "0.parquet").write_bytes(b"1")
    other = FINGERPRINT | {"backbone": "ResNet50", "input_size": [299, 299]}
    expected = (
        r"their backbone is MobileNetV2, this run's ResNet50; their input_size is \[224, 224\], this run's "
        r"\[299, 299\]\. .*recompute"
    )
    with pytest.raises(ValueError, match=expected):
        increments.claim_features(str(tmp_path), other)
    assert (tmp_path / "features" / "0.parquet").exists()
    increments.claim_features(str(tmp_path), other, recompute=True)
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["_fingerprint.json"]
    assert json.loads((tmp_path / "features" / "_fingerprint.json").read_text()) == other


def test_a_damaged_fingerprint_is_named_with_what_to_delete(tmp_path):
    increments.claim_features(str(tmp_path), FINGERPRINT)
    file = tmp_path / "features" / increments.FINGERPRINT
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ValueError, match=f"{file} is damaged, so that nothing tells which network .*delete {tmp_path}"):
        increments.claim_features(str(tmp_path), FINGERPRINT)


def test_a_network_that_has_left_no_feature_does_not_stand_in_the_way_of_another(tmp_path):
    increments.claim_features(str(tmp_path), FINGERPRINT)
    (tmp_path / "rejected").mkdir()  # of a run that was killed before it wrote features
    other = FINGERPRINT | {"backbone": "ResNet50"}
    increments.claim_features(str(tmp_path), other)
    assert json.loads((tmp_path / "features" / "_fingerprint.json").read_text()) == other
    assert not (tmp_path / "rejected").exists()


def test_a_folder_named_rejected_that_no_run_has_written_is_left_alone(tmp_path):
    (tmp_path / "rejected").mkdir()
    (tmp_path / "rejected" / "blurred.jpg").write_bytes(b"1")
    increments.claim_features(str(tmp_path), FINGERPRINT)
    assert (tmp_path / "rejected" / "blurred.jpg").exists()


def test_recomputing_with_the_same_network_keeps_what_is_there(tmp_path):
    increments.claim_features(str(tmp_path), FINGERPRINT)
    (tmp_path / "features" / "0.parquet").write_bytes(b"1")
    increments.claim_features(str(tmp_path), FINGERPRINT, recompute=True)
    assert (tmp_path / "features" / "0.parquet").exists()


def test_features_of_which_nobody_knows_the_network_are_refused(tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "0.parquet").write_bytes(b"1")
    with pytest.raises(ValueError, match="their backbone is unknown"):
        increments.claim_features(str(tmp_path), FINGERPRINT)


def test_packed_pictures_are_the_pictures_and_are_not_packed_again(place, monkeypatch):
    monkeypatch.setattr(features, "TASKS_PER_CORE", 1)  # each task writes a file
    packed = str(place.output / "packed")
    listing, written = images.survey(place.spark, str(place.pictures), str(place.output)), []
    for _ in range(2):
        pictures, files = increments.pack(place.spark, place.load(), listing, packed, 1000)
        rows = {row.path.rsplit("/", 1)[1]: (row.label, row.content.decode()) for row in pictures.collect()}
        assert rows == {"0.jpg": ("A", "0"), "1.jpg": ("B", "1"), "2.jpg": ("A", "2"), "3.jpg": ("B", "3"),
                        "broken.jpg": ("B", "bad picture")}  # fmt: skip
        written.append(sorted(path for path in os.listdir(packed) if path.endswith(".parquet")))
        assert len(written[-1]) < 5
    assert written[0] == written[1]
    place.write("A/4.jpg", "4")
    (place.pictures / "A" / "0.jpg").unlink()
    listing = images.survey(place.spark, str(place.pictures), str(place.output))
    pictures, files = increments.pack(place.spark, place.load(), listing, packed, 1000)
    changes = increments.find_changes(place.spark, files, place.tables, f"{place.output}/changes")
    assert changes.counts == {"new": 5, "changed": 0, "unchanged": 0, "deleted": 0, "skipped": 1}
    assert place.featurize(changes, pictures=pictures) == [5]
    increments.tidy(place.spark, changes, place.tables)
    assert place.read() == [("A/2.jpg", 2), ("A/4.jpg", 4), ("B/1.jpg", 1), ("B/3.jpg", 3)]
    assert {path for path, _ in place.read("rejected", "reason")} == {"B/.hidden", "B/broken.jpg"}
    assert place.run().is_empty  # the same pictures, read from their files
    names = sorted(path for path in os.listdir(packed) if path.endswith(".parquet"))
    left = [row for name in names for row in pq.read_table(f"{packed}/{name}", columns=["path"]).to_pylist()]
    start = len(f"file:{place.pictures}/")
    assert sorted(row["path"][start:] for row in left) == ["A/2.jpg", "A/4.jpg", "B/1.jpg", "B/3.jpg", "B/broken.jpg"]


def test_packing_another_folder_takes_no_packed_picture_out(place, tmp_path):
    packed = str(place.output / "packed")
    shutil.copytree(place.pictures, tmp_path / "others")

    def pack(folder):
        listing = images.survey(place.spark, str(folder), str(place.output))
        pictures = images.label_pictures(place.reader.load(str(folder)))
        increments.pack(place.spark, pictures, listing, packed, 1000)

    pack(place.pictures)
    with pytest.raises(ValueError, match="none of the 5 pictures known in .*Set packed_path elsewhere"):
        pack(tmp_path / "others")
    assert place.spark.read.parquet(packed).count() == 5


def test_a_picture_that_could_not_be_packed_is_named_and_the_others_go_on(place):
    listing = images.survey(place.spark, str(place.pictures), str(place.output))
    (place.pictures / "A" / "0.jpg").unlink()  # after the listing
    pictures, files = increments.pack(place.spark, place.load(), listing, str(place.output / "packed"), 1000)
    changes = increments.find_changes(place.spark, files, place.tables, f"{place.output}/changes")
    assert sum(place.featurize(changes, pictures=pictures)) == 4
    increments.tidy(place.spark, changes, place.tables)
    assert place.read() == [("A/2.jpg", 2), ("B/1.jpg", 1), ("B/3.jpg", 3)]
    assert dict(place.read("rejected", "reason"))["A/0.jpg"].startswith("not readable")


def test_packed_pictures_lie_in_groups_that_tasks_can_share_however_heavy_they_are(place):
    random = np.random.default_rng(0)
    for label, count, length in (("light", 600, 10_000), ("heavy", 12, 1_500_000)):
        for number in range(count):
            place.write(f"{label}/{number}.jpg")
            (place.pictures / label / f"{number}.jpg").write_bytes(random.bytes(length))
    listing = images.survey(place.spark, str(place.pictures), str(place.output))
    increments.pack(place.spark, place.load(), listing, str(place.output / "packs"), 1000)
    files = [pq.ParquetFile(file).metadata for file in (place.output / "packs").glob("*.parquet")]
    groups = [file.row_group(group) for file in files for group in range(file.num_row_groups)]
    assert sum(group.num_rows for group in groups) == 617  # five more that were there
    assert max(group.total_byte_size for group in groups) < 3 * 2**20
    assert 10 < len(groups) < 40


def test_tasks_of_packed_pictures_are_as_small_as_those_of_files(place, tuned_spark, monkeypatch):
    monkeypatch.setattr(increments, "SMALL_FILES", 0)  # so that few files are merged
    random = np.random.default_rng(0)
    for number in range(1195):
        place.write(f"C/{number}.jpg")
        (place.pictures / "C" / f"{number}.jpg").write_bytes(random.bytes(10_000))
    listing, before = images.survey(tuned_spark, str(place.pictures), str(place.output)), tuned_spark.conf.get(TASKS)
    pictures, files = increments.pack(tuned_spark, place.load(), listing, str(place.output / "packs"), 1000)
    assert len(list((place.output / "packs").glob("*.parquet"))) <= 2
    changes = increments.find_changes(tuned_spark, files, place.tables, f"{place.output}/changes")
    sizes = []
    for part in increments.cut_slices(pictures, changes, 10_000):
        sizes += part.rdd.mapPartitions(lambda rows: [sum(1 for _ in rows)]).collect()
    assert sum(sizes) == 1200
    assert max(sizes) <= 256 + 110  # a row group more, of 1 MiB
    assert tuned_spark.conf.get(TASKS) == before


def test_a_packed_folder_that_a_killed_run_left_with_a_picture_twice_is_refused(place):
    packed = place.output / "packed"
    listing = images.survey(place.spark, str(place.pictures), str(place.output))
    increments.pack(place.spark, place.load(), listing, str(packed), 1000)
    file = next(packed.glob("*.parquet"))
    shutil.copy(file, packed / f"again-{file.name}")
    with pytest.raises(ValueError, match=r"packed' holds file:.*jpg more than once: .* start it again"):
        images.survey(place.spark, str(packed), str(place.output))


def test_a_packed_folder_is_refused_until_all_its_pictures_are_packed(place, monkeypatch):
    packed, tidy = str(place.output / "packed"), increments.tidy
    listing = images.survey(place.spark, str(place.pictures), str(place.output))
    monkeypatch.setattr(increments, "tidy", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        increments.pack(place.spark, place.load(), listing, packed, 1000)
    with pytest.raises(ValueError, match="does not hold all its pictures yet: .* start it again"):
        images.survey(place.spark, packed, str(place.output))
    monkeypatch.setattr(increments, "tidy", tidy)
    increments.pack(place.spark, place.load(), listing, packed, 1000)
    assert images.survey(place.spark, packed, str(place.output)).count() == 5


def test_a_packed_folder_is_read_as_the_files_were(place):
    packed = str(place.output / "packed")
    listing = images.survey(place.spark, str(place.pictures), str(place.output))
    assert not images.is_packed(str(place.pictures))
    increments.pack(place.spark, place.load(), listing, packed, 1000)
    assert images.is_packed(packed)
    listing = images.survey(place.spark, packed, str(place.output))
    changes = increments.find_changes(place.spark, listing, place.tables, f"{place.output}/changes")
    assert changes.counts == {"new": 5, "changed": 0, "unchanged": 0, "deleted": 0, "skipped": 0}
    pictures = images.label_pictures(place.spark.read.parquet(packed))
    assert sum(place.featurize(changes, pictures=pictures)) == 5
    increments.tidy(place.spark, changes, place.tables)
    assert len(place.read()) == 4


def test_a_watch_without_a_trigger_ends_after_one_turn(place):
    changes = place.look()
    looks = increments.watch("pictures", changes, None, str(place.pictures), str(place.output))
    assert list(looks) == [("pictures", changes)]


def test_a_watch_yields_what_arrives_until_a_file_says_stop(place, monkeypatch):
    monkeypatch.setattr(increments, "SECONDS_BETWEEN_LOOKS", 0.05)
    place.run()
    stop, seen = place.output / "stop", []
    first = place.load(), place.look()
    looks = increments.watch(*first, place.reader, str(place.pictures), str(place.output), trigger="200 ms")
    for pictures, changes in looks:
        seen.append(changes.counts["new"])
        place.featurize(changes, pictures=pictures)
        increments.tidy(place.spark, changes, place.tables)
        if len(seen) < 3:
            place.write(f"C/{len(seen)}.jpg", str(len(seen)))
        else:
            threading.Timer(0.5, stop.touch).start()
    assert seen == [0, 1, 1]
    assert not stop.exists()
    assert [path for path, _ in place.read() if path.startswith("C")] == ["C/1.jpg", "C/2.jpg"]


def test_a_file_named_stop_that_an_earlier_service_left_stops_no_new_one(place, monkeypatch, capsys):
    monkeypatch.setattr(increments, "SECONDS_BETWEEN_LOOKS", 0.05)
    place.run()
    first, stop, seen = (place.load(), place.look()), place.output / "stop", []
    stop.touch()
    for _, changes in increments.watch(*first, place.reader, str(place.pictures), str(place.output), "200 ms"):
        seen.append(changes.counts["new"])
        place.write("C/1.jpg", "1") if len(seen) == 1 else stop.touch()
    assert seen == [0, 1]
    assert f"stopped by {stop}" in capsys.readouterr().out
    stop.touch()
    assert len(list(increments.watch(*first, place.reader, str(place.pictures), str(place.output)))) == 1
    assert stop.exists()  # a run that is no service does not look at it


@pytest.mark.parametrize("left", LEFT)
def test_a_watch_takes_nothing_out_while_its_folder_holds_no_picture(place, monkeypatch, capsys, left):
    monkeypatch.setattr(increments, "SECONDS_BETWEEN_LOOKS", 0.05)
    place.run()
    first, seen = (place.load(), place.look()), []
    looks = increments.watch(*first, place.reader, str(place.pictures), str(place.output), trigger="200 ms")
    for pictures, changes in looks:
        seen.append((changes.counts["new"], changes.counts["deleted"]))
        place.featurize(changes, pictures=pictures)
        increments.tidy(place.spark, changes, place.tables)
        if len(seen) == 1:
            leave(place, left)
            act_before_look(monkeypatch, 3, lambda: place.write("C/1.jpg"))
        else:
            (place.output / "stop").touch()
    assert seen == [(0, 0), (1, 5)]
    assert place.read() == [("C/1.jpg", 1)]
    assert "no picture is left, and 5 stay known until one comes" in capsys.readouterr().out


def test_a_watch_outlives_a_folder_that_is_away_for_a_while(place, monkeypatch, capsys):
    monkeypatch.setattr(increments, "SECONDS_BETWEEN_LOOKS", 0.05)
    place.run()
    first, seen, away = (place.load(), place.look()), [], place.pictures.with_name("away")
    looks = increments.watch(*first, place.reader, str(place.pictures), str(place.output), trigger="200 ms")
    for _, changes in looks:
        seen.append(changes.counts["new"])
        place.featurize(changes)
        increments.tidy(place.spark, changes, place.tables)
        if len(seen) == 1:
            place.pictures.rename(away)
            act_before_look(monkeypatch, 3, lambda: (away.rename(place.pictures), place.write("C/1.jpg")))
        else:
            (place.output / "stop").touch()
    assert seen == [0, 1]
    assert len(place.read()) == 5
    said = capsys.readouterr().out
    assert "could not look, and will try again (FileNotFoundError: " in said
    assert said.count("to stop, make the file") == 2


def test_a_watch_tries_a_file_that_cannot_be_opened_once_more_and_then_when_another_comes(place, monkeypatch):
    monkeypatch.setattr(increments, "SECONDS_BETWEEN_LOOKS", 0.05)
    away, run = place.pictures / "C" / "away.jpg", report.Report(str(place.output))
    place.write("C/away.jpg")
    first, seen, tidy = (place.load(), place.look()), [], increments.tidy
    looks = increments.watch(*first, place.reader, str(place.pictures), str(place.output), trigger="200 ms")
    for pictures, changes in looks:
        run.count(changes)
        seen.append((changes.counts["new"], changes.retries))
        content = away.read_bytes()
        away.unlink()  # listed, but not there when it is read
        place.featurize(changes, pictures=pictures)
        tidy(place.spark, changes, place.tables)
        place.write("C/away.jpg", content.decode())
        if len(seen) == 2:  # after two looks that would try it again
            act_before_look(monkeypatch, 3, lambda: place.write("C/other.jpg"))
        elif len(seen) == 3:
            (place.output / "stop").touch()
    assert seen == [(6, 0), (1, 1), (2, 1)]
    assert run.values["images_new"] == 7
    assert "C/other.jpg" in dict(place.read())


@pytest.mark.parametrize("left", LEFT)
def test_a_run_whose_folder_holds_no_picture_when_it_has_been_read_ends_in_an_error(place, left):
    pictures, changes = place.load(), place.look()
    looks = increments.watch(pictures, changes, None, str(place.pictures), str(place.output))
    next(looks)
    leave(place, left)
    place.featurize(changes, pictures=pictures)
    increments.tidy(place.spark, changes, place.tables)
    with pytest.raises(OSError, match="holds no picture any more: its disk may be gone.* Run again when it is back"):
        next(looks)


def test_pictures_of_another_folder_take_out_none_of_those_known(place, tmp_path):
    place.run()
    before = place.read()
    shutil.copytree(place.pictures, tmp_path / "others")
    listing = images.survey(place.spark, str(tmp_path / "others"), str(place.output))
    changes = increments.find_changes(place.spark, listing, place.tables, f"{place.output}/changes")
    assert changes.are_others
    told = r"images_path holds none of the 5 pictures known in .*Set output_path elsewhere, or delete"
    with pytest.raises(ValueError, match=told):
        increments.refuse_loss(changes, str(place.output))
    assert place.read() == before


def test_pictures_that_are_all_replaced_in_their_folders_are_no_others(place):
    place.run()
    for number, file in enumerate(sorted(place.pictures.rglob("*.jpg"))):
        file.rename(file.with_name(f"other {number}.jpg"))
    changes = place.look()
    assert changes.counts["deleted"] == changes.counts["new"] == 5
    assert not changes.are_others
    increments.refuse_loss(changes, str(place.output))


@pytest.mark.parametrize("left", LEFT)
def test_a_run_stops_where_all_known_pictures_are_gone(place, left):
    place.run()
    leave(place, left)
    told = "holds no picture, but 5 of its pictures are known in .*: mount its disk, put pictures there"
    with pytest.raises(ValueError, match=told):
        increments.refuse_loss(place.look(), str(place.output))


@pytest.mark.parametrize("left", LEFT)
def test_packing_takes_nothing_out_where_the_disk_of_the_pictures_is_away(place, left):
    packed, listing = str(place.output / "packed"), images.survey(place.spark, str(place.pictures), str(place.output))
    increments.pack(place.spark, place.load(), listing, packed, 1000)
    leave(place, left)
    listing = images.survey(place.spark, str(place.pictures), str(place.output))
    with pytest.raises(ValueError, match="holds no picture, but 5 of its pictures are known in .*packed"):
        increments.pack(place.spark, place.load(), listing, packed, 1000)
    assert place.spark.read.parquet(packed).count() == 5


def test_a_watch_whose_spark_has_ended_is_an_error_and_looks_no_more(place, monkeypatch):
    looks = increments.watch(*(place.load(), place.look()), None, str(place.pictures), str(place.output), "100 ms")
    next(looks)
    ended = Mock(side_effect=ConnectionRefusedError("Java has ended"))
    monkeypatch.setattr(images, "survey", ended)
    monkeypatch.setattr(place.spark.sparkContext, "_jsc", Mock(sc=ended))
    with pytest.raises(ConnectionRefusedError, match="Java has ended"):
        next(looks)
    assert ended.call_count == 2


def test_an_interrupt_of_the_wait_ends_a_watch_without_an_error(place, monkeypatch, capsys):
    def interrupt(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(increments, "time", type("Clock", (), {"monotonic": time.monotonic, "sleep": interrupt}))
    first = place.load(), place.look()
    looks = increments.watch(*first, None, str(place.pictures), str(place.output), trigger="1 minute")
    assert len(list(looks)) == 1
    assert "interrupted" in capsys.readouterr().out


def test_small_files_are_merged_beyond_the_number_that_the_readme_tells():
    few, mib = increments.SMALL_FILES, increments.FILE_BYTES // 2**20
    told = f"more than {few}, plus two for each core ({few + 4} on two cores), are merged into files of {mib} MB"
    assert told in " ".join((Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").split())
