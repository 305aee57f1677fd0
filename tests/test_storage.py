"""Paths made absolute in one way, and files listed, read and written as a plain reading of the disk sees them."""

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from unittest.mock import Mock

import boto3
import pytest
from pyspark.sql import functions as F

import fruits
from fruits import storage

PROJECT = Path(fruits.__file__).parents[1]
NAMES = [
    "plain.jpg", "two words.jpg", " first space.jpg", "été à Nîmes.jpg", "Süß.JPG", "果.jpg", "e\u0301 decomposed.jpg",
    "50%.jpg", "a%20b.jpg", "%2F.jpg", "n#1.jpg", "a+b&c=d.jpg", "what?.jpg", "[0]{1}*.jpg", "back\\slash.jpg",
    "semi;comma,.jpg", "quote'\".jpg", "😀.jpg", "no extension", "12:30.jpg",
]  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    """Make a folder of files with difficult names, at three depths, each of another length: (folder, [paths])."""
    folders = [tmp_path / "pictures" / name for name in ("", "Pêche jaune/n#2 50%", "empty folder")]
    paths = [folder / name for folder in folders[:2] for name in NAMES]
    for folder in folders:
        folder.mkdir(parents=True)
    for number, path in enumerate(paths, 1):
        path.write_bytes(bytes(number))
    return folders[0], [str(path) for path in paths]


@pytest.mark.parametrize(("path", "expected"), [
    ("data/images", f"{PROJECT}/data/images"),
    ("data/images/", f"{PROJECT}/data/images"),
    ("./data//images/../output", f"{PROJECT}/data/output"),
    ("..", str(PROJECT.parent)),
    (".", str(PROJECT)),
    ("/srv/pictures", "/srv/pictures"),
    ("/srv/pictures/", "/srv/pictures"),
    ("/srv/a/../été 50% n#1", "/srv/été 50% n#1"),
    ("~/pictures", "/home/someone/pictures"),
    ("~", "/home/someone"),
    ("s3://bucket/pictures", "s3://bucket/pictures"),
    ("s3://bucket/pictures/", "s3://bucket/pictures"),
    ("s3://bucket/a b/../c", "s3://bucket/a b/../c"),
])  # fmt: skip
def test_a_path_is_the_same_from_every_current_folder(monkeypatch, tmp_path, path, expected):
    monkeypatch.setenv("HOME", "/home/someone")
    for folder in (PROJECT, PROJECT / "notebooks", tmp_path):
        monkeypatch.chdir(folder)
        assert storage.resolve(path) == expected


@pytest.mark.parametrize("character", "*?[]{}\\")
@pytest.mark.parametrize("start", ["data/", "/srv/", "s3://bucket/"])
def test_a_path_that_spark_would_read_as_a_pattern_is_refused(start, character):
    with pytest.raises(ValueError, match="pattern.*rename the folder") as error:
        storage.resolve(f"{start}a{character}b")
    assert repr(f"{start}a{character}b") in str(error.value)


def test_the_bucket_of_an_address_is_found():
    assert storage.find_bucket("s3://fruits-eu/images/été 100%") == "fruits-eu"
    assert storage.find_bucket("s3://fruits-eu") == "fruits-eu"


@pytest.mark.parametrize("path", ["data/images", "/data/images", "s3:/fruits/images", "s3://", "file:///a", "gs://a"])
def test_a_path_that_is_not_on_s3_is_refused_where_a_bucket_is_wanted(path):
    with pytest.raises(ValueError, match=f"found '{re.escape(path)}', expected an address such as s3://BUCKET/images"):
        storage.find_bucket(path)


def test_the_projects_root_is_the_folder_of_its_notebooks():
    assert storage.find_project_root() == PROJECT
    assert (storage.find_project_root() / "notebooks" / "local.ipynb").is_file()


