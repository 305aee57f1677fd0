"""TensorFlow and Keras as this project uses them: oneDNN on, no GPU, and not a word at import."""

import os

from fruits.interpreter import silence_stderr

# TensorFlow reads these once, when it is imported. Only the driver does: workers run what it compiles.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # for Keras on the driver; it is on by itself on some CPUs only
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors reach Python as exceptions; the rest is chatter
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # one network per worker: several would fight over one GPU


with silence_stderr():
    import absl.logging
    import keras
    import tensorflow as tf

absl.logging.set_verbosity(absl.logging.ERROR)  # of Python's half of it, the same

__all__ = ["keras", "tf"]
