"""The run that stays and looks for pictures again and again, as a process of its own."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import runs
import walk

WAITING = "looking for pictures every"
FIRST = ("Lemon/0_100.jpg", "Lemon/30_100.jpg", "Lemon/60_100.jpg", "Lemon/letter.jpg", "Lemon/empty.jpg")
LATER = ("Banana/0_100.jpg", "Banana/cut.jpg", "Strawberry/0_100.jpg")


class Inbox:
    """A folder that pictures arrive in, one by one and whole."""

    def __init__(self, folder, source):
        """Begin with nothing. source: folder of the pictures to come."""
        self.folder, self.source, self.outside = folder, source, folder.with_name("outside")
        self.outside.mkdir()

    def receive(self, *paths):
        """Let pictures arrive; a rename, since a file that is being written is no picture yet."""
        for number, path in enumerate(paths):
            whole = Path(shutil.copy(self.source / path, self.outside / str(number)))
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            whole.rename(self.folder / path)


@pytest.fixture
def inbox(tmp_path, pictures):
    """An inbox with a first few pictures in it."""
    inbox = Inbox(tmp_path / "inbox", pictures)
    inbox.receive(*FIRST)
    return inbox


@pytest.fixture
def serve(inbox, tmp_path):
    """Start the service, which looks every two seconds: serve(**options), of runs.start_run."""

    def start(**options):
        parameters = runs.list_parameters(inbox.folder, tmp_path / "output", trigger="2 seconds")
        return runs.start_run(tmp_path / "run", parameters, **options)

    return start


@pytest.fixture
def check_tables(inbox, undisturbed, tmp_path):
    """See that a run has left what an undisturbed one knows of these pictures: check(paths)."""

    def check(paths):
        found = runs.read_tables(tmp_path / "output", inbox.folder)
        assert found.features.keys() == set(paths) - runs.NO_PICTURES.keys()
        assert found.rejected.keys() == set(paths) & runs.NO_PICTURES.keys()
        assert found.report["images_found"] == len(paths)
        for path, row in found.features.items():
            expected = undisturbed.features[path]["features"]
            np.testing.assert_allclose(row["features"], expected, atol=1e-5 * max(expected), rtol=0)
        return found.report

    return check


def list_featurized(tmp_path, inbox):
    """List the pictures of the table so far."""
    return {path for path, _ in runs.read_rows(tmp_path / "output", "features", inbox.folder)}


def wait_for_look(run, tmp_path):
    """Wait until the service has listed what is there now: the second listing to come has begun after this call."""
    listing = tmp_path / "output" / "listing" / "listing.parquet"
    for _ in range(2):
        before = listing.stat().st_mtime_ns
        run.wait_for(lambda before=before: listing.stat().st_mtime_ns != before, "another look")


def test_pictures_that_arrive_are_featurized_until_a_file_named_stop_is_there(serve, inbox, check_tables, tmp_path):
    cached = tmp_path / "cached"
    with serve(count_cached=str(cached), until=walk.PROJECTION) as run:
        run.wait_for(lambda: WAITING in run.read_log(), "the first look")
        inbox.receive(*LATER)
        run.wait_for(lambda: "Strawberry/0_100.jpg" in list_featurized(tmp_path, inbox), "the pictures that arrived")
        inbox.receive("Lemon/_hidden.jpg")  # alone, and never opened: it must be accounted for all the same
        wait_for_look(run, tmp_path)
        (tmp_path / "output" / "stop").touch()
        assert run.finish() == 0, run.read_log()[-3000:]
    assert not (tmp_path / "output" / "stop").exists()
    report = check_tables([*FIRST, *LATER, "Lemon/_hidden.jpg"])
    opened = len(FIRST) - 1 + len(LATER)
    assert (report["images_new"], report["images_changed"], report["images_deleted"]) == (opened, 0, 0)
    assert cached.read_text() == "0", "tables that nobody reads any more are kept on disk"
    projected = {path for path, _ in runs.read_rows(tmp_path / "output", "projection", inbox.folder)}
    assert projected == list_featurized(tmp_path, inbox)


def test_it_can_be_started_before_the_first_picture_arrives(inbox, serve, check_tables, tmp_path):
    shutil.rmtree(inbox.folder)
    inbox.folder.mkdir()
    with serve() as run:
        run.wait_for(lambda: WAITING in run.read_log(), "the first look")
        inbox.receive(*LATER)
        run.wait_for(lambda: "Strawberry/0_100.jpg" in list_featurized(tmp_path, inbox), "the pictures that arrived")
        (tmp_path / "output" / "stop").touch()
        assert run.finish() == 0, run.read_log()[-3000:]
    check_tables(LATER)


def test_an_interrupt_while_it_waits_ends_it_as_well(serve, check_tables):
    with serve() as run:
        run.wait_for(lambda: WAITING in run.read_log(), "the first look")
        run.process.send_signal(signal.SIGINT)
        assert run.finish() == 0, run.read_log()[-3000:]
        assert "interrupted" in run.read_log()
    check_tables(FIRST)


@pytest.mark.parametrize("end", ["interrupted", "killed"])
def test_the_next_run_loses_nothing_where_it_is_ended_amid_its_work(
    end, serve, inbox, check_tables, walk_here, tmp_path
):
    with serve(hold_at=2) as run:  # the first slice is all that is there at first
        run.wait_for(lambda: WAITING in run.read_log(), "the first look")
        inbox.receive(*LATER)
        run.wait_for_hold()
        if end == "killed":
            run.kill_all()
        else:
            run.process.send_signal(signal.SIGINT)
            run.release()
            run.finish()
    committed = list_featurized(tmp_path, inbox)
    assert 0 < len(committed) < len({*FIRST, *LATER} - runs.NO_PICTURES.keys())
    walk_here(inbox.folder, tmp_path / "output")
    report = check_tables([*FIRST, *LATER])
    assert report["images_unchanged"] >= len(committed)
    assert report["images_new"] + report["images_unchanged"] == len({*FIRST, *LATER} - {"Lemon/empty.jpg"})
