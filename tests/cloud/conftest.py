"""The cloud on one machine, for every test here that asks for it."""

from one_machine import aws, livy, pictures

__all__ = ["aws", "livy", "pictures"]
