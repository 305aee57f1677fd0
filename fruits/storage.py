"""Folders and files on this machine or on S3, reached in one way. Nothing here knows what they hold."""

import fcntl
import json
import os
import re
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow.fs
import pyarrow.parquet

PATTERN_CHARACTERS = set("*?[]{}\\")  # Spark reads a path that holds one of them as a pattern
SECONDS_TO_LOCK = 10  # a folder; a notebook whose papermill was killed ends within two
_locks = {}  # {folder: descriptor of it, locked} of this process


class File(NamedTuple):
    """A file found: its path as Spark writes it, its length in bytes, when it was modified (ms since 1970, UTC).

    A link to nothing has the length None.
    """

    path: str
    length: int | None
    modified: int


def find_project_root():
    """Find the folder that relative paths start from: the project's, or the current one where only the package is."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "notebooks").is_dir() else Path.cwd()


def resolve(path):
    """Make a path absolute: relative ones start from the project's root, addresses such as s3://... stay.

    Raises ValueError where the path holds a character that Spark would read as a pattern, or is an address elsewhere.
    """
    if found := sorted(PATTERN_CHARACTERS & set(path)):
        raise ValueError(f"the path {path!r} holds {' '.join(found)}, a pattern to Spark: rename the folder")
    if path.startswith("s3://"):
        return path.rstrip("/")
    if scheme := re.match(r"[a-z][a-z0-9+.-]*:/", path, re.I):
        raise ValueError(f"found {path!r}, expected a path of this machine or s3://..., not {scheme[0]}: correct it")
    return os.path.normpath(find_project_root() / Path(path).expanduser())


def find_bucket(path):
    """Find the bucket of an address on S3, such as s3://BUCKET/images. Raises ValueError for any other path."""
    scheme, _, rest = path.partition("://")
    bucket = rest.partition("/")[0]
    if scheme != "s3" or not bucket:
        raise ValueError(f"found {path!r}, expected an address such as s3://BUCKET/images, as a cluster needs")
    return bucket


