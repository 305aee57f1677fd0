"""What N pictures cost, step by step: time, requests, memory, euros; by formula from measured numbers, and simulated.

A slot is what runs one of Spark's tasks; emr-cluster.yaml gives an .xlarge as many as it has vCPUs, two a core. Larger
machines run more, half as many again on an m6i.4xlarge, since YARN counts memory alone: that is left out here.
"""

import heapq
import math
from bisect import bisect_right
from collections import Counter
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from fruits import regions
from fruits.cluster import START_HOURS, count_cores, price_hour

# How the pipeline works: chosen, not measured.
TASK_PICTURES = 256  # at most
TASKS_PER_SLOT = 4  # at least, where there are fewer pictures than that
SLICE_PICTURES = 8192  # a slot; a slice is committed before the next one starts
BATCH_PICTURES = 16  # the first batch of a task is read before anything can be computed
SLOTS_PER_CORE = 2
FEATURE_BYTES = 5120  # 1,280 float32 a picture
PROJECTED_BYTES = 1024  # 256 components
KEY_BYTES = 60  # path, length and modificationTime of a picture in parquet; 28 where names are 16 random digits
FILE_BYTES = 128 * 2**20  # of packed pictures and of compacted features
RANGE_BYTES = 8 * 2**20  # of one request into such a file: an assumption
READS_PER_PICTURE = 3  # Spark's HEAD, S3A's own as it opens the file, and a GET
WRITES_PER_FILE = 6  # multipart upload, notes of the committer, completion: an assumption
SLICE_NAMES = 2**17  # of a slice at most, where pictures that are known lie beside the new: increments.SLICE_NAMES
NAME_SECONDS = 20 / 2**17  # of the driver, to plan a slice that names its pictures: 131,072 of them in 20 s, measured
COMMIT_SECONDS = 2  # of a slice, beside its requests: an assumption
COMMIT_THREADS = 32  # the S3A committer's default
ORIGINAL_SECONDS = 0.020  # more to decode a photo of 12 megapixels: measured, 18 to 22 ms

# Peaks of memory that did not grow with the pictures: benchmarks/bench.py, 20,000 photos, 2026-11-26.
DRIVER_BYTES = 1151 * 2**20  # Python's
WORKER_BYTES = 256 * 2**20  # one slot's Python

# What AWS's documentation says of S3 and of machines; prices of requests are list prices of 2025, from memory.
NAMES_PER_LIST = 1000
GETS_PER_SECOND = 5500  # of one prefix, HEAD too
STREAM_BYTES = 85e6  # a second, of one request
CORE_BYTES = 97e6  # a second and core: an m6i.xlarge's baseline of 1.56 Gbit/s; more for some minutes only
GET_DOLLARS, PUT_DOLLARS = 0.4e-6, 5.3e-6  # HEAD costs as a GET, LIST as a PUT
INVENTORY_DOLLARS = 0.0025e-6  # a name, list price of 2025 from memory

PRIMARY = "m6i.xlarge"
PREFIX = "requests of a prefix"
CORE_MACHINES = 8  # the most of a stack that are no spot machines


class Numbers(NamedTuple):
    """What was measured or assumed. notebooks/scale.ipynb, with the same values, gives each its unit and its source."""

    region: str = "eu-west-3"
    pictures_per_second_per_core: float = 80
    picture_bytes: float = 21_800
    task_spread: float = 0.05
    worker_start_seconds: float = 2.5
    keys_per_second_per_core: float = 23_000
    fit_rows_per_second_per_core: float = 8_000
    project_rows_per_second_per_core: float = 8_000
    pca_fixed_seconds: float = 1.2
    heap_bytes_per_file: float = 583
    heap_bytes: float = 2 * 2**30
    request_seconds: float = 0.03
    request_spread: float = 1.0
    list_seconds: float = 0.15
    losses_per_machine_hour: float = 0.01
    replace_seconds: float = 600
    euros_per_dollar: float = 0.87
    night_hours: float = 8
    new_share: float = 0.01


