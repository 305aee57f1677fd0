"""What the tests of this folder share: runs that can be killed, their processes, and tables read without Spark."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import walk
from PIL import Image

from fruits import sample

MARK = "FRUITS_VOLUME_RUN"  # in the environment of every process of a run: how they are found, and that none is left
PATIENCE = 300  # seconds for what takes some
CORES = 2
PER_COMMIT = 3  # pictures of a slice and core, so that a few pictures make several slices
KINDS = ("Banana", "Lemon", "Strawberry")
NO_PICTURES = {
    "Lemon/letter.jpg": b"Dear Sir or Madam,",
    "Banana/cut.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "Lemon/empty.jpg": b"",
    "Lemon/_hidden.jpg": b"any",
}
OPENED_IN_VAIN = {"Lemon/letter.jpg", "Banana/cut.jpg"}  # those of them that a worker sees


class Tables(NamedTuple):
    """What a run left: {path below the folder of pictures: row} of its tables, and its report."""

    features: dict
    rejected: dict
    report: dict


def wait_until(condition, what, seconds=PATIENCE):
    """Wait until a condition holds and return its value, or fail and say what did not come."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what() if callable(what) else what}"
        time.sleep(0.02)
    return value


# --- Pictures ------------------------------------------------------------------------------------------------


def draw_pictures(folder):
    """Draw some pictures, and put beside them what is none: returns how many a worker is to open."""
    sample.draw_sample(folder, 8, KINDS, processes=1)
    for path, content in NO_PICTURES.items():
        (folder / path).write_bytes(content)
    return 8 * len(KINDS) + len(OPENED_IN_VAIN)


def featurize_by_keras(contents):
    """Compute features with Pillow and Keras alone, the network as it was before folding: float32 (n, features)."""
    network = walk.build_small_network()
    extractor = walk.keras.Model(network.inputs, network.layers[-2].output)
    pixels = []
    for content in contents:
        with Image.open(io.BytesIO(content)) as picture:
            pixels.append(np.float32(picture.convert("RGB").resize(walk.SIZE, Image.Resampling.BICUBIC)))
    return extractor.predict(np.stack(pixels), verbose=0)


# --- Runs ----------------------------------------------------------------------------------------------------


def list_parameters(pictures, output, **others):
    """List the parameters of a run on two cores with small slices."""
    given = {"images_path": str(pictures), "output_path": str(output), "pictures_per_commit": PER_COMMIT}
    return given | {"spark_master": f"local[{CORES}]"} | others


