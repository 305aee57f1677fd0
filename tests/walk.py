"""One run of the notebook: its own cells, from the imports to the features or further, and its account.

As a program it takes JSON: {"parameters": {name: value}, "until": where to end, "hooks": {name: value}}. Hooks make a
run stop, or die, at a place that a test chooses. gate: a folder where workers say who they are. hold_at: the number of
the slice in which one picture is held until the gate's file released is there. die_at: [module, function, number], at
whose call of that number the process kills itself. count_cached: a file for how many tables Spark still keeps when the
run is over.
"""

import importlib
import itertools
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

import fruits
from fruits import backbones, features, increments
from fruits.tensorflow_setup import keras

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "local.ipynb"
FEATURES, PROJECTION, ALL = "## 7. Reduce", "### Look at the first two", "## 9. Account"  # what a walk ends before
ACCOUNT = "run.account("
SIZE = (64, 64)  # pixels of the small network's pictures


def read_cells(until):
    """Read the notebook's cells up to one, and its account: [(is it the parameters?, program)]."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    last = next(number for number, text in enumerate(texts) if text.startswith(until))
    account = next(number for number, text in enumerate(texts) if ACCOUNT in text)
    chosen = [*(number for number in range(last) if cells[number]["cell_type"] == "code"), account]
    tags = (cells[number]["metadata"].get("tags", []) for number in chosen)
    magic = re.compile(r"(?m)^%.*$")
    return [("parameters" in tag, magic.sub("", texts[number])) for tag, number in zip(tags, chosen, strict=True)]


def build_small_network(*_):
    """Build a network that costs nothing, with the same weights in every process, in place of the backbone."""
    layers = keras.layers
    pixels = keras.Input((*SIZE, 3), name="pixels")
    hidden = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    for filters in (8, 32):
        hidden = layers.Conv2D(filters, 3, strides=2, use_bias=False)(hidden)
        hidden = layers.ReLU()(layers.BatchNormalization()(hidden))
    network = keras.Model(pixels, layers.Dense(10)(layers.GlobalAveragePooling2D()(hidden)), name="small")
    random = np.random.default_rng(0)
    shapes = [values.shape for values in network.get_weights()]  # a variance, which is no matrix, must be above 0
    network.set_weights([random.uniform(-1 if len(shape) > 1 else 0.5, 1, shape) for shape in shapes])
    return network


def walk(parameters, until=FEATURES, build_network=build_small_network):
    """Run the notebook's cells in this process and return its names.

    parameters: {name: value}, in place of its own. until: FEATURES, PROJECTION or ALL. build_network: as in backbones.
    """
    names = {}
    with mock.patch.object(backbones, "build_network", build_network):
        for are_parameters, cell in read_cells(until):
            exec(cell, names)  # noqa: S102 -- the project's own notebook
            if are_parameters:
                names |= parameters
    return names


def make_gate(folder):
    """Make a featurize_batch for the workers, which tells who they are and holds one batch at a closed gate."""
    gate, batch = str(folder), features.featurize_batch

    def featurize_batch(contents, extract, size):
        worker = f"{gate}/worker {os.getpid()}"
        Path(worker).write_text(json.dumps({"pid": os.getpid(), "package": os.path.abspath(fruits.__file__)}))
        if os.path.exists(f"{gate}/armed"):
            try:
                os.link(worker, f"{gate}/held")  # the first to come makes it, and is held
            except FileExistsError:
                return batch(contents, extract, size)
            while not os.path.exists(f"{gate}/released"):
                time.sleep(0.02)
        return batch(contents, extract, size)

    return featurize_batch


def arm_gate(folder, hold_at):
    """Make a cut_slices that closes the gate before it gives away the run's slice of that number, from 1 on."""
    cut, numbers = increments.cut_slices, itertools.count(1)

    def cut_slices(*arguments):
        for part in cut(*arguments):
            if next(numbers) == hold_at:
                Path(folder, "armed").touch()
            yield part

    return cut_slices


def die_at(module, function, number):
    """Have a function of the project kill this process as it is called for that time, the first being number 1."""
    module, numbers = importlib.import_module(f"fruits.{module}"), itertools.count(1)
    call = getattr(module, function)

    def call_or_die(*arguments, **options):
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)

    setattr(module, function, call_or_die)


def main(request):
    """Set the hooks, run, and end Spark as the notebook's last cell does. request: as the module's docstring says."""
    hooks = request["hooks"]
    if "gate" in hooks:
        features.featurize_batch = make_gate(hooks["gate"])
        increments.cut_slices = arm_gate(hooks["gate"], hooks.get("hold_at"))
    if "die_at" in hooks:
        die_at(*hooks["die_at"])
    spark = walk(request["parameters"], request["until"])["spark"]
    if "count_cached" in hooks:
        Path(hooks["count_cached"]).write_text(str(spark.sparkContext._jsc.getPersistentRDDs().size()))
    spark.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
