"""Progress of a long step, on one line that a notebook rewrites in place."""

import threading
import time
from contextlib import contextmanager

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

SECONDS_BETWEEN_LINES = 1


@contextmanager
def show_progress(counter, total):
    """Show how far a counter has come, while the block runs.

    counter: pyspark Accumulator that tasks add to; the driver sees it grow when a task ends. total: what it ends at.
    Outside IPython, as in a cell that Livy runs, only the last line is printed: nothing is seen before the end.
    """
    start, done = time.perf_counter(), threading.Event()
    if not InteractiveShell.initialized():
        try:
            yield
        finally:
            print(write_line(counter.value, total, time.perf_counter() - start))
        return
    line = display({"text/plain": ""}, raw=True, display_id=True)

    def rewrite():
        line.update({"text/plain": write_line(counter.value, total, time.perf_counter() - start)}, raw=True)

    def watch():
        while not done.wait(SECONDS_BETWEEN_LINES):
            rewrite()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        rewrite()


def write_line(count, total, seconds):
    """Write a progress line: pictures done of all, pictures a second, seconds left. seconds: since the start."""
    rate = count / seconds if seconds > 0 else 0.0
    left = f"{(total - count) / rate:,.0f} s left" if rate > 0 and count < total else f"{seconds:,.0f} s"
    return f"{count:,} of {total:,} pictures, {rate:,.1f} a second, {left}"
