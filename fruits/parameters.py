"""The parameters of a run, checked before anything is started: found, expected, what to do."""

import difflib
import json
import os
import re

import pandas as pd
import pyarrow

from fruits import increments, reduction, report, storage

PLAIN_VALUES = (str, int, float, list, dict, type(None))  # what a YAML file can give; bool is an int
NOTEBOOK_NAMES = {"In", "Out"}  # IPython's own
MASTER = r"local|local\[(\*|[1-9]\d*)(,[1-9]\d*)?\]|local-cluster\[\d+,\d+,\d+\]|spark://\S+:\d+"
INTERVAL = 'an interval such as "1 minute" or "30 seconds", or nothing'
CORRECT_IT = "correct it where it is set (-p, or the file after -f)"
# After -p papermill takes Python's words alone.
PYTHONS_WORDS = {"true": True, "yes": True, "false": False, "no": False, "none": None, "null": None}
VARIANCE_KEPT = 0.95  # the notebooks' own, as the next one is
DEFAULT_BACKBONE = "EfficientNetLite0"
CHECKED = "_parameters_checked"  # left in the notebook by a check that passed


class ParameterError(ValueError):
    """One or more wrong parameters; the message has a line for each."""


def check(names, rules=None, complain_together=None):
    """Check the parameters of a notebook.

    names: globals() right after the parameters. Every plain value there is taken for a parameter; on a second call in
    the same kernel only the known ones are, since later cells have left names of their own by then.
    rules: as RULES, which it is where nothing is given: {name: (is it right?, what is expected)}.
    complain_together: function of the values, each right alone, to what is wrong with them together, or to None.
    Raises ParameterError, which lists every parameter that is unknown or wrong.
    """
    if rules is None:
        rules, complain_together = RULES, _complain_together
    values = {name: value for name, value in names.items() if name in rules or _is_candidate(name, value)}
    is_fresh_kernel = not names.get(CHECKED, False)
    complaints = [_complain_unknown(name, rules) for name in values if name not in rules and is_fresh_kernel]
    complaints += [_complain_wrong(name, value, rules[name]) for name, value in values.items() if name in rules]
    if complain_together and not any(complaints):
        complaints = [complain_together(values)]
    if complaints := list(filter(None, complaints)):
        raise ParameterError("\n".join(["wrong parameters:", *(f"  - {complaint}" for complaint in complaints)]))
    names[CHECKED] = True


def _is_candidate(name, value):
    """Say whether a name of a notebook may be a parameter."""
    return isinstance(value, PLAIN_VALUES) and not name.startswith("_") and name not in NOTEBOOK_NAMES


def _complain_unknown(name, rules):
    """Say that a parameter is unknown, and which one may be meant."""
    near = difflib.get_close_matches(name.lower(), rules, n=1)
    hint = f"{near[0]} may be meant" if near else f"expected one of {', '.join(rules)}"
    return f"{name!r} is unknown, {hint}: remove it, or {CORRECT_IT}"


def _complain_wrong(name, value, rule):
    """Say what is wrong with one value; None where it is right."""
    is_right, expected = rule
    try:
        if is_right(value):
            return None
    except (OSError, pyarrow.ArrowInvalid, RuntimeError) as error:  # no such storage, or no answer; no such ~user
        return f"{name} is {value!r}, expected {expected} ({error}): {CORRECT_IT}"
    except ValueError as error:
        return f"{name}: {error}"
    is_path = name == "images_path" and isinstance(value, str) and value
    hint = f"; {storage.resolve(value)} is no folder" if is_path else ""
    if isinstance(value, str) and value.lower() in PYTHONS_WORDS and is_right(meant := PYTHONS_WORDS[value.lower()]):
        hint = f"; it is {meant} after -p, {json.dumps(meant)} in a file"
    return f"{name} is {value!r} ({type(value).__name__}), expected {expected}: {CORRECT_IT}{hint}"