class Machines(NamedTuple):
    """A cluster's workers, all alike."""

    count: int
    kind: str = "m6i.xlarge"

    @property
    def cores(self):
        """Physical cores of all workers."""
        return self.count * count_cores(self.kind)

    @property
    def slots(self):
        """Tasks that run at once."""
        return self.cores * SLOTS_PER_CORE

    @property
    def spot(self):
        """Workers that AWS may take back."""
        return max(0, self.count - CORE_MACHINES)


class Design(NamedTuple):
    """How pictures lie and how a run goes about them; the defaults are the simplest, not the best.

    packed: in parquet files of FILE_BYTES. folders: new pictures lie in folders of their own, and only these are
    listed. inventory: S3's own list in place of the driver's. prefixes: of S3, over which reading is spread.
    """

    packed: bool = False
    folders: bool = False
    inventory: bool = False
    prefixes: int = 1


class Setting(NamedTuple):
    """Numbers, machines and design of a run. nightly: numbers.new_share is new, the PCA a saved one; or all is new."""

    numbers: Numbers
    machines: Machines
    design: Design = Design()
    nightly: bool = False


class Step(NamedTuple):
    """What one step costs. gets, puts: requests (HEAD is a get, LIST a put). heap: bytes of the driver's Java."""

    name: str
    seconds: float
    gets: float = 0.0
    puts: float = 0.0
    heap: float = 0.0
    other_dollars: float = 0.0


class Bill(NamedTuple):
    """What a run costs, without tax."""

    hours: float
    machines_euros: float
    requests_euros: float
    euros: float


# --- The formula, step by step -------------------------------------------------------------------------------------


def plan_steps(setting, pictures):
    """List the steps of a run. pictures: all there are, new ones included. Packed ones were packed before."""
    new = count_new(setting, pictures)
    steps = [Step("start the cluster", START_HOURS * 3600), list_pictures(setting, pictures)]
    steps += [find_new(setting, pictures), read(setting, new), featurize(setting, new)]
    held = count_listed(setting, pictures)
    return [*steps, commit(setting, new), compact(setting, new), fit(setting, held), project(setting, held)]


def count_new(setting, pictures):
    """Count the pictures that a run featurizes."""
    return pictures * (setting.numbers.new_share if setting.nightly else 1)


def count_listed(setting, pictures):
    """Count the pictures that a run lists, and whose features lie in its folder: where each night has its own, its."""
    return count_new(setting, pictures) if setting.design.folders else pictures


def are_named(setting):
    """Say whether slices name their pictures: where others, that are known, lie among them."""
    return setting.nightly and not setting.design.folders


def count_pictures_per_file(setting):
    """Count the pictures of one file: 1, unless they are packed."""
    return max(1, FILE_BYTES / setting.numbers.picture_bytes) if setting.design.packed else 1


def list_pictures(setting, pictures):
    """List names: the driver into its table, or S3's inventory in its place; then Spark, which keeps them in Java."""
    numbers, design = setting.numbers, setting.design
    files = count_listed(setting, pictures) / count_pictures_per_file(setting)
    lists = (1 if design.inventory else 2) * files / NAMES_PER_LIST
    dollars = files * INVENTORY_DOLLARS if design.inventory else 0
    heap = files * numbers.heap_bytes_per_file
    return Step("list", lists * numbers.list_seconds, puts=lists, heap=heap, other_dollars=dollars)


def pack_pictures(setting, pictures):
    """Pack loose pictures, once, each folder into one of its own: each is listed and read, and nothing is computed.

    Each task writes a file, and these are read and merged.
    """
    loose, packed = (setting._replace(design=setting.design._replace(packed=choice)) for choice in (False, True))
    lists, files = 2 * pictures / NAMES_PER_LIST, pictures / count_pictures_per_file(packed)
    size = pictures * setting.numbers.picture_bytes
    passed = 2 * size / (setting.machines.cores * CORE_BYTES)  # read and written
    read = max(pictures * read_seconds(loose) / setting.machines.slots, _read_prefix(loose, pictures), passed)
    # Spark weighs a file at 512 KiB more than it has, to fill a task of 128 MiB.
    tasks = max(files, pictures * (2**19 + setting.numbers.picture_bytes) / 2**27)
    gets, puts = pictures * READS_PER_PICTURE + size / RANGE_BYTES, lists + (tasks + files) * WRITES_PER_FILE
    return Step("pack", lists * setting.numbers.list_seconds + read + passed, gets, puts)


