"""What N pictures cost, against sums done by hand, proved bounds and known limits; scale.ipynb run by papermill."""

import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from fruits import cluster, features, figures, increments, parameters, scale
from fruits.scale import Design, Machines, Setting

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "scale.ipynb"
# Round numbers, not those measured: 40 pictures a second and slot; 10 ms of transfer and 90 ms of requests a picture.
NUMBERS = scale.Numbers(
    region="eu-west-3",
    pictures_per_second_per_core=80,
    picture_bytes=850_000,
    task_spread=0.0,
    worker_start_seconds=10,
    keys_per_second_per_core=100_000,
    fit_rows_per_second_per_core=10_000,
    project_rows_per_second_per_core=10_000,
    pca_fixed_seconds=1,
    heap_bytes_per_file=1000,
    heap_bytes=2e9,
    request_seconds=0.03,
    request_spread=0.0,
    list_seconds=0.1,
    losses_per_machine_hour=0.0,
    replace_seconds=600,
    euros_per_dollar=0.9,
    night_hours=8,
    new_share=0.01,
)
SPREAD = NUMBERS._replace(task_spread=0.1, request_spread=1.0)
ONE = Setting(NUMBERS, Machines(1))
ONE_SLOT = SimpleNamespace(count=1, kind="m6i.xlarge", cores=1, slots=1, spot=0)
PACKED = Design(packed=True)
VOLUMES = (10**5, 10**6, 10**8, 10**9)


def find_step(setting, pictures, name):
    (step,) = [step for step in scale.plan_steps(setting, pictures) if step.name == name]
    return step


# --- The formula -----------------------------------------------------------------------------------------------


def test_a_million_names_are_listed_twice_by_a_thousand():
    step = scale.list_pictures(ONE, 1_000_000)
    assert step.puts == 2000
    assert step.seconds == pytest.approx(200)
    assert step.heap == pytest.approx(1e9)


@pytest.mark.parametrize(
    ("design", "nightly", "factor"),
    [
        (Design(inventory=True), False, 1 / 2),
        (Design(), True, 1),
        (Design(folders=True), True, 1 / 100),
        (PACKED, False, 850_000 / 2**27),
    ],
)
def test_listing_shrinks_by_what_is_not_listed(design, nightly, factor):
    step = scale.list_pictures(Setting(NUMBERS, Machines(1), design, nightly), 1_000_000)
    assert step.seconds == pytest.approx(200 * factor)


def test_a_slot_reads_the_next_pictures_while_it_computes():
    assert scale.read_seconds(ONE) == pytest.approx(0.1)
    assert scale.compute_seconds(NUMBERS) == pytest.approx(0.025)
    assert scale.slot_seconds(ONE) == pytest.approx(0.1 + 0.025 / 16)


def test_small_files_wait_for_s3_and_packed_ones_for_the_processor():
    thumbnails = ONE._replace(numbers=NUMBERS._replace(picture_bytes=20_000))
    assert scale.find_bottleneck(thumbnails) == "waiting for S3"
    assert scale.find_bottleneck(thumbnails._replace(design=PACKED)) == "processors"


def test_a_prefix_gives_its_5500_answers_a_second_however_many_machines_ask():
    many = Setting(NUMBERS, Machines(400))
    assert scale.find_bottleneck(many) == "requests of a prefix"
    assert 1e6 / scale.estimate_featurizing(many, 1e6) < 5500 / 3
    ten = many._replace(design=Design(prefixes=10))
    assert scale.find_rates(ten)["requests of a prefix"] == pytest.approx(55_000 / 3)


def test_a_machines_network_carries_so_many_bytes():
    heavy = ONE._replace(numbers=NUMBERS._replace(picture_bytes=20e6, request_seconds=0.0001))
    assert scale.find_rates(heavy)["network"] == pytest.approx(2 * 97e6 / 20e6)