def list_files(folder):
    """List every file below a folder, without Spark: yields Files.

    One folder's names are held in memory at a time. A name that is not UTF-8 holds its other bytes as surrogates, as
    Python has them everywhere; what lies in a folder with such a name is not listed, but the folder itself is. A folder
    that is deleted meanwhile holds nothing. Raises OSError where a folder cannot be read, where it is emptied while it
    is listed, as by a disk that goes, where a link leads back to a folder on the way to it, and where a name on S3
    holds two slashes in a row, which Hadoop cannot read.
    """
    filesystem, root = _open(folder)
    prefix = folder[: -len(root)] if "://" in folder else "file:"
    pending, was_empty = [root], True
    while pending:
        below = pending.pop()
        for entry in filesystem.get_file_info(pyarrow.fs.FileSelector(below, allow_not_found=below != root)):
            was_empty = False
            try:
                path = entry.path
            except UnicodeDecodeError as error:  # Arrow can open it as little as Java can
                yield File(prefix + os.fsdecode(error.object), entry.size or 0, entry.mtime_ns // 1_000_000)
                continue
            if entry.type == pyarrow.fs.FileType.Directory:
                if path.rstrip("/") == below:  # Arrow leaves slashes out at a name's end, and would list it for ever
                    raise OSError(f"a name in {prefix + below} begins with /, so that two are in a row: rename it")
                if "://" not in folder and os.path.islink(path) and _leads_back(path):
                    raise OSError(f"{path} is a link back to a folder on the way to it: delete it")
                pending.append(path)
            elif entry.type == pyarrow.fs.FileType.File:  # a pipe or a device is no picture, nor one for Spark
                yield File(prefix + path, entry.size, entry.mtime_ns // 1_000_000)  # Java knows no finer time
        if "://" not in folder:
            yield from (File(prefix + path, None, 0) for path in _find_dead_links(below))
    if "://" not in folder and not was_empty and is_empty(folder):
        raise OSError(f"{root} was emptied while it was listed: its disk may be gone")


def cut_folder(path, folder):
    """Cut the path of a file that was listed to what lies below the folder: "/Lemon/0.jpg"."""
    return path.removeprefix("file:")[len(folder) :]


def _leads_back(link):
    """Say whether a link leads to a folder on the way to it, which other links may be part of."""
    target = os.path.realpath(link)
    return any(os.path.commonpath([target, os.path.realpath(folder)]) == target for folder in Path(link).parents)


def _find_dead_links(folder):
    """Find links to nothing in a folder of this machine, which Arrow leaves out: yields their paths."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from (entry.path for entry in entries if entry.is_symlink() and not os.path.exists(entry.path))


def is_empty(folder):
    """Say whether a folder holds nothing at all, or is not there; one entry is looked at. Raises OSError."""
    if "://" in folder:
        return not is_folder(folder)  # S3 has a folder where a name begins so
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        return next(entries, None) is None
    return True


def is_utf8(path):
    """Say whether a name can be written as text: surrogates stand for bytes that are not UTF-8."""
    return path.isascii() or not any("\ud800" <= character <= "\udfff" for character in path)


def is_readable(path):
    """Say whether this process has the right to read a file; of one on S3, only reading it tells."""
    return "://" in path or os.access(path.removeprefix("file:"), os.R_OK)


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
    filesystem, root = _open(path)
    with filesystem.open_input_file(root) as file:
        return file.read()


def read_json(path, expected, complaint):
    """Read a JSON file that a run has written: a dict.

    expected: {name that it holds: type of its value}. complaint: what to say of a file that holds something else, and
    what to do, after its path. Raises ValueError.
    """
    with suppress(ValueError):
        content = json.loads(read_bytes(path))
        if isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in expected.items()):
            return content
    raise ValueError(f"{path} {complaint}")


def write_bytes(path, content):
    """Write one whole file, or nothing of it, and the folder it lies in where it is missing."""
    filesystem, root = _open(path)
    if "://" in path:  # S3 shows a file once it is whole; it has no folders, and one made there would be an empty file
        with filesystem.open_output_stream(root) as file:
            file.write(content)
        return
    folder, _, name = root.rpartition("/")
    filesystem.create_dir(folder, recursive=True)
    unfinished = f"{folder}/.{name}.unfinished"
    with filesystem.open_output_stream(unfinished) as file:
        file.write(content)
    filesystem.move(unfinished, root)


def write_table(path, batches, schema):
    """Write a table as one parquet file, batch after batch, so that it need not fit in memory.

    batches: iterable of lists of rows (tuples). schema: pyarrow.Schema.
    """
    filesystem, root = _open(path)
    if "://" not in path:
        filesystem.create_dir(root.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(root) as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for rows in batches:
            columns = [pyarrow.array(values, field.type) for values, field in zip(zip(*rows), schema)]  # noqa: B905
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))


def lock_folder(folder):
    """Lock a folder for this process, until it unlocks it or ends, however it ends; one that is missing is made.

    Returns False where another process of this machine has locked it. Of S3, and of a disk that knows no locks, nobody
    can tell, and the answer is True. https://man7.org/linux/man-pages/man2/flock.2.html
    """
    if "://" in folder:
        return True
    end = time.monotonic() + SECONDS_TO_LOCK
    unlock_folder(folder)  # what this process has locked may have been deleted and made again
    while not _try_to_lock(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _try_to_lock(folder):
    """Lock a folder; return False where another process has, or has deleted it. Without locks it counts as locked."""
    os.makedirs(folder, exist_ok=True)
    descriptor, is_ours = os.open(folder, os.O_RDONLY), False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except OSError as error:
        is_ours = not isinstance(error, BlockingIOError | FileNotFoundError)
    if is_ours:
        _locks[folder] = descriptor
    else:
        os.close(descriptor)
    return is_ours


def unlock_folder(folder):
    """Let other processes lock a folder that this one has locked; nothing is done where it has not."""
    if folder in _locks:
        os.close(_locks.pop(folder))


def delete_folder(path):
    """Delete a folder and what it holds, if it is there."""
    filesystem, root = _open(path)
    if is_folder(path):
        filesystem.delete_dir(root)


def delete_file(path):
    """Delete one file. path: as list_files and Spark write it."""
    filesystem, root = _open(path)
    filesystem.delete_file(root)


def _open(path):
    """Open the file system of a path: (pyarrow.fs.FileSystem, the path inside it)."""
    if "://" not in path:
        return pyarrow.fs.LocalFileSystem(), path.removeprefix("file:")
    scheme, _, rest = path.partition("://")
    place, _, key = rest.partition("/")
    filesystem, root = _connect(f"{scheme}://{place}")
    inside = f"{root.rstrip('/')}/{key}"  # not parsed as an address: names hold spaces, % and accents
    return filesystem, inside.rstrip("/")


@lru_cache
def _connect(address):
    """Connect to a storage, once: (pyarrow.fs.FileSystem, the path of its root). A bucket's region is asked for."""
    return pyarrow.fs.FileSystem.from_uri(address)
