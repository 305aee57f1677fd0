"""From what volume.py measured to a verdict: bars, table, figure."""

import itertools
import json

from fruits.figures import in_french, say

SECONDS_BAR = 1.05  # times the growth of the count: 2.1 where it doubles
MEMORY_BAR = 1.1  # whatever the growth of the count
NOTEBOOK_BAR = 30  # seconds, where nothing is new

KINDS = {
    "first": "first run",
    "nothing": "nothing new",
    "new": "1 % new",
    "changed": "1 % changed",
    "packed": "packed, then first run",
}
STEPS = ("start", "list", "pack", "network", "workers", "featurize", "tidy", "pca", "total")
BLUE, RED, GREY = "#0072B2", "#D55E00", "#999999"  # Okabe and Ito's, for every eye
LINES = ((BLUE, "o"), (RED, "s"), ("#009E73", "^"), ("#CC79A7", "D"))  # colour and marker, one a number of cores
MEMORY = {"driver": "Python's peak", "java": "Java's peak", "java_live": "Java's live heap"}


def list_bars(found):
    """List the bars: [{what, value, bar, is_met}]. Growth is that between the two largest counts, on the same cores."""
    bars = []
    for smaller, larger in _list_growths(found):
        times = larger["pictures"] / smaller["pictures"]
        what = f"{larger['pictures']:,} pictures over {smaller['pictures']:,}, {_tell_cores(larger['cores'])}"
        seconds = larger["seconds"]["total"] / smaller["seconds"]["total"]
        bars.append(_hold(f"{what}: seconds", seconds, SECONDS_BAR * times))
        if smaller["mib"]["driver"]:  # none where the system has no /proc
            memory = _add_peaks(larger) / _add_peaks(smaller)
            bars.append(_hold(f"{what}: peak memory of the driver, Python and Java", memory, MEMORY_BAR))
    if notebook := found["notebook"]:
        what = f"notebook, {notebook['pictures']:,} known pictures, {_tell_cores(notebook['cores'])}: seconds"
        bars.append(_hold(what, notebook["seconds"], NOTEBOOK_BAR))
    return bars


def is_right(found):
    """Say whether every count is right."""
    parts = [*found["runs"], *found["reading"], found["small_runs"], found["notebook"]]
    return all(part["is_right"] for part in parts if part)


def _list_growths(found):
    """List the first runs on the two largest counts, for each number of cores that has both: [(smaller, larger)]."""
    by_cores = {}
    for run in found["runs"]:
        if run["kind"] == "first":
            by_cores.setdefault(run["cores"], []).append(run)
    ordered = (sorted(runs, key=lambda run: run["pictures"]) for runs in by_cores.values())
    return [tuple(runs[-2:]) for runs in ordered if len(runs) > 1]


def _add_peaks(run):
    """Add the peaks of the driver's two processes, Python and Java, in MiB."""
    return run["mib"]["driver"] + run["mib"]["java"]


def _hold(what, value, bar):
    """Hold a value to a bar that it must not pass."""
    return {"what": what, "value": value, "bar": round(bar, 2), "is_met": value <= bar}


def _tell_cores(cores):
    """Tell a number of cores."""
    return say("{cores} cores", cores=cores) if cores > 1 else say("1 core")


def format_table(found):
    """Format volume.json as text: a line a run, then what else was measured, then the bars."""
    units = "".join(f"{step:>10}" for step in STEPS)
    lines = ["", f"{'seconds by step':24}{'pictures':>10}{'cores':>6}{units}{'images/s':>10}{'wrong':>7}"]
    for run in found["runs"]:
        seconds = "".join(_format_number(run["seconds"].get(step)) for step in STEPS)
        rate, wrong = _format_number(run["images_per_second"]), "" if run["is_right"] else "WRONG"
        lines.append(f"{KINDS[run['kind']]:24}{run['pictures']:>10,}{run['cores']:>6}{seconds}{rate}{wrong:>7}")
    lines += ["", f"{'MiB':24}{'pictures':>10}{'cores':>6}" + "".join(f"{title:>18}" for title in MEMORY.values())]
    for run in found["runs"]:
        memory = "".join(f"{_format_number(run['mib'][name]):>18}" for name in MEMORY)
        lines.append(f"{KINDS[run['kind']]:24}{run['pictures']:>10,}{run['cores']:>6}{memory}")
    return "\n".join([*lines, "", *_list_others(found), *_list_verdicts(found)])


