"""A person at JupyterHub: logs in, opens cloud.ipynb, runs all its cells and sees the figures, in a real browser.

Livy and S3 are those of one_machine.py. Needs Chromium, and Node for the hub's proxy.
"""

import base64
import io
import json
import os
import secrets
import shutil
import sys
import time
from pathlib import Path

import boto3
import nbformat
import numpy as np
import psutil
import pytest
import requests
from cfnlint.decode import decode_str
from one_machine import BUCKET, CLOUD, PICTURES_A_KIND, ROOT, find_free_port, has_started
from papermill import execute_notebook
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from fruits import headless

BIN = Path(sys.executable).parent
PROGRAMS = ("chromium", "node", "configurable-http-proxy")
FOUND = {name: shutil.which(name, path=f"{BIN}:{os.environ['PATH']}") for name in PROGRAMS}
MISSING = [name for name, path in FOUND.items() if not path]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; no hub in a browser")
USER, PASSWORD = "jovyan", secrets.token_urlsafe()
ALIKE = 0.95  # least correlation of a figure as drawn and as seen
SECONDS_TO_APPEAR = 20  # that a figure may take, on a machine that does other things too
PATIENCE = 600  # seconds for the whole notebook, and for Livy's first session, which fetches S3A's jars


@pytest.fixture(scope="module")
def home(livy, pictures, tmp_path_factory):
    """Prepare the user's folder: cloud.ipynb with this run's values, as cluster.ipynb does, and where Livy is."""
    home = tmp_path_factory.mktemp("hub") / USER
    (home / ".sparkmagic").mkdir(parents=True)
    # For the rest sparkmagic's own settings and those of the cluster's hub, whose values are all text.
    credentials = {"username": "", "password": "", "url": livy, "auth": "None"}
    settings = {"kernel_python_credentials": credentials, "livy_session_startup_timeout_seconds": PATIENCE}
    (home / ".sparkmagic" / "config.json").write_text(json.dumps(settings | read_hub_settings()))
    values = {"images_path": f"s3://{BUCKET}/images", "output_path": f"s3://{BUCKET}/output", "max_components": 8}
    execute_notebook(CLOUD, home / "cloud.ipynb", values, prepare_only=True)
    values |= {"images_path": "s3://fruits-london/images", "output_path": f"s3://{BUCKET}/london"}
    execute_notebook(CLOUD, home / "london.ipynb", values, prepare_only=True)
    return home


def read_hub_settings():
    """Read what emr-cluster.yaml sets for sparkmagic in the hub: {name: str}."""
    template = decode_str((ROOT / "emr-cluster.yaml").read_text())[0]
    configurations = template["Resources"]["Cluster"]["Properties"]["Configurations"]
    (found,) = [one for one in configurations if one.get("Classification") == "jupyter-sparkmagic-conf"]
    return found["ConfigurationProperties"]


@pytest.fixture(scope="module")
def hub(home):
    """Serve JupyterHub to one user: its address."""
    state = home.parent
    address, inside, routes = (f"http://127.0.0.1:{find_free_port()}" for _ in range(3))
    settings = {
        "JupyterHub": {
            "bind_url": address,
            "hub_bind_url": inside,
            "authenticator_class": "shared-password",
            "spawner_class": "simple",
        },
        "ConfigurableHTTPProxy": {"api_url": routes, "command": [FOUND["configurable-http-proxy"]]},
        "SharedPasswordAuthenticator": {"user_password": PASSWORD, "allowed_users": [USER]},
        "SimpleLocalProcessSpawner": {
            "home_dir_template": f"{state}/{{username}}",
            "cmd": [f"{BIN}/jupyterhub-singleuser"],
            "args": ["--allow-root"],  # whoever runs the tests
        },
    }
    (state / "hub.json").write_text(json.dumps(settings))
    with open(state / "hub.log", "w") as log:
        command = [sys.executable, "-m", "jupyterhub", "--config", "hub.json"]
        process = psutil.Popen(command, cwd=state, stdout=log, stderr=log)
    try:
        assert has_started(f"{address}/hub/health", process), (state / "hub.log").read_text()[-3000:]
        yield address
    finally:
        end(process)


def end(process):
    """End a process and all that it has started."""
    family = [process, *process.children(recursive=True)] if process.poll() is None else []
    if family:
        process.terminate()  # the hub ends its proxy and the user's server, and this one its kernels
    for one in psutil.wait_procs(family, timeout=30)[1]:
        one.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Start Chromium without a window."""
    environment = os.environ | {"HOME": str(tmp_path_factory.mktemp("browser"))}  # where it would leave files
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=FOUND["chromium"], env=environment)
        yield browser
        browser.close()


def log_in(page, hub, password):
    """Fill in the hub's form."""
    page.goto(hub)
    page.get_by_label("Username").fill(USER)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def run_all(page):
    """Run all cells of the notebook that is open, and save it."""
    expect(page.get_by_text("PySpark | Idle")).to_be_visible()  # earlier, JupyterLab asks for a kernel
    choose(page, "Run", "Run All Cells")
    waiting = page.locator(".jp-InputPrompt", has_text="[*]")
    expect(waiting).not_to_have_count(0)
    expect(waiting).to_have_count(0, timeout=PATIENCE * 1000)
    choose(page, "File", "Save Notebook")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)


def choose(page, menu, entry):
    """Choose an entry of JupyterLab's menus."""
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.locator(".lm-Menu").get_by_text(entry, exact=True).click()


