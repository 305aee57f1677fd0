"""The presentation, executed on a made-up run and opened in a real browser; the walk's page; the README in French."""

import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fruits import french, pages, quality

ROOT = Path(__file__).parents[1]
SIZES = ((1280, 720), (1920, 1080))
LABELS = ["Pomme", "Poire", "Cerise", "Un nom bien long de fruit exotique"]
REPORT = {
    "images_path": "/somewhere/photos", "seed": 0, "finished": "2026-03-04T05:06:07+00:00", "images_found": 4321,
    "images_featurized": 4318, "images_rejected": 3, "images_per_second": None, "n_features": 640, "n_components": 37,
    "variance_kept": 0.95, "variance_reached": 0.9512, "accuracy_projection": 0.8768, "accuracy_features": 0.8642,
    "accuracy_baseline": 0.2531, "seconds": {"start Spark": 4.25, "featurize": 1234.5, "a new step": 2.0},
    "history": [{"images_per_second": 163.4}, {"images_per_second": None}],
}  # fmt: skip
WRONG_TYPOGRAPHY = re.compile(r".{0,9} [;:?!»%].{0,3}|« .{0,5}|\w'\w.{0,4}")
# What no French slide says; labels and code are left out before.
ENGLISH = re.compile(r"\b(the|of|and|with|pictures?|found|components?|step|seconds|features?)\b", re.I)
# Of each visible element whether it leaves its slide, in reveal.js's own words.
FIND_OVERFLOW = """() => {
  const slide = Reveal.getCurrentSlide(), edge = slide.getBoundingClientRect(), found = [];
  if (slide.scrollHeight > slide.clientHeight || slide.scrollWidth > slide.clientWidth) found.push('scrolls');
  for (const one of slide.querySelectorAll(':not(aside):not(aside *)')) {
    const box = one.getBoundingClientRect();
    const isOut = box.right > edge.right + 1 || box.bottom > edge.bottom + 1;
    if (isOut || box.left < edge.left - 1 || box.top < edge.top - 1) found.push(one.tagName + ': ' + one.textContent);
  }
  return found;
}"""


def make_run(folder):
    """Make up what a run leaves, as far as the presentation reads it."""
    draw = np.random.default_rng(0)
    for name in ("projection", "rejected", "pca"):
        (folder / name).mkdir(parents=True)
    paths = []
    for number in range(80):
        path = folder / "photos" / LABELS[number % 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (3 * number, 90, 60)).save(path)
        paths.append(f"file:{path}")
    labels = [LABELS[number % 4] for number in range(80)]
    scores = list(draw.normal(size=(80, 37)).astype(np.float32))
    pd.DataFrame({"path": paths, "label": labels, "pca": scores}).to_parquet(folder / "projection" / "part.parquet")
    reasons = ["empty file: 0 bytes", "not a picture: none of JPEG", "empty file: 0 bytes"]
    pd.DataFrame({"path": ["a", "b", "c"], "reason": reasons}).to_parquet(folder / "rejected" / "part.parquet")
    about = {"rows": 80, "variance": np.geomspace(1, 1e-4, 640).tolist()}
    (folder / "pca" / "fruits.json").write_text(json.dumps(about))
    (folder / "report.json").write_text(json.dumps(REPORT))
    rows = [quality.Accuracy(k, 0.5 + k / 1500, 0.4 + k / 1500) for k in (2, 37, 640)]
    confusion = [("Pomme", "Pomme", 17), ("Pomme", "Poire", 3), ("Poire", "Poire", 20)]
    measured = {"recall": {"Pomme": 0.85, "Poire": 1.0, "Kaki {dur}": 0.9}, "confusion": confusion, "baseline": 0.2531}
    quality.Quality(37, 640, 80, 60, 20, "by lot", rows=rows, judge="logistic", **measured).save(folder)


@pytest.fixture(scope="module")
def deck(tmp_path_factory):
    """The presentation of a made-up run: executed notebook, page, and its slides as their sources."""
    folder = tmp_path_factory.mktemp("deck")
    make_run(folder / "run")
    executed, page = folder / "executed.ipynb", folder / "presentation.html"
    notebook = ROOT / "presentation" / "presentation.ipynb"
    command = [sys.executable, "-m", "papermill", notebook, executed, "-p", "run_path", folder / "run"]
    command += ["-p", "max_points", "60"]  # of 80
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    pages.render_slides(executed, page)
    return SimpleNamespace(folder=folder, executed=executed, page=page)


@pytest.fixture(scope="module")
def browser():
    """A browser; the tests that need one are skipped where there is none."""
    path = pages.find_browser()
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


