"""Runs that are killed, where it hurts: the next one loses nothing, does nothing twice, and gets the same numbers."""

import glob
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import runs
import walk

from fruits import backbones, increments

HELD_SLICE = 3  # two slices are committed before


@pytest.fixture
def start(pictures, tmp_path):
    """Start a run that is held in its third slice: start(output, before=...)."""

    def start_held(output, **options):
        parameters = runs.list_parameters(pictures, output)
        return runs.start_run(tmp_path / "run", parameters, hold_at=HELD_SLICE, **options)

    return start_held


@pytest.fixture
def check_next_run(pictures, undisturbed, walk_here):
    """Run again, undisturbed, and compare: only what had not been committed is featurized, and nothing else written.

    run_again: as walk_here, where the next run is to be another.
    """

    def check(output, run_again=walk_here):
        survivors = {table: runs.list_files(output, table) for table in ("features", "rejected")}
        committed = {
            table: [path for path, _ in runs.read_rows(output, table, pictures)] for table in ("features", "rejected")
        }
        count = len(committed["features"]) + len(committed["rejected"])
        opened = len(undisturbed.features) + len(runs.OPENED_IN_VAIN)
        assert 0 < count < opened, "the run was not killed midway"
        found = run_again(pictures, output)
        for files in survivors.values():
            assert {path: path.read_bytes() for path in files if path.exists()} == files
        check_account(found, undisturbed, new=opened - count, unchanged=count)
        runs.compare_tables(found, undisturbed)
        assert [entry["finished"] is not None for entry in found.report["history"]] == [False, True]

    return check


def check_account(found, expected, **counts):
    """See that the report counts what there is. counts: of its images_..., those that are not named are 0."""
    report = found.report
    assert report["images_featurized"] == len(expected.features)
    assert report["images_rejected"] == len(expected.rejected)
    assert report["images_found"] == len(expected.features) + len(expected.rejected)
    for name in ("new", "changed", "unchanged", "deleted"):
        assert report[f"images_{name}"] == counts.get(name, 0), name


def let_die(folder, parameters, *place, until=walk.FEATURES):
    """Run until the process kills itself at a place, as walk.die_at has it."""
    with runs.start_run(folder, parameters, until=until, die_at=place) as run:
        assert run.finish() == -signal.SIGKILL, run.read_log()[-3000:]


def test_the_undisturbed_run_is_right_itself(undisturbed, pictures):
    readable = {str(path.relative_to(pictures)) for path in pictures.glob("*/*")} - runs.NO_PICTURES.keys()
    assert undisturbed.features.keys() == readable
    assert undisturbed.rejected.keys() == runs.NO_PICTURES.keys()
    paths = sorted(readable)
    expected = runs.featurize_by_keras([(pictures / path).read_bytes() for path in paths])
    vectors = [undisturbed.features[path]["features"] for path in paths]
    np.testing.assert_allclose(vectors, expected, atol=1e-4 * expected.max())
    assert len({tuple(vector) for vector in vectors}) == len(vectors)


def test_nothing_is_lost_where_driver_and_java_are_killed(start, check_next_run, tmp_path):
    with start(tmp_path / "output") as run:
        run.wait_for_hold()
        run.kill_all()
    check_next_run(tmp_path / "output")


def test_nothing_is_lost_where_java_alone_is_killed_and_the_run_ends_as_failed(start, check_next_run, tmp_path):
    with start(tmp_path / "output") as run:
        run.wait_for_hold()
        runs.kill(run.find_java())
        assert run.finish() != 0
    check_next_run(tmp_path / "output")


def test_a_run_survives_a_worker_that_is_killed(start, pictures, undisturbed, tmp_path):
    with start(tmp_path / "output") as run:
        runs.kill(run.wait_for_hold())
        assert run.finish() == 0, run.read_log()[-3000:]
    found = runs.read_tables(tmp_path / "output", pictures)
    check_account(found, undisturbed, new=len(undisturbed.features) + len(runs.OPENED_IN_VAIN))
    runs.compare_tables(found, undisturbed)


