"""Progress: what a line says, and that the last one holds the final count, whatever happens."""

from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from fruits import progress


@pytest.mark.parametrize(
    ("count", "total", "seconds", "line"),
    [
        (0, 1000, 0, "0 of 1,000 pictures, 0.0 a second, 0 s"),
        (0, 1000, 12.4, "0 of 1,000 pictures, 0.0 a second, 12 s"),
        (500, 1000, 20, "500 of 1,000 pictures, 25.0 a second, 20 s left"),
        (250, 1000, 20, "250 of 1,000 pictures, 12.5 a second, 60 s left"),
        (1000, 1000, 40, "1,000 of 1,000 pictures, 25.0 a second, 40 s"),
        (1, 100_000, 1, "1 of 100,000 pictures, 1.0 a second, 99,999 s left"),
        (1001, 1000, 40, "1,001 of 1,000 pictures, 25.0 a second, 40 s"),
        (0, 0, 1, "0 of 0 pictures, 0.0 a second, 1 s"),
    ],
)
def test_a_line_says_how_many_how_fast_and_how_long_still(count, total, seconds, line):
    assert progress.write_line(count, total, seconds) == line


@pytest.fixture
def lines(monkeypatch):
    """Collect the texts displayed, in a shell of IPython's own."""
    InteractiveShell.instance()
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.01)
    with capture_output() as captured:
        yield lambda: [output.data["text/plain"] for output in captured.outputs]
    InteractiveShell.clear_instance()


def test_the_last_line_holds_the_final_count(lines):
    counter = SimpleNamespace(value=0)
    with progress.show_progress(counter, 7):
        counter.value = 7
    assert lines()[-1].startswith("7 of 7 pictures")


def test_the_count_is_shown_while_the_block_runs(lines):
    counter = SimpleNamespace(value=3)
    with progress.show_progress(counter, 7):
        for _ in range(500):
            if any(line.startswith("3 of 7") for line in lines()):
                break
            progress.time.sleep(0.01)
        counter.value = 7
    assert any(line.startswith("3 of 7") for line in lines())
    assert lines()[-1].startswith("7 of 7")


def test_a_failing_step_raises_its_own_error_after_a_last_line(lines):
    with pytest.raises(KeyError, match="lost"), progress.show_progress(SimpleNamespace(value=2), 7):
        raise KeyError("lost")
    assert lines()[-1].startswith("2 of 7")


def test_outside_ipython_one_line_is_printed_at_the_end(capsys):
    counter = SimpleNamespace(value=0)
    with progress.show_progress(counter, 7):
        counter.value = 7
        assert capsys.readouterr().out == ""
    assert capsys.readouterr().out.startswith("7 of 7 pictures")


def test_outside_ipython_a_failing_step_raises_its_own_error_after_its_line(capsys):
    with pytest.raises(KeyError, match="lost"), progress.show_progress(SimpleNamespace(value=2), 7):
        raise KeyError("lost")
    assert capsys.readouterr().out.startswith("2 of 7 pictures")
