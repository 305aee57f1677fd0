"""Contender 3, the limit: the same network in ONNX Runtime, one process, from bytes on disk to vectors.

Usage: python limit.py TASK, a JSON object with pictures, output, network and cores

No Spark, no parquet, and neither conversion nor start-up is counted: what the cores can give to this network.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from measures import Measures

from fruits import images

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
TRIAL_PICTURES = 64  # a core; each batch size is tried on them, once


def open_session(task):
    """Open the network on one thread: as many batches as cores run side by side.

    On two cores, one batch on each gave more pictures a second than both on one batch, whatever its size.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = Path(task["network"], "network.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def extract_vectors(session, batches, cores, read_batch):
    """Turn batches into vectors (rows, features): some are decoded while others are in the network."""
    name = session.get_inputs()[0].name
    with ThreadPoolExecutor(cores) as pool:  # Pillow and ONNX Runtime both let other threads run meanwhile
        return np.concatenate(
            list(pool.map(lambda batch: session.run(None, {name: read_batch(batch)})[0], batches))
        )


def read_pictures(paths):
    """Read and decode files as the project does: uint8 (n, height, width, 3)."""
    return np.stack([images.decode(path.read_bytes(), (224, 224)) for path in paths])


def cut(paths, batch_size):
    """Cut a list into batches."""
    return [paths[first : first + batch_size] for first in range(0, len(paths), batch_size)]


def find_batch_size(session, paths, cores):
    """Find the batch size that gives most pictures a second on the first pictures."""
    trial = paths[: TRIAL_PICTURES * cores]

    def time_trial(batch_size):
        start = time.perf_counter()
        extract_vectors(session, cut(trial, batch_size), cores, read_pictures)
        return time.perf_counter() - start

    time_trial(BATCH_SIZES[0])  # the first run also allocates
    return min(BATCH_SIZES, key=time_trial)


def main(task):
    """Find the best batch size, time every picture with it, then the network alone on decoded pictures."""
    measures = Measures()
    session, cores = open_session(task), task["cores"]
    paths = sorted(Path(task["pictures"]).glob("*/*.jpg"))
    batch_size = find_batch_size(session, paths, cores)
    with measures.step("features"):
        vectors = extract_vectors(session, cut(paths, batch_size), cores, read_pictures)
    decoded = [read_pictures(batch) for batch in cut(paths[: TRIAL_PICTURES * cores], batch_size)]
    with measures.step("inference"):
        extract_vectors(session, decoded, cores, lambda batch: batch)
    rate = sum(map(len, decoded)) / measures.seconds["inference"]
    measures.note(batch_size=batch_size, inference_rate=rate)
    np.savez(Path(task["output"], "vectors.npz"), paths=[str(path) for path in paths], vectors=vectors)
    measures.save(task["output"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
