"""Progress of a long step, on one line that a notebook rewrites in place."""

import threading
import time
from contextlib import contextmanager

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import clear_output

SECONDS_BETWEEN_LOOKS = 1
SECONDS_BETWEEN_LINES = 30  # where the count stands still


@contextmanager
def show_progress(done, refused, total):
    """Show how far pictures have come, while the block runs, in place of what its cell has shown before.

    done, refused: pyspark Accumulators that tasks add to, set to 0 here; the driver sees them grow when a task ends.
    total: what done ends at; of 0 nothing is shown.
    A notebook keeps the last line alone; papermill --log-output logs each as it comes.
    Outside IPython, as in a cell that Livy runs, only the last line is printed: nothing is seen before the end.
    """
    done.value = refused.value = 0
    start, is_over, is_notebook = time.perf_counter(), threading.Event(), InteractiveShell.initialized()

    def write():
        if is_notebook:
            clear_output(wait=True)
        print(write_line(done.value, total, time.perf_counter() - start, refused.value), flush=True)

    def watch():
        seen, written = 0, start
        while not is_over.wait(SECONDS_BETWEEN_LOOKS):
            if done.value != seen or time.perf_counter() - written > SECONDS_BETWEEN_LINES:
                write()
                seen, written = done.value, time.perf_counter()

    watcher = threading.Thread(target=watch, daemon=True)
    if is_notebook:
        watcher.start()
    try:
        yield
    finally:
        is_over.set()
        if is_notebook:
            watcher.join()
        if total:
            write()


def write_line(count, total, seconds, refused=0):
    """Write a progress line: pictures done of all, rejected, a second, seconds left. seconds: since the start."""
    rate = count / seconds if seconds > 0 else 0.0
    left = f"{(total - count) / rate:,.0f} s left" if rate > 0 and count < total else f"{seconds:,.0f} s"
    return f"{count:,} of {total:,} pictures, {refused:,} rejected, {rate:,.1f} a second, {left}"