def shut_down(page):
    """Shut down the kernel of the notebook that is open."""
    choose(page, "Kernel", "Shut Down Kernel")
    expect(page.get_by_text("No Kernel", exact=True)).to_be_visible()


@pytest.fixture(scope="module")
def page(hub, browser):
    """Log in, open cloud.ipynb, run all its cells and save it: the page."""
    page = browser.new_context(viewport={"width": 1400, "height": 1200}).new_page()  # holds any figure
    page.set_default_timeout(60_000)
    log_in(page, hub, PASSWORD)
    page.get_by_role("button", name="No", exact=True).click()  # no news of Jupyter's
    page.get_by_role("listitem", name="cloud.ipynb").dblclick()
    run_all(page)
    return page


@pytest.fixture(scope="module")
def saved(page, home):
    """The notebook as the hub has saved it."""
    return nbformat.read(home / "cloud.ipynb", as_version=4)


def list_results(folder="output/"):
    """List what a run has put into a folder of the bucket: keys below it."""
    listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=folder).get("Contents", [])
    return [entry["Key"].removeprefix(folder) for entry in listed]


def test_a_wrong_password_is_refused(hub, browser):
    page = browser.new_page()
    log_in(page, hub, "jupyter")  # the password that EMR's hub comes with
    expect(page.get_by_text("Invalid username or password")).to_be_visible()
    page.goto(f"{hub}/user/{USER}/lab/tree/cloud.ipynb")
    assert "/hub/login" in page.url
    page.close()


@pytest.mark.parametrize("path", ["lab/tree/cloud.ipynb", "files/cloud.ipynb", "api/contents/cloud.ipynb"])
def test_nobody_gets_the_notebook_without_logging_in(page, hub, path):
    address = f"{hub}/user/{USER}/{path}"
    logged_in = page.request.get(address)
    assert (logged_in.status, logged_in.url) == (200, address)
    answer = requests.get(address, timeout=10)
    assert answer.status_code == 403 or "/hub/login" in answer.url
    assert "%matplot plt" not in answer.text


def test_every_cell_runs_to_its_end_without_an_error(saved):
    cells = [cell for cell in saved.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert headless.find_failures(cells) == []


def look_at(page, image, number, figures):
    """Scroll to an image of the page until it is seen as the figure of that number.

    Cells are laid out only when they come into view, which pushes the image away again.
    Returns its correlation with each of the figures (Pillow images), at a coarse size.
    """
    expected = [shrink(figure) for figure in figures]
    give_up = time.monotonic() + SECONDS_TO_APPEAR
    while True:
        image.scroll_into_view_if_needed()
        page.wait_for_timeout(500)
        seen = shrink(Image.open(io.BytesIO(image.screenshot())))
        likeness = np.corrcoef([seen, *expected])[0, 1:]
        if likeness[number] > ALIKE or time.monotonic() > give_up:
            return likeness


def shrink(picture):
    """Shrink a picture to few grey pixels, (2400,), so that text that lies a pixel lower is still the same."""
    return np.ravel(picture.convert("L").resize((60, 40)))


def test_the_figures_are_seen_as_they_were_drawn(page, saved, tmp_path):
    cells = [cell for cell in saved.cells if cell.source == "%matplot plt"]
    drawn = [output.data["image/png"] for cell in cells for output in cell.outputs if "image/png" in output.data]
    figures = [Image.open(io.BytesIO(base64.b64decode(figure))) for figure in drawn]
    shown = page.locator(".jp-RenderedImage img")
    assert len(cells) == len(drawn) == shown.count() == len(list_results("output/figures/")) >= 3
    for number in range(len(drawn)):
        likeness = look_at(page, shown.nth(number), number, figures)
        page.screenshot(path=tmp_path / f"figure-{number + 1}.png")
        assert likeness[number] > ALIKE
        assert np.delete(likeness, number).max() < 0.5


def test_the_closing_cells_account_for_every_picture(page):
    good = 23 * PICTURES_A_KIND
    text = f"{good + 1} files found = {good} featurized + 1 rejected"
    answer = page.locator(".jp-OutputArea-output", has_text=text)
    answer.scroll_into_view_if_needed()
    expect(answer).to_be_in_viewport()


def test_the_results_lie_on_s3(page):
    folders = {key.split("/")[0] for key in list_results()}
    assert {"features", "rejected", "pca", "projection", "figures", "report.json"} <= folders


def test_a_bucket_outside_the_union_stops_all_the_cells_after_its_refusal(page, home):
    london = page.context.new_page()
    london.set_default_timeout(60_000)
    london.goto(page.url.replace("cloud.ipynb", "london.ipynb").replace("/lab/", "/lab/workspaces/london/"))
    run_all(london)
    shut_down(london)
    london.close()
    cells = [cell for cell in nbformat.read(home / "london.ipynb", as_version=4).cells if cell.cell_type == "code"]
    (refusal,) = [number for number, cell in enumerate(cells) if headless.find_failures([cell])]
    assert "London" in str(headless.find_failures([cells[refusal]]))
    assert [cell.outputs for cell in cells[refusal + 1 :]] == [[]] * (len(cells) - refusal - 1)
    assert set(list_results("london/")) <= {""}  # the folder itself, which was tried


def test_shutting_the_kernel_down_ends_the_session_of_spark(page, livy):
    shut_down(page)
    assert requests.get(f"{livy}/sessions", timeout=10).json() == {"sessions": []}