def _complain_together(values):
    """Say what is wrong with the values together; None where they are right."""
    pictures, output = (storage.resolve(values[name]) for name in ("images_path", "output_path"))
    saved, packed = values.get("pca_model"), values.get("packed_path")
    if saved and _lies_in(storage.resolve(saved), output):
        return (
            f"pca_model {saved!r} lies inside output_path {output!r}, whose earlier results each run replaces: "
            f"set output_path elsewhere"
        )
    if complaint := complain_saved(values) or _complain_network(values, output):
        return complaint
    if not values.get("trigger") and (complaint := _complain_empty(pictures, output)):
        return complaint
    if _lies_in(output, pictures):
        return (
            f"output_path {output!r} lies inside images_path {pictures!r}, so the next run would take the results "
            f"for pictures: set output_path elsewhere"
        )
    for name in (*increments.list_tables(output), "listing", "changes", "figures", *report.RESULTS):
        for given, path, remedy in (("images_path", pictures, "output_path"), ("packed_path", packed, "packed_path")):
            if path and _lies_in(storage.resolve(path), f"{output}/{name}"):
                return (
                    f"{given} {path!r} lies inside output_path {output!r}, whose folder {name}/ is for results: set "
                    f"{remedy} elsewhere"
                )
    if packed and (_lies_in(storage.resolve(packed), pictures) or _lies_in(pictures, storage.resolve(packed))):
        return f"packed_path {packed!r} and images_path {pictures!r} lie in each other: set packed_path elsewhere"
    if packed and _lies_in(output, storage.resolve(packed)):
        return f"output_path {output!r} lies in packed_path {packed!r}, which is for packed pictures: set it elsewhere"
    if packed and values.get("trigger"):
        return "packed_path and trigger are both set, but what arrives later is not packed: set one of them"
    return None


def complain_saved(values):
    """Say which choice of components is set beside a saved PCA, which it has no effect on; None where none is."""
    for name, default in (("variance_kept", VARIANCE_KEPT), ("max_components", None)):
        if values.get("pca_model") and values.get(name, default) != default:
            return (
                f"{name} {values[name]} has no effect on pca_model {values['pca_model']!r}, which brings its own "
                f"components: leave one of them out"
            )
    return None


def _complain_network(values, output):
    """Say that the features in a folder are another network's, as far as its name tells; None where it does not."""
    asked, theirs = values.get("backbone", DEFAULT_BACKBONE), increments.name_network(output)
    if theirs in (None, asked) or values.get("recompute"):
        return None
    return (
        f"backbone is {asked!r}, but the features in {output}/features were made by another network, {theirs!r}: set "
        f"backbone to it, set output_path elsewhere, or set recompute to True to delete them and begin anew"
    )


def _complain_empty(pictures, output):
    """Say that a folder holds no file, or cannot be listed; None where one is found. A disk may not be mounted."""
    try:
        if next(storage.list_files(pictures), None) is not None:
            return None
    except OSError as error:
        is_denied = isinstance(error, PermissionError) or "ACCESS_DENIED" in str(error)  # the latter by S3
        remedy = ": give rights on it" if is_denied else ""
        return f"images_path {pictures!r} cannot be listed ({error}){remedy}"
    remedy = ", or set trigger to wait for them"
    if storage.is_folder(f"{output}/features"):  # where a service stops too: its disk may not be mounted
        remedy = f"; features of earlier runs stay until {output!r} is deleted"
    return f"images_path {pictures!r} holds no file: put pictures there, one folder for each label{remedy}"


def _lies_in(path, folder):
    """Say whether a path is a folder or lies below it, by links too. Both are resolved."""
    path, folder = (one if "://" in one else os.path.realpath(one) for one in (path, folder))
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _is_pca(path):
    """Say whether a PCA that an earlier run saved lies in a folder."""
    return isinstance(path, str) and path != "" and storage.is_file(f"{storage.resolve(path)}/{reduction.ABOUT}")


