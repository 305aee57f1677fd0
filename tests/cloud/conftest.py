"""The cloud on one machine, for every test here that asks for it."""

from one_machine import livy, pictures

__all__ = ["livy", "pictures"]