def find_new(setting, pictures):
    """Find what is new: names listed, without the keys of those known; where there are such, the new are named."""
    new, listed = count_new(setting, pictures), count_listed(setting, pictures)
    rows, named = 2 * listed - new, new if are_named(setting) else 0
    seconds = rows / (setting.numbers.keys_per_second_per_core * setting.machines.cores) + named * NAME_SECONDS
    gets = rows * KEY_BYTES / RANGE_BYTES
    return Step("find new", seconds, gets=gets, heap=hold_features(setting, listed - new))


def hold_features(setting, rows):
    """Say how many bytes of Java's heap the names of the files of features take."""
    return rows * FEATURE_BYTES / FILE_BYTES * setting.numbers.heap_bytes_per_file


def read_seconds(setting):
    """Say how long a slot takes to read a picture from S3, one request after the other."""
    numbers = setting.numbers
    return count_requests(setting) * numbers.request_seconds + numbers.picture_bytes / STREAM_BYTES


def count_requests(setting):
    """Count the requests that it takes to read a picture; far less than 1 where many lie in one file."""
    return setting.numbers.picture_bytes / RANGE_BYTES if setting.design.packed else READS_PER_PICTURE


def compute_seconds(numbers):
    """Say how long a slot takes to decode a picture and pass it through the network, when all slots are at it."""
    return SLOTS_PER_CORE / numbers.pictures_per_second_per_core


def slot_seconds(setting):
    """Say how long a slot takes for a picture: it reads while it computes, but for the first batch of a task."""
    read, compute = read_seconds(setting), compute_seconds(setting.numbers)
    return max(read, compute) + min(read, compute) * BATCH_PICTURES / TASK_PICTURES


def find_rates(setting):
    """Find how many pictures a second each part of a cluster could do: {part: rate}; the least counts."""
    numbers, slots = setting.numbers, setting.machines.slots
    overlap = slot_seconds(setting) / max(read_seconds(setting), compute_seconds(numbers))
    return {
        "processors": slots / compute_seconds(numbers) / overlap,
        "waiting for S3": slots / read_seconds(setting) / overlap,
        PREFIX: GETS_PER_SECOND * setting.design.prefixes / count_requests(setting),
        "network": setting.machines.cores * CORE_BYTES / numbers.picture_bytes,
    }


def find_bottleneck(setting):
    """Find which part of a cluster holds the others up."""
    rates = find_rates(setting)
    return min(rates, key=rates.get)


def read(setting, new):
    """Read pictures: what it adds to the time of computing, beside which a slot reads; and its requests."""
    seconds = estimate_featurizing(setting, new) - featurize(setting, new).seconds
    return Step("read", seconds, gets=new * count_requests(setting))


def featurize(setting, new):
    """Featurize: the work of the processors, what barriers and lost machines waste of it, and the workers' start."""
    rate = setting.machines.slots / compute_seconds(setting.numbers)
    return Step("featurize", estimate_featurizing(setting, new, rate=rate))


def estimate_featurizing(setting, new, slice_pictures=SLICE_PICTURES, rate=None):
    """Estimate the seconds to read and featurize, commits apart. new: pictures. slice_pictures: a slot's of a slice.

    rate: pictures a second of all slots; by default what the slowest part of the cluster can do. At the end of a slice,
    tasks end evenly spread over the length of one: a slot waits for half of that on the mean.
    """
    slots, rate = setting.machines.slots, rate or min(find_rates(setting).values())
    work = new / (rate * estimate_presence(setting))
    slices = count_slices(setting, new, slice_pictures)
    task = size_tasks(setting, new) * slots / rate
    return setting.numbers.worker_start_seconds + work + slices * task * (slots - 1) / (2 * (slots + 1))


def size_tasks(setting, new):
    """Say how many pictures a task takes."""
    return min(TASK_PICTURES, max(1, new / (TASKS_PER_SLOT * setting.machines.slots)))


def count_slices(setting, new, slice_pictures=SLICE_PICTURES):
    """Count the slices of a run."""
    size = slice_pictures * setting.machines.slots
    return math.ceil(new / (min(size, SLICE_NAMES) if are_named(setting) else size))


