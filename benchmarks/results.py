"""From what the contenders measured to a verdict: agreement, summary, table, figure."""

import importlib.metadata
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
from PIL import Image

PACKAGES = ("pyspark", "tensorflow", "keras", "onnxruntime", "tf2onnx", "onnx", "numpy", "pillow", "pyarrow")
# Those with which TensorFlow turns oneDNN on by itself (source: tensorflow/core/util/util.cc, IsMKLEnabled).
FAST_CPU_FLAGS = ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")
FEATURE_TOLERANCE = 1e-3  # on values from 0 to 6: room for float32 summed in another order
VARIANCE_TOLERANCE = 1e-5  # of variance ratios, where both contenders decode alike
NETWORK_SIZE = 224  # pixels a side
EXIF_ORIENTATION = 0x0112  # the tag's number (source: EXIF 2.32)
COLOURS = {"course": "#999999", "project": "#0072B2", "limit": "#E69F00"}  # Okabe and Ito's, for every eye


class BenchError(Exception):
    """What stops the benchmark; its message is for a person to read."""


def run_in_scratch(name, measure, options):
    """Run measure(options, folder) in a folder that is gone afterwards. name: of the command, for its messages.

    Returns what it found. Raises SystemExit: 1 where it fails, 130 where it is interrupted.
    """
    for sign in (signal.SIGINT, signal.SIGTERM):  # both, even where a shell started it with "&"
        signal.signal(sign, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="fruits-bench-") as folder:
            return measure(options, Path(folder))
    except BenchError as error:
        print(f"\n{name}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; nothing is left behind", file=sys.stderr)
        sys.exit(130)


def compare_contenders(folder, runs):
    """Say by how much the contenders' results differ. Returns a dict; its `agree` is the verdict.

    The project decodes a large JPEG at a fraction of its size and turns pictures as their EXIF says; the
    course does neither. Features are held to FEATURE_TOLERANCE where that makes no difference.
    """
    paths, project, course, limit = _read_vectors(folder)
    alike = np.array([_is_decoded_alike(path) for path in paths])
    gaps = np.abs(project - course).max(axis=1)
    ratios = [np.array(runs[name][0]["variance_ratio"]) for name in ("project", "course")]
    found = {
        "pictures_decoded_alike": int(alike.sum()),
        "features_course_alike": float(gaps[alike].max(initial=0)),
        "features_course_others": float(gaps[~alike].max(initial=0)),
        "features_limit": float(np.abs(project - limit).max()),
        "largest_feature": float(project.max()),
        "variance_ratio": float(np.abs(ratios[0] - ratios[1]).max()),
    }
    is_close = alike.any() and max(found["features_course_alike"], found["features_limit"]) < FEATURE_TOLERANCE
    # Where some pictures are decoded otherwise, the variance moves with them and only its size can be held.
    is_same_variance = found["variance_ratio"] < (VARIANCE_TOLERANCE if alike.all() else 0.01)
    return found | {"agree": bool(is_close and is_same_variance)}


def _read_vectors(folder):
    """Read the features of every contender: (paths, project, course, limit), in the order of the paths.

    Raises BenchError where they are not of the same pictures.
    """
    paths, project = _read_features(folder / "project")
    course_paths, course = _read_features(folder / "course")
    archive = np.load(folder / "limit" / "vectors.npz")
    if not paths == course_paths == archive["paths"].tolist():
        counts = f"project {len(paths)}, course {len(course_paths)}, limit {len(archive['paths'])}"
        raise BenchError(
            f"the contenders did not featurize the same pictures ({counts}): give sound JPEG files"
        )
    return paths, project, course, archive["vectors"]


def _read_features(folder):
    """Read a contender's features: (paths, sorted; float32 (rows, features))."""
    table = pyarrow.parquet.read_table(folder / "features", columns=["path", "features"]).sort_by("path")
    paths = [path.removeprefix("file:") for path in table["path"].to_pylist()]
    return paths, table["features"].combine_chunks().flatten().to_numpy().reshape(len(paths), -1)