def open_page(browser, page, size=SIZES[0]):
    """Open a page. Returns (tab, what its console said, what it asked for)."""
    tab = browser.new_page(viewport={"width": size[0], "height": size[1]})
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.resolve().as_uri())
    return tab, said, [url for url in asked if not url.startswith("data:")]


@pytest.fixture(scope="module")
def shown(deck, browser):
    """The slides as the browser shows them: their texts, what overflows at each size, what was said and asked for."""
    found = SimpleNamespace(texts=[], overflow={}, said=[], asked=[])
    for size in SIZES:
        tab, said, asked = open_page(browser, deck.page, size)
        tab.wait_for_function("Reveal.isReady()")
        found.said, found.asked = found.said + said, found.asked + asked
        for number in range(tab.evaluate("Reveal.getTotalSlides()")):
            tab.evaluate(f"Reveal.slide({number})")
            found.overflow[size, number] = tab.evaluate(FIND_OVERFLOW)
            if size == SIZES[0]:
                found.texts.append(tab.evaluate("Reveal.getCurrentSlide().innerText"))
        tab.close()
    return found


def test_nothing_leaves_its_slide_at_either_size(shown):
    assert len(shown.overflow) == 2 * len(shown.texts)
    assert {place: what for place, what in shown.overflow.items() if what} == {}


def test_a_text_that_leaves_its_slide_would_be_found(deck, browser):
    tab, _, _ = open_page(browser, deck.page)
    tab.wait_for_function("Reveal.isReady()")
    tab.evaluate("Reveal.slide(1)")
    tab.evaluate("Reveal.getCurrentSlide().insertAdjacentHTML('beforeend', '<p>mot<br></p>'.repeat(30))")
    assert tab.evaluate(FIND_OVERFLOW)
    tab.close()


def test_the_page_asks_nothing_of_the_network_and_its_console_is_silent(deck, shown):
    assert shown.said == []
    assert set(shown.asked) == {deck.page.resolve().as_uri()}


def test_keys_move_through_the_slides(deck, browser, shown):
    tab, _, _ = open_page(browser, deck.page)
    tab.wait_for_function("Reveal.isReady()")
    places = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "Home"):
        tab.keyboard.press(key)
        places.append(tab.evaluate("Reveal.getIndices().h"))
    assert places == [1, 2, 1, len(shown.texts) - 1, 0]
    tab.close()


def test_the_pdf_has_a_page_for_each_slide(deck, browser, shown):
    pdf = deck.folder / "slides.pdf"
    command = [sys.executable, "-m", "fruits.pages", "slides", deck.executed, deck.folder / "again.html", pdf]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    content = pdf.read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", content)) == len(shown.texts)


def test_every_slide_has_notes_for_twenty_minutes_in_all():
    cells = nbformat.read(ROOT / "presentation" / "presentation.ipynb", as_version=4).cells
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in cells]
    order = [kind for kind in kinds if kind in ("slide", "notes")]
    assert order == ["slide", "notes"] * (len(order) // 2)
    words = sum(len(cell.source.split()) for cell, kind in zip(cells, kinds, strict=True) if kind == "notes")
    assert 15 * 110 < words < 20 * 130  # spoken slowly, with a demonstration; or at most, without


def test_the_numbers_on_the_slides_are_those_of_the_report(shown):
    text = "\n".join(shown.texts).replace(french.HARD_SPACE, " ")
    told = [
        "4 321 fichiers", "4 318", "37 nombres au lieu de 640", "95,1 %", "87,7 %", "86,4 %", "25,3 %", "1 234,5 s",
        "163 images par seconde", "04/03/2026", "a new step", "fichier vide (2)", "pas une image (1)", "Pomme (85 %)",
        "Erreurs : 3 sur 20 images", "La qualité : 87,7 % des labels retrouvés avec 37 nombres",
        "exécutions dans ce dossier",
    ]  # fmt: skip
    assert [number for number in told if number not in text] == []


def test_the_tables_on_the_slides_are_the_readmes(shown):
    text = "\n".join(shown.texts)
    for heading in ("Vitesse", "Qualité"):
        numbers = pages.read_table(heading).iloc[:, 1:].to_numpy().ravel()
        assert [number for number in numbers if number not in text] == []


def test_the_slides_are_french(shown):
    text = "\n".join(shown.texts).replace("a new step", "")
    assert ENGLISH.findall(text) == []
    assert WRONG_TYPOGRAPHY.findall(text) == []
    assert re.findall(r"(?<!TLS )\b\d+\.\d+\b(?! local)", text) == []


@pytest.mark.parametrize("text", ["12.5 s", "the mean", "Quoi ?", "l'image"])
def test_a_slide_that_is_not_french_would_be_found(text):
    assert ENGLISH.findall(text) or WRONG_TYPOGRAPHY.findall(text) or re.findall(r"\b\d+\.\d+\b", text)


def test_a_folder_without_a_report_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(pages.PagesError, match="report.json is not there: give the output_path .*make run"):
        pages.read_report(str(tmp_path))


def test_the_report_of_a_run_that_was_killed_is_refused(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"started": "2026-03-04", "finished": None}))
    with pytest.raises(pages.PagesError, match="has not ended: run it again"):
        pages.read_report(str(tmp_path))


