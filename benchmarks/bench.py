"""Measure the project against the course notebooks and the limit: one run, the same pictures and cores.

Usage: python benchmarks/bench.py [--pictures FOLDER] [--count N] [--rounds N] [--cores N] [--output FOLDER]

Writes a table to the terminal, bench.json and bench.png. Each contender (course.py, project.py, limit.py)
runs in a process of its own, in turn; what they computed is compared, and the exit status is 1 where they
disagree.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # the project is measured as it lies here, installed or not

import results  # noqa: E402

from fruits import sample, session  # noqa: E402

CONTENDERS = ("project", "course", "limit")  # the project first: the course is asked for as many components
DRAWN_PER_KIND = 24  # drawn pictures that differ; beyond, they are repeated
STEADY_PICTURES = 64  # enough for every worker to start, few enough for the start to be nearly all
PATIENCE = 10  # seconds that a process may take to end before it is killed


def list_cores():
    """List the cores that this process may use."""
    return (
        sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count()))
    )


def use_cores(cores):
    """Keep this process, and those that it will start, to some cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def read_count(text):
    """Read a whole number of 1 or more from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of 1 or more")
    return int(text)


def read_options(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--pictures", type=Path, help="folder of label/name.jpg (default: pictures are drawn)"
    )
    parser.add_argument("--count", type=read_count, help="repeat or cut to N (default: all, or 2400 drawn)")
    parser.add_argument("--rounds", type=read_count, default=1, help="times each contender runs (default: 1)")
    parser.add_argument(
        "--cores", type=read_count, default=len(list_cores()), help="default: all (%(default)s)"
    )
    parser.add_argument("--steady", action="store_true", help="also time few pictures, to take start-up out")
    parser.add_argument(
        "--course-onednn", choices=("default", "off"), default="default",
        help="off: as TensorFlow sets itself where the CPU has neither AVX512-VNNI nor AMX",
    )  # fmt: skip
    parser.add_argument(
        "--course-partitions", type=read_count, default=20, help="of the course's tasks (default: 20, theirs)"
    )
    parser.add_argument(
        "--output", type=Path, default=HERE.parent / "data/output/bench", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    if options.cores > len(list_cores()):
        parser.error(f"argument --cores: found {options.cores}, but this machine gives {len(list_cores())}")
    return options


def gather_pictures(options, folder):
    """Gather the pictures of the run as links, label/number_name.jpg: the same files for every contender.

    Returns the number of links. Raises BenchError where there is no .jpg below the folder.
    """
    source, count = options.pictures, options.count
    if source is None:
        source, count = folder / "drawn", count or 2400
        sample.draw_sample(source, min(DRAWN_PER_KIND, -(-count // len(sample.KINDS))))
    files = sorted(source.resolve().rglob("*.jpg"))
    if not files:
        raise results.BenchError(
            f"found no .jpg below {source}: give a folder of label/name.jpg to --pictures"
        )
    count = count or len(files)
    # Every n-th file where there are too many, so that a small run still has every kind.
    chosen = [files[number * len(files) // count] for number in range(count)] if count < len(files) else files
    link_pictures(chosen, count, folder / "pictures")
    link_pictures(chosen, STEADY_PICTURES, folder / "few")
    return count


def link_pictures(files, count, folder):
    """Make count links to files, label/number_name.jpg; where there are fewer files, they come several times."""
    for number, file in enumerate(islice(cycle(files), count)):
        link = folder / file.parent.name / f"{number:06}_{file.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)


def set_environment(folder):
    """Set what every contender starts from: this Python, a Java, no GPU, temporary files below one folder."""
    (folder / "temporary").mkdir()
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")])),
        "PYSPARK_PYTHON": sys.executable,
        "JAVA_HOME": session.find_java_home(),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TMPDIR": str(folder / "temporary"),
        "SPARK_LOCAL_DIRS": str(folder / "temporary"),
        "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={folder / 'temporary'}",
    }
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        # Else each process compiles all of TensorFlow's Python anew: 5 s that no ordinary installation loses.
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")


def run_script(name, argument, log, **environment):
    """Run one of the scripts here in a fresh process and return its seconds, from its start to its end.

    Raises BenchError with the last lines of its log where it fails. None of its processes is ever left.
    """
    start = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, HERE / f"{name}.py", argument],
            stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait()
        finally:
            stop_group(process)
    if process.returncode:
        lines = [
            line for line in log.read_text(errors="replace").splitlines() if not line.startswith("\tat ")
        ]
        raise results.BenchError(
            "\n  ".join([f"{name}.py ended with {process.returncode}; its last lines:", *lines[-15:]])
        )
    return time.perf_counter() - start


def stop_group(process):
    """End a process and its group; Spark's Python workers, in a group of their own, end with their JVM."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(PATIENCE)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group that has ended
            return
        except subprocess.TimeoutExpired:
            continue