def test_listing_finds_what_a_walk_finds(tree):
    folder, paths = tree
    walked = {os.path.join(place, name) for place, _, names in os.walk(folder) for name in names}
    assert walked == set(paths)
    expected = sorted(
        (f"file:{path}", os.path.getsize(path), os.stat(path).st_mtime_ns // 1_000_000) for path in walked
    )
    assert sorted(storage.list_files(str(folder))) == expected


def test_listing_and_spark_tell_the_same_path_length_and_date(spark, tree):
    folder, _ = tree
    read = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(str(folder))
    milliseconds = F.unix_millis("modificationTime").alias("modified")
    rows = [(row.path, row.length, row.modified) for row in read.select("path", "length", milliseconds).collect()]
    expected = list(storage.list_files(str(folder)))
    assert sorted(rows) == sorted(expected)


def test_listing_tells_files_and_folders_whose_names_are_not_utf_8(tmp_path):
    names = [os.fsdecode(name) for name in (b"Lemon/caf\xe9.jpg", b"Lemon/caf\xe8.jpg", b"Caf\xe9/0.jpg")]
    for name in [*names, "Lemon/0.jpg"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    listed = {path.removeprefix(f"file:{tmp_path}/"): length for path, length, _ in storage.list_files(str(tmp_path))}
    assert {name: length for name, length in listed.items() if storage.is_utf8(name)} == {"Lemon/0.jpg": 1}
    assert {name for name in listed if not storage.is_utf8(name)} == {*names[:2], names[2].removesuffix("/0.jpg")}


def test_listing_leaves_out_what_is_neither_a_file_nor_a_folder_nor_a_link(tmp_path):
    (tmp_path / "0.jpg").write_bytes(b"1")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "0.jpg")
    (tmp_path / "link to nothing.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.jpg")
    listed = {path: length for path, length, _ in storage.list_files(str(tmp_path))}
    lengths = {"0.jpg": 1, "link.jpg": 1, "link to nothing.jpg": None}
    assert listed == {f"file:{tmp_path}/{name}": length for name, length in lengths.items()}


def test_listing_a_folder_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        list(storage.list_files(f"{tmp_path}/nowhere"))


def test_a_folder_that_is_deleted_while_others_are_listed_holds_nothing(tmp_path):
    (tmp_path / "emptied").mkdir()
    (tmp_path / "0.jpg").write_bytes(b"1")
    (tmp_path / "emptied" / "1.jpg").write_bytes(b"1")
    found = storage.list_files(str(tmp_path))
    first = next(found)
    shutil.rmtree(tmp_path / "emptied")
    assert [first.path, *(file.path for file in found)] == [f"file:{tmp_path}/0.jpg"]


def test_what_is_listed_can_be_read(tree):
    folder, _ = tree
    for path, length, _ in storage.list_files(str(folder)):
        assert storage.read_bytes(path) == bytes(length)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_written_with_its_folder_then_read_then_deleted(tmp_path, name):
    path = tmp_path / "new" / "Pêche n#1" / name
    for content in (b"\0\xff first, longer", b"second"):
        storage.write_bytes(str(path), content)
        assert path.read_bytes() == content
        assert storage.read_bytes(str(path)) == content == storage.read_bytes(f"file:{path}")
    storage.delete_file(str(path))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("act", [storage.read_bytes, storage.delete_file])
def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path, act):
    with pytest.raises(OSError, match="nowhere.jpg"):
        act(f"{tmp_path}/nowhere.jpg")


@pytest.mark.parametrize(("path", "file", "folder"), [
    ("a/0.jpg", True, False),
    ("a", False, True),
    ("", False, True),
    ("nowhere", False, False),
    ("a/0.jpg/below a file", False, False),
])  # fmt: skip
def test_files_and_folders_are_told_apart(tmp_path, path, file, folder):
    storage.write_bytes(f"{tmp_path}/a/0.jpg", b"1")
    assert storage.is_file(f"{tmp_path}/{path}".rstrip("/")) == file
    assert storage.is_folder(f"{tmp_path}/{path}".rstrip("/")) == folder


@pytest.mark.parametrize("content", [b"", b'{"rows": 3, "na', b"[3]", b"{}", b'{"rows": "3"}', b'{"rows": \xff}'])
def test_a_json_file_that_is_cut_off_or_of_something_else_is_named_with_what_to_do(tmp_path, content):
    file = tmp_path / "about.json"
    file.write_bytes(b'{"rows": 3, "name": "\xc3\xa9t\xc3\xa9"}')
    assert storage.read_json(str(file), {"rows": int}, "is damaged: delete it") == {"rows": 3, "name": "été"}
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{file} is damaged: delete it$"):
        storage.read_json(str(file), {"rows": int}, "is damaged: delete it")


@pytest.fixture(scope="module")
def bucket(moto_server):
    """Make a bucket on a server of S3: its name."""
    place = {"LocationConstraint": "eu-west-3"}
    boto3.client("s3").create_bucket(Bucket="fruits-storage", CreateBucketConfiguration=place)
    storage._connect.cache_clear()
    yield "fruits-storage"
    storage._connect.cache_clear()