def test_the_fit_takes_as_long_as_its_rows_by_its_cores():
    assert scale.fit(ONE, 1_000_000).seconds == pytest.approx(1 + 50)
    forty = Setting(NUMBERS, Machines(40))
    assert scale.fit(forty, 1_000_000).seconds == pytest.approx(1 + 1.25)


def test_what_is_known_is_compared_with_what_is_listed():
    nightly = Setting(NUMBERS, Machines(1), nightly=True)
    naming = 10_000 * 20 / 131_072
    assert scale.find_new(nightly, 1_000_000).seconds == pytest.approx((1_000_000 + 990_000) / 200_000 + naming)
    folders = nightly._replace(design=Design(folders=True))
    assert scale.find_new(folders, 1_000_000).seconds == pytest.approx(10_000 / 200_000)
    assert scale.find_new(folders, 1_000_000).heap == 0


def test_a_night_featurizes_what_is_new_and_projects_what_its_folder_holds():
    nightly = ONE._replace(nightly=True)
    folders = nightly._replace(design=Design(folders=True))
    for name, step in {"read": scale.read, "featurize": scale.featurize}.items():
        assert find_step(nightly, 1e6, name) == find_step(folders, 1e6, name) == step(ONE, 1e4)
    for name, step in {"PCA": scale.fit, "project": scale.project}.items():
        assert find_step(nightly, 1e6, name) == step(ONE, 1e6)
        assert find_step(folders, 1e6, name) == step(ONE, 1e4)


def test_the_formula_counts_with_the_numbers_that_the_pipeline_works_by():
    assert scale.TASK_PICTURES == features.TASK_PICTURES
    assert scale.TASKS_PER_SLOT == features.TASKS_PER_CORE
    assert scale.FILE_BYTES == increments.FILE_BYTES
    assert scale.SLICE_NAMES == increments.SLICE_NAMES


def test_slices_are_capped_where_they_name_their_pictures():
    night = Setting(NUMBERS._replace(new_share=0.5), Machines(40), nightly=True)
    assert scale.count_slices(night, 1e6) == math.ceil(1e6 / 131_072)
    assert scale.count_slices(night._replace(design=Design(folders=True)), 1e6) == 1


def test_reading_costs_the_time_that_it_adds_to_computing_and_all_the_requests():
    at_once = ONE._replace(numbers=NUMBERS._replace(request_seconds=1e-9, picture_bytes=1e-3))
    assert scale.read(at_once, 1e6).seconds < 1e-3 * scale.featurize(at_once, 1e6).seconds
    assert scale.featurize(ONE, 1e6) == scale.featurize(at_once, 1e6)
    slow = ONE._replace(numbers=NUMBERS._replace(request_seconds=1.0, losses_per_machine_hour=0))
    both = scale.read(slow, 1e6).seconds + scale.featurize(slow, 1e6).seconds
    assert both == pytest.approx(1e6 * 3 * 1.0 / ONE.machines.slots, rel=0.05)  # and the wait at each slice's end
    assert (scale.read(slow, 1e6).gets, scale.featurize(slow, 1e6).gets) == (3e6, 0)


@pytest.mark.parametrize("machines", [Machines(1), Machines(40), Machines(40, "m6i.4xlarge")])
def test_machines_cost_what_the_clusters_estimate_says(machines):
    total = scale.bill(Setting(NUMBERS, machines), [scale.Step("an hour", 3600, gets=1e6, puts=1e6)])
    an_hour = cluster.price_hour("eu-west-3", "m6i.xlarge", machines.kind, machines.count)
    assert total.machines_euros == pytest.approx(0.9 * an_hour)
    assert total.requests_euros == pytest.approx(0.9 * (0.4 + 5.3))
    assert total.euros == total.machines_euros + total.requests_euros


