"""Measure the PCA, parquet to parquet, against plain pyspark.ml on the same features and cores.

Usage: python benchmarks/pca.py [--rows N] [--features N] [--rounds N] [--cores N] [--output FOLDER]

Each way runs in a process of its own, in turn, once Spark is warm: on N rows, and the project's also on N / 4, for the
memory of its driver must not grow. Writes a table to the terminal and pca.json; exit status 1 where results differ.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import bench
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import results
from measures import Measures

FEATURES, HIDDEN = 1280, 400  # as EfficientNet-Lite0's; what varies behind them
KEPT = 5  # one component for so many features
FILES = 8
TOLERANCE = 1e-6  # of shares of variance


def write_features(folder, rows, features=FEATURES, seed=0):
    """Write features such as a ReLU leaves, many zeros and a falling spectrum: parquet (path, label, features)."""
    lots = np.random.default_rng(seed)
    mixture = lots.normal(size=(HIDDEN, features)) * np.geomspace(1, 0.02, HIDDEN)[:, None]
    Path(folder).mkdir(parents=True)
    for number, part in enumerate(np.array_split(np.arange(rows), FILES)):
        noise = 0.05 * lots.normal(size=(len(part), features))
        values = np.maximum(lots.normal(size=(len(part), HIDDEN)) @ mixture / 8 + noise - 0.2, 0).astype(np.float32)
        columns = {"path": [f"file:/{row}.jpg" for row in part], "label": [str(row % 23) for row in part]}
        columns["features"] = pa.array(list(values), pa.list_(pa.float32()))
        pq.write_table(pa.table(columns), f"{folder}/part-{number}.parquet")


def run_plain(spark, source, output, components, measures):
    """Fit, project and write with pyspark.ml alone. Returns the shares of variance."""
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import PCA, StandardScaler
    from pyspark.ml.functions import array_to_vector, vector_to_array

    table = spark.read.parquet(source).withColumn("vector", array_to_vector("features"))
    scaler = StandardScaler(inputCol="vector", outputCol="centred", withMean=True, withStd=False)
    with measures.step("fit"):
        model = Pipeline(stages=[scaler, PCA(k=components, inputCol="centred", outputCol="pca")]).fit(table)
    projection = model.transform(table).select("path", "label", vector_to_array("pca", "float32").alias("pca"))
    projection.write.parquet(output)
    return model.stages[1].explainedVariance.toArray()


def run_project(spark, source, output, components, measures):
    """Fit, project and write as the notebook does. Returns the shares of variance."""
    from fruits import reduction

    table = spark.read.parquet(source)
    with measures.step("fit"):
        chosen = reduction.choose_components(reduction.fit_pca(table), 1.0, components)
    reduction.project(table, chosen).write.parquet(output)
    return chosen.variance_ratio[:components]


def start_spark(way, cores):
    """Start Spark as each way's users do: pyspark alone with its own settings, but as much memory for Java."""
    from pyspark.sql import SparkSession

    from fruits import session

    if way == "project":
        return session.start_spark(f"local[{cores}]")
    memory = session.choose_driver_memory(session.measure_memory())
    return SparkSession.builder.master(f"local[{cores}]").config("spark.driver.memory", f"{memory}m").getOrCreate()


def run_way(task):
    """Run one way in this process and write what it measured."""
    measures, run = Measures(), {"plain": run_plain, "project": run_project}[task["way"]]
    with measures.step("start"):
        spark = start_spark(task["way"], task["cores"])
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 16)  # as in a run
        # In a run, Spark is at work long before.
        run(spark, task["few"], task["result"] + "-few", task["components"], Measures())
    with measures.step("pca"):
        ratios = run(spark, task["source"], task["result"], task["components"], measures)
    measures.note(variance_ratio=np.asarray(ratios).tolist())
    measures.save(task["output"])
    spark.stop()