def estimate_presence(setting):
    """Estimate the share of slots at work that counts: machines taken back are absent, and their tasks run again."""
    numbers, machines = setting.numbers, setting.machines
    losses = numbers.losses_per_machine_hour / 3600
    absent = losses * (numbers.replace_seconds + numbers.worker_start_seconds)
    half_task = TASK_PICTURES * slot_seconds(setting) / 2
    share = machines.spot / machines.count
    return 1 - share * (1 - math.exp(-losses * half_task) / (1 + absent))


def commit(setting, new):
    """Commit slice by slice, while every slot waits: a file for each."""
    slices = count_slices(setting, new)
    puts = slices * setting.machines.slots * WRITES_PER_FILE
    return Step("commit", slices * estimate_commit(setting), puts=puts)


def estimate_commit(setting):
    """Estimate the seconds to commit one slice; two requests a file fall to the driver."""
    return COMMIT_SECONDS + 2 * setting.machines.slots * setting.numbers.request_seconds / COMMIT_THREADS


def compact(setting, new):
    """Merge the new features' files: read once, written once."""
    size = new * FEATURE_BYTES
    seconds = 2 * size / (setting.machines.cores * CORE_BYTES)
    gets = size / RANGE_BYTES + count_slices(setting, new) * setting.machines.slots
    return Step("compact", seconds, gets=gets, puts=size / FILE_BYTES * WRITES_PER_FILE)


def fit(setting, rows):
    """Fit the PCA on all features, or see how much a saved one keeps of them: one pass, and a sum on the driver."""
    numbers, cores = setting.numbers, setting.machines.cores
    seconds = numbers.pca_fixed_seconds + rows / (numbers.fit_rows_per_second_per_core * cores)
    gets = rows * FEATURE_BYTES / RANGE_BYTES
    return Step("PCA", seconds, gets=gets, heap=hold_features(setting, rows))


def project(setting, rows):
    """Project features and write the projection."""
    seconds = rows / (setting.numbers.project_rows_per_second_per_core * setting.machines.cores)
    puts = rows * PROJECTED_BYTES / FILE_BYTES * WRITES_PER_FILE
    return Step("project", seconds, rows * FEATURE_BYTES / RANGE_BYTES, puts, hold_features(setting, rows))


def estimate_memory(setting, pictures):
    """Estimate who holds how much, in bytes: {who: bytes}. A machine holds a batch of pictures for each slot."""
    machines = setting.machines
    slots = machines.slots // machines.count
    return {
        "driver, Java: names of files": max(step.heap for step in plan_steps(setting, pictures)),
        "driver, Python": DRIVER_BYTES,
        "each machine, Python": slots * (WORKER_BYTES + BATCH_PICTURES * setting.numbers.picture_bytes),
    }


def bill(setting, steps, primary=PRIMARY):
    """Add up what steps cost. Spot machines count as dear as others, as in fruits/cluster.py: an upper limit."""
    hours = sum(step.seconds for step in steps) / 3600
    machines, numbers = setting.machines, setting.numbers
    per_hour = price_hour(numbers.region, primary, machines.kind, machines.count)
    requests = sum(step.gets * GET_DOLLARS + step.puts * PUT_DOLLARS + step.other_dollars for step in steps)
    euros = [dollars * numbers.euros_per_dollar for dollars in (per_hour * hours, requests)]
    return Bill(hours, *euros, sum(euros))


def estimate_cost(region, primary_type, worker_type, workers, pictures, pictures_per_second_per_core):
    """Estimate what a first run costs, upload included: SimpleNamespace with per_hour, hours, requests, total.

    In dollars, but for the hours. Pictures are small and loose; what is not given here is as in Numbers.
    """
    dollars = Numbers(region, pictures_per_second_per_core, euros_per_dollar=1)
    setting = Setting(dollars, Machines(workers, worker_type))
    steps = [*plan_steps(setting, pictures), Step("upload", 0, puts=pictures)]
    total = bill(setting, steps, primary_type)
    per_hour = price_hour(region, primary_type, worker_type, workers)
    return SimpleNamespace(per_hour=per_hour, hours=total.hours, requests=total.requests_euros, total=total.euros)