def freeze_while_it_writes(run, output):
    """Stop Java at a moment when a task's file is written, and its slice is not committed: returns such files.

    Writing takes some tenths of a second. Where it was over before Java stood still, the next slice is waited for.
    """
    # Path.glob fails at a folder that Java deletes meanwhile, as it does once a slice is committed.
    tasks = f"{output}/features/_temporary/0/task_*/*.parquet"
    return list(map(Path, run.freeze_while(run.find_java(), lambda: glob.glob(tasks))))


def test_nothing_is_lost_nor_twice_where_a_run_is_killed_while_it_writes(start, check_next_run, tmp_path):
    output, torn = tmp_path / "output", tmp_path / "torn"
    with start(output) as run:
        run.wait_for_hold()
        run.release()
        written = freeze_while_it_writes(run, output)
        run.kill_all()
    runs.copy_tree(output, torn)
    check_next_run(output)
    # Spark commits a slice by moving the files of its tasks one after another: here it died after the first.
    file = torn / written[0].relative_to(output)
    file.rename(torn / "features" / file.name)
    check_next_run(torn)


@pytest.fixture(scope="module")
def changed(pictures, walk_here, tmp_path_factory):
    """A finished run whose pictures have changed since: (pictures, its output, what a run must leave)."""
    folder = tmp_path_factory.mktemp("changed")
    there, output = folder / "pictures", folder / "output"
    runs.copy_tree(pictures, there)
    walk_here(there, output)
    shutil.copy(there / "Lemon" / "0_100.jpg", there / "Banana" / "0_100.jpg")
    shutil.copy(there / "Lemon" / "30_100.jpg", there / "Banana" / "30_100.jpg")
    (there / "Strawberry" / "0_100.jpg").unlink()
    (there / "Strawberry" / "30_100.jpg").rename(there / "Lemon" / "other.jpg")
    (there / "Lemon" / "letter.jpg").unlink()
    return there, output, walk_here(there, tmp_path_factory.mktemp("expected"))


@pytest.mark.parametrize("number", [1, 2])
def test_rows_written_twice_are_taken_out_where_a_run_is_killed_as_it_tidies(changed, walk_here, number, tmp_path):
    there, before, expected = changed
    output = tmp_path / "output"
    runs.copy_tree(before, output)
    parameters = runs.list_parameters(there, output)
    # The first file that a run deletes is the one that it has tried the folder with.
    let_die(tmp_path / "run", parameters, "storage", "delete_file", 1 + number)
    killed = json.loads((output / "report.json").read_text())
    assert killed["finished"] is None
    paths = [path for path, _ in runs.read_rows(output, "features", there)]
    assert len(paths) > len(set(paths)), "no row was there twice"
    found = walk_here(there, output)
    gone = found.report["images_deleted"]  # those whose rows the killed run had not come to yet
    check_account(found, expected, unchanged=len(expected.features) + 1, deleted=gone)
    runs.compare_tables(found, expected)


def test_what_was_packed_is_not_packed_again_where_a_run_is_killed_as_it_packs(
    pictures, undisturbed, walk_here, tmp_path, capsys
):
    output, packed = tmp_path / "output", tmp_path / "packed"
    parameters = runs.list_parameters(pictures, output, packed_path=str(packed))
    let_die(tmp_path / "run", parameters, "increments", "append", 3)
    there = {path for path, _ in runs.read_rows(tmp_path, "packed", pictures)}
    opened = undisturbed.features.keys() | runs.OPENED_IN_VAIN
    assert 0 < len(there) < len(opened)
    found = walk_here(pictures, output, packed_path=str(packed))
    assert runs.read_once(tmp_path, "packed", pictures).keys() == opened
    assert f"to pack: {len(opened) - len(there)} new, 0 changed, {len(there)} unchanged" in capsys.readouterr().out
    check_account(found, undisturbed, new=len(opened))
    runs.compare_tables(found, undisturbed)