def test_a_damaged_report_is_refused_by_its_name(tmp_path):
    (tmp_path / "report.json").write_text('{"started": "2026-03-04", "fini')
    with pytest.raises(pages.PagesError, match=r"report\.json is damaged: run again"):
        pages.read_report(str(tmp_path))


def test_make_slides_refuses_a_folder_without_a_run_and_runs_the_sample_where_it_has_none(tmp_path):
    command = ["make", "-C", ROOT, "slides", "--old-file=.venv/installed-slides"]
    done = subprocess.run([*command, f"RUN={tmp_path}"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert f"{tmp_path}/report.json is not there: give the output_path of a run that has ended" in done.stderr
    assert list(tmp_path.iterdir()) == []
    dry = [*command, "--dry-run", "--always-make"]
    assert "notebooks/local.ipynb" in subprocess.run(dry, capture_output=True, text=True, check=True).stdout


def test_a_text_of_the_readme_is_found_or_refused():
    assert pages.find_text("Qualité", r"Sur ([\d\s]+) photos").replace(french.HARD_SPACE, "").isdecimal()
    with pytest.raises(pages.PagesError, match="says nothing like 'Mars' below 'Qualité'"):
        pages.find_text("Qualité", "Mars")


def test_without_a_browser_the_slides_are_made_and_the_pdf_is_explained(deck, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    arguments = ["pages", "slides", str(deck.executed), str(tmp_path / "page.html"), str(tmp_path / "slides.pdf")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert pages.main() == 1
    assert (tmp_path / "page.html").stat().st_size > 100_000
    assert "apt-get install chromium" in capsys.readouterr().err


def test_a_number_is_read_as_french_writes_it():
    assert pages.read_number(f"1{french.HARD_SPACE}280,5{french.HARD_SPACE}s") == 1280.5


def test_the_walks_page_shows_its_figures_without_a_network(tmp_path, browser):
    code = nbformat.v4.new_code_cell("1 + 1", metadata={"alt": "A lemon"})
    Image.new("RGB", (7, 5)).save(tmp_path / "a.png")
    picture = {"image/png": b64encode((tmp_path / "a.png").read_bytes()).decode()}
    code.outputs = [nbformat.v4.new_output("display_data", picture)]
    cells = [nbformat.v4.new_markdown_cell("# A title"), code]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    pages.render_walk(tmp_path / "a.ipynb", tmp_path / "a.html")
    tab, said, asked = open_page(browser, tmp_path / "a.html")
    assert "A title" in tab.inner_text("body")
    assert tab.evaluate("document.images[0].naturalWidth") == 7
    assert tab.evaluate("document.images[0].alt") == "A lemon"
    assert (said, asked) == ([], [(tmp_path / "a.html").resolve().as_uri()])
    tab.close()


# --- The README in two languages --------------------------------------------------------------------------------------


def read_blocks(name):
    """Read a README's commands and the paths of its tree, without remarks: a list of lines."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S)
    lines = [re.split(r"\s{2,}", line)[0].strip() for block in blocks for line in block.splitlines()]
    return [line.split()[0] if line and (ROOT / line.split()[0]).exists() else line for line in lines]


def list_numbers(name):
    """List the numbers of a README's tables, as English writes them, row by row."""
    text = (ROOT / name).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    if name.endswith(".fr.md"):
        rows = [re.sub(r"(?<=\d),(?=\d)", ".", re.sub(rf"(?<=\d){french.HARD_SPACE}(?=\d)", "", row)) for row in rows]
    else:
        rows = [re.sub(r"(?<=\d),(?=\d{3})", "", row) for row in rows]
    return [re.findall(r"\d+(?:\.\d+)?", row) for row in rows]


def test_both_readmes_have_the_same_sections_commands_and_numbers_in_tables():
    levels = [re.findall(r"^(#+) ", (ROOT / name).read_text(), re.M) for name in ("README.md", "README.fr.md")]
    assert levels[0] == levels[1]
    assert read_blocks("README.md") == read_blocks("README.fr.md")
    assert list_numbers("README.md") == list_numbers("README.fr.md")


def test_the_french_readme_keeps_the_rules_of_typography():
    text = re.sub(r"^```.*?^```$", "", (ROOT / "README.fr.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"`[^`]*`|<img[^>]*>|\]\([^)]*\)", "", text)
    assert WRONG_TYPOGRAPHY.findall(text) == []