@pytest.mark.parametrize("name", ["0.jpg", "a b.jpg", "été.jpg", "100%.jpg", "a%20b.jpg", "12:30.jpg", "n#2+1?.jpg"])
def test_on_s3_a_name_is_written_listed_read_and_deleted_as_it_is(bucket, name):
    folder = f"s3://{bucket}/Café {len(name)}"
    path = f"{folder}/Lemon/{name}"
    storage.write_bytes(path, b"123")
    for place in (folder, f"s3://{bucket}"):
        (file,) = storage.list_files(place)
        assert (file.path, file.length) == (path, 3)
        assert abs(file.modified / 1000 - time.time()) < 60
    assert storage.is_folder(folder)
    assert storage.is_file(path)
    assert storage.read_bytes(path) == b"123"
    keys = [entry["Key"] for entry in boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
    assert path.removeprefix(f"s3://{bucket}/") in keys
    storage.delete_file(path)
    assert [place for place, *_ in storage.list_files(f"s3://{bucket}")] == []


def test_a_bucket_that_is_not_there_is_an_error_that_names_it(bucket):
    with pytest.raises(OSError, match="fruits-nowhere"):
        storage.read_bytes("s3://fruits-nowhere/0.jpg")


@pytest.mark.parametrize("key", ["/0.jpg", "Lemon//0.jpg", "//0.jpg"])
def test_on_s3_a_name_with_two_slashes_in_a_row_is_refused_and_not_listed_for_ever(bucket, key):
    boto3.client("s3").put_object(Bucket=bucket, Key=f"twice/{key}", Body=b"1")
    with pytest.raises(OSError, match="two are in a row: rename it"):
        list(islice(storage.list_files(f"s3://{bucket}/twice"), 10))


def test_a_folder_that_is_emptied_while_it_is_listed_is_not_taken_for_deleted_pictures(tmp_path):
    for name in ("0.jpg", "Lemon/1.jpg", "Lime/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    found = storage.list_files(str(tmp_path))
    next(found)
    for name in ("Lemon", "Lime"):
        shutil.rmtree(tmp_path / name)
    (tmp_path / "0.jpg").unlink()
    with pytest.raises(OSError, match=f"{tmp_path} was emptied while it was listed"):
        list(found)


@pytest.mark.parametrize("target", [".", "..", "../../pictures"])
def test_a_link_to_a_folder_above_it_is_named_and_not_followed(tree, target):
    folder, _ = tree
    (folder / "Pêche jaune" / "loop").symlink_to(target)
    with pytest.raises(OSError, match="Pêche jaune/loop is a link back to a folder on the way to it.*: delete it"):
        list(storage.list_files(str(folder)))


def test_two_folders_with_links_to_each_other_are_named_and_not_followed(tree):
    folder, _ = tree
    (folder / "Pêche jaune" / "apples").symlink_to(folder / "apples")
    (folder / "apples").mkdir(exist_ok=True)
    (folder / "apples" / "peaches").symlink_to(folder / "Pêche jaune")
    with pytest.raises(OSError, match="is a link back to a folder on the way to it.*: delete it"):
        list(storage.list_files(str(folder)))


def test_a_link_to_a_folder_beside_it_is_followed(tree):
    folder, paths = tree
    (folder / "again").symlink_to(folder / "Pêche jaune")
    found = sorted(file.path.removeprefix("file:") for file in storage.list_files(str(folder)))
    assert found == sorted([*paths, *(path.replace("/Pêche jaune/", "/again/") for path in paths if "Pêche" in path)])


def test_a_folder_that_is_deleted_and_made_again_can_be_locked_again(tmp_path):
    folder = str(tmp_path / "output")
    for _ in range(2):
        assert storage.lock_folder(folder)
        locks = ["import sys", "from fruits import storage", "storage.SECONDS_TO_LOCK = 0"]
        other = "; ".join([*locks, "print(storage.lock_folder(sys.argv[1]))"])
        told = subprocess.run([sys.executable, "-c", other, folder], capture_output=True, text=True, check=True)
        assert told.stdout == "False\n"
        shutil.rmtree(folder)


def test_a_folder_counts_as_locked_where_nobody_can_tell_whether_it_is(tmp_path, monkeypatch):
    assert storage.lock_folder("s3://nobody-asks-for-this-bucket/output")
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOLCK, "no locks")))
    assert storage.lock_folder(str(tmp_path / "new"))
    storage.unlock_folder(str(tmp_path / "new"))
    storage.unlock_folder(str(tmp_path / "never locked"))