def test_the_clusters_estimate_is_the_bill_of_a_first_run_with_its_upload():
    cost = scale.estimate_cost("eu-west-3", "m6i.xlarge", "m6i.2xlarge", 3, 10**6, 60)
    numbers = scale.Numbers(pictures_per_second_per_core=60)
    setting = Setting(numbers, Machines(3, "m6i.2xlarge"))
    total = scale.bill(setting, scale.plan_steps(setting, 10**6))
    assert cost.hours == total.hours
    assert cost.per_hour == cluster.price_hour("eu-west-3", "m6i.xlarge", "m6i.2xlarge", 3)
    assert cost.requests == pytest.approx(total.requests_euros / 0.87 + 5.3)
    assert cost.total == pytest.approx(cost.per_hour * cost.hours + cost.requests)
    dearer = scale.estimate_cost("eu-west-3", "m6i.4xlarge", "m6i.2xlarge", 3, 10**6, 60)
    assert dearer.per_hour - cost.per_hour == pytest.approx(3 * (0.224 + 0.048))


def test_the_readmes_table_of_costs_is_what_is_computed():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    for pictures in (100_000, 1_000_000, 10_000_000, 100_000_000):
        row = [f"{pictures:,}"]
        for workers in (1, 6, 40):
            machines = ("eu-west-3", "m6i.xlarge", "m6i.xlarge", workers, pictures)
            here, elsewhere = (scale.estimate_cost(*machines, speed) for speed in (80, 2 * 6.6))
            ours, theirs = (f"{cost.hours:,.1f} h, {cost.total:,.2f} $" for cost in (here, elsewhere))
            row.append(f"{ours} ({theirs})")
            assert any(f" {here.per_hour:.2f}" in line for line in lines if line.startswith("| pictures | 1 worker"))
        assert f"| {' | '.join(row)} |" in lines


@pytest.mark.parametrize("design", scale.DESIGNS, ids=lambda design: "-".join(map(str, design)))
@pytest.mark.parametrize("nightly", [False, True])
def test_more_pictures_never_cost_less_in_any_step(design, nightly):
    plans = [scale.plan_steps(Setting(NUMBERS, Machines(6), design, nightly), volume) for volume in VOLUMES]
    for few, many in zip(plans, plans[1:], strict=False):
        assert [step.name for step in few] == [step.name for step in many]
        pairs = zip(few, many, strict=True)
        assert all(big >= small for one, other in pairs for small, big in zip(one[1:], other[1:], strict=True))


def test_more_machines_never_take_longer_to_featurize():
    times = [scale.estimate_featurizing(Setting(NUMBERS, Machines(count)), 1e7) for count in (1, 2, 6, 20, 40)]
    assert times == sorted(times, reverse=True)


def test_a_name_is_held_for_each_file_of_compacted_features():
    assert scale.hold_features(ONE, 1e9) == pytest.approx(1e9 * 5120 / 2**27 * 1000)


def test_memory_grows_with_the_pictures_in_java_alone():
    small, large = (scale.estimate_memory(ONE, volume) for volume in (10**5, 10**8))
    assert [who for who in small if small[who] != large[who]] == ["driver, Java: names of files"]
    assert large["driver, Java: names of files"] == pytest.approx(1e11)


def test_packing_reads_every_picture_once_and_merges_what_tasks_have_written():
    step = scale.pack_pictures(ONE, 1_000_000)
    assert step.gets == pytest.approx(3_000_000 + 850e9 / 2**23)
    files, merged = 1_000_000 * (850_000 + 2**19) / 2**27, 850e9 / 2**27
    assert step.puts == pytest.approx(2000 + (files + merged) * 6)
    assert step.seconds == pytest.approx(200 + 1_000_000 * 0.1 / 4 + 2 * 850e9 / (2 * 97e6))


def test_packing_is_priced_on_the_machines_that_do_it_for_least():
    settings = [ONE._replace(machines=machines) for machines in scale.MACHINES]
    bills = [scale.bill(setting, [scale.pack_pictures(setting, 1e8)]) for setting in settings]
    assert scale.price_packing(ONE, 1e8).euros == min(total.euros for total in bills)


