"""What a contender notes about itself while it runs. Nothing of fruits is imported: the course uses this."""

import gc
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path


class Measures:
    """Seconds by step, peak memory by kind of process, and whatever else a contender notes."""

    def __init__(self):
        """Begin with nothing measured."""
        self.values, self.seconds, self.peaks = {}, {}, {}

    @contextmanager
    def step(self, name):
        """Time one step, in seconds, adding to what it took before, then look at every process's memory."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start
        for kind, peak in read_peaks().items():
            self.peaks[kind] = max(peak, self.peaks.get(kind, 0))

    def note(self, **values):
        """Note values by name."""
        self.values |= values

    def save(self, folder):
        """Write measures.json into a folder."""
        content = self.values | {"seconds": self.seconds, "peak_mib": self.peaks}
        Path(folder, "measures.json").write_text(json.dumps(content))


def read_peaks():
    """Read the peak memory, in MiB, of this process, of its JVM and of its largest Python worker.

    Returns a dict with some of the names driver, jvm, worker; none where the system has no /proc.
    """
    peaks = {}
    for process, is_java in _list_family(os.getpid()):
        kind = "driver" if process == os.getpid() else "jvm" if is_java else "worker"
        peaks[kind] = max(_read_high_water(process), peaks.get(kind, 0))
    return peaks


def read_live_heap(spark, *_held):
    """Read the memory, in MiB, that Java still uses after a full garbage collection: what it holds, not what it took.

    spark: pyspark SparkSession, whose JVM is asked. _held: DataFrames that are not to be collected meanwhile.
    """
    java, used = spark.sparkContext._jvm, []
    memory = java.java.lang.management.ManagementFactory.getMemoryMXBean()
    gc.collect()  # DataFrames that Python no longer holds are still held for it by Java
    for _ in range(5):  # what one collection finds unused, Spark's own cleaner lets go of before the next
        java.System.gc()
        used.append(memory.getHeapMemoryUsage().getUsed() / 2**20)
        time.sleep(0.5)
    return min(used)


def _list_family(ancestor):
    """List a process and those below it: [(process, is it Java)]."""
    parents, is_java = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = path.read_text().partition("(")[2].rpartition(")")
        except OSError:  # it ended meanwhile
            continue
        process = int(path.parent.name)
        parents[process], is_java[process] = int(fields.split()[1]), name == "java"
    family = [ancestor] if ancestor in parents else []
    for member in family:  # grows while it is walked
        family += [process for process, parent in parents.items() if parent == member]
    return [(process, is_java[process]) for process in family]


def _read_high_water(process):
    """Read VmHWM, the most memory a process ever held, in MiB; 0 where it has ended (source: man 5 proc)."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0)
