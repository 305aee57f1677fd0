"""The diagrams of images-cours: drawn from the project, whole, readable, French where they say so, and shown."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import nbformat
import numpy as np
import pytest
import yaml
from cfnlint.decode import cfn_yaml
from fontTools import afmLib, agl

from fruits import backbones, features, regions

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "images-cours"
NAMES = ("spark", "broadcast", "transfer-learning", "pandas-udf", "pca", "aws")
FILES = [f"{name}{suffix}.svg" for name in NAMES for suffix in ("", ".fr")]
SVG = "{http://www.w3.org/2000/svg}"
SMALLEST = 13  # pixels of a page 960 wide: what a projector still shows
PADDING = 3  # pixels between a text and the edge of its box
# Helvetica's widths are also those of Arial and Liberation Sans, and matplotlib brings them.
FONTS = Path(matplotlib.get_data_path(), "fonts", "pdfcorefonts")
SAME_IN_FRENCH = re.compile(
    r"[\d\s×=…,:%]*|\w+/( \(parquet\))?|Python|parquet|pandas|JupyterHub|Livy|classes|image|textures"
    r"|(features|reason) IS NOT NULL|(CloudFormation, )?EMR|Systems Manager|machines|Driver|cluster\.ipynb"
    r"|localhost:9443"
)


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(FOLDER / "draw.py"))


@pytest.fixture(scope="module")
def drawn(script):
    """What the script draws now: {file name: SVG}."""
    return script["draw_all"]()


@pytest.fixture(scope="module")
def fonts():
    return {bold: afmLib.AFM(FONTS / name) for bold, name in ((False, "Helvetica.afm"), (True, "Helvetica-Bold.afm"))}


def read_svg(file):
    return ElementTree.parse(FOLDER / file).getroot()


def read_texts(file):
    """Read the lines of a diagram, in order; no-break spaces as they are."""
    return [element.text for element in read_svg(file).iter(f"{SVG}text")]


def read_words(language):
    return yaml.safe_load((FOLDER / f"texts.{language}.yaml").read_text(encoding="utf-8"))


def measure_text(text, size, bold, fonts):
    """Measure a line in pixels; a sign that Helvetica lacks, such as an arrow, is as wide as the font is high."""
    names = [agl.UV2AGL.get(ord(sign.replace("\xa0", " "))) for sign in text]
    widths = [fonts[bold][name][1] if name in fonts[bold].chars() else 1000 for name in names]
    return sum(widths) * size / 1000


def list_shapes(element, fonts, left=0, top=0):
    """List the shapes of a diagram, groups moved to their place: (kind, (x1, y1, x2, y2) in pixels, text)."""
    if place := re.fullmatch(r"translate\((\S+) (\S+)\)", element.get("transform", "")):
        left, top = left + float(place[1]), top + float(place[2])
    kind = element.tag.removeprefix(SVG)
    if area := measure_shape(kind, element, fonts):
        x1, y1, x2, y2 = area
        yield kind, (left + x1, top + y1, left + x2, top + y2), element.text or ""
    for child in element:
        yield from list_shapes(child, fonts, left, top)


def measure_shape(kind, element, fonts):
    """Measure one shape within its group; a path that is a straight line gives its ends. None for other elements."""
    names = ("x", "y", "width", "height", "cx", "cy", "r", "font-size")
    x, y, width, height, middle, centre, radius, size = (float(element.get(name, 0)) for name in names)
    if kind == "rect":
        return x, y, x + width, y + height
    if kind == "circle":
        return middle - radius, centre - radius, middle + radius, centre + radius
    if kind == "text":
        length = measure_text(element.text, size, element.get("font-weight") == "bold", fonts)
        x -= {"start": 0, "middle": 0.5, "end": 1}[element.get("text-anchor")] * length
        return x, y - 0.73 * size, x + length, y + 0.21 * size  # capitals, and letters that go below the line
    ends = re.fullmatch(r"M(\S+) (\S+)L(\S+) (\S+)", element.get("d", ""))
    return ends and tuple(map(float, ends.groups()))


def meet(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def hold(outer, inner):
    return (
        outer[0] + PADDING <= inner[0] and inner[2] <= outer[2] - PADDING and
        outer[1] <= inner[1] and inner[3] <= outer[3]
    )  # fmt: skip


def cross(line, area):
    """Say whether a straight line passes through an area, at one of a hundred points."""
    x1, y1, x2, y2 = line
    steps = np.linspace(0, 1, 101)
    x, y = x1 + steps * (x2 - x1), y1 + steps * (y2 - y1)
    return bool(((area[0] < x) & (x < area[2]) & (area[1] < y) & (y < area[3])).any())


# --- Files ------------------------------------------------------------------------------------------------------------


def test_the_files_in_git_are_what_the_script_draws(drawn):
    assert sorted(drawn) == sorted(FILES) == sorted(path.name for path in FOLDER.glob("*.svg"))
    assert [file for file, content in drawn.items() if (FOLDER / file).read_bytes() != content.encode()] == []


def test_the_script_draws_the_diagram_that_it_is_asked_for_and_no_other(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "images-cours", ignore=shutil.ignore_patterns("*.svg", "__pycache__"))
    for path in ("notebooks/local.ipynb", "emr-cluster.yaml"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    command = [sys.executable, tmp_path / "images-cours" / "draw.py", "pca"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    written = {path.name: path.read_bytes() for path in (tmp_path / "images-cours").glob("*.svg")}
    assert written == {file: (FOLDER / file).read_bytes() for file in ("pca.svg", "pca.fr.svg")}


@pytest.mark.parametrize("file", FILES)
def test_a_diagram_has_its_title_and_nothing_that_clashes_or_is_fetched(file):
    root = read_svg(file)
    assert root.find(f"{SVG}title").text == read_texts(file)[0]
    assert root.get("role") == "img"
    text = (FOLDER / file).read_text(encoding="utf-8")
    assert not re.search(r"\b(id|href|src)=|url\(|<script|<image|<style", text)
    assert len(text) < 40_000


# --- Readable ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_text_is_large_enough_for_a_projector(file):
    root = read_svg(file)
    sizes = [float(element.get("font-size")) for element in root.iter(f"{SVG}text")]
    assert min(sizes) >= SMALLEST
    assert root.get("viewBox").startswith("0 0 960 ")
    assert 480 <= float(root.get("viewBox").split()[3]) <= 680  # a slide's or a page's shape


@pytest.mark.parametrize("file", FILES)
def test_no_text_leaves_its_box_or_touches_another_a_line_or_a_point(file, fonts):
    shapes = list(list_shapes(read_svg(file), fonts))
    page, texts = shapes[0][1], [shape for shape in shapes if shape[0] == "text"]
    wrong = [f"{text!r} leaves the page" for _, area, text in texts if not hold(page, area)]
    for number, (_, area, text) in enumerate(texts):
        others = [shape for shape in shapes if shape[1] != area]
        wrong += [f"{text!r} on an edge" for kind, rect, _ in others
                  if kind == "rect" and meet(rect, area) and not hold(rect, area)]  # fmt: skip
        wrong += [f"{text!r} on {other!r}" for _, where, other in texts[number + 1 :] if meet(where, area)]
        wrong += [f"{text!r} on a line" for kind, line, _ in others if kind == "path" and cross(line, area)]
        wrong += [f"{text!r} on a point" for kind, circle, _ in others if kind == "circle" and meet(circle, area)]
    assert wrong == []


def test_a_text_too_long_for_its_box_would_be_found(fonts):
    box = '<rect x="10" y="10" width="60" height="28"/>'
    for text, fits in (("task 1", True), ("task 1,000,000", False)):
        caption = f'<text x="40" y="29" font-size="14" text-anchor="middle">{text}</text>'
        root = ElementTree.fromstring(f'<svg xmlns="http://www.w3.org/2000/svg">{box}{caption}</svg>')
        (_, rect, _), (_, area, _) = list_shapes(root, fonts)
        assert meet(rect, area)
        assert hold(rect, area) == fits


# --- Drawn from the project -------------------------------------------------------------------------------------------


def write(number, file):
    """Write a number as the language of a diagram does."""
    text = f"{number:,}"
    return text.translate({ord(","): "\xa0", ord("."): ","}) if ".fr." in file else text


@pytest.mark.parametrize("file", ["broadcast.svg", "broadcast.fr.svg"])
def test_the_weights_of_the_broadcast_are_those_of_the_real_network(file, feature_extractor):
    folded = backbones.fold_batch_norm(feature_extractor).get_weights()
    megabytes = round(sum(values.nbytes for values in folded) / 1e6, 1)
    unit = "\xa0Mo" if ".fr." in file else " MB"
    texts = read_texts(file)
    assert sum(f"{write(megabytes, file)}{unit}" in text for text in texts) >= 10
    assert any(write(round(2 * megabytes, 1), file) + unit == text for text in texts)
    millions = sum(values.size for values in folded) / 1e6
    assert write(round(millions, 2), file) + " million" in texts[1]


@pytest.mark.parametrize("file", ["transfer-learning.svg", "transfer-learning.fr.svg"])
def test_the_network_that_is_cut_is_the_real_one(file, network, feature_extractor):
    texts = read_texts(file)
    kept, whole = feature_extractor.count_params(), network.count_params()
    assert any(write(kept, file) in text for text in texts)
    assert write(whole - kept, file) in texts
    assert any(text == f"{write(network.output_shape[1], file)} classes" for text in texts)
    assert sum(write(feature_extractor.output_shape[1], file) in text for text in texts) >= 3
    shapes = re.findall(r"(\d+) × \1\n× (\S+)", "\n".join(texts).replace("\xa0", ""))
    found = {(int(side), int(channels.replace(",", ""))) for side, channels in shapes}
    outputs = {layer.output.shape[1:] for layer in network.layers if len(layer.output.shape) == 4}
    assert found <= {(height, channels) for height, _, channels in outputs}
    assert {side for side, _ in found} == {height for height, _, _ in outputs}


@pytest.mark.parametrize("file", ["pandas-udf.svg", "pandas-udf.fr.svg"])
def test_the_pandas_udf_is_the_one_of_the_code(file, network):
    texts = read_texts(file)
    assert features.OUTCOME == "features array<float>, reason string"
    assert any(re.fullmatch("features\\W+array<float>", text) for text in texts)
    parameters = next(cell.source for cell in read_notebook().cells if "parameters" in cell.metadata.get("tags", []))
    batch = re.search(r"batch_size: int = (\d+)", parameters)[1]
    assert len([text for text in texts if re.search(rf"Arrow.*\b{batch}\b", text)]) == 2
    assert f"{network.input_shape[1]} × {network.input_shape[2]}" in " ".join(texts)


@pytest.mark.parametrize("file", ["pca.svg", "pca.fr.svg"])
def test_the_pca_of_the_points_that_are_drawn_is_the_one_that_is_told(file, fonts):
    shapes = list(list_shapes(read_svg(file), fonts))
    circles = [area for kind, area, _ in shapes if kind == "circle"]
    points = np.array([((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in circles
                       if x2 - x1 == pytest.approx(7) and x2 < 320])  # fmt: skip
    assert len(points) == int(re.search(r"\d+", read_texts(file)[1])[0]) == 60
    _, singular, directions = np.linalg.svd(points - points.mean(axis=0))
    share = singular[0] ** 2 / (singular**2).sum()
    assert f"{share:.0%}".rstrip("%") == re.search(r"\d+", read_texts(file)[0])[0]
    feet = np.array([((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in circles
                     if x2 - x1 == pytest.approx(7) and x1 > 640])  # fmt: skip
    third_panel = points + (2 * 312, 0)
    mean = third_panel.mean(axis=0)
    np.testing.assert_allclose(feet, mean + np.outer((third_panel - mean) @ directions[0], directions[0]), atol=0.2)
    arrows = [np.subtract(area[2:], area[:2]) for kind, area, _ in shapes if kind == "path" and 320 < area[0] < 630]
    cosines = [abs(way @ direction) / np.linalg.norm(way) for way, direction in zip(arrows, directions, strict=True)]
    assert min(cosines) > 0.999


@pytest.fixture(scope="module")
def template():
    return json.loads(json.dumps(cfn_yaml.loads((ROOT / "emr-cluster.yaml").read_text())))


@pytest.mark.parametrize("file", ["aws.svg", "aws.fr.svg"])
def test_the_architecture_is_the_templates(file, template):
    text = " ".join(read_texts(file))
    resources, defaults = template["Resources"], {name: one["Default"] for name, one in template["Parameters"].items()}
    cluster = resources["Cluster"]["Properties"]
    assert {one["Name"] for one in cluster["Applications"]} == {"Hadoop", "Spark", "Livy", "JupyterHub"}
    idle = re.search(r"(\d+) minutes", text)[1]
    assert int(idle) == int(defaults["IdleSeconds"]) / 60
    limits = [defaults[name] for name in ("CoreCount", "MaxCoreNodes", "MaxTaskNodes")]
    assert re.search(r"(\d) (?:to|à) (\d),.* 0 (?:to|à) (\d),", text).groups() == tuple(map(str, limits))
    endpoints = [one["Properties"] for one in resources.values() if one["Type"] == "AWS::EC2::VPCEndpoint"]
    services = {one["ServiceName"]["Fn::Sub"].rpartition(".")[2]: one["VpcEndpointType"] for one in endpoints}
    kinds = dict.fromkeys(("ssm", "ssmmessages", "secretsmanager", "kms"), "Interface")
    assert services == {"s3": "Gateway"} | kinds
    assert {"Systems Manager", "Secrets Manager", "KMS", "S3"} <= set(re.findall("S\\w+ Manager|KMS|S3", text))
    nodes = {one["Fn::Sub"].rpartition("}/")[2] for one in find_folders(resources["InstanceRole"])}
    assert {f"{name.split('/')[0]}/" for name in nodes} == set(re.findall(r"\b\w+/", text))
    ((condition, labels, _),) = [one["Fn::If"] for one in cluster["Configurations"] if "Fn::If" in one]
    assert (condition, labels["Classification"]) == ("HasTaskNodes", "yarn-site")
    assert labels["ConfigurationProperties"]["yarn.node-labels.am.default-node-label-expression"] == "CORE"


def find_folders(role):
    """Find the bucket's folders that a role of the template names."""
    statements = role["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    named = [one["Resource"] for one in statements]
    listed = [one for many in named for one in (many if isinstance(many, list) else [many])]
    return [one for one in listed if isinstance(one, dict) and "Bucket.Arn}/" in str(one.get("Fn::Sub"))]


def test_the_cities_are_those_of_the_regions_in_the_union():
    (english,), (french,) = (
        [text for text in read_texts(file) if "Dublin" in text] for file in ("aws.svg", "aws.fr.svg")
    )
    cities = [place.split(",")[0] for place in regions.EUROPEAN_UNION.values()]
    assert re.split(r", | or ", english.partition(": ")[2]) == cities
    assert re.split(r", | ou ", french.partition(": ")[2]) == [city.replace("nkfurt", "ncfort") for city in cities]


# --- French -----------------------------------------------------------------------------------------------------------


def test_both_languages_have_the_same_texts_with_the_same_numbers_in_them():
    english, french = read_words("en"), read_words("fr")
    assert list(english) == list(french) == ["shared", *NAMES]
    for diagram in NAMES:  # a diagram may say a shared word in its own way
        assert (english["shared"] | english[diagram]).keys() == (french["shared"] | french[diagram]).keys()
        for key in english[diagram]:
            texts = [words[diagram].get(key, words["shared"].get(key)) for words in (english, french)]
            assert len({tuple(sorted(re.findall(r"\{.*?\}", text))) for text in texts}) == 1, key


def test_every_text_is_used(script):
    numbers, used = script["read_numbers"](), set()

    class Recorder(script["Words"]):
        def __call__(self, key, **numbers):
            used.add(key)
            return super().__call__(key, **numbers)

    for name, draw in script["DIAGRAMS"].items():
        draw(Recorder("en", name, numbers))
        assert read_words("en")[name].keys() <= used, name
    assert read_words("en")["shared"].keys() <= used


@pytest.mark.parametrize("file", [file for file in FILES if ".fr." in file])
def test_a_french_diagram_is_french(file):
    texts = read_texts(file)
    assert read_svg(file).get("lang") == "fr"
    english = r" [:;?!»%]|« |\w[;?!»]|'|(?<!PySpark )(?<!TLS )\b\d+\.\d|\d,\d{3}\b|\d [kMG]?i?o\b|\b[kMG]i?B\b"
    assert [text for text in texts if re.search(english, text)] == []
    same = set(texts) & set(read_texts(file.replace(".fr.", ".")))
    assert {text for text in same if not SAME_IN_FRENCH.fullmatch(text)} == set()


# --- Shown ------------------------------------------------------------------------------------------------------------


def read_notebook():
    return nbformat.read(ROOT / "notebooks" / "local.ipynb", as_version=4)


def test_the_notebook_shows_each_diagram_once_after_a_text_that_leads_to_it():
    cells = read_notebook().cells
    shown = [(number, name) for number, cell in enumerate(cells)
             for name in re.findall(r'"images-cours" / "(.+?)"', cell.source)]  # fmt: skip
    assert [name for _, name in shown] == [
        f"{name}.svg" for name in ("spark", "transfer-learning", "broadcast", "pandas-udf", "pca", "aws")
    ]
    for number, name in shown:
        assert cells[number].source.splitlines()[-1].startswith("SVG("), name  # a cell shows its last value
        assert cells[number - 1].cell_type == "markdown"
        text = cells[number - 1].source
        assert "diagram" in text, name


def test_the_readme_shows_the_architecture():
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## In the cloud")[2].partition("\n## ")[0]
    assert '<img src="images-cours/aws.svg"' in section