# --- The walls -------------------------------------------------------------------------------------------------


def test_walls_stand_where_a_hand_finds_them():
    walls = scale.find_walls(Setting(NUMBERS, Machines(40)))
    assert list(walls.values()) == sorted(walls.values())
    assert walls["heap full of pictures' names"] == pytest.approx(2e6, rel=1e-3)
    assert walls["listing: a night"] == pytest.approx(8 * 3600 / (2 * 0.1 / 1000), rel=1e-3)
    assert walls["S3 on one prefix: a night"] == pytest.approx(8 * 3600 * 5500 / 3, rel=1e-3)
    assert walls["PCA: a night"] == pytest.approx((8 * 3600 - 1) * 800_000, rel=1e-3)
    assert walls["heap full of feature files' names"] == pytest.approx(2e6 * 2**27 / 5120, rel=1e-3)


@pytest.mark.parametrize("wall", scale.WALLS)
def test_a_wall_is_hit_beyond_its_place_and_not_before(wall):
    setting = Setting(NUMBERS, Machines(40))
    place = scale.find_wall(setting, scale.WALLS[wall])
    assert scale.WALLS[wall](setting, 0.98 * place) < 1 <= scale.WALLS[wall](setting, 1.02 * place)


def test_each_remedy_moves_its_wall_by_its_factor():
    moved = scale.move_walls(Setting(NUMBERS, Machines(40)))
    names = moved["heap full of pictures' names"]
    assert names["pack"] == pytest.approx(2**27 / 850_000, rel=1e-3)
    assert names["the same, a folder a night"] == pytest.approx(100, rel=1e-3)
    assert names["four times the heap"] == pytest.approx(4, rel=1e-3)
    assert names["inventory"] == pytest.approx(1, rel=1e-3)
    assert moved["listing: a night"]["inventory"] == pytest.approx(2, rel=1e-3)
    assert moved["S3 on one prefix: a night"]["ten prefixes"] == pytest.approx(10, rel=1e-3)
    assert moved["PCA: a night"]["machines four times as large"] == pytest.approx(4, rel=1e-3)
    assert moved["PCA: a night"]["nightly: only new ones"] == pytest.approx(1, rel=1e-3)
    assert moved["PCA: a night"]["the same, a folder a night"] == pytest.approx(100, rel=1e-3)
    assert moved["heap full of feature files' names"]["the same, a folder a night"] == pytest.approx(100, rel=1e-3)


def test_a_wall_that_never_stands_is_infinitely_far():
    assert scale.find_wall(ONE, lambda setting, pictures: 0.5) == math.inf


@pytest.mark.parametrize("nightly", [False, True])
@pytest.mark.parametrize("pictures", VOLUMES)
def test_the_plan_chosen_is_done_in_a_night_and_hits_no_wall(pictures, nightly):
    chosen = scale.choose_setting(NUMBERS._replace(picture_bytes=20_000), pictures, nightly)
    assert chosen.nightly == nightly
    assert scale.bill(chosen, scale.plan_steps(chosen, pictures)).hours <= 8
    assert scale.find_hit(chosen, pictures) == []


def test_the_plan_chosen_is_the_cheapest_of_its_design():
    chosen = scale.choose_setting(NUMBERS, 10**6)
    euros = scale.bill(chosen, scale.plan_steps(chosen, 10**6)).euros
    for machines in scale.MACHINES:
        total = scale.bill(other := chosen._replace(machines=machines), scale.plan_steps(other, 10**6))
        assert total.hours > 8 or total.euros >= euros


def test_too_many_pictures_for_a_night_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"1,000,000,000,000 pictures.*night of 8 h.*night_hours.*among clusters"):
        scale.choose_setting(NUMBERS, 1e12)


# --- The simulation --------------------------------------------------------------------------------------------


def never():
    return SimpleNamespace(find=lambda moment: (math.inf, math.inf))