def measure(options, folder):
    """Run every way, in turn. Returns {way: [what it measured, a round]}, with "quarter" for a quarter of the rows."""
    sources = {"all": options.rows, "quarter": options.rows // 4, "few": 2 * options.features // KEPT}
    for name, rows in sources.items():
        write_features(folder / name, rows, options.features)
    bench.set_environment(folder)
    runs = {"plain": [], "project": [], "quarter": []}
    for turn in range(options.rounds):
        for name in runs:
            way, source = ("project", "quarter") if name == "quarter" else (name, "all")
            print(f"round {turn + 1} of {options.rounds}: {name} ... ", end="", flush=True)
            output = folder / f"{name}-{turn}"
            output.mkdir()
            task = {"way": way, "source": str(folder / source), "output": str(output), "result": f"{output}/pca"}
            task |= {"few": str(folder / "few"), "components": options.features // KEPT, "cores": options.cores}
            bench.run_script("pca", json.dumps(task), folder / f"{name}.log")
            runs[name].append(json.loads((output / "measures.json").read_text()))
            print(f"{runs[name][-1]['seconds']['pca']:.1f} s")
    return runs


def summarize(options, runs):
    """Turn what was measured into the content of pca.json."""
    seconds, fits = (
        {name: [run["seconds"][step] for run in measured] for name, measured in runs.items()} for step in ("pca", "fit")
    )
    plain, project = (np.array(runs[name][0]["variance_ratio"]) for name in ("plain", "project"))
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": results.describe_machine(options.cores),
        "versions": results.list_versions(),
        "rows": options.rows, "features": options.features, "components": options.features // KEPT,
        "seconds": seconds,
        "fit_seconds": fits,
        "times_as_fast": [one / other for one, other in zip(seconds["plain"], seconds["project"], strict=True)],
        "fit_times_as_fast": [one / other for one, other in zip(fits["plain"], fits["project"], strict=True)],
        "peak_mib": {name: measured[0]["peak_mib"] for name, measured in runs.items()},
        "variance_ratio_difference": float(np.abs(plain - project).max()),
    }  # fmt: skip


def format_table(found):
    """Format pca.json as text."""
    rows = {"plain": ("pyspark.ml alone", found["rows"]), "project": ("project", found["rows"])}
    rows["quarter"] = ("project", found["rows"] // 4)
    lines = [f"{'':20}{'rows':>10}{'fit s':>8}{'in all s':>10}{'driver MiB':>12}{'Java MiB':>10}{'worker MiB':>12}"]
    for name, (title, count) in rows.items():
        peaks = [f"{found['peak_mib'][name].get(kind, 0):,.0f}" for kind in ("driver", "jvm", "worker")]
        fit, total = (np.median(found[measure][name]) for measure in ("fit_seconds", "seconds"))
        lines.append(f"{title:20}{count:>10,}{fit:>8.1f}{total:>10.1f}{peaks[0]:>12}{peaks[1]:>10}{peaks[2]:>12}")
    fit, total = (np.median(found[measure]) for measure in ("fit_times_as_fast", "times_as_fast"))
    cores = found["machine"]["cores_used"]
    lines.append(f"the project fits {fit:.1f} times as fast, parquet to parquet {total:.1f} times, on {cores} cores")
    return "\n".join([*lines, f"shares of variance differ by {found['variance_ratio_difference']:.1e} at most"])


def read_options(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=bench.read_count, default=20_000, help="default: %(default)s")
    parser.add_argument("--features", type=bench.read_count, default=FEATURES, help="default: %(default)s")
    parser.add_argument("--rounds", type=bench.read_count, default=1, help="default: %(default)s")
    parser.add_argument("--cores", type=bench.read_count, default=len(bench.list_cores()), help="default: all")
    default = bench.HERE.parent / "data/output/bench"
    parser.add_argument("--output", type=Path, default=default, help="default: %(default)s")
    return parser.parse_args(arguments)


def main():
    """Run the command: 0 when both ways agree, 1 when they do not or one fails, 130 when interrupted."""
    if sys.argv[1:] and sys.argv[1].startswith("{"):  # one way, called by run_script
        run_way(json.loads(sys.argv[1]))
        return 0
    options = read_options()
    bench.use_cores(bench.list_cores()[: options.cores])
    found = summarize(options, results.run_in_scratch("pca", measure, options))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "pca.json").write_text(json.dumps(found, indent=2) + "\n")
    print(format_table(found))
    return 0 if found["variance_ratio_difference"] < TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