def test_nothing_is_mixed_where_a_run_is_killed_as_it_deletes_features_of_another_network(
    pictures, undisturbed, walk_here, tmp_path
):
    output = tmp_path / "output"
    walk_here(pictures, output)
    fingerprint = output / "features" / increments.FINGERPRINT
    fingerprint.write_text(fingerprint.read_text().replace(backbones.DEFAULT_BACKBONE, "Another"))
    parameters = runs.list_parameters(pictures, output, recompute=True)
    let_die(tmp_path / "run", parameters, "storage", "delete_folder", 2)
    with pytest.raises(ValueError, match="made by another network"):
        walk_here(pictures, output)
    fingerprint.unlink()  # as where it is killed amid the files of the folder
    next(iter(runs.list_files(output, "features"))).unlink()
    with pytest.raises(ValueError, match="made by another network: their backbone is unknown"):
        walk_here(pictures, output)
    found = walk_here(pictures, output, recompute=True)
    check_account(found, undisturbed, new=len(undisturbed.features) + len(runs.OPENED_IN_VAIN))
    runs.compare_tables(found, undisturbed)


@pytest.fixture(scope="module")
def projected(pictures, walk_here, tmp_path_factory):
    """The projection of an undisturbed run: {path: row}."""
    output = tmp_path_factory.mktemp("projected")
    walk_here(pictures, output, walk.PROJECTION)
    return runs.read_once(output, "projection", pictures)


@pytest.mark.parametrize("place", ["save_pca", "project"])
def test_a_run_that_is_killed_in_its_pca_featurizes_nothing_again(
    place, pictures, undisturbed, projected, walk_here, tmp_path
):
    output = tmp_path / "output"
    let_die(tmp_path / "run", runs.list_parameters(pictures, output), "reduction", place, 1, until=walk.PROJECTION)
    before = runs.list_files(output, "features")
    found = walk_here(pictures, output, walk.PROJECTION)
    assert runs.list_files(output, "features") == before
    check_account(found, undisturbed, unchanged=len(undisturbed.features) + len(runs.OPENED_IN_VAIN))
    rows = runs.read_once(output, "projection", pictures)
    assert rows.keys() == projected.keys()
    for path, row in rows.items():
        np.testing.assert_allclose(row["pca"], projected[path]["pca"], atol=1e-3 * np.abs(row["pca"]).max())


@pytest.fixture
def disk(tmp_path):
    """A disk of four megabytes."""
    with runs.make_disk(tmp_path / "disk", "4m") as disk:
        yield disk


@pytest.fixture
def run_inside(disk, tmp_path):
    """Run where the disk is seen, in a process of its own: as walk_here, with the output as seen from outside."""

    def run_again(pictures, output):
        parameters = runs.list_parameters(pictures, disk.folder / "output")
        with runs.start_run(tmp_path / "again", parameters, before=disk.enter) as run:
            assert run.finish() == 0, run.read_log()[-3000:]
        return runs.read_tables(output, pictures)

    return run_again


def test_nothing_is_lost_where_the_disk_is_full(start, check_next_run, disk, run_inside):
    with start(disk.folder / "output", before=disk.enter) as run:
        run.wait_for_hold()
        disk.fill()
        run.release()
        assert run.finish() != 0
        assert "No space left on device" in run.read_log()
    disk.empty()
    check_next_run(disk.outside / "output", run_inside)


def test_nothing_is_lost_where_the_disk_becomes_read_only(start, check_next_run, disk, run_inside):
    with start(disk.folder / "output", before=disk.enter) as run:
        run.wait_for_hold()
        disk.remount("ro")
        run.release()
        assert run.finish() != 0
        assert "Mkdirs failed to create" in run.read_log()  # Java's words for it
    disk.remount("rw")
    check_next_run(disk.outside / "output", run_inside)