def away(start, end):
    """A machine that is absent once."""
    return SimpleNamespace(find=lambda moment: (start, end) if moment < end else (math.inf, math.inf))


def test_tasks_go_to_the_slot_that_is_free_first():
    tasks = [(5, 1), (3, 1), (3, 1), (4, 1)]  # 0: 5 then 4; 1: 3 then 3
    assert scale._run_slice(tasks, [never(), never()], 100) == (109, 4, [])


def test_a_task_whose_machine_goes_runs_again_from_its_beginning():
    tasks = [(10, 256), (10, 256)]
    end, pictures, lost = scale._run_slice(tasks, [away(4, 50), never()], 0)
    assert (end, pictures, lost) == (20, 512, [4])  # four seconds lost; the other slot does it from 10 to 20


def test_a_task_waits_for_the_only_machine_to_be_replaced():
    assert scale._run_slice([(10, 7)], [away(4, 50)], 0) == (60, 7, [4])


def test_two_slots_of_a_machine_lose_their_tasks_together():
    machine = away(4, 50)
    assert scale._run_slice([(10, 1), (10, 1)], [machine, machine], 0) == (60, 2, [4, 4])


@pytest.mark.parametrize("seed", range(20))
def test_a_slice_lasts_no_longer_than_list_scheduling_can(seed):
    lots = np.random.default_rng(seed)
    slots, seconds = int(lots.integers(1, 20)), lots.gamma(2, 5, int(lots.integers(1, 200)))
    end, pictures, lost = scale._run_slice([(one, 1) for one in seconds], [never()] * slots, 0)
    even = seconds.sum() / slots
    assert max(even, seconds.max()) <= end * (1 + 1e-9)
    assert end <= even + (1 - 1 / slots) * seconds.max() + 1e-9  # Graham, 1969
    assert (pictures, lost) == (len(seconds), [])


@pytest.mark.parametrize("design", [Design(), PACKED])
def test_one_slot_without_losses_and_spread_takes_what_the_formula_says(design):
    setting = Setting(NUMBERS, ONE_SLOT, design)
    pictures = 4 * scale.SLICE_PICTURES
    formula = scale.estimate_featurizing(setting, pictures) + scale.commit(setting, pictures).seconds
    assert scale.simulate_run(setting, pictures).seconds == pytest.approx(formula)


def test_tasks_that_are_all_alike_leave_no_slot_waiting():
    pictures = 2 * 4 * scale.SLICE_PICTURES
    simulated = scale.simulate_run(ONE, pictures)
    assert simulated.shares["barrier"] == pytest.approx(0, abs=1e-9)
    work = pictures / 4 * scale.slot_seconds(ONE)
    assert simulated.seconds == pytest.approx(10 + work + 2 * scale.estimate_commit(ONE))


@pytest.mark.parametrize("losses", [0, 0.5, 5])
@pytest.mark.parametrize("pictures", [1, 255, 100_003, 1_000_000])
def test_every_picture_is_featurized_and_every_second_accounted_for(pictures, losses):
    numbers = SPREAD._replace(losses_per_machine_hour=losses)
    simulated = scale.simulate_run(Setting(numbers, Machines(40)), pictures, seed=1)
    assert simulated.pictures == pictures
    assert sum(simulated.shares.values()) == pytest.approx(1)
    assert min(simulated.shares.values()) >= -1e-9
    assert simulated.tasks_lost == 0 or losses > 0