def find_processes(mark):
    """Find the processes of a run, whoever started them: {pid: command line}. Those that have ended are left out."""
    found = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def find_parent(pid):
    """Find the process that started another, which may have a space or a parenthesis in its name."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill(*pids):
    """Kill processes, as if the power failed. One that has just ended by itself is none the worse."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Run:
    """A run in a process of its own, with the folder that it may write to, its gate and what it printed."""

    def __init__(self, process, folder, mark):
        """Keep what a test reaches for. folder: for the gate and the log. mark: of all its processes."""
        self.process, self.gate, self.log, self.mark = process, folder / "gate", folder / "log.txt", mark

    def read_log(self):
        """Read what the run has printed."""
        return self.log.read_text(errors="replace")

    def wait_for(self, condition, what):
        """Wait for a condition while the run goes on; fail with its last words where it ends before."""
        is_over = f"{what}: the run has ended"
        value = wait_until(
            lambda: condition() or (self.process.poll() is not None and is_over),
            lambda: f"{what}; the run said: {self.read_log()[-3000:]}",
        )
        assert value is not is_over, f"{what}: {self.read_log()[-3000:]}"
        return value

    def freeze_while(self, java, look):
        """Stop a Java of the run at a moment when look finds something, and return what it has found.

        Where it is over before Java stands still, Java goes on, and the next such moment is waited for.
        """
        status = Path(f"/proc/{java}/status")
        while True:
            while not look():
                assert self.process.poll() is None, "the run ended before it was seen to write"
            os.kill(java, signal.SIGSTOP)
            self.wait_for(lambda: "State:\tT" in status.read_text(), "Java that stands still")
            if found := look():
                return found
            os.kill(java, signal.SIGCONT)

    def wait_for_hold(self):
        """Wait until a worker is held: returns its process id."""
        self.wait_for((self.gate / "held").exists, "a worker that is held")
        return json.loads((self.gate / "held").read_text())["pid"]

    def list_packages(self):
        """List where each worker so far has imported the package from."""
        return [json.loads(path.read_text())["package"] for path in self.gate.glob("worker *")]

    def release(self):
        """Open the gate."""
        (self.gate / "released").touch()

    def find_java(self):
        """Find Java, the driver's: its process id."""
        (pid,) = (pid for pid, line in find_processes(self.mark).items() if "deploy.SparkSubmit" in line)
        return pid

    def kill_all(self):
        """Kill driver, Java and workers, all at once."""
        kill(*find_processes(self.mark))
        self.process.wait(PATIENCE)

    def finish(self):
        """Wait for the end, and that no process outlives the run: returns its exit status."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run does not end; it said: {self.read_log()[-3000:]}") from None
        wait_until(lambda: not find_processes(self.mark), lambda: f"the end of {find_processes(self.mark)}")
        return status


def list_environment(folder, mark):
    """List the environment of a run's processes, so that whatever they leave when killed lies in the test's folder."""
    for name in ("temporary", "spark"):
        (folder / name).mkdir(exist_ok=True)
    here = {
        MARK: mark,
        "TMPDIR": f"{folder}/temporary",
        "SPARK_LOCAL_DIRS": f"{folder}/spark",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "JDK_JAVA_OPTIONS": f"-XX:-UsePerfData -Djava.io.tmpdir={folder}/temporary",
        "MPLBACKEND": "Agg",
    }
    return os.environ | here


@contextmanager
def start_run(folder, parameters, before=(), environment=None, until=walk.FEATURES, **hooks):
    """Start a run in a process of its own; whatever is left of it at the end is killed.

    folder: new, for what it writes beside its results. before: words of a command before it. until: where the run
    ends. hooks: as walk.py has them; where hold_at is among them, the run has a gate.
    """
    (folder / "gate").mkdir(parents=True)
    environment = environment or list_environment(folder, str(folder))
    request = {"parameters": parameters, "until": until, "hooks": {"gate": str(folder / "gate")} | hooks}
    command = [*before, sys.executable, "-u", str(Path(walk.__file__)), json.dumps(request)]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    run = Run(process, folder, environment[MARK])
    try:
        yield run
    finally:
        run.kill_all()
        wait_until(lambda: not find_processes(run.mark), "the end of what was killed")


# --- What a run leaves ---------------------------------------------------------------------------------------


def list_files(output, table):
    """List the parquet files of a table that Spark would read: {path: bytes}."""
    return {path: path.read_bytes() for path in sorted((output / table).glob("[!_.]*.parquet"))}


def read_rows(output, table, pictures):
    """Read a table, without Spark: [(path below the folder of pictures, row)], as often as it is there."""
    start = f"file:{pictures}/"
    rows = [row for path in list_files(output, table) for row in pq.ParquetFile(path).read().to_pylist()]
    assert all(row["path"].startswith(start) for row in rows)
    return [(row["path"].removeprefix(start), row) for row in rows]


def read_once(output, table, pictures):
    """Read a table in which each picture stands once: {path below the folder of pictures: row}."""
    rows = read_rows(output, table, pictures)
    paths = [path for path, _ in rows]
    assert sorted(paths) == sorted(set(paths)), "a picture stands twice"
    return dict(rows)


def read_tables(output, pictures):
    """Read all that a finished run has left, and see that nothing unfinished is among it."""
    left = [path for path in output.rglob("*") if path.name == "_temporary" or path.name.startswith(".report")]
    assert left == []
    report = json.loads((output / "report.json").read_text())
    assert report["finished"]
    return Tables(read_once(output, "features", pictures), read_once(output, "rejected", pictures), report)


def get_version(row):
    """Get what tells one picture from another under its name: (date, length)."""
    return row["modificationTime"], row["length"]


def compare_tables(found, expected):
    """See that two runs agree on every picture, number by number."""
    assert found.features.keys() == expected.features.keys()
    assert {path: row["reason"] for path, row in found.rejected.items()} == {
        path: row["reason"] for path, row in expected.rejected.items()
    }
    for table in ("features", "rejected"):
        ours, theirs = getattr(found, table), getattr(expected, table)
        assert {path: get_version(row) for path, row in ours.items()} == {
            path: get_version(row) for path, row in theirs.items()
        }
    paths = sorted(expected.features)
    ours, theirs = (np.array([tables.features[path]["features"] for path in paths]) for tables in (found, expected))
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)


# --- A disk of its own ---------------------------------------------------------------------------------------


class Disk:
    """A small disk that only some processes see: no mount is left, whatever becomes of the tests."""

    def __init__(self, holder, folder):
        """Keep who holds the disk. folder: where those that enter see it."""
        self.folder = folder
        self.enter = ["nsenter", f"--target={holder.pid}", "--user", "--mount", "--preserve-credentials"]
        self.outside = Path(f"/proc/{holder.pid}/root{folder}")  # how others reach it

    def fill(self):
        """Fill the disk to its last byte."""
        with suppress(OSError), (self.outside / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        assert os.statvfs(self.outside).f_bavail == 0

    def empty(self):
        """Take out what filled it."""
        (self.outside / "ballast").unlink()

    def remount(self, mode):
        """Make the disk read-only, "ro", or not, "rw", as soon as no file is open for writing."""
        command = [*self.enter, "mount", "-o", f"remount,{mode}", str(self.folder)]
        wait_until(lambda: subprocess.run(command, capture_output=True).returncode == 0, f"a disk that is {mode}", 20)


@contextmanager
def make_disk(folder, size):
    """Make a disk in a room of its own (namespaces of users and of mounts), which ends with the process that holds it.

    size: as mount has it, such as "4m". Fails where this machine grants no such room, rather than test nothing.
    """
    folder.mkdir()
    script = 'mount -t tmpfs -o "size=$1" none "$2" && echo ready && exec cat'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", size, str(folder)]
    with ExitStack() as stack:
        holder = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        stack.callback(holder.stdin.close)  # cat ends, and with the last process the disk
        if holder.stdout.readline() != "ready\n":
            raise AssertionError(f"no disk of its own on this machine: {holder.stderr.read()}")
        yield Disk(holder, folder)


def copy_tree(source, target):
    """Copy a folder with the dates of its files."""
    shutil.copytree(source, target, copy_function=shutil.copy2)
