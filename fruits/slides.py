"""From the presentation, executed on a run's folder, to one HTML page of slides and a PDF.

Usage: python -m fruits.slides EXECUTED.ipynb PAGE.html [--pdf PAGE.pdf]

The page holds reveal.js, style and figures, and asks nothing of the network. The PDF is printed by Chromium.
"""

import argparse
import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert.exporters import HTMLExporter

from fruits import images, storage

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "presentation" / "slides.html.j2"
REVEAL = "sphinx_revealjs/_static/revealjs"  # in the package sphinx-revealjs, which carries reveal.js
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
PRINTING_SECONDS = 120


class SlidesError(Exception):
    """What keeps the slides from being made, for a person to read."""


def read_report(folder):
    """Read what a run reported. Raises SlidesError where the folder holds no report."""
    path = f"{folder}/report.json"
    if not storage.is_file(path):
        raise SlidesError(f"{path} is not there: give the output_path of a run that has ended to run_path (make run)")
    return json.loads(storage.read_bytes(path))


def read_table(heading, number=0):
    """Read a table of README.fr.md: a pandas DataFrame of strings.

    heading: of the section that holds it. number: of the table in its section.
    """
    section = _read_section(heading)
    tables = re.findall(r"(?:^\|.*\n)+", section, re.M)
    if number >= len(tables):
        raise SlidesError(f"README.fr.md has {len(tables)} table(s) below {heading!r}: number {number} is not there")
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


def _read_section(heading):
    """Read a section of README.fr.md, up to the next heading."""
    text = (ROOT / "README.fr.md").read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.M | re.S)
    if not found:
        raise SlidesError(f"README.fr.md has no section {heading!r}")
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


def read_parameters(notebook):
    """Read the parameters of a notebook: {name: value}. notebook: its name in notebooks/, without .ipynb."""
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    names = [node.target.id for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)]
    values = {}
    exec(source, values)  # our own file, which Jupyter would execute too
    return {name: values[name] for name in names}


def render(notebook, page):
    """Render an executed presentation as one HTML page.

    notebook, page: files. Each cell whose slide_type is slide begins a slide, as nbconvert and JupyterLab have it.
    """
    reveal = Path(metadata.distribution("sphinx-revealjs").locate_file(REVEAL))
    exporter = HTMLExporter(raw_template=TEMPLATE.read_text(encoding="utf-8"))
    files = {"style": "dist/reveal.css", "script": "dist/reveal.js", "notes": "plugin/notes/notes.js"}
    texts = {name: (reveal / file).read_text(encoding="utf-8") for name, file in files.items()}
    html, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4), resources={"reveal": texts})
    Path(page).write_text(html, encoding="utf-8")


def print_pdf(page, pdf):
    """Print a page of slides as PDF, a slide a page. Raises SlidesError where there is no browser, or it fails."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SlidesError(
            f"no browser to print the PDF with: install Chromium (apt-get install chromium), or open {page} "
            f"in any browser, add ?print-pdf to its address and print it into a file"
        )
    Path(pdf).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:  # a browser that is open already would answer in its own window
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
        address = f"{Path(page).resolve().as_uri()}?print-pdf"
        options += [f"--user-data-dir={profile}", "--virtual-time-budget=20000", f"--print-to-pdf={pdf}"]
        done = subprocess.run([browser, *options, address], capture_output=True, text=True, timeout=PRINTING_SECONDS)
    if done.returncode or not Path(pdf).is_file():
        raise SlidesError(f"{browser} printed no PDF: {done.stderr.strip()[-500:]}")


def main():
    """Run the command: 0 when all was made, 1 with the reason where not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=Path, help="the presentation, executed by papermill")
    parser.add_argument("page", type=Path, help="HTML file to write")
    parser.add_argument("--pdf", type=Path, help="PDF file to write")
    options = parser.parse_args()
    try:
        render(options.notebook, options.page)
        print(f"slides: {options.page} (S: notes, F: full screen, ?: other keys)")
        if options.pdf:
            print_pdf(options.page, options.pdf)
            print(f"PDF:    {options.pdf}")
    except (SlidesError, OSError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