# --- Walls: what bites first, and what moves it --------------------------------------------------------------------


def _count_nights(setting, seconds):
    """Count the nights that so many seconds are."""
    return seconds / (setting.numbers.night_hours * 3600)


def _fill_heap(setting, names):
    """Say how full of names Java's heap is: 1 is full. names: bytes."""
    return names / setting.numbers.heap_bytes


def _compare_requests(setting, pictures):
    """Compare the price of all requests, those of the upload included, with the machines'."""
    total = bill(setting, plan_steps(setting, pictures))
    upload = count_new(setting, pictures) * PUT_DOLLARS * setting.numbers.euros_per_dollar
    return (total.requests_euros + upload) / total.machines_euros


def _read_prefix(setting, pictures):
    """Say how many seconds S3 takes to answer all reads, at its highest rate."""
    return count_new(setting, pictures) / find_rates(setting)[PREFIX]


# {wall: measure of (setting, pictures), which grows with the pictures; the wall stands where it reaches 1}
DEARER = "requests dearer than machines"  # stops no run
WALLS = {
    "heap full of pictures' names": lambda run, pictures: _fill_heap(run, list_pictures(run, pictures).heap),
    "listing: a night": lambda run, pictures: _count_nights(run, list_pictures(run, pictures).seconds),
    "S3 on one prefix: a night": lambda run, pictures: _count_nights(run, _read_prefix(run, pictures)),
    "featurizing: a night": lambda run, pictures: _count_nights(
        run, estimate_featurizing(run, count_new(run, pictures))
    ),
    "PCA: a night": lambda run, pictures: _count_nights(run, fit(run, count_listed(run, pictures)).seconds),
    "heap full of feature files' names": lambda run, pictures: _fill_heap(
        run, hold_features(run, count_listed(run, pictures))
    ),
    "finding what is new: a night": lambda run, pictures: _count_nights(run, find_new(run, pictures).seconds),
    DEARER: _compare_requests,
}


def _redesign(**changes):
    """Make a remedy that changes the design."""
    return lambda setting: setting._replace(design=setting.design._replace(**changes))


def _enlarge(setting):
    """Take machines of four times the size."""
    return setting._replace(machines=setting.machines._replace(kind="m6i.4xlarge"))


def _give_heap(setting):
    """Give Java four times the memory."""
    return setting._replace(numbers=setting.numbers._replace(heap_bytes=4 * setting.numbers.heap_bytes))


REMEDIES = {
    "pack": _redesign(packed=True),
    "inventory": _redesign(inventory=True),
    "nightly: only new ones": lambda setting: setting._replace(nightly=True),
    "the same, a folder a night": lambda setting: _redesign(folders=True)(setting._replace(nightly=True)),
    "ten prefixes": _redesign(prefixes=10),
    "four times the heap": _give_heap,
    "machines four times as large": _enlarge,
}


def find_wall(setting, measure, most=1e15):
    """Find at how many pictures a measure reaches 1: a number from 1 to most, or infinity where it does not."""
    if measure(setting, most) < 1:
        return math.inf
    low, high = 0.0, math.log10(most)
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if measure(setting, 10**middle) >= 1 else (middle, high)
    return 10**high


def find_walls(setting):
    """Find where each wall stands: {wall: pictures}, the nearest first."""
    found = {name: find_wall(setting, measure) for name, measure in WALLS.items()}
    return dict(sorted(found.items(), key=lambda one: one[1]))


def move_walls(setting):
    """Say by what factor each remedy moves each wall: {wall: {remedy: factor}}; infinity where the wall is gone."""
    return {
        name: {remedy: find_wall(change(setting), WALLS[name]) / place for remedy, change in REMEDIES.items()}
        for name, place in find_walls(setting).items()
        if place < math.inf
    }


def find_hit(setting, pictures):
    """Find the walls that a run hits: their names; those that only cost are left out."""
    return [name for name, measure in WALLS.items() if name != DEARER and measure(setting, pictures) >= 1]


# --- What to do ----------------------------------------------------------------------------------------------------