def test_work_that_counts_is_the_same_however_much_is_lost():
    runs = [
        scale.simulate_run(Setting(NUMBERS._replace(losses_per_machine_hour=losses), Machines(40)), 10**6)
        for losses in (0, 1, 5)
    ]
    work = [run.shares["computing"] * run.seconds * 160 for run in runs]
    assert work == pytest.approx([10**6 / 40] * 3)
    assert [run.wasted for run in runs] == sorted(run.wasted for run in runs)


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    setting = Setting(SPREAD._replace(losses_per_machine_hour=0.5), Machines(40))
    first, again, other = (scale.simulate_run(setting, 500_000, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.seconds != other.seconds


def test_machines_that_stay_are_never_lost():
    setting = Setting(SPREAD._replace(losses_per_machine_hour=50), Machines(8))
    assert scale.simulate_run(setting, 500_000).tasks_lost == 0


def test_a_machine_is_absent_for_the_share_that_renewal_theory_says():
    outages = scale._Outages(np.random.default_rng(0), 1 / 1000, 250)
    assert outages.overlap(0, 1e7) / 1e7 == pytest.approx(250 / 1250, rel=0.03)


def test_smaller_slices_wait_longer_and_commit_more():
    setting = Setting(SPREAD, Machines(40), PACKED)
    wasted = [scale.simulate_run(setting, 4_000_000, size).wasted for size in (512, 1024, 4096, 16384)]
    assert wasted == sorted(wasted, reverse=True)


@pytest.mark.parametrize("machines", [Machines(1), Machines(6), Machines(40), Machines(40, "m6i.4xlarge")])
@pytest.mark.parametrize("design", [Design(), PACKED, Design(prefixes=10)])
@pytest.mark.parametrize("losses", [0, 0.5])
def test_formula_and_simulation_agree(machines, design, losses):
    setting = Setting(SPREAD._replace(losses_per_machine_hour=losses), machines, design)
    pictures = 8 * scale.SLICE_PICTURES * machines.slots
    formula = scale.estimate_featurizing(setting, pictures) + scale.commit(setting, pictures).seconds
    simulated = [scale.simulate_run(setting, pictures, seed=seed).seconds for seed in range(8 if losses else 1)]
    assert np.mean(simulated) == pytest.approx(formula, rel=0.05)


def test_drawn_times_have_the_mean_and_the_spread_asked_for():
    sizes = np.full(20_000, 256)
    packed = Setting(SPREAD._replace(picture_bytes=20_000), Machines(1), PACKED)
    durations, computing = scale.draw_tasks(packed, sizes, np.random.default_rng(0))
    assert computing.mean() == pytest.approx(256 / 40, rel=0.01)
    assert computing.std() == pytest.approx(0.1 * 256 / 40, rel=0.05)
    assert (durations >= computing).all()


# --- The figures -----------------------------------------------------------------------------------------------


def test_figures_name_their_finding_their_axes_and_the_walls_within_sight():
    hours = {"loose": {"list": np.array([1.0, 10.0, 100.0])}, "packed": {"list": np.array([0.1, 1.0, 10.0])}}
    walls = {"loose": {"near": 1e6, "far": 1e12}, "packed": {"far": 1e12}}
    left, right = figures.draw_scale([1e5, 1e6, 1e7], hours, walls, 10).axes
    assert left.get_title("left") == "loose: a night takes 1 million"
    assert right.get_title("left") == "packed: a night takes 10 million"
    assert [text.get_text().strip() for text in left.texts] == ["near"]
    assert (left.get_xlabel(), left.get_ylabel()) == ("pictures", "time (hours)")
    plt.close("all")


def test_the_figure_of_waste_stacks_to_the_whole():
    shares = {"small": {"computing": 0.25, "barrier": 0.75}, "large": {"computing": 0.5, "barrier": 0.5}}
    left, right = figures.draw_waste([512, 1024], {0: [0.4, 0.2], 1: [0.5, 0.3]}, shares).axes
    assert left.get_title("left") == "Slices of 512 waste 40 %, of 1,024 20 %"
    assert right.get_title("left") == "large: work is 50 % of the time; small: 25 %"
    assert max(bar.get_x() + bar.get_width() for bar in right.patches) == pytest.approx(100)
    plt.close("all")


# --- What is measured for it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "told"), [
    (["find", "--rows", "1000"], r"keys_per_second_per_core: [1-9][\d,]*$"),
    (["pca", "--rows", "2400"], r"(?s)cold, 300 rows: fit .* s\n.*warm, 2,400 rows: fit .* s$"),
    (["tasks", "--copies", "1"], r"276 pictures in \d+ s, \d+ tasks.*\n.*\ntask_spread: 0\.\d+$"),
], ids=["find", "pca", "tasks"])  # fmt: skip
def test_what_the_notebook_computes_with_can_be_measured_again(options, told):
    command = [sys.executable, ROOT / "benchmarks" / "scale.py", *options]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert re.search(told, answer.stdout.strip()), answer.stdout


