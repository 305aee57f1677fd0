"""A compiled network, run on a worker by LiteRT, which needs neither TensorFlow nor Keras for it."""

import os
from contextlib import contextmanager

import numpy as np
from ai_edge_litert.interpreter import Interpreter


@contextmanager
def silence_stderr():
    """Drop what is written to file descriptor 2.

    C++ writes there, out of reach of Python's settings: TensorFlow while it is imported, LiteRT about each network that
    it opens. All of it would end up under a cell of the notebook.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def open_network(compiled, threads=1):
    """Open a network that backbones.compile_network has compiled.

    compiled: bytes. threads: that one picture may use. One picture goes through after the other, so that what lies
    between two layers stays in the processor's cache.
    Returns (extract, size): a function, uint8 (n, height, width, 3), RGB -> float32 (n, features); (height, width).
    """
    with silence_stderr():
        interpreter = Interpreter(model_content=compiled, num_threads=threads)
        interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def extract(pixels):
        vectors = np.empty((len(pixels), *target["shape"][1:]), np.float32)
        for position, picture in enumerate(pixels):
            interpreter.set_tensor(source["index"], picture[None])
            interpreter.invoke()
            vectors[position] = interpreter.get_tensor(target["index"])[0]
        return vectors

    return extract, tuple(int(side) for side in source["shape"][1:3])