MACHINES = [  # what a stack can be, the smallest first; 6 is the most of its defaults, 40 of any
    *[Machines(count) for count in (1, 2, 6, 40)],
    *[Machines(40, f"m6i.{size}xlarge") for size in (2, 4, 8, 16)],
]
DESIGNS = [  # the simplest first
    Design(),
    Design(folders=True),
    Design(packed=True, folders=True),
    Design(packed=True, folders=True, prefixes=10),
]


def choose_setting(numbers, pictures, nightly=False, machines=MACHINES, designs=DESIGNS):
    """Choose the simplest design that hits no wall and is done in a night, and the cheapest machines for it.

    Raises ValueError where there is none.
    """
    for design in designs:
        settings = [Setting(numbers, one, design, nightly) for one in machines]
        bills = [(bill(setting, plan_steps(setting, pictures)), setting) for setting in settings]
        done = [
            (total.euros, place, setting)
            for place, (total, setting) in enumerate(bills)
            if total.hours <= numbers.night_hours and not find_hit(setting, pictures)
        ]
        if done:
            return min(done)[2]
    raise ValueError(
        f"{pictures:,.0f} pictures are too many for a night of {numbers.night_hours} h, expected a run that is done by "
        f"then: lengthen the night (night_hours), take larger machines, or share the pictures among clusters"
    )


def price_packing(setting, pictures, machines=MACHINES):
    """Say what packing so many pictures costs on the machines that do it for least: a Bill; it may take many nights."""
    settings = [setting._replace(machines=one) for one in machines]
    return min((bill(one, [pack_pictures(one, pictures)]) for one in settings), key=lambda total: total.euros)


# --- The simulation ------------------------------------------------------------------------------------------------


class Simulation(NamedTuple):
    """What a simulated run did. shares: of all slots' time, {use: share}, whose sum is 1."""

    seconds: float
    pictures: int
    tasks: int
    tasks_lost: int
    shares: dict

    @property
    def wasted(self):
        """Share of all slots' time in which no picture is decoded or passed through the network for good."""
        return 1 - self.shares["computing"]


class _Outages:
    """When one machine is absent: taken back at random, replaced after a time that is always the same."""

    def __init__(self, lots, losses, length):
        """Draw none yet. losses: a second, while it is there. length: seconds until another one works."""
        self.lots, self.losses, self.length, self.gone, self.back = lots, losses, length, [], []

    def find(self, moment):
        """Find the first absence that ends after a moment: (start, end); it may have begun before."""
        while not self.back or self.back[-1] <= moment:
            there = self.back[-1] if self.back else 0.0
            gone = there + self.lots.exponential(1 / self.losses) if self.losses else math.inf
            self.gone.append(gone)
            self.back.append(gone + self.length)
        place = bisect_right(self.back, moment)
        return self.gone[place], self.back[place]

    def overlap(self, start, end):
        """Say for how many of the seconds from start to end the machine is absent."""
        self.find(end)
        pairs = zip(self.gone, self.back, strict=True)
        return sum(min(end, back) - max(start, gone) for gone, back in pairs if gone < end and back > start)


def simulate_run(setting, pictures, slice_pictures=SLICE_PICTURES, seed=0):
    """Simulate the featurizing of a run, slice by slice: tasks, lost machines, commits. Returns a Simulation.

    pictures: all are new. slice_pictures: a slot's of a slice. The same seed gives the same run.
    """
    lots, slots = np.random.default_rng(seed), setting.machines.slots
    outages = _make_outages(setting, lots)
    clock, used, done = setting.numbers.worker_start_seconds, Counter(), Counter()
    for size in _cut(pictures, slice_pictures * slots):
        sizes = np.array(_cut(size, math.ceil(size_tasks(setting, pictures))))
        durations, computing = draw_tasks(setting, sizes, lots)
        end, featurized, lost = _run_slice(list(zip(durations.tolist(), sizes.tolist(), strict=True)), outages, clock)
        absent = sum(outage.overlap(clock, end) for outage in outages)
        used["computing"] += computing.sum()
        used["waiting for S3"] += (durations - computing).sum()
        used["lost with machines"] += sum(lost)
        used["machines absent"] += absent
        used["barrier"] += slots * (end - clock) - durations.sum() - sum(lost) - absent
        used["committing"] += slots * estimate_commit(setting)
        clock = end + estimate_commit(setting)
        done.update(pictures=featurized, tasks=len(sizes), tasks_lost=len(lost))
    used["starting"] = slots * setting.numbers.worker_start_seconds
    return Simulation(clock, **done, shares={name: float(time) / slots / clock for name, time in used.items()})


