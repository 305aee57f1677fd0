"""Measure how the project grows: with the number of pictures, with the cores, and run after run in one folder.

Usage: python benchmarks/volume.py [--counts N ...] [--cores N ...] [--steps STEP ...] [--pictures FOLDER]
                                   [--runs N] [--notebook N] [--output FOLDER]

Writes a table to the terminal, volume.json and volume.png; exit status 1 where a bar is missed or a count is wrong.
Each run is a process of its own that takes the steps of project.py. The steps measured, for each count of pictures:
first        a run on all of them, on each number of cores
incremental  after it, on the same results: a run with nothing new, with 1 % new pictures, with 1 % changed
packed       pictures packed into large files, then featurized from these; and reading alone, both ways
runs         many runs (--runs) of 50 pictures each: what their small files cost to read, and merged
notebook     the whole notebook, executed by papermill: on new pictures, then with nothing new
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path

import bench
import results
import volume_results
from measures import Measures

from fruits import sample

STEPS = ("first", "incremental", "packed", "runs", "notebook")
DRAWN_PER_KIND = 100  # drawn pictures that differ; beyond, they are copied
OLDEST = 1_767_225_600  # seconds since 1970: the modification time of the first picture, 2026-01-01
PER_SMALL_RUN = 50
READINGS = 3  # of features, of which the median counts


class Folder:
    """A folder of label/number_name.jpg, each a file of its own, a copy of one of some pictures."""

    def __init__(self, path, sources):
        """Begin with an empty folder. sources: the pictures to copy."""
        self.path, self.sources, self.count = Path(path), sources, 0

    def hold(self, count):
        """Hold the first pictures, count of them, and no others."""
        for number in range(self.count, count):
            self.write(number)
        for number in range(count, self.count):
            self._name(number).unlink()
        self.count = count

    def write(self, number, version=0):
        """Write one picture; another version is another picture under the same name, of another date."""
        file = self._name(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.sources[(number + version) % len(self.sources)], file)
        modified = OLDEST + number + version * 10**7
        os.utime(file, (modified, modified))

    def measure_bytes(self):
        """Add up the lengths of the files."""
        return sum(self._name(number).stat().st_size for number in range(self.count))

    def _name(self, number):
        """Name a picture, and its label after the folder of the one that it copies."""
        source = self.sources[number % len(self.sources)]
        return self.path / source.parent.name / f"{number:07}_{source.name}"


def read_options(arguments=None):
    """Read the command line."""
    description, _, steps = __doc__.partition("The steps measured")
    parser = argparse.ArgumentParser(
        description=description.split("\n")[0], epilog=f"The steps measured{steps}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    every, count = len(bench.list_cores()), bench.read_count
    counts = [5_000, 10_000, 20_000]
    parser.add_argument("--counts", type=count, nargs="+", default=counts, help=f"of pictures; default: {counts}")
    parser.add_argument("--cores", type=count, nargs="+", default=sorted({1, every}), help="default: 1, and all")
    parser.add_argument("--steps", choices=STEPS, nargs="+", default=list(STEPS), help="default: all")
    parser.add_argument("--pictures", type=Path, help="folder of label/name.jpg to copy (default: they are drawn)")
    parser.add_argument("--runs", type=count, default=20, help=f"of {PER_SMALL_RUN} pictures; default: %(default)s")
    parser.add_argument("--notebook", type=count, help="pictures for the notebook; default: the largest of --counts")
    default = bench.HERE.parent / "data/output/bench"
    parser.add_argument("--output", type=Path, default=default, help="default: %(default)s")
    options = parser.parse_args(arguments)
    options.counts, options.cores = sorted(set(options.counts)), sorted(set(options.cores))
    options.notebook = options.notebook or options.counts[-1]
    if options.cores[-1] > every:
        parser.error(f"argument --cores: found {options.cores[-1]}, but this machine gives {every}")
    if min(options.counts[0], options.notebook) < 2:
        parser.error("found 1 picture, but a PCA needs at least 2: give more to --counts and --notebook")
    return options


def gather_sources(options, folder):
    """List the pictures to copy, drawing them where none are given. Raises BenchError where there are none."""
    if options.pictures is None:
        needed = max(options.notebook, *options.counts)
        sample.draw_sample(folder / "drawn", min(DRAWN_PER_KIND, -(-needed // len(sample.KINDS))))
    source = (options.pictures or folder / "drawn").resolve()
    if files := sorted(source.rglob("*.jpg")):
        # Labels take turns, so that a small run has many of them.
        return sorted(files, key=lambda file: (file.name, file.parent.name))
    raise results.BenchError(f"found no .jpg below {source}: give a folder of label/name.jpg to --pictures")


def run_process(name, task, folder):
    """Run one of the scripts here on the task's cores. Returns what it measured, with its seconds from start to end."""
    output = Path(task["output"])
    output.mkdir(exist_ok=True)
    every = bench.list_cores()
    bench.use_cores(every[: task["cores"]])
    try:
        total = bench.run_script(name, json.dumps(task), folder / f"{name}.log")
    finally:
        bench.use_cores(every)
    measured = json.loads((output / "measures.json").read_text())
    measured["seconds"]["total"] = total - measured["seconds"].get("heap", 0)  # no part of a run
    return measured