def _is_decoded_alike(path):
    """Say whether the project and the course decode a picture in the same way, from its header alone."""
    with Image.open(path) as picture:
        is_small = min(picture.size) < 2 * NETWORK_SIZE
        return is_small and picture.getexif().get(EXIF_ORIENTATION, 1) == 1


def summarize(runs, count, few, few_count):
    """Turn the runs of each contender into {contender: {measure: {median, min, max}}}."""
    summary = {}
    for name, measured in runs.items():
        rows = [_list_measures(run, count) for run in measured]
        summary[name] = {measure: _summarize([row[measure] for row in rows]) for measure in rows[0]}
        if name in few and count > few_count:
            steady = [(count - few_count) / (run["seconds"]["features"] - few[name]) for run in measured]
            summary[name]["steady_rate"] = _summarize(steady)
    return summary


def _list_measures(run, count):
    """List the numbers of one run of one contender: seconds (_s), images a second (_rate), MiB (_mib)."""
    seconds = run["seconds"]
    if "inference_rate" in run:  # the limit, where a whole run has no meaning
        rates = {"features_rate": count / seconds["features"], "inference_rate": run["inference_rate"]}
        rates |= {"features_s": seconds["features"], "batch_size": run["batch_size"]}
        return rates | {"load": run["load"]}
    measures = {f"{step}_s": seconds[step] for step in ("start", "features", "pca", "total")}
    measures |= {
        "load": run["load"],
        "features_rate": count / seconds["features"],
        "total_rate": count / seconds["total"],
    }
    return measures | {f"{kind}_mib": peak for kind, peak in run["peak_mib"].items()}


def compute_ratios(runs):
    """Compute how the contenders compare, a round at a time: {ratio: {median, min, max}}."""
    rows = []
    for project, course, limit in zip(*(runs[name] for name in ("project", "course", "limit")), strict=True):
        features = {name: run["seconds"]["features"] for name, run in (("course", course), ("limit", limit))}
        rows.append({
            "end_to_end": course["seconds"]["total"] / project["seconds"]["total"],
            "features": features["course"] / project["seconds"]["features"],
            "of_limit": features["limit"] / project["seconds"]["features"],
        })  # fmt: skip
    return {ratio: _summarize([row[ratio] for row in rows]) for ratio in rows[0]}


def _summarize(values):
    """Reduce the values of several rounds to their median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def describe_machine(cores):
    """Describe the machine: CPU, cores, memory in GiB, and what makes TensorFlow fast on it."""
    info = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in info.read_text().splitlines()] if info.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "cores_used": cores,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "fast_cpu_flags": [flag for flag in FAST_CPU_FLAGS if flag in flags],
    }


def list_versions():
    """List the versions of Python and of the packages that matter here."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in PACKAGES
    }


TABLE_ROWS = (
    ("imports, Spark's start", "start_s", "s"),
    ("bytes to parquet", "features_s", "s"),
    ("PCA, parquet to parquet", "pca_s", "s"),
    ("end to end", "total_s", "s"),
    ("bytes to parquet", "features_rate", "images/s"),
    ("  without start-up", "steady_rate", "images/s"),
    ("  network alone", "inference_rate", "images/s"),
    ("end to end", "total_rate", "images/s"),
    ("peak memory, driver", "driver_mib", "MiB"),
    ("peak memory, Java", "jvm_mib", "MiB"),
    ("peak memory, a worker", "worker_mib", "MiB"),
    ("load average before", "load", ""),
)


def format_table(bench):
    """Format the whole result as aligned text."""
    names, contenders = ("course", "project", "limit"), bench["contenders"]
    lines = ["", f"{'':26}{'unit':>10}" + "".join(f"{name:>22}" for name in names)]
    for title, measure, unit in TABLE_ROWS:
        cells = [contenders[name].get(measure) for name in names]
        if any(cell is not None for cell in cells):
            lines.append(f"{title:26}{unit:>10}" + "".join(f"{_format_cell(cell):>22}" for cell in cells))
    return "\n".join([*lines, "", *_list_verdicts(bench)])


def _format_cell(cell, digits=None):
    """Format a median, and its range where there are several rounds."""
    if cell is None:
        return "-"
    digits = digits if digits is not None else 1 if cell["median"] < 1000 else 0
    spread = f" ({cell['min']:,.{digits}f}-{cell['max']:,.{digits}f})" if cell["min"] < cell["max"] else ""
    return f"{cell['median']:,.{digits}f}{spread}"