def _cut(whole, part):
    """Cut a number of pictures into parts, the last of which may be smaller."""
    return [part] * (whole // part) + ([whole % part] if whole % part else [])


def _make_outages(setting, lots):
    """Make the absences of each slot's machine: a list, in which slots of one machine share theirs."""
    numbers, machines = setting.numbers, setting.machines
    losses = numbers.losses_per_machine_hour / 3600
    length = numbers.replace_seconds + numbers.worker_start_seconds
    one_each = [_Outages(lots, losses if place < machines.spot else 0, length) for place in range(machines.count)]
    return [outage for outage in one_each for _ in range(machines.slots // machines.count)]


def draw_tasks(setting, sizes, lots):
    """Draw how long tasks take. sizes: (n,) pictures. lots: NumPy's random generator.

    Returns (durations, computing): (n,) seconds each, the second of which is the part that decodes and computes.
    """
    numbers, count = setting.numbers, len(sizes)
    computing = sizes * compute_seconds(numbers) * _draw_factors(lots, numbers.task_spread, count)
    waits = numbers.request_spread / math.sqrt(TASK_PICTURES * count_requests(setting))  # that of a sum over a task
    reading = sizes * read_seconds(setting) * _draw_factors(lots, waits, count)
    first_batch = np.minimum(1, BATCH_PICTURES / sizes)
    durations = np.maximum(computing, reading) + np.minimum(computing, reading) * first_batch
    crowd = setting.machines.slots / slot_seconds(setting) / min(find_rates(setting).values())
    return durations * crowd, computing


def _draw_factors(lots, spread, count):
    """Draw factors of mean 1 and a standard deviation."""
    return lots.gamma(1 / spread**2, spread**2, count) if spread else np.ones(count)


def _run_slice(tasks, outages, clock):
    """Run the tasks of one slice on slots that take the next task as soon as they are free.

    tasks: [(seconds, pictures)]. outages: of each slot's machine. clock: second at which all slots start.
    Returns (end, pictures, lost): second at which the last task is done; pictures of the tasks that are done; seconds
    of each task that ended with its machine.
    """
    free = [(clock, slot) for slot in range(len(outages))]
    waiting, again, end, featurized, lost = tasks[::-1], [], clock, 0, []
    while waiting or again:
        moment, slot = heapq.heappop(free)
        ready, task = (clock, waiting.pop()) if waiting else heapq.heappop(again)
        begin, (seconds, pictures) = max(moment, ready), task
        gone, back = outages[slot].find(begin)
        if gone >= begin + seconds:
            heapq.heappush(free, (begin + seconds, slot))
            end, featurized = max(end, begin + seconds), featurized + pictures
            continue
        heapq.heappush(free, (back, slot))
        heapq.heappush(again, (max(ready, gone), task))
        if gone > begin:
            lost.append(gone - begin)
    return end, featurized, lost


# --- The notebook's parameters -------------------------------------------------------------------------------------


def _is_above(least):
    """Make a rule: a number above a limit."""
    return lambda number: type(number) in (int, float) and number > least


def _is_from_zero(number):
    """Say whether a value is a number from 0 on."""
    return type(number) in (int, float) and number >= 0


MAY_BE_ZERO = {"task_spread", "request_spread", "losses_per_machine_hour", "worker_start_seconds", "replace_seconds"}

# name: (is it right?, what is expected), for parameters.check
RULES = {
    name: (_is_from_zero, "a number from 0 on") if name in MAY_BE_ZERO else (_is_above(0), "a number above 0")
    for name in (*Numbers._fields, "original_bytes")
} | {
    "region": (lambda name: regions.check_region(name) is None, "a region in the European Union, such as eu-west-3"),
    "new_share": (lambda share: type(share) is float and 0 < share < 1, "a share above 0 and below 1, such as 0.01"),
}