# --- The notebook ----------------------------------------------------------------------------------------------


def run_notebook(folder, *options):
    command = [sys.executable, "-m", "papermill", NOTEBOOK, folder / "out.ipynb", *options]
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return answer, nbformat.read(folder / "out.ipynb", as_version=4)


def read_text(notebook):
    """Read all that the cells of an executed notebook say."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    start = time.monotonic()
    answer, notebook = run_notebook(tmp_path_factory.mktemp("scale"))
    assert answer.returncode == 0, answer.stderr[-3000:]
    return SimpleNamespace(notebook=notebook, seconds=time.monotonic() - start, text=read_text(notebook))


def test_papermill_executes_the_notebook_within_a_minute(executed):
    assert executed.seconds < 60
    pictures = [
        output
        for cell in executed.notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2
    assert "nan" not in executed.text.lower().split()


def test_numbers_measured_again_reach_the_results(executed, tmp_path):
    set_there = float(re.search(r"heap_bytes_per_file: float = ([\d_.]+)", NOTEBOOK.read_text())[1])
    answer, other = run_notebook(tmp_path, "-p", "heap_bytes_per_file", str(set_there / 2))
    assert answer.returncode == 0, answer.stderr[-3000:]
    found = [re.search(r"first wall: (.*) at ([\d,]+) pictures", text) for text in (executed.text, read_text(other))]
    assert found[0][1] == found[1][1] == "heap full of pictures' names"
    before, after = (int(match[2].replace(",", "")) for match in found)
    assert after / before == pytest.approx(2, rel=1e-3)


def test_wrong_and_unknown_numbers_stop_the_notebook(tmp_path):
    options = ["-p", "region", "eu-west-2", "-p", "night_hours", "0", "-p", "new_shares", "0.1"]
    answer, _ = run_notebook(tmp_path, *options)
    assert answer.returncode != 0
    assert "London" in answer.stderr
    assert "night_hours is 0 (int), expected a number above 0" in answer.stderr
    assert "'new_shares' is unknown, new_share may be meant" in answer.stderr


def test_every_number_of_the_formula_is_a_parameter_of_the_notebook_with_its_source():
    (cell,) = [
        cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if "parameters" in cell.metadata.get("tags", [])
    ]
    lines = [re.fullmatch(r"(\w+): (?:str|float) = .+?  # (.+)", line) for line in cell.source.splitlines()]
    assert {line[1] for line in lines} == {*scale.Numbers._fields, "original_bytes"} == set(scale.RULES)
    assert all(re.search(r"\[\d\]|assumption|chosen", line[2]) for line in lines)
    values = {line[1]: eval(line[0].partition("=")[2].partition("#")[0]) for line in lines}
    parameters.check(dict(values), scale.RULES)
    assert scale.Numbers(**{name: values[name] for name in scale.Numbers._fields}) == scale.Numbers()


def test_the_notebook_lies_in_git_without_results_half_in_words_and_in_short_cells():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert 0.45 <= 1 - len(code) / len(notebook.cells) <= 0.60
    for cell in notebook.cells:
        lines = cell.source.splitlines()
        assert not [line for line in lines if len(line) > (110 if cell.cell_type == "code" else 120)]
        assert cell.cell_type == "markdown" or 1 <= len(lines) <= 20
    assert not [cell for cell in code if re.search(r"^\s*(def|class)\b", cell.source, re.M)]