def _list_verdicts(bench):
    """List the ratios, the agreement and the machine, a line each."""
    ratios, found, machine = bench["ratios"], bench["agreement"], bench["machine"]
    alike = f"the {found['pictures_decoded_alike']:,} pictures that both decode alike"
    if not found["pictures_decoded_alike"]:
        alike = f"none: give some with a side below {2 * NETWORK_SIZE} pixels to compare"
    return [
        f"project against course: {_format_cell(ratios['end_to_end'], 2)} times as fast end to end, "
        f"{_format_cell(ratios['features'], 2)} times featurizing",
        f"project against limit:  {_format_cell(ratios['of_limit'], 2)} of its rate "
        f"(ONNX Runtime, batches of {bench['contenders']['limit']['batch_size']['median']:.0f})",
        f"same results: {'yes' if found['agree'] else 'NO'}; largest differences, of features up to "
        f"{found['largest_feature']:.1f}: {found['features_limit']:.1e} from the limit,",
        f"  {found['features_course_alike']:.1e} from the course on {alike}, "
        f"{found['features_course_others']:.1e} on others; of variance ratios {found['variance_ratio']:.1e}",
        f"machine: {machine['cpu']}, {machine['cores_used']} of {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB; "
        f"load {machine['load_before'][0]:.1f} before, {machine['load_after'][0]:.1f} after",
        f"  TensorFlow's oneDNN in the course: {'on' if bench['course_onednn'] else 'off'}"
        f" (CPU has {', '.join(machine['fast_cpu_flags']) or 'neither AVX512-VNNI nor AMX'})",
    ]


def save(bench, folder):
    """Write bench.json and bench.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(bench, indent=2) + "\n")
    draw_figure(bench).savefig(folder / "bench.png", dpi=150)


def draw_figure(bench):
    """Draw seconds by step and images a second. Returns a matplotlib Figure whose title is the finding."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    ratios = {ratio: values["median"] for ratio, values in bench["ratios"].items()}
    figure.suptitle(
        f"The project is {ratios['end_to_end']:.1f} times as fast as the course's way, "
        f"and featurizes at {ratios['of_limit']:.0%} of the limit",
        weight="bold",
    )
    steps, rates = figure.subplots(1, 2)
    _draw_steps(steps, bench)
    _draw_rates(rates, bench)
    for axes in (steps, rates):
        axes.spines[["top", "right"]].set_visible(False)
        axes.invert_yaxis()
    return figure


def _draw_steps(axes, bench):
    """Draw the seconds of a whole run, a bar a contender, cut into its steps."""
    shades = {"start": 0.35, "features": 1, "pca": 0.6}  # of one colour, so that a bar stays one contender
    for row, name in enumerate(("course", "project")):
        left = 0
        for step, shade in shades.items():
            seconds = bench["contenders"][name][f"{step}_s"]["median"]
            axes.barh(row, seconds, left=left, color=COLOURS[name], alpha=shade, edgecolor="white")
            left += seconds
        axes.text(left, row, f" {bench['contenders'][name]['total_s']['median']:.0f} s", va="center")
    axes.set_yticks([0, 1], ["course", "project"])
    axes.set_xlabel(f"seconds for {bench['pictures']['count']:,} pictures: start, featurize, PCA")
    axes.margins(x=0.12)


def _draw_rates(axes, bench):
    """Draw the images a second of each contender, from bytes to vectors, with the range of the rounds."""
    for row, name in enumerate(COLOURS):
        rate = bench["contenders"][name]["features_rate"]
        spread = [[rate["median"] - rate["min"]], [rate["max"] - rate["median"]]]
        axes.barh(row, rate["median"], color=COLOURS[name], xerr=spread if bench["rounds"] > 1 else None)
        axes.text(rate["max"], row, f"  {rate['median']:.0f}", va="center")
    axes.set_yticks(range(len(COLOURS)), COLOURS)
    axes.set_xlabel(f"images a second, featurizing, on {bench['machine']['cores_used']} cores")
    axes.margins(x=0.12)
