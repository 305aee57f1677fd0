"""Progress: what a line says, and that the last one holds the final count, whatever happens."""

import time
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

from fruits import progress


@pytest.mark.parametrize(
    ("count", "total", "seconds", "line"),
    [
        (0, 1000, 0, "0 of 1,000 pictures, 0 rejected, 0.0 a second, 0 s"),
        (0, 1000, 12.4, "0 of 1,000 pictures, 0 rejected, 0.0 a second, 12 s"),
        (500, 1000, 20, "500 of 1,000 pictures, 0 rejected, 25.0 a second, 20 s left"),
        (250, 1000, 20, "250 of 1,000 pictures, 0 rejected, 12.5 a second, 60 s left"),
        (1000, 1000, 40, "1,000 of 1,000 pictures, 0 rejected, 25.0 a second, 40 s"),
        (1, 100_000, 1, "1 of 100,000 pictures, 0 rejected, 1.0 a second, 99,999 s left"),
        (1001, 1000, 40, "1,001 of 1,000 pictures, 0 rejected, 25.0 a second, 40 s"),
        (0, 0, 1, "0 of 0 pictures, 0 rejected, 0.0 a second, 1 s"),
    ],
)
def test_a_line_says_how_many_how_fast_and_how_long_still(count, total, seconds, line):
    assert progress.write_line(count, total, seconds) == line


def test_a_line_says_how_many_were_rejected():
    assert progress.write_line(500, 1000, 20, 12) == "500 of 1,000 pictures, 12 rejected, 25.0 a second, 20 s left"


def make_counters(done=0, refused=0):
    """Make what stands for two accumulators of Spark's."""
    return SimpleNamespace(value=done), SimpleNamespace(value=refused)


@pytest.fixture
def lines(monkeypatch, capsys):
    """Collect the lines printed in a shell of IPython's own, and how often its output was cleared."""
    InteractiveShell.instance()
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0.01)
    cleared = []
    monkeypatch.setattr(progress, "clear_output", lambda wait: cleared.append(wait))
    text = []

    def read():
        text.append(capsys.readouterr().out)
        return "".join(text).splitlines()

    read.cleared = cleared
    yield read
    InteractiveShell.clear_instance()


def test_the_last_line_holds_the_final_counts_in_place_of_those_before(lines):
    done, refused = make_counters(3, 2)
    with progress.show_progress(done, refused, 7):
        assert (done.value, refused.value) == (0, 0)
        done.value, refused.value = 7, 1
    written = lines()
    assert written[-1].startswith("7 of 7 pictures, 1 rejected")
    assert lines.cleared == [True] * len(written)


def test_the_count_is_shown_while_the_block_runs_and_once_where_it_stands_still(lines):
    done, refused = make_counters()
    with progress.show_progress(done, refused, 7):
        done.value = 3
        for _ in range(500):
            if any(line.startswith("3 of 7") for line in lines()):
                break
            progress.time.sleep(0.01)
        progress.time.sleep(0.2)
        done.value = 7
    assert len([line for line in lines() if line.startswith("3 of 7")]) == 1
    assert lines()[-1].startswith("7 of 7")


def test_where_nothing_moves_a_line_still_comes_now_and_then(lines, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.05)
    start = time.monotonic()
    with progress.show_progress(*make_counters(), 7):
        progress.time.sleep(0.5)
    assert 3 <= len(lines()) <= 2 + (time.monotonic() - start) / 0.05


def test_a_failing_step_raises_its_own_error_after_a_last_line(lines):
    with pytest.raises(KeyError, match="lost"), progress.show_progress(*make_counters(), 7):
        raise KeyError("lost")
    assert lines()[-1].startswith("0 of 7")


def test_outside_ipython_one_line_is_printed_at_the_end(capsys):
    done, refused = make_counters()
    with progress.show_progress(done, refused, 7):
        done.value = 7
        assert capsys.readouterr().out == ""
    assert capsys.readouterr().out.startswith("7 of 7 pictures")