def _format_number(value):
    """Format a number of seconds, MiB or images a second in ten columns."""
    return f"{'-':>10}" if value is None else f"{value:>10,.1f}" if value < 1000 else f"{value:>10,.0f}"


def _list_others(found):
    """List what is known of packing, small runs and the notebook, a line each."""
    lines = []
    for reading in found["reading"]:
        rates = {way: reading["pictures"] / reading[f"{way}_s"] for way in ("small", "packed")}
        lines.append(
            f"{reading['pictures']:,} pictures, {reading['bytes'] / 1e6:,.1f} MB, packed into {reading['packs']} files "
            f"in {reading['pack_s']:.1f} s; reading alone: {reading['small_s']:.1f} s ({rates['small']:,.0f} a second) "
            f"from small files, {reading['packed_s']:.1f} s ({rates['packed']:,.0f} a second) packed"
        )
    if runs := found["small_runs"]:
        before, after = runs["before"], runs["after"]
        lines.append(
            f"{runs['runs']} runs of {runs['per_run']} pictures: {before['files']} parquet files of features, read in "
            f"{before['seconds']:.2f} s; merged in {runs['merge_s']:.1f} s: {after['files']}, read in "
            f"{after['seconds']:.2f} s (a run merges them beyond {runs['merges_beyond']})"
        )
    if notebook := found["notebook"]:
        lines.append(
            f"notebook, {notebook['pictures']:,} pictures: {notebook['first_seconds']:.0f} s where all are new, "
            f"{notebook['seconds']:.1f} s with nothing new"
        )
    return lines


def _list_verdicts(found):
    """List the bars, the counts and the machine, a line each."""
    machine = found["machine"]
    return [
        *(
            f"{bar['what']} {bar['value']:.2f} (bar {bar['bar']:.2f}): {'met' if bar['is_met'] else 'MISSED'}"
            for bar in found["bars"]
        ),
        f"counts: {'all right' if found['is_right'] else 'WRONG'}",
        f"machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"load {machine['load_before'][0]:.1f} before, {found['load_after'][0]:.1f} after; "
        f"{found['pictures']['different']:,} different pictures ({found['pictures']['source']})",
    ]


def save(found, folder):
    """Write volume.json and volume.png into a folder, and the figure in French, volume.fr.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "volume.json").write_text(json.dumps(found, indent=2) + "\n")
    if any(run["kind"] == "first" for run in found["runs"]):
        draw_figure(found).savefig(folder / "volume.png", dpi=150)
        with in_french():
            draw_figure(found).savefig(folder / "volume.fr.png", dpi=150)


def draw_figure(found):
    """Draw seconds, memory, and what later runs cost. Returns a matplotlib Figure whose title is the finding."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.4), layout="constrained")
    figure.suptitle(tell_finding(found), weight="bold", fontsize=13)
    seconds, memory, kinds = figure.subplots(1, 3)
    _draw_seconds(seconds, found)
    _draw_memory(memory, found)
    _draw_kinds(kinds, found)
    for axes in (seconds, memory, kinds):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def tell_finding(found):
    """Tell the finding in a sentence or two, from the runs on most cores."""
    last = _find_last(found)
    growths = [pair for pair in _list_growths(found) if pair[1]["cores"] == last["cores"]]
    seconds, where = last["seconds"]["total"], _tell_cores(last["cores"])
    told = say("{pictures:,} pictures in {seconds:,.0f} s on {where}", **last | {"seconds": seconds}, where=where)
    if growths:
        smaller, larger = growths[0]
        has_memory = smaller["mib"]["driver"]  # none where the system has no /proc
        times, longer = larger["pictures"] / smaller["pictures"], seconds / smaller["seconds"]["total"]
        told = say("Twice the pictures" if times == 2 else "{times:.3g} times the pictures", times=times)
        told += say(" take {longer:.2f} times as long", longer=longer)
        if has_memory:
            told += say(" and {grown:.2f} times the driver's memory", grown=_add_peaks(larger) / _add_peaks(smaller))
        told += "" if all(bar["is_met"] for bar in found["bars"]) else say(" (a bar is missed)")
    nothing = _find_run(found, "nothing", last)
    seconds = nothing and nothing["seconds"]["total"]
    return told + (say(";\nwith nothing new, a run is over in {seconds:.0f} s", seconds=seconds) if nothing else "")


