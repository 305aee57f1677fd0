"""Folders and files on this machine or on S3, reached in one way. What they hold is not known here."""

import os
from functools import lru_cache
from pathlib import Path

import pyarrow.fs

PATTERN_CHARACTERS = set("*?[]{}\\")  # Spark reads a path that holds one of them as a pattern


def find_project_root():
    """Find the folder that relative paths start from: the project's, or the current one where only the package is."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "notebooks").is_dir() else Path.cwd()


def resolve(path):
    """Make a path absolute: relative ones start from the project's root, addresses such as s3://... stay.

    Raises ValueError where the path holds a character that Spark would read as a pattern.
    """
    if found := sorted(PATTERN_CHARACTERS & set(path)):
        raise ValueError(f"the path {path!r} holds {' '.join(found)}, a pattern to Spark: rename the folder")
    if "://" in path:
        return path.rstrip("/")
    return os.path.normpath(find_project_root() / Path(path).expanduser())


def list_files(folder):
    """List every file below a folder, without Spark: yields (path as Spark writes it, bytes).

    One folder's names are held in memory at a time. Raises OSError where a folder cannot be read.
    """
    filesystem, root = _open(folder)
    prefix = folder[: -len(root)] if "://" in folder else "file:"
    pending = [root]
    while pending:
        for entry in filesystem.get_file_info(pyarrow.fs.FileSelector(pending.pop())):
            try:
                path = entry.path
            except UnicodeDecodeError as error:
                raise ValueError(f"the name {error.object!r} is not UTF-8, which Spark wants: rename it") from None
            if entry.type == pyarrow.fs.FileType.Directory:
                pending.append(path)
            elif entry.type == pyarrow.fs.FileType.File:  # a pipe or a device is no picture, nor one for Spark
                yield prefix + path, entry.size


def is_folder(path):
    """Say whether a folder is there."""
    filesystem, root = _open(path)
    return filesystem.get_file_info(root).type == pyarrow.fs.FileType.Directory


def is_file(path):
    """Say whether a file is there."""
    filesystem, root = _open(path)
    return filesystem.get_file_info(root).type == pyarrow.fs.FileType.File


def read_bytes(path):
    """Read one whole file. path: as list_files and Spark write it."""
    filesystem, root = _open(path.removeprefix("file:"))
    with filesystem.open_input_file(root) as file:
        return file.read()


def write_bytes(path, content):
    """Write one whole file, and the folder it lies in where it is missing."""
    filesystem, root = _open(path)
    if "://" not in path:  # S3 has no folders; one made there would be an empty file
        filesystem.create_dir(root.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(root) as file:
        file.write(content)


def delete_folder(path):
    """Delete a folder and what it holds, if it is there."""
    filesystem, root = _open(path)
    if is_folder(path):
        filesystem.delete_dir(root)


def delete_file(path):
    """Delete one file."""
    filesystem, root = _open(path)
    filesystem.delete_file(root)


def _open(path):
    """Open the file system of a path: (pyarrow.fs.FileSystem, the path inside it)."""
    if "://" not in path:
        return pyarrow.fs.LocalFileSystem(), path
    scheme, _, rest = path.partition("://")
    place, _, key = rest.partition("/")
    filesystem, root = _connect(f"{scheme}://{place}")
    inside = f"{root.rstrip('/')}/{key}"  # not parsed as an address: names hold spaces, % and accents
    return filesystem, inside.rstrip("/")


@lru_cache
def _connect(address):
    """Connect to a storage, once: (pyarrow.fs.FileSystem, the path of its root). A bucket's region is asked for."""
    return pyarrow.fs.FileSystem.from_uri(address)