def run_project(folder, pictures, kind, cores, **counts):
    """Run the project on the pictures as they lie there, and check what it counted.

    kind: first, nothing, new, changed or packed. counts: what it must count as new and as changed, 0 where not given.
    Returns what volume.json says of a run.
    """
    name = "packed" if kind == "packed" else f"results-{cores}"
    task = {"pictures": str(pictures.path), "output": str(folder / name), "cores": cores, "live_heap": True}
    if kind == "packed":
        task["packed"] = str(folder / "packs")
    print(f"{pictures.count:,} pictures, {cores} cores, {kind} ... ", end="", flush=True)
    load = os.getloadavg()[0]
    measured = run_process("project", task, folder)
    counted = json.loads((folder / name / "report.json").read_text())
    expected = {"new": 0, "changed": 0, "deleted": 0} | counts
    expected |= {"found": pictures.count, "unchanged": pictures.count - expected["new"] - expected["changed"]}
    found = {state: counted[f"images_{state}"] for state in expected}
    accounted = counted["images_featurized"] + counted["images_rejected"]
    print(f"{measured['seconds']['total']:.1f} s" + ("" if found == expected else f", but it counted {found}"))
    peaks = measured["peak_mib"]
    return {
        "kind": kind, "pictures": pictures.count, "cores": cores, "load": load,
        "seconds": measured["seconds"], "images_per_second": counted["images_per_second"],
        "mib": {"driver": peaks.get("driver"), "java": peaks.get("jvm"), "java_live": measured["java_live_mib"]},
        "counts": found | {"rejected": counted["images_rejected"]},
        "is_right": found == expected and accounted == pictures.count,
    }  # fmt: skip