def _find_last(found):
    """Find the first run with most pictures, on most cores."""
    first = (run for run in found["runs"] if run["kind"] == "first")
    return max(first, key=lambda run: (run["cores"], run["pictures"]))


def _find_run(found, kind, like):
    """Find the run of a kind on as many pictures, new ones aside, and cores as another; None where there is none."""
    # The pictures that are new in "new" are still there in "changed".
    part = max(1, like["pictures"] // 100)
    counts = {like["pictures"], like["pictures"] + part} if kind in ("new", "changed") else {like["pictures"]}
    runs = (run for run in found["runs"] if run["kind"] == kind and run["cores"] == like["cores"])
    return next((run for run in runs if run["pictures"] in counts), None)


def _draw_seconds(axes, found):
    """Draw the seconds of first runs by pictures, a line for each number of cores, and where the bar is."""
    every = sorted({run["cores"] for run in found["runs"] if run["kind"] == "first"})
    for cores, (colour, marker) in zip(every[::-1], itertools.cycle(LINES), strict=False):
        runs = [run for run in found["runs"] if run["kind"] == "first" and run["cores"] == cores]
        counts, seconds = ([run["pictures"] for run in runs], [run["seconds"]["total"] for run in runs])
        axes.plot(counts, seconds, color=colour, marker=marker, linewidth=2)
        axes.annotate(f"   {_tell_cores(cores)}", (counts[-1], seconds[-1]), color=colour, va="center", weight="bold")
        if len(runs) > 1:
            bar = SECONDS_BAR * seconds[-2] * counts[-1] / counts[-2]
            axes.plot(counts[-1], bar, color=colour, marker="_", markersize=18, markeredgewidth=2)
    axes.set_title(say("first run, start to end (dash: the bar)"), fontsize=10)
    axes.set_xlabel(say("pictures"))
    axes.set_ylabel(say("seconds"))
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.3)
    axes.set_xticks(counts, [say("{k:,}", k=count) for count in counts])


def _draw_memory(axes, found):
    """Draw the memory of first runs on most cores by pictures: both drivers' peaks, and what Java holds."""
    cores = _find_last(found)["cores"]
    runs = [run for run in found["runs"] if run["kind"] == "first" and run["cores"] == cores]
    counts = [run["pictures"] for run in runs]
    lower = min("driver", "java", key=lambda name: runs[-1]["mib"][name] or 0)  # of the two that may lie close together
    styles = {"driver": (BLUE, "o", "-"), "java_live": (RED, "s", "-"), "java": (GREY, "^", "--")}
    for name, (colour, marker, line) in styles.items():
        mib = [run["mib"][name] or 0 for run in runs]
        axes.plot(counts, mib, color=colour, marker=marker, linestyle=line, linewidth=2, label=say(MEMORY[name]))
        at, place = (counts[-1], mib[-1]), {"xytext": (0, -15 if name == lower else 6), "textcoords": "offset points"}
        axes.annotate(say("{mib:,.0f}", mib=mib[-1]), at, ha="center", **place)
    axes.set_title(say("memory of the driver, {where}", where=_tell_cores(cores)), fontsize=10)
    axes.set_xlabel(say("pictures"))
    axes.set_ylabel(say("MiB"))
    axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.3)
    axes.yaxis.set_major_formatter(lambda mib, _: say("{mib:,.0f}", mib=mib))
    axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    axes.set_xlim(0, counts[-1] * 1.1)
    axes.set_xticks(counts, [say("{k:,}", k=count) for count in counts])


def _draw_kinds(axes, found):
    """Draw the seconds of each kind of run on the most pictures and cores: what a run after the first costs."""
    last = _find_last(found)
    runs = {title: _find_run(found, kind, last) for kind, title in KINDS.items()}
    runs = {title: run["seconds"]["total"] for title, run in runs.items() if run}
    for row, (title, seconds) in enumerate(runs.items()):
        axes.barh(row, seconds, color=GREY if title.endswith("first run") else BLUE)
        axes.text(seconds, row, say(" {seconds:,.0f} s", seconds=seconds), va="center")
    axes.set_yticks(range(len(runs)), map(say, runs))
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_title(say("{pictures:,} pictures, {where}", **last, where=_tell_cores(last["cores"])), fontsize=10)
    axes.set_xlabel(say("seconds, start to end"))