def run_contender(name, folder, pictures, options, components=None):
    """Run one contender and return what it measured, with the seconds from start to end of its process."""
    output = folder / name
    shutil.rmtree(output, ignore_errors=True)  # the project featurizes nothing that an earlier run has featurized
    output.mkdir()
    memory = session.choose_driver_memory(session.measure_memory())
    task = {"pictures": str(pictures), "output": str(output), "network": str(folder), "cores": options.cores}
    task |= {"memory": memory, "components": components, "partitions": options.course_partitions}
    onednn_off = {"TF_ENABLE_ONEDNN_OPTS": "0"} if name == "course" and options.course_onednn == "off" else {}
    load = os.getloadavg()[0]
    total = run_script(name, json.dumps(task), folder / f"{name}.log", **onednn_off)
    measured = json.loads((output / "measures.json").read_text())
    measured["seconds"]["total"] = total
    return measured | {"load": load}


def run_rounds(options, folder):
    """Run each contender once a round, in turn. Returns {contender: [what it measured, a round]}."""
    runs, components = {name: [] for name in CONTENDERS}, None
    for turn in range(options.rounds):
        # Every second round backwards, so that no contender always comes first.
        for name in CONTENDERS if turn % 2 == 0 else CONTENDERS[::-1]:
            print(f"round {turn + 1} of {options.rounds}: {name} ... ", end="", flush=True)
            measured = run_contender(name, folder, folder / "pictures", options, components)
            components = measured.get("components", components)
            seconds = measured["seconds"]
            print(f"{seconds['features']:.1f} s to featurize, {seconds['total']:.1f} s in all")
            runs[name].append(measured)
    return runs


def run_few(options, folder, components):
    """Run the project and the course on few pictures. Returns {contender: seconds to featurize them}."""
    few = min(STEADY_PICTURES, components)  # no PCA has more components than pictures
    seconds = {}
    for name in ("project", "course"):
        print(f"start-up: {name} on {STEADY_PICTURES} pictures ... ", end="", flush=True)
        measured = run_contender(name, folder, folder / "few", options, few)
        seconds[name] = measured["seconds"]["features"]
        print(f"{seconds[name]:.1f} s to featurize")
    return seconds


def measure(options, folder):
    """Gather the pictures, run everything, compare what came out. Returns the content of bench.json."""
    load = os.getloadavg()
    count = gather_pictures(options, folder)
    set_environment(folder)
    print(f"{count:,} pictures, {options.cores} cores, load average {load[0]:.1f}", flush=True)
    run_script("network", str(folder), folder / "network.log")
    runs = run_rounds(options, folder)
    agreement = results.compare_contenders(folder, runs)
    few = run_few(options, folder, runs["project"][0]["components"]) if options.steady else {}
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": results.describe_machine(options.cores)
        | {"load_before": load, "load_after": os.getloadavg()},
        "versions": results.list_versions(),
        "pictures": {"count": count, "source": str(options.pictures or "drawn")},
        "rounds": options.rounds,
        "course_onednn": runs["course"][0]["onednn"],
        "contenders": results.summarize(runs, count, few, STEADY_PICTURES),
        "ratios": results.compute_ratios(runs),
        "agreement": agreement,
    }


def main():
    """Run the command: 0 when the contenders agree, 1 when they do not or one fails, 130 when interrupted."""
    options = read_options()
    use_cores(list_cores()[: options.cores])
    bench = results.run_in_scratch("bench", measure, options)
    results.save(bench, options.output)
    print(results.format_table(bench))
    print(f"\nwritten: {options.output}/bench.json and bench.png")
    return 0 if bench["agreement"]["agree"] else 1


if __name__ == "__main__":
    sys.exit(main())
