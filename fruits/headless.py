"""A PySpark notebook run without a person: by papermill and sparkmagic, through Livy; a remote failure is a failure.

Usage: python -m fruits.headless NOTEBOOK EXECUTED [--parameters FILE] [--livy ADDRESS]
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import requests
import yaml

from fruits import storage

LIVY = "http://localhost:8998"  # where Livy answers on the cluster's first machine
START_PATIENCE = 600  # seconds; a cluster that scales up gives a session late
WAITS = "Warning: The Spark session does not have enough YARN resources to start."  # sparkmagic's; it may start yet
SIGN_OF_LIFE_PATIENCE = 300  # seconds without one after which Livy ends a session, at work or not: its run was killed


class RunError(RuntimeError):
    """A run that failed although papermill saw nothing; the message has a line for each cell concerned."""


def check_livy(livy):
    """Raise RunError where Livy does not answer; sparkmagic would try again for minutes, then not say why."""
    try:
        requests.get(f"{livy}/sessions", timeout=10).raise_for_status()
    except requests.RequestException as error:
        raise RunError(
            f"Livy does not answer at {livy} ({error}): run this on the cluster's first machine, see there that "
            f"`systemctl status livy-server` says active, or give another address to --livy"
        ) from None


def configure_sparkmagic(folder, livy):
    """Write sparkmagic's settings into a folder. livy: address of the service.

    By default sparkmagic goes on after a remote error, waits a minute for a session, draws tables by itself, and has
    Livy give a run up that has been silent for a minute, which a busy machine may be.
    """
    credentials = {"username": "", "password": "", "url": livy, "auth": "None"}
    settings = {
        "kernel_python_credentials": credentials,
        "all_errors_are_fatal": True,
        "shutdown_session_on_spark_statement_errors": True,
        "use_auto_viz": False,
        "livy_session_startup_timeout_seconds": START_PATIENCE,
        "heartbeat_refresh_seconds": SIGN_OF_LIFE_PATIENCE // 10,
        "livy_server_heartbeat_timeout_seconds": SIGN_OF_LIFE_PATIENCE,
        "logging_config": {"version": 1, "disable_existing_loggers": False},
    }
    Path(folder, "config.json").write_text(json.dumps(settings))
    os.environ["SPARKMAGIC_CONF_DIR"] = str(folder)


def run_notebook(notebook, executed, parameters, livy):
    """Execute a notebook and write the executed one, also on S3. parameters: dict, by name. livy: address.

    Raises PapermillExecutionError where a cell fails, RunError where Livy has died or papermill has missed a failure.
    """
    import papermill  # slow to import, and not needed to read the usage

    with tempfile.TemporaryDirectory() as folder:
        # Papermill would set access rights on what it writes to S3, which the cluster's role may not.
        copy = Path(folder, "executed.ipynb")
        try:
            result = papermill.execute_notebook(notebook, str(copy), parameters=parameters, log_output=True)
        except papermill.PapermillExecutionError:
            check_livy(livy)  # where it died on the way, the cell's own error says nothing of use
            raise
        finally:
            if copy.exists():
                place = executed if "://" in executed else str(Path(executed).absolute())
                storage.write_bytes(place, copy.read_bytes())
    if complaints := find_failures(result.cells):
        raise RunError("\n".join([f"{executed}: cells failed in Spark:", *complaints]))


def find_failures(cells):
    """Find what failed without an error of Jupyter's: sparkmagic writes some failures to stderr and goes on.

    cells: of an executed notebook. Returns a list of lines, "cell N: what it wrote". A wait is no failure.
    """
    complaints = []
    for number, cell in enumerate(cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error" or output.get("name") == "stderr":
                text = output.get("text") or f"{output.get('ename')}: {output.get('evalue')}"
                text = "\n".join(line for line in text.splitlines() if not line.startswith(WAITS)).strip()
                if text:
                    complaints.append(f"  cell {number}: {text}")
    return complaints


def read_parameters(path):
    """Read a YAML file of parameters, on this machine or on S3. Raises ValueError where it is no list of names."""
    values = yaml.safe_load(storage.read_bytes(storage.resolve(path))) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, expected lines such as images_path: s3://...: mend it")
    return values


def main(arguments=None):
    """Run the command: 0 where every cell succeeded, 1 where one failed, with the reason on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebook", help="a file, also s3://...")
    parser.add_argument("executed", help="where the executed notebook goes, also s3://...")
    parser.add_argument("--parameters", help="a YAML file, also s3://...")
    parser.add_argument("--livy", default=LIVY, help="default: %(default)s")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        configure_sparkmagic(folder, options.livy)
        try:
            check_livy(options.livy)
            parameters = read_parameters(options.parameters) if options.parameters else {}
            run_notebook(options.notebook, options.executed, parameters, options.livy)
        except KeyboardInterrupt:
            print("headless: interrupted, by somebody or since its time was over", file=sys.stderr)
            return 1
        except Exception as error:  # whatever it is, an EMR step needs its exit status
            if error.__context__ and not error.__suppress_context__:  # such as a cell's, before the upload failed
                print(f"headless: {error.__context__}", file=sys.stderr)
            print(f"headless: {error}", file=sys.stderr)
            return 1
    print(f"executed: {options.executed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