def run_increments(folder, pictures, cores):
    """Run again with nothing new, with 1 % new pictures, with 1 % changed; then leave the pictures as they were."""
    before, part = pictures.count, max(1, pictures.count // 100)
    runs = [run_project(folder, pictures, "nothing", cores)]
    pictures.hold(before + part)
    runs.append(run_project(folder, pictures, "new", cores, new=part))
    changed = [number * before // part for number in range(part)]
    for number in changed:
        pictures.write(number, version=1)
    runs.append(run_project(folder, pictures, "changed", cores, changed=part))
    for number in changed:
        pictures.write(number)
    pictures.hold(before)
    return runs


def run_packed(folder, pictures, cores):
    """Pack the pictures and featurize them from the packs; then read them alone, both ways. Returns (run, reading)."""
    run = run_project(folder, pictures, "packed", cores, new=pictures.count)
    print(f"{pictures.count:,} pictures, {cores} cores, reading alone ... ", end="", flush=True)
    task = {"way": "read", "small": str(pictures.path), "packed": str(folder / "packs"), "cores": cores}
    measured = run_process("volume", task | {"output": str(folder / "read")}, folder)
    found, seconds = pictures.measure_bytes(), measured["seconds"]
    print(f"{seconds['small']:.1f} s from small files, {seconds['packed']:.1f} s packed")
    for name in ("packed", "packs"):
        shutil.rmtree(folder / name)
    return run, {
        "pictures": pictures.count, "cores": cores, "bytes": found, "pack_s": run["seconds"]["pack"],
        "packs": measured["packs"], "small_s": seconds["small"], "packed_s": seconds["packed"],
        "is_right": measured["small_bytes"] == measured["packed_bytes"] == found,
    }  # fmt: skip


def run_notebook(folder, pictures, cores):
    """Execute the notebook twice, so that nothing is new the second time. Returns what volume.json says of it."""
    output = folder / "notebook-results"
    task = {"way": "notebook", "pictures": str(pictures.path), "results": str(output), "cores": cores}
    seconds, counted = [], []
    for turn in ("all of them new", "with nothing new"):
        print(f"{pictures.count:,} pictures, {cores} cores, the notebook, {turn} ... ", end="", flush=True)
        seconds.append(run_process("volume", task | {"output": str(folder / "notebook")}, folder)["seconds"]["total"])
        counted.append(json.loads((output / "report.json").read_text()))
        print(f"{seconds[-1]:.1f} s")
    first, again = counted
    is_right = first["images_new"] == again["images_unchanged"] == again["images_found"] == pictures.count
    found = {"pictures": pictures.count, "cores": cores, "first_seconds": seconds[0], "seconds": seconds[1]}
    return found | {"step_seconds": again["seconds"], "is_right": is_right}


def read_alone(spark, task, measures):
    """Read the bytes of all pictures, from small files and packed; the first reading of each warms up."""
    import project
    from pyspark.sql import functions as F

    for turn in ("warm up", "measure"):
        for way in ("small", "packed"):
            with measures.step(way if turn == "measure" else turn):
                pictures = project.load_pictures(spark, task[way])
                total = pictures.agg(F.sum(F.length("content"))).first()[0]
            measures.note(**{f"{way}_bytes": total})
    measures.note(packs=count_files(task["packed"]))


def make_small_runs(spark, task, measures):
    """Featurize a few pictures at a time, as many runs would, without merging what they leave; then merge it."""
    import project

    from fruits import images, increments

    folder, output = task["pictures"], task["results"]
    pictures = Folder(folder, [Path(source) for source in task["sources"]])
    network = project.prepare_network()
    featurize, tables = project.make_featurizer(spark, network), increments.list_tables(output)
    increments.claim_features(output, network.fingerprint)
    enough, increments.SMALL_FILES = increments.SMALL_FILES, 10**9  # else tidy merges every few runs
    for run in range(task["runs"]):
        pictures.hold((run + 1) * task["per_run"])
        files = project.load_pictures(spark, folder)
        changes = increments.find_changes(spark, images.survey(spark, folder, output), tables, f"{output}/changes")
        project.write_features(files, changes, featurize, output)
        if pictures.count < task["runs"] * task["per_run"]:
            increments.tidy(spark, changes, tables)
    before = note_reading(spark, output)
    increments.SMALL_FILES = enough
    with measures.step("merge"):  # the last run's tidying
        increments.tidy(spark, changes, tables)
    most = enough + 2 * task["cores"]  # small files that a run leaves unmerged
    measures.note(before=before, after=note_reading(spark, output), merges_beyond=most)


def note_reading(spark, output):
    """Read the features of a run's folder several times: {files, rows, seconds}, the median of the seconds."""
    seconds = []
    for _ in range(READINGS + 1):  # the first warms up
        start = time.perf_counter()
        spark.read.parquet(f"{output}/features").write.format("noop").mode("overwrite").save()  # reads every column
        seconds.append(time.perf_counter() - start)
    rows = spark.read.parquet(f"{output}/features").select("path").distinct().count()
    return {"files": count_files(f"{output}/features"), "rows": rows, "seconds": statistics.median(seconds[1:])}


def count_files(folder):
    """Count the parquet files of a table."""
    return len(list(Path(folder).glob("*.parquet")))  # what lies in _changes is no part of it


def execute_notebook(task):
    """Execute the notebook by papermill, beside its results."""
    import papermill

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that papermill ends the kernel, a group of its own
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this Python
    parameters = {"images_path": task["pictures"], "output_path": task["results"]}
    parameters["spark_master"] = f"local[{task['cores']}]"
    notebook = bench.HERE.parent / "notebooks/local.ipynb"
    papermill.execute_notebook(notebook, f"{task['output']}/local.ipynb", parameters, progress_bar=False)


def run_way(task):
    """Do one thing in this process and write what it measured."""
    measures = Measures()
    if task["way"] == "notebook":
        with measures.step("notebook"):
            execute_notebook(task)
    else:
        import project

        spark = project.start_spark(task["cores"])
        {"read": read_alone, "runs": make_small_runs}[task["way"]](spark, task, measures)
        spark.stop()
    measures.save(task["output"])


def run_small_runs(folder, sources, cores, runs):
    """Make many small runs in one process. Returns what volume.json says of them."""
    print(f"{runs} runs of {PER_SMALL_RUN} pictures, {cores} cores ... ", end="", flush=True)
    task = {"way": "runs", "pictures": str(folder / "few"), "results": str(folder / "runs-results"), "cores": cores}
    task |= {"sources": list(map(str, sources[:PER_SMALL_RUN])), "runs": runs, "per_run": PER_SMALL_RUN}
    measured = run_process("volume", task | {"output": str(folder / "runs")}, folder)
    print(f"{measured['before']['files']} files, {measured['after']['files']} once merged")
    found = {"runs": runs, "per_run": PER_SMALL_RUN, "cores": cores, "merge_s": measured["seconds"]["merge"]}
    found |= {name: measured[name] for name in ("before", "after", "merges_beyond")}
    has_all_rows = measured["before"]["rows"] == measured["after"]["rows"] == runs * PER_SMALL_RUN
    return found | {"is_right": has_all_rows and measured["after"]["files"] <= measured["merges_beyond"]}


def measure(options, folder):
    """Gather the pictures and run everything asked for. Returns the content of volume.json, without its verdicts."""
    bench.set_environment(folder)
    sources, most = gather_sources(options, folder), options.cores[-1]
    found = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": results.describe_machine(most) | {"load_before": os.getloadavg()},
        "versions": results.list_versions(),
        "pictures": {"source": str(options.pictures or "drawn"), "different": len(sources)},
        "runs": [], "reading": [], "small_runs": None, "notebook": None,
    }  # fmt: skip
    pictures = Folder(folder / "pictures", sources)
    for count in options.counts:
        pictures.hold(count)
        for cores in options.cores if {"first", "incremental"} & set(options.steps) else ():
            shutil.rmtree(folder / f"results-{cores}", ignore_errors=True)
            found["runs"].append(run_project(folder, pictures, "first", cores, new=count))
            if "incremental" in options.steps:
                found["runs"] += run_increments(folder, pictures, cores)
        if "packed" in options.steps:
            run, reading = run_packed(folder, pictures, most)
            found["runs"].append(run)
            found["reading"].append(reading)
    if "notebook" in options.steps:
        pictures.hold(options.notebook)
        found["notebook"] = run_notebook(folder, pictures, most)
    if "runs" in options.steps:
        found["small_runs"] = run_small_runs(folder, sources, most, options.runs)
    return found | {"load_after": os.getloadavg()}


def main():
    """Run the command: 0 when all is right and every bar met, 1 when not or a run fails, 130 when interrupted."""
    if sys.argv[1:] and sys.argv[1].startswith("{"):  # one way, called by run_script
        run_way(json.loads(sys.argv[1]))
        return 0
    options = read_options()
    found = results.run_in_scratch("volume", measure, options)
    found["bars"] = volume_results.list_bars(found)
    found["is_right"] = volume_results.is_right(found)
    volume_results.save(found, options.output)
    print(volume_results.format_table(found))
    print(f"\nwritten: {options.output}/volume.json and volume.png")
    return 0 if found["is_right"] and all(bar["is_met"] for bar in found["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
