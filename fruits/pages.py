"""Executed notebooks as HTML pages that ask nothing of the network: the walk as it is, the presentation as slides.

Usage: python -m fruits.pages walk EXECUTED.ipynb PAGE.html
       python -m fruits.pages slides EXECUTED.ipynb PAGE.html PAGE.pdf

The slides hold reveal.js, their style and their figures. The PDF is printed by Chromium.
"""

import argparse
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import pandas as pd
from IPython.display import SVG
from nbconvert.exporters import HTMLExporter

from fruits import images, storage

ROOT = storage.find_project_root()
TEMPLATE = ROOT / "presentation" / "slides.html.j2"
REVEAL = "sphinx_revealjs/_static/revealjs"  # in the package sphinx-revealjs, which carries reveal.js
# nbconvert's page as JupyterLab shows it, without what it fetches: the walk holds no formula, widget or chart in text.
# Its figures are told in words by the cell's metadata, which only nbconvert's classic page reads.
WALK = (
    "{% extends 'lab/index.html.j2' %}"
    + "".join(
        f"{{% block {name} %}}{{% endblock %}}"
        for name in ("html_head_js", "jupyter_widgets", "html_head_js_mathjax", "html_head_js_mermaidjs")
    )
    + "".join(
        f"{{% block {name} scoped %}}"
        """{{ super() | replace('<img ', '<img alt="' ~ (cell.metadata.alt | default('a figure') | e) ~ '" ') }}"""
        "{% endblock %}"
        for name in ("data_png", "data_svg")
    )
)
TITLE_HEIGHT = 54  # pixels of a diagram
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")


class PagesError(Exception):
    """What keeps a page from being made, for a person to read."""


def read_report(folder):
    """Read what a run reported. Raises PagesError where the folder holds no whole report of a run that has ended."""
    path = f"{folder}/report.json"
    if not storage.is_file(path):
        raise PagesError(f"{path} is not there: give the output_path of a run that has ended to run_path (make run)")
    try:
        report = storage.read_json(path, {}, "is damaged: run again, on the same output_path")
    except ValueError as error:
        raise PagesError(str(error)) from None
    if not report.get("finished"):
        raise PagesError(f"the run of {path} has not ended: run it again, on the same output_path, before the slides")
    return report


def read_table(heading, number=0):
    """Read a table of README.fr.md: a pandas DataFrame of strings.

    heading: of the section that holds it. number: of the table in its section.
    """
    section = _read_section(heading)
    tables = re.findall(r"(?:^\|.*\n)+", section, re.M)
    if number >= len(tables):
        raise PagesError(f"README.fr.md has {len(tables)} table(s) below {heading!r}: number {number} is not there")
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in tables[number].splitlines())
    return pd.DataFrame(rows, columns=header)


def write_table(rows):
    """Write a pandas DataFrame of strings as a table of Markdown."""
    lines = [rows.columns, ["---"] * len(rows.columns), *rows.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read_list(heading):
    """Read the list of a section of README.fr.md, as Markdown."""
    items = re.findall(r"^- .*\n(?:  .*\n)*", _read_section(heading), re.M)
    return "".join(items)


def find_text(heading, pattern):
    """Find what the first group of a pattern takes in a section of README.fr.md, its lines joined."""
    found = re.search(pattern, re.sub(r"\n(?!\n)", " ", _read_section(heading)), re.M)
    if not found:
        raise PagesError(f"README.fr.md says nothing like {pattern!r} below {heading!r}")
    return found[1].strip()


def _read_section(heading):
    """Read a section of README.fr.md, up to the next heading."""
    text = (ROOT / "README.fr.md").read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.M | re.S)
    if not found:
        raise PagesError(f"README.fr.md has no section {heading!r}")
    return re.sub(r"^```.*?^```\n", "", found[1], flags=re.M | re.S)


def read_number(text):
    """Read the first number of a French text: 1280.5 from "1 280,5 s"."""
    digits = re.search(r"\d[\d\s]*(?:,\d+)?", text)[0]
    return float(re.sub(r"\s", "", digits).replace(",", "."))


def read_pixels(path, size):
    """Read the pixels of a picture: uint8 (height, width, 3); None where it is gone or packed, or is none."""
    try:
        return images.decode(storage.read_bytes(path.removeprefix("file:")), size)
    except (OSError, images.RefusedPicture):
        return None


def show_diagram(name):
    """Show a diagram in French, without its title, which is the slide's: an SVG."""
    text = (ROOT / "images-cours" / f"{name}.fr.svg").read_text(encoding="utf-8")
    height = int(re.search(r'viewBox="0 0 960 (\d+)"', text)[1]) - TITLE_HEIGHT
    return SVG(text.replace(f'viewBox="0 0 960 {height + TITLE_HEIGHT}"', f'viewBox="0 {TITLE_HEIGHT} 960 {height}"'))


def render_walk(notebook, page):
    """Render an executed notebook as one HTML page. notebook, page: files."""
    html, _ = HTMLExporter(raw_template=WALK).from_notebook_node(nbformat.read(notebook, as_version=4))
    Path(page).write_text(html, encoding="utf-8")


def render_slides(notebook, page):
    """Render an executed presentation as one HTML page of slides.

    notebook, page: files. Each cell whose slide_type is slide begins a slide, as nbconvert and JupyterLab have it.
    """
    reveal = Path(metadata.distribution("sphinx-revealjs").locate_file(REVEAL))
    exporter = HTMLExporter(raw_template=TEMPLATE.read_text(encoding="utf-8"))
    files = {"style": "dist/reveal.css", "script": "dist/reveal.js", "notes": "plugin/notes/notes.js"}
    texts = {name: (reveal / file).read_text(encoding="utf-8") for name, file in files.items()}
    html, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4), resources={"reveal": texts})
    Path(page).write_text(html, encoding="utf-8")


def find_browser():
    """Find a browser of Chromium's kind: its path, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def print_pdf(page, pdf):
    """Print a page of slides as PDF, a slide a page. Raises PagesError where there is no browser, or it fails."""
    from playwright.sync_api import Error, sync_playwright

    browser = find_browser()
    if browser is None:
        raise PagesError(
            f"no browser to print the PDF with: install Chromium (apt-get install chromium), or open {page} "
            f"in any browser, add ?print-pdf to its address and print it into a file"
        )
    try:
        with sync_playwright() as playwright:
            window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])  # our own page only
            tab = window.new_page()
            tab.goto(f"{Path(page).resolve().as_uri()}?print-pdf")
            tab.wait_for_function("Reveal.isReady() && document.querySelectorAll('.pdf-page').length > 0")
            tab.pdf(path=pdf, prefer_css_page_size=True, print_background=True)
            window.close()
    except Error as error:
        raise PagesError(f"{browser} printed no PDF: {error}") from error


def read_options(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, text in (("walk", "the notebook as a page"), ("slides", "the presentation as slides and PDF")):
        command = kinds.add_parser(kind, help=text)
        command.add_argument("notebook", type=Path, help="executed by papermill")
        command.add_argument("page", type=Path, help="HTML file to write")
        if kind == "slides":
            command.add_argument("pdf", type=Path, help="PDF file to write")
    return parser.parse_args(arguments)


def main():
    """Run the command: 0 when all was made, 1 with the reason where not."""
    options = read_options()
    try:
        if options.kind == "walk":
            render_walk(options.notebook, options.page)
            return 0
        render_slides(options.notebook, options.page)
        print(f"slides: {options.page} (arrows: move, S: notes, F: full screen, ?: other keys)")
        print_pdf(options.page, options.pdf)
        print(f"PDF:    {options.pdf}")
    except (PagesError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