def _is_number(value):
    """Say whether a value is a number; Python counts True as 1."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value):
    """Say whether a value is a whole number from 1 on."""
    return _is_number(value) and isinstance(value, int) and value >= 1


def _is_picture_folder(path):
    """Say whether pictures can be looked for in a folder."""
    return isinstance(path, str) and path != "" and storage.is_folder(storage.resolve(path))


def _is_writable(path):
    """Say whether a folder can be written, by writing: rights, full disks and missing buckets all show.

    A folder that was not there is not left, but those above it are: another parameter may be refused yet.
    """
    if not isinstance(path, str) or path == "":  # resolve("") is the project's own folder
        return False
    folder = storage.resolve(path)
    probe, was_there = f"{folder}/.can-be-written", storage.is_folder(folder)
    try:
        storage.write_bytes(probe, b"")
        storage.delete_file(probe)
        if not was_there and ("://" in folder or storage.is_empty(folder)):  # another run may have begun there
            storage.delete_folder(folder)
    except OSError as error:
        raise ValueError(f"{path!r} cannot be written ({error}): choose another folder or give rights on it") from None
    return True


def _is_for_packs(path):
    """Say whether a folder can take packed pictures, whose old files are replaced: others' files shall not be there."""
    if not _is_writable(path):
        return False
    folder = storage.resolve(path)
    if not storage.is_folder(folder) or storage.is_folder(f"{folder}/{increments.COMPARISON}"):
        return True
    if next(storage.list_files(folder), None) is not None:
        raise ValueError(f"{path!r} holds files that are no packed pictures: give a folder that is new or empty")
    return True


def _is_backbone(name):
    """Say whether a network has this name; raises ValueError with the nearest ones."""
    if name == DEFAULT_BACKBONE:
        return True
    from fruits import backbones  # not on top: TensorFlow takes seconds, which only another network's name is worth

    return isinstance(name, str) and backbones.check_backbone(name) is None


def _is_weights(weights):
    """Say whether weights are ImageNet's or a file that is there."""
    return isinstance(weights, str) and (weights == "imagenet" or storage.is_file(storage.resolve(weights)))


def _is_interval(text):
    """Say whether a text is an interval of a second or more; a number alone has no unit."""
    if text is None or not isinstance(text, str) or not re.search(r"[a-z:]", text, re.I):
        return text is None
    try:
        return pd.Timedelta(text) >= pd.Timedelta(seconds=1)
    except ValueError:
        raise ValueError(f"found {text!r}, expected {INTERVAL}: {CORRECT_IT}") from None


def _is_master(master):
    """Say whether an address of Spark's is one that start_spark can use."""
    return isinstance(master, str) and re.fullmatch(MASTER, master) is not None


# name: (is it right?, what is expected)
RULES = {
    "images_path": (_is_picture_folder, "the path of a folder that exists, absolute or from the project's root, or s3://..."),
    "output_path": (_is_writable, "the path of a folder, absolute or from the project's root, or s3://..."),
    "backbone": (_is_backbone, "a network's name, such as EfficientNetLite0"),
    "weights": (_is_weights, '"imagenet", or the path of a file of weights that exists'),
    "variance_kept": (lambda share: _is_number(share) and 0 < share <= 1, "a number above 0 and up to 1"),
    "max_components": (lambda count: count is None or _is_count(count), "a whole number from 1 on, or nothing"),
    "pca_model": (lambda path: path is None or _is_pca(path), "the folder pca/ that an earlier run left, or nothing"),
    "quality_seconds": (lambda seconds: _is_number(seconds) and 0 <= seconds <= 1e6, "a number of seconds, 0 to 1e6"),
    "batch_size": (lambda count: _is_count(count) and count <= 4096, "a whole number from 1 to 4096"),
    "seed": (lambda seed: type(seed) is int and 0 <= seed < 2**32, "a whole number from 0 to 4294967295"),
    "save_csv": (lambda choice: isinstance(choice, bool), "true or false"),
    "packed_path": (lambda path: path is None or _is_for_packs(path), "the path of a folder, or nothing"),
    "pictures_per_commit": (_is_count, "a whole number from 1 on"),
    "recompute": (lambda choice: isinstance(choice, bool), "true or false"),
    "trigger": (_is_interval, INTERVAL),
    "spark_master": (_is_master, 'an address such as "local[*]", "local[2]" or "spark://host:7077"'),
}
