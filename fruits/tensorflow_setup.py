"""TensorFlow and Keras as this project uses them: oneDNN on, no GPU, and not a word at import."""

import os
from contextlib import contextmanager

# TensorFlow reads these once, when it is imported, on the driver as on the workers.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # for Keras on the driver; it is on by itself on some CPUs only
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors reach Python as exceptions; the rest is chatter
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # one network per worker: several would fight over one GPU


@contextmanager
def silence_stderr():
    """Drop what is written to file descriptor 2.

    TensorFlow's C++ writes there while it is imported, before it reads any setting, in every worker; all of it would
    end up under a cell of the notebook.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with silence_stderr():
    import keras
    import tensorflow as tf

__all__ = ["keras", "tf"]
