"""The account of a run: what was done, in how many seconds, with what, and that no picture was lost."""

import importlib.metadata
import json
import platform
import time
from contextlib import contextmanager
from datetime import UTC, datetime

from fruits import reduction, storage

RESULTS = ("pca", "projection", "projection_csv")  # figures keep their names, and are drawn over
QUALITY = "quality.json"
NEEDED = (f"pca/{reduction.ABOUT}", "projection/_SUCCESS", QUALITY)  # of what a finished run leaves
PACKAGES = ("pyspark", "tensorflow", "keras", "ai-edge-litert", "numpy", "pandas", "pyarrow", "pillow")
HISTORY = (
    "started", "finished", "images_found", "images_new", "images_changed", "images_unchanged", "images_deleted",
    "images_skipped", "images_rejected", "images_per_second",
)  # fmt: skip


class Report:
    """What a run writes to report.json, gathered step by step: `values` by name, `seconds` by step.

    `earlier` is the report of the run before in the same folder, {} where there was none. `history` holds an entry for
    each run, the oldest first; `finished` is null in that of a run that was killed.
    """

    def __init__(self, folder, **parameters):
        """Begin a report, and lock its folder until it is saved.

        folder: of the results. parameters: of the run. Raises ValueError where another run has locked the folder, and
        where a report.json there is something else, or folders of results are there without one: somebody's own.
        """
        if not storage.lock_folder(folder):
            raise ValueError(
                f"another run writes to output_path {folder!r}: wait until it has ended, or set output_path elsewhere. "
                f"A notebook that stopped halfway keeps it too: shut its kernel down"
            )
        self.folder, self.path, self.parameters = folder, f"{folder}/report.json", parameters
        self.values = parameters | {"started": _tell_time(), "finished": None}
        self.seconds, self.counted = {}, None
        self.earlier = _read(self.path) if storage.is_file(self.path) else {}
        self.history = self.earlier.get("history", [])
        theirs = [name for name in RESULTS if storage.is_folder(f"{folder}/{name}")]
        if theirs and not self.earlier:
            raise ValueError(
                f"output_path {folder!r} holds {' and '.join(theirs)}, but no report.json of the run that left them: "
                f"set output_path elsewhere, or delete them (features may stay)"
            )

    @property
    def repeats_earlier(self):
        """Whether a run with the same parameters and packages has finished here, and all that it left is there."""
        expected = self.parameters | {"versions": _list_versions()}
        same = all(self.earlier.get(name) == value for name, value in expected.items())
        needed = [*NEEDED, "projection_csv/_SUCCESS"] if self.parameters.get("save_csv") else NEEDED
        is_finished = same and self.earlier.get("finished") is not None
        return is_finished and all(storage.is_file(f"{self.folder}/{name}") for name in needed)

    def depend_on(self, **values):
        """Note what the results depend on beside the parameters, such as what a file that one names holds."""
        self.parameters |= values
        self.note(**values)

    def begin(self):
        """Say in report.json that a run has begun, so that a later one sees whether it has finished."""
        self._write({name: self.values[name] for name in ("started", "finished")})

    def delete_earlier(self):
        """Delete what earlier runs computed of the features in the folder, so that no mixture of two can be left."""
        for name in RESULTS:
            storage.delete_folder(f"{self.folder}/{name}")
        if storage.is_file(f"{self.folder}/{QUALITY}"):
            storage.delete_file(f"{self.folder}/{QUALITY}")

    @contextmanager
    def step(self, name):
        """Time one step, in seconds, and say so when it ends. The times of one that comes again add up."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.seconds[name] = round(self.seconds.get(name, 0) + seconds, 3)
        print(f"{name}: {seconds:.1f} s")

    def note(self, **values):
        """Note values by name."""
        self.values |= values

    def count(self, changes):
        """Count what has been found and featurized. changes: increments.Changes, of each look at the folder.

        The same one twice, since its cell is run again, is counted once.
        """
        if changes is self.counted:
            return
        self.counted = changes
        before, counts = dict(self.values), changes.counts
        self.note(images_found=changes.found)
        if "images_new" in before:
            counts = counts | {"new": counts["new"] - changes.retries}  # an earlier look has counted them
        for state in ("new", "changed", "deleted"):
            self.note(**{f"images_{state}": before.get(f"images_{state}", 0) + counts[state]})
        self.note(images_skipped=counts["skipped"])  # of those rejected, the ones that were never opened
        self.note(images_unchanged=before.get("images_unchanged", counts["unchanged"]))  # since the run before

    def account(self, featurized, rejected):
        """Check that no picture was lost: found = featurized + rejected.

        featurized, rejected: DataFrames with a row a picture. Raises ValueError where the sum is wrong.
        """
        found, done, refused = self.values["images_found"], featurized.count(), rejected.count()
        seconds = self.seconds.get("featurize", 0)
        to_do = self.values["images_new"] + self.values["images_changed"]
        self.note(images_featurized=done, images_rejected=refused)
        self.note(images_per_second=round(to_do / seconds, 1) if to_do and seconds else None)
        print(f"{found:,} files found = {done:,} featurized + {refused:,} rejected")
        if found != done + refused:
            raise ValueError(
                f"{found} files were found, but {done} featurized + {refused} rejected make {done + refused}: "
                f"does another run write to the same output_path? Run it again when this is over"
            )

    def summarize(self):
        """Write the report as lines of text, in two columns: a notebook behind Livy shows nothing else.

        What has parts of its own, such as a number for each label, stands in report.json only, as do the digits of a
        share that mean nothing.
        """
        rows = {name: value for name, value in self.values.items() if not isinstance(value, dict)}
        rows |= {f"seconds, {step}": seconds for step, seconds in self.seconds.items()}
        width = max(map(len, rows))
        shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in rows.items()}
        return "\n".join(f"{name:<{width}}  {value}" for name, value in shown.items())

    def save(self):
        """Write report.json, finished, let go of the folder, and return the report's path."""
        self.note(finished=_tell_time())
        self._write(self.values | {"seconds": self.seconds, "versions": _list_versions()})
        storage.unlock_folder(self.folder)
        return self.path

    def _write(self, content):
        """Write report.json, and this run at the end of the history in it."""
        entry = {name: self.values.get(name) for name in HISTORY}
        content = content | {"history": [*self.history, entry]}
        storage.write_bytes(self.path, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def _read(path):
    """Read the report of an earlier run. Raises ValueError where the file is something else."""
    complaint = (
        f"is no report of a run: set output_path elsewhere, or delete that file, and "
        f"{', '.join(RESULTS)} beside it (features may stay)"
    )
    return storage.read_json(path, {"history": list}, complaint)


def _list_versions():
    """List the versions of what the results come from: {name: version}."""
    packages = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version()} | packages


def _tell_time():
    """Tell the time now, as ISO 8601 has it, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
