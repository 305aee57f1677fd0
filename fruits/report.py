"""The account of a run: what was done, in how many seconds, with what, and that no picture was lost."""

import importlib.metadata
import json
import platform
import time
from contextlib import contextmanager

from fruits import storage

RESULTS = ("features", "rejected", "pca", "projection", "projection_csv", "figures")
PACKAGES = ("pyspark", "tensorflow", "keras", "numpy", "pandas", "pyarrow", "pillow")


def delete_earlier_run(folder):
    """Delete the results of a finished run from its output folder: a run that stops halfway must not be taken for it.

    Without a report.json nothing is deleted: folders of these names may then be somebody's own.
    """
    if not storage.is_file(f"{folder}/report.json"):
        return
    for name in RESULTS:
        storage.delete_folder(f"{folder}/{name}")
    storage.delete_file(f"{folder}/report.json")


class Report:
    """What a run writes to report.json, gathered step by step: `values` by name, `seconds` by step."""

    def __init__(self, **values):
        """Begin a report with the parameters of the run."""
        self.values, self.seconds = values, {}

    @contextmanager
    def step(self, name):
        """Time one step, in seconds, and say so when it ends."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
        print(f"{name}: {self.seconds[name]:.1f} s")

    def note(self, **values):
        """Note values by name."""
        self.values |= values

    def account(self, listing, featurized, rejected):
        """Count the pictures and check that none was lost: found = featurized + rejected.

        listing: images.Survey. featurized, rejected: DataFrames with a row a picture. Raises ValueError where the sum
        is wrong.
        """
        done, refused = featurized.count(), rejected.count()
        self.note(images_found=listing.found, images_featurized=done, images_rejected=refused)
        self.note(images_per_second=round(done / self.seconds["featurize"], 1))
        print(f"{listing.found:,} files found = {done:,} featurized + {refused:,} rejected")
        if listing.found != done + refused:
            raise ValueError(
                f"{listing.found} files were found in {listing.folder}, but {done} featurized + {refused} rejected "
                f"make {done + refused}: files came or went during the run; run it again when the folder is at rest"
            )

    def summarize(self):
        """Write the report as lines of text, in two columns: a notebook behind Livy shows nothing else.

        What has parts of its own, such as a number for each label, stands in report.json only.
        """
        rows = {name: value for name, value in self.values.items() if not isinstance(value, dict)}
        rows |= {f"seconds, {step}": seconds for step, seconds in self.seconds.items()}
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())

    def save(self, folder):
        """Write report.json into a folder and return its path."""
        versions = {package: importlib.metadata.version(package) for package in PACKAGES}
        content = self.values | {
            "seconds": self.seconds,
            "versions": {"python": platform.python_version()} | versions,
        }
        path = f"{folder}/report.json"
        storage.write_bytes(path, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")
        return path
