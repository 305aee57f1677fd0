"""An EMR cluster in one stack of CloudFormation: brought up, given files and work, brought down, in the European Union.

Usage, to clean up: python -m fruits.cluster STACK --region REGION [--delete-bucket BUCKET] [--dry-run]
"""

import argparse
import gzip
import hashlib
import importlib.metadata
import os
import re
import reprlib
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import boto3
import jmespath
from boto3.s3.transfer import TransferConfig
from botocore.awsrequest import AWSResponse
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    LoginError,
    NoCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from packaging import tags
from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from fruits import parameters, regions, storage

TAG = "fruits-stack"  # CloudFormation passes it on to what the stack creates, and EMR to the machines of its cluster
HEARTBEAT = 60  # seconds without news after which a wait says that it still waits
SECONDS_BETWEEN_LINES = 10  # while uploading
UPLOADS_PLANNED = 5_000  # at once: each that waits for its turn takes 1.6 kB
SECONDS_FOR_LOG = 360  # EMR copies logs to S3 every 5 minutes
SECONDS_TO_END = 600  # that a step may take beyond its time: it starts some minutes after it is asked for
SECONDS_TO_GO = 600  # disks and endpoints go some minutes after their cluster
ACTIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"]  # states of a cluster that costs

# Dollars an hour of an .xlarge (4 vCPU, 2 cores) of these families; half and double sizes cost half and double.
# Source: https://aws.amazon.com/ec2/pricing/on-demand/ (Linux) and https://aws.amazon.com/emr/pricing/, list prices of
# 2025, written from memory of these pages and not looked up since: see there before a large run.
PRICES_OF = "2025"
FAMILIES = ("m5", "m6i")
EC2_XLARGE_HOUR = {
    "eu-west-1": 0.214,
    "eu-west-3": 0.224,
    "eu-central-1": 0.230,
    "eu-north-1": 0.204,
    "eu-south-1": 0.224,
    "eu-south-2": 0.214,
}
EMR_XLARGE_HOUR = 0.048  # the same in every region
XLARGES = {"xlarge": 1, "2xlarge": 2, "4xlarge": 4, "8xlarge": 8, "12xlarge": 12, "16xlarge": 16, "24xlarge": 24}
DISK_HOUR = 0.012  # about 100 GB for each machine
ENDPOINTS_HOUR = 0.044  # the private network's four interface endpoints
KEPT_MONTH = 1.40  # the key of the disks and the hub's password, which stay with the stack
STORAGE_MONTH = 0.024  # for each GB on S3
START_HOURS = 0.25  # to start and to stop, which is paid too: a guess, no cluster was timed

PYTHON, GLIBC_MINOR = (3, 11), 34  # of the machines: bootstrap-emr.sh's Python, Amazon Linux 2023's glibc 2.34
ENABLED = "ClusterEnabled"  # the template's parameter that makes the cluster come and go
# States of a stack whose creation failed, or was planned and not begun: it holds nothing, and takes no update.
NEVER_CREATED = ("ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS")
ROLLED_BACK = "UPDATE_ROLLBACK_COMPLETE"  # an update failed, and all is as it was before
DEPLOYED = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
FAILED = ("CREATE_FAILED", "UPDATE_FAILED", "ROLLBACK_FAILED", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED")
RESTING = (*DEPLOYED, *FAILED, ROLLED_BACK, "DELETE_COMPLETE", *NEVER_CREATED)
OFFLINE_SECONDS = 900  # that a wait goes on without a connection, signed out, or with an AWS that is too busy
SET_FOR_A_RUN = ("images_path", "output_path", "spark_master")  # parameters of cloud.ipynb that nobody gives
SHOWN_ALIKE = 10  # calls of one operation in a row
SHORT = reprlib.Repr()  # how a call is shown
SHORT.maxdict = SHORT.maxlist = 20
SHORT.maxstring = SHORT.maxother = 90

# What EC2 has that is paid by the hour: its name, the call that lists it, the call's filter, where the identifiers are
PAID_BY_THE_HOUR = [
    (
        "EC2 instance",
        "describe_instances",
        "Filters",
        [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}],
        "Reservations[].Instances[].InstanceId",
    ),
    ("disk", "describe_volumes", "Filters", [], "Volumes[].VolumeId"),
    ("address", "describe_addresses", "Filters", [], "Addresses[].AllocationId"),
    (
        "NAT gateway",
        "describe_nat_gateways",
        "Filter",
        [{"Name": "state", "Values": ["pending", "available"]}],
        "NatGateways[].NatGatewayId",
    ),
]

# AWS's error codes of a sign-in that was too long ago; the last is EC2's.
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
REMEDIES = {  # by AWS's error code: what to do
    "AccessDenied": "give the user or role that calls the rights it lacks",
    "AlreadyExists": "delete what has this name, or choose another stack_name",
    **dict.fromkeys(EXPIRED, "sign in again, for instance with `aws sso login`"),
    "InvalidClientTokenId": "check the credentials, and that the account has this region switched on",
    "NoSuchBucket": "deleted by hand: clean up with --delete-bucket and its name, then start from the first cell",
    "UnrecognizedClientException": "check the credentials, and that the account has this region switched on",
}


class Stored(NamedTuple):
    """An object on S3: its length in bytes, when it was written (seconds since 1970), and S3's hash of it.

    etag: the MD5 of what it holds, in hexadecimal, unless it was sent in parts.
    """

    size: int
    written: float
    etag: str

    def is_outdated(self, path):
        """Say whether a file here is another than the one that was uploaded: of another size, or of other content.

        A file that nothing has touched since the upload is not read. A copy may keep the date of what it is copied
        from; the date of its entry in the folder (ctime) tells when it came, but also moves with its rights.
        """
        file = path.stat()
        if self.size != file.st_size:
            return True
        if self.written >= max(file.st_mtime, file.st_ctime):
            return False
        with path.open("rb") as content:
            return hashlib.file_digest(content, "md5").hexdigest() != self.etag


class CloudError(RuntimeError):
    """A step that failed; the message says what was found and what to do, and how to clean up."""


# --- Costs -------------------------------------------------------------------------------------------------------


def count_cores(instance_type):
    """Count the cores of a machine: half its vCPUs. Raises ValueError where its price is not known here."""
    family, _, size = instance_type.partition(".")
    if family not in FAMILIES or size not in XLARGES:
        raise ValueError(
            f"found {instance_type!r}, expected one of {', '.join(FAMILIES)} and a size such as .xlarge or .2xlarge, "
            f"whose price is known: choose one, or add it to the prices in fruits/cluster.py"
        )
    return 2 * XLARGES[size]


def price_hour(region, primary_type, worker_type, workers):
    """Say what a cluster costs an hour, in dollars: machines, EMR, disks, network.

    workers: machines that featurize, beside the primary one. Spot machines count as dear as others: an upper limit.
    """
    xlarge = EC2_XLARGE_HOUR[region] + EMR_XLARGE_HOUR
    cores = count_cores(primary_type) + workers * count_cores(worker_type)
    return cores / 2 * xlarge + (1 + workers) * DISK_HOUR + ENDPOINTS_HOUR


# --- Files -------------------------------------------------------------------------------------------------------


def build_wheel(folder):
    """Build the package's wheel into a folder and return its path; the project's own folder stays as it is."""
    root, source = storage.find_project_root(), Path(folder, "source")
    shutil.copytree(root / "fruits", source / "fruits", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(root / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    answer = subprocess.run([*command, "--wheel-dir", folder, source], capture_output=True, text=True)
    if answer.returncode:
        raise CloudError(f"the package's wheel cannot be built: {answer.stderr.strip()}")
    (wheel,) = Path(folder).glob(f"fruits-{importlib.metadata.version('fruits')}-*.whl")
    return wheel


def list_pins():
    """List what the cluster's machines install: {(package, version): requirement, such as "numpy==1.26.4"}."""
    root = storage.find_project_root()
    block = re.search(r"^LEFT_OUT=\(\n(.*?)^\)", (root / "bootstrap-emr.sh").read_text(), re.M | re.S)[1]
    left_out = {name for line in block.splitlines() for name in line.partition("#")[0].split()}
    text = "\n".join((root / name).read_text() for name in ("requirements.txt", "requirements-cluster.txt"))
    pins = [Requirement(line) for line in (line.partition("#")[0].strip() for line in text.splitlines()) if line]
    pins = [pin for pin in pins if pin.name not in left_out and (pin.marker is None or pin.marker.evaluate())]
    return {(canonicalize_name(one.name), str(one.specifier)[2:]): f"{one.name}{one.specifier}" for one in pins}


def list_tags():
    """List the tags of wheels that pip takes on the cluster's machines: Python, ABI and system."""
    systems = [f"manylinux_2_{minor}" for minor in range(5, GLIBC_MINOR + 1)]
    systems += ["manylinux1", "manylinux2010", "manylinux2014", "linux"]  # the last is of those compiled here
    platforms = [f"{system}_x86_64" for system in systems]
    return {*tags.cpython_tags(PYTHON, platforms=platforms), *tags.compatible_tags(PYTHON, "cp311", platforms)}


def find_wheels(folder):
    """Find the wheels of a folder: those that the cluster can install, and the others, {(package, version): path} each.

    Raises CloudError for a file that is not named as a wheel.
    """
    known, right, wrong = list_tags(), {}, {}
    for path in sorted(Path(folder).glob("*.whl")):
        try:
            name, version, _, found = parse_wheel_filename(path.name)
        except InvalidWheelFilename as error:
            raise CloudError(f"{path}: {error}, expected such as numpy-1.26.4-cp311-...whl: delete it") from None
        fits = found & known and not (is_compiled_here(found) and needs_later_glibc(path))
        (right if fits else wrong)[name, str(version)] = path
    return right, wrong


def is_compiled_here(found):
    """Say whether pip compiled a wheel, which then promises nothing of glibc. found: its tags."""
    return any(tag.platform.startswith("linux_") for tag in found)


def needs_later_glibc(path):
    """Say whether the libraries in a wheel ask for a later glibc than the machines have."""
    with ZipFile(path) as wheel:
        libraries = [wheel.read(name) for name in wheel.namelist() if name.endswith(".so")]
    minors = [int(minor) for library in libraries for minor in re.findall(rb"GLIBC_2\.(\d+)", library)]
    return max(minors, default=0) > GLIBC_MINOR


def gather_wheels(folder):
    """Gather the wheels that the cluster installs; PyPI gives those of the pinned versions that the folder lacks.

    Returns {key in the bucket: path here}. Needs Linux, as the cluster has, and libkrb5-dev with gcc, since two
    packages must be compiled. Raises CloudError where one cannot be had, or is for another system or Python.
    """
    pins = list_pins()
    fetch_wheels(folder, [requirement for pin, requirement in pins.items() if pin not in find_wheels(folder)[0]])
    right, wrong = find_wheels(folder)
    if missing := [pin for pin in pins if pin not in right]:
        named = ", ".join(wrong[pin].name if pin in wrong else f"no wheel of {pins[pin]}" for pin in missing)
        raise CloudError(
            f"found {named} in {folder}, expected wheels for the cluster's Python 3.11 on Linux x86_64 with glibc "
            f"2.{GLIBC_MINOR}: gather them on such a machine, or put right ones there by hand"
        )
    return {f"project/wheels/{path.name}": path for pin, path in right.items() if pin in pins}


def fetch_wheels(folder, missing):
    """Fetch wheels into a folder, or compile them. missing: list of requirements. Raises CloudError where pip fails."""
    if missing:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, *missing]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            raise CloudError(
                f"{len(missing)} wheels are missing in {folder} and cannot be gathered: {answer.stderr.strip()}\n"
                f"do it on Linux with Python 3.11, libkrb5-dev and gcc, or put them there by hand: {', '.join(missing)}"
            )


def list_pictures(folder):
    """List the pictures of a folder: {key in the bucket: path here}.

    Links to nothing are left out. Raises ValueError for a name that S3 cannot hold, and for a file without the right to
    read it.
    """
    root = storage.resolve(folder)
    files = (file for file in storage.list_files(root) if file.length is not None)
    paths = [Path(file.path.removeprefix("file:")) for file in files]
    if odd := [os.fsencode(path) for path in paths if not storage.is_utf8(str(path))]:
        raise ValueError(f"found the name {odd[0]!r}, expected names in UTF-8, as S3 has them: rename it")
    if shut := [path for path in paths if not storage.is_readable(str(path))]:
        raise ValueError(f"found {len(shut):,} file(s) without the right to read them, such as {shut[0]}: give it")
    return {f"images/{path.relative_to(root).as_posix()}": path for path in paths}


# --- The stack ---------------------------------------------------------------------------------------------------


class Stack:
    """A stack of CloudFormation in one region, with the bucket and, when enabled, the cluster that it creates.

    name: the stack's. poll_seconds: between two looks while waiting. tear_down_on_failure: see guard.
    dry_run: show the calls instead of sending them. Raises ValueError for a region outside the European Union.
    """

    def __init__(self, name, region, poll_seconds=15, tear_down_on_failure=True, dry_run=False):
        regions.check_region(region)
        self.name, self.region, self.poll_seconds = name, region, poll_seconds
        self.tear_down_on_failure = tear_down_on_failure
        self.session, self.clients = boto3.Session(region_name=region), {}
        self.rehearsal = Rehearsal(self.session, name) if dry_run else None
        self.may_cost = False  # from the first call that creates something
        self.bucket = None  # its name, once the account is known
        self.clean_command = shlex.join([sys.executable, "-m", "fruits.cluster", name, "--region", region])

    def client(self, service):
        """Get a client of one of AWS's services."""
        if service not in self.clients:
            self.clients[service] = self.session.client(service)
        return self.clients[service]

    @contextmanager
    def guard(self, step):
        """Guard one step: time it; where it fails or is interrupted, tear the cluster down and say how to clean up.

        Raises CloudError. With tear_down_on_failure=False only the command to clean up is given.
        """
        start = time.monotonic()
        try:
            yield
        except BaseException as error:  # an interrupted wait must not leave a cluster behind either
            expected = isinstance(error, CloudError | BotoCoreError | ClientError)
            raise CloudError(self._give_up(step, error)) from (None if expected else error)
        print(f"{step}: {time.monotonic() - start:,.0f} s")

    def _give_up(self, step, error):
        """Tear the cluster down after a failure, where that is wanted; returns the message."""
        lines = [f"{step} failed: {explain(error)}"]
        if self.may_cost and self.tear_down_on_failure:
            try:
                self.disable_cluster()
                self.prove_nothing_is_left()
                lines.append("the cluster was torn down; the bucket, with the logs, is left")
            except BaseException as failure:  # who interrupts this too must be told what it means
                lines.append(f"tearing the cluster down failed too, IT MAY STILL COST: {explain(failure)}")
        if self.may_cost:
            option = f"--delete-bucket {self.bucket or 'BUCKET'}"
            lines.append(f"to clean up: {self.clean_command} (with {option}, also what the bucket holds)")
        return "\n".join(lines)

    def describe(self):
        """Describe the stack as CloudFormation does; None where there is none."""
        try:
            return self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise

    def deploy(self, template, values):
        """Create the stack, or update the one there is, and wait. values: {parameter of the template: value}.

        Returns the stack's outputs, by name. Raises CloudError with the reasons where CloudFormation fails.
        """
        cloudformation = self.client("cloudformation")
        written = {name: write_value(value) for name, value in values.items()}
        request = {
            "StackName": self.name,
            "TemplateBody": template,
            "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in written.items()],
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
            "Tags": [{"Key": TAG, "Value": self.name}],
        }
        self.may_cost = True
        try:
            cloudformation.create_stack(**request)
        except cloudformation.exceptions.AlreadyExistsException:
            return self._wait(self._replace_or_update(request))
        return self._wait()

    def _replace_or_update(self, request):
        """Ask for an update of the stack there is; one never created is replaced. Returns the states to end in.

        An update that changes nothing is none. The stack may then rest where a failed one was rolled back to, which is
        what is asked for.
        """
        cloudformation = self.client("cloudformation")
        if self.describe()["StackStatus"] in NEVER_CREATED:
            self.delete()
            cloudformation.create_stack(**request)
            return DEPLOYED
        try:
            cloudformation.update_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" not in str(error):
                raise
            return (*DEPLOYED, ROLLED_BACK)
        return DEPLOYED

    def _wait(self, accepted=DEPLOYED, stack_id=None):
        """Wait until the stack rests, and show what it does meanwhile: its outputs, by name.

        Raises CloudError with CloudFormation's reasons where it rests in another state than the accepted ones.
        """
        stack_id = stack_id or self.describe()["StackId"]  # one that is deleted meanwhile has no name any more
        last, shown = {}, set()

        def look():
            last.update(self.client("cloudformation").describe_stacks(StackName=stack_id)["Stacks"][0])
            news = [event for event in self._list_events(stack_id) if event["EventId"] not in shown]
            shown.update(event["EventId"] for event in news)
            return list(map(write_event, news)), not is_changing(last)

        self._follow(look)
        if last["StackStatus"] not in accepted:
            failed = [event for event in self._list_events(stack_id) if event["ResourceStatus"].endswith("FAILED")]
            state = f"the stack {self.name!r} is {last['StackStatus']}, expected {' or '.join(accepted)}"
            raise CloudError("\n".join([state, *map(write_event, failed), *self._hint(failed)]))
        return {output["OutputKey"]: output["OutputValue"] for output in last.get("Outputs", [])}

    def _hint(self, failed):
        """Hint at what to do about the events of resources that failed: a list of lines."""
        hints = []
        if any("already exists" in event.get("ResourceStatusReason", "") for event in failed):
            hints.append(
                "what already exists is of an earlier stack: choose another stack_name, or clean up, its bucket with "
                "--delete-bucket and the bucket's name"
            )
        clusters = {event.get("PhysicalResourceId") for event in failed if event["LogicalResourceId"] == "Cluster"}
        for cluster in filter(None, clusters):
            logs = f"s3://{self.bucket or 'BUCKET'}/logs/{cluster}/node/*/bootstrap-actions/"
            hints.append(f"why a machine did not start, a few minutes later: {logs}")
        return hints

    def _list_events(self, stack_id):
        """List the events of the operation under way, oldest first; CloudFormation gives the newest first."""
        pages = self.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=stack_id)
        events = []
        for event in (event for page in pages for event in page.get("StackEvents", [])):
            events.append(event)
            if event.get("ResourceStatusReason") == "User Initiated":
                break
        return events[::-1]

    def _follow(self, look, limit_hours=float("inf"), patience=0):
        """Look until it is over, and print what is new. look: () -> (new lines, whether it is over).

        A laptop that slept, lost its network or was signed out is no reason to end the cluster, nor is an AWS that is
        too busy: it looks again for OFFLINE_SECONDS.
        Raises CloudError after limit_hours, and so many seconds of patience.
        """
        start = said = reached = time.monotonic()
        while True:
            try:
                news, is_over = look()
                reached = time.monotonic()
            except (BotoCoreError, ClientError) as error:
                if not may_pass(error) or time.monotonic() - reached > OFFLINE_SECONDS:
                    raise
                news, is_over = [f"no answer, trying again: {explain(error)}"], False
            now = time.monotonic()
            if not news and now - said > HEARTBEAT:
                news = [f"still waiting, {(now - start) / 60:.0f} min"]
            for line in news:
                print(line)
                said = now
            if is_over:
                return
            if now - start > limit_hours * 3600 + patience:
                raise CloudError(f"found no end after {limit_hours} h: set max_hours higher, or take fewer pictures")
            time.sleep(self.poll_seconds)

    # --- Its bucket

    def list_objects(self, bucket, prefix=""):
        """List every object below a prefix: {key: Stored}."""
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = (one for page in pages for one in page.get("Contents", []))
        return {
            one["Key"]: Stored(one["Size"], one["LastModified"].timestamp(), one["ETag"].strip('"')) for one in found
        }

    def upload(self, bucket, files):
        """Upload files, 16 at a time, and show now and then how far it is. files: {key: path}."""
        s3, one_thread, said = self.client("s3"), TransferConfig(use_threads=False), time.monotonic()
        pool, keys = ThreadPoolExecutor(16), iter(files)
        blocks = iter(lambda: list(islice(keys, UPLOADS_PLANNED)), [])
        try:
            uploads = (
                pool.map(lambda key: s3.upload_file(files[key], bucket, key, Config=one_thread), block)
                for block in blocks
            )
            for number, _ in enumerate(chain.from_iterable(uploads), 1):
                if number == len(files) or time.monotonic() - said > SECONDS_BETWEEN_LINES:
                    said = time.monotonic()
                    print(f"{number:,} of {len(files):,} files uploaded")
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure the others need not start

    def download(self, bucket, keys, prefix, folder):
        """Download objects into a folder, without the prefix of their keys; returns the paths."""
        paths = [Path(folder, key.removeprefix(prefix)) for key in keys]
        for key, path in zip(keys, paths, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.client("s3").download_file(bucket, key, path)
        return paths

    def delete_objects(self, bucket, prefix=""):
        """Delete every object below a prefix, with all its versions. Raises CloudError where one is refused."""
        answers = self.session.resource("s3").Bucket(bucket).object_versions.filter(Prefix=prefix).delete()
        if refused := jmespath.search("[].Errors[]", answers):
            first = refused[0]
            raise CloudError(
                f"{len(refused):,} objects of {bucket} were not deleted, {first['Key']} the first: {first['Code']} "
                f"({first.get('Message', 'no reason given')}); expected the right s3:DeleteObjectVersion: try again"
            )

    # --- Its cluster

    def find_primary(self, cluster_id):
        """Find the cluster's primary node: its EC2 identifier, which a tunnel by SSM needs."""
        nodes = self.client("emr").list_instances(
            ClusterId=cluster_id, InstanceGroupTypes=["MASTER"], InstanceStates=["RUNNING"]
        )["Instances"]
        return nodes[0]["Ec2InstanceId"] if nodes else "(no primary node runs)"

    def run_step(self, cluster_id, bucket, name, command, max_hours):
        """Run a command on the primary node as a step, and wait. command: list of words.

        Raises CloudError where it fails, with the place of its log and the last lines; and SECONDS_TO_END after
        max_hours, when the command should have ended by itself.
        """
        emr = self.client("emr")
        jar = {"Jar": "command-runner.jar", "Args": command}
        step = {"Name": name, "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}
        (step_id,) = emr.add_job_flow_steps(JobFlowId=cluster_id, Steps=[step])["StepIds"]
        last = {}

        def look():
            status = emr.describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]["Status"]
            news = [f"step {step_id}: {status['State']}"] if status["State"] != last.get("State") else []
            last.update(status)
            return news, status["State"] not in ("PENDING", "RUNNING", "CANCEL_PENDING")

        self._follow(look, max_hours, SECONDS_TO_END)
        if last["State"] != "COMPLETED":
            details = last.get("FailureDetails", {})
            log = f"logs/{cluster_id}/steps/{step_id}/stderr.gz"
            said = ", ".join(filter(None, [details.get("Reason"), details.get("Message")]))
            raise CloudError(
                f"the step {name} is {last['State']} ({said or 'EMR gives no reason'}), expected COMPLETED; "
                f"its log: s3://{bucket}/{log}, which ends with\n{self._read_end(bucket, log)}"
            )

    def _read_end(self, bucket, key, lines=20):
        """Read the last lines of a compressed log, which reaches S3 some minutes late; or say why they are not read."""
        end = time.monotonic() + SECONDS_FOR_LOG
        try:
            while not self.list_objects(bucket, key):
                if time.monotonic() > end:
                    return "(it has not come yet: look there later)"
                time.sleep(self.poll_seconds)
            content = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        except (BotoCoreError, ClientError) as error:  # what failed is the step, and is to be told
            return f"(it could not be read: {explain(error)})"
        return "\n".join(gzip.decompress(content).decode(errors="replace").splitlines()[-lines:])

    # --- Its end

    def disable_cluster(self):
        """End the cluster and leave the rest of the stack: bucket, roles, network, which cost nothing by the hour.

        A stack that takes no update any more is deleted instead, but for its bucket.
        """
        cloudformation, stack = self.client("cloudformation"), self.describe()
        if is_enabled(stack) and stack["StackStatus"] == "UPDATE_IN_PROGRESS":
            cloudformation.cancel_update_stack(StackName=self.name)
        if stack and is_changing(stack):
            self._wait(RESTING, stack["StackId"])
            stack = self.describe()
        if stack and stack["StackStatus"] in FAILED:
            print(f"the stack is {stack['StackStatus']}, which takes no update: it is deleted, and its bucket stays")
            self.delete()
            return
        if stack and stack["StackStatus"] in NEVER_CREATED:
            return
        if not is_enabled(stack):  # another run of this may have been interrupted here
            self._delete_endpoints()
            return
        kept = [parameter["ParameterKey"] for parameter in stack["Parameters"] if parameter["ParameterKey"] != ENABLED]
        values = [{"ParameterKey": name, "UsePreviousValue": True} for name in kept]
        cloudformation.update_stack(
            StackName=self.name,
            UsePreviousTemplate=True,
            Parameters=[{"ParameterKey": ENABLED, "ParameterValue": "false"}, *values],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        self._wait()
        self._delete_endpoints()

    def delete(self, bucket=None):
        """Delete the stack, then the bucket, which the stack leaves, with every version of what it holds."""
        if stack := self.describe():
            self._delete_endpoints()
            self.client("cloudformation").delete_stack(StackName=self.name)
            self._wait(("DELETE_COMPLETE",), stack["StackId"])
        if bucket:
            self.delete_objects(bucket)
            self.client("s3").delete_bucket(Bucket=bucket)

    def _find_endpoints(self):
        """Find the interface endpoints of the stack's network: its own and, without its tag, those that EMR makes."""
        ec2, tag = self.client("ec2"), {"Name": f"tag:{TAG}", "Values": [self.name]}
        if not (networks := jmespath.search("Vpcs[].VpcId", ec2.describe_vpcs(Filters=[tag]))):
            return []
        filters = [{"Name": "vpc-id", "Values": networks}, {"Name": "vpc-endpoint-type", "Values": ["Interface"]}]
        there = "VpcEndpoints[?State != 'deleted'].VpcEndpointId"
        return jmespath.search(there, ec2.describe_vpc_endpoints(Filters=filters)) or []

    def _delete_endpoints(self):
        """Delete what the end of the cluster leaves of them: EMR may make one, and need not take it away.

        Its policy AmazonEMRServicePolicy_v2 lets it create some, and delete none. The network could not go before them.
        """
        if left := self._find_endpoints():
            print(f"deleting interface endpoints: {', '.join(left)}")
            answer = self.client("ec2").delete_vpc_endpoints(VpcEndpointIds=left)
            for refused in answer.get("Unsuccessful", []):  # no error: what stays is found by prove_nothing_is_left
                reason = refused.get("Error", {}).get("Message", "no reason given")
                print(f"not deleted, {refused.get('ResourceId')}: {reason}")

    def name_bucket(self):
        """Give the name that the bucket has, or would have, in the caller's account."""
        if self.bucket is None:
            account = self.client("sts").get_caller_identity()["Account"]
            self.bucket = f"{self.name}-{account}-{self.region}"  # as in emr-cluster.yaml
        return self.bucket

    def confirm_bucket(self, values):
        """Check that the addresses on S3 among some parameters are in the stack's bucket: its machines reach no other.

        Raises CloudError. A rehearsal, which knows no account, takes any.
        """
        addresses = {name: value for name, value in values.items() if str(value).startswith("s3://")}
        for name, value in addresses.items():
            if not self.rehearsal and storage.find_bucket(value) != self.name_bucket():
                raise CloudError(
                    f"{name} is {value!r}, but the machines reach no other bucket than {self.name_bucket()!r}: bring "
                    f"the files there, and correct the address"
                )

    def confirm_deletion(self, named):
        """Check that who wants the bucket deleted has named it, which no slip of the hand does. named: "" for nobody.

        Raises CloudError where it is another name. A rehearsal, which knows no account, takes any.
        """
        if named and not self.rehearsal and named != self.name_bucket():
            raise CloudError(
                f"the bucket to delete is given as {named!r}, expected {self.name_bucket()!r}: deleting it takes "
                f"pictures and results along for good; give this name to confirm, or none to keep it"
            )

    def find_bucket(self):
        """Find the bucket's name, also where the stack is gone and has left it; None where there is none."""
        name = self.name_bucket()
        buckets = self.client("s3").list_buckets(Prefix=name, BucketRegion=self.region).get("Buckets", [])
        return next((bucket["Name"] for bucket in buckets if bucket["Name"] == name), None)

    def list_what_costs(self):
        """List what is still paid by the hour, with the stack's tag or in its network: (kind, identifier)."""
        emr, ec2 = self.client("emr"), self.client("ec2")
        pages = emr.get_paginator("list_clusters").paginate(ClusterStates=ACTIVE)
        clusters = [cluster["Id"] for page in pages for cluster in page.get("Clusters", [])]
        tag = {"Key": TAG, "Value": self.name}
        mine = [one for one in clusters if tag in emr.describe_cluster(ClusterId=one)["Cluster"]["Tags"]]
        found = [("EMR cluster", one) for one in mine]
        for kind, operation, argument, states, where in PAID_BY_THE_HOUR:
            filters = [{"Name": f"tag:{TAG}", "Values": [self.name]}, *states]
            answer = getattr(ec2, operation)(**{argument: filters})
            found += [(kind, one) for one in jmespath.search(where, answer) or []]
        return found + [("interface endpoint", one) for one in self._find_endpoints()]

    def prove_nothing_is_left(self):
        """Prove that nothing is left which is paid by the hour, given time to go. Raises CloudError with what is."""
        left, end = "", time.monotonic() + SECONDS_TO_GO

        def look():
            nonlocal left
            seen, left = left, ", ".join(f"{kind} {one}" for kind, one in self.list_what_costs())
            news = [f"still there: {left}"] if left not in ("", seen) else []
            return news, not left or time.monotonic() > end

        self._follow(look)
        if left:
            raise CloudError(f"still there, and paid by the hour: {left}; expected nothing: end these by hand")
        kinds = ", ".join(["EMR cluster", *(row[0] for row in PAID_BY_THE_HOUR), "interface endpoint"])
        answers = "rehearsed answers" if self.rehearsal else "AWS"
        print(f"nothing left with the tag {TAG}={self.name} in {self.region}, says {answers}: no {kinds}")


def is_changing(stack):
    """Say whether a stack, as describe gives it, is on its way to another state."""
    return stack["StackStatus"].endswith("IN_PROGRESS") and stack["StackStatus"] not in NEVER_CREATED


def is_enabled(stack):
    """Say whether a stack, as describe gives it, has a cluster or is about to; None has not."""
    asked = {"ParameterKey": ENABLED, "ParameterValue": "true"}
    return stack is not None and asked in stack.get("Parameters", [])


def write_value(value):
    """Write a parameter's value as CloudFormation reads it, whose "true" is small."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def write_event(event):
    """Write one event of a stack as a line."""
    reason = f" ({event['ResourceStatusReason']})" if event.get("ResourceStatusReason") else ""
    return f"{event['Timestamp']:%H:%M:%S} {event['ResourceStatus']} {event['LogicalResourceId']}{reason}"


def may_pass(error):
    """Say whether an error may pass: the network comes back, AWS is less busy, or a person signs in again."""
    if isinstance(error, ClientError):
        is_busy = error.response.get("ResponseMetadata", {}).get("MaxAttemptsReached")  # botocore tries those again
        return bool(is_busy) or error.response["Error"].get("Code") in EXPIRED
    signed_out = SSOError | TokenRetrievalError | LoginError | CredentialRetrievalError
    return isinstance(error, HTTPClientError | NoConnectionError | signed_out)


def explain(error):
    """Explain an error of AWS's: what was found, and what to do where that is known."""
    if isinstance(error, NoCredentialsError):
        return (
            "found no credentials of AWS, expected AWS_PROFILE, AWS_ACCESS_KEY_ID or a role: run `aws configure sso`, "
            "or set dry_run to see the calls without"
        )
    if isinstance(error, EndpointConnectionError):
        return f"{error}: check the network"
    if isinstance(error, ClientError):
        remedy = REMEDIES.get(error.response["Error"].get("Code"), "see what AWS says of it")
        return f"{error}: {remedy}"
    return str(error) or type(error).__name__


# --- Without AWS -------------------------------------------------------------------------------------------------


class Rehearsal:
    """Answers every call of a session in AWS's place: botocore checks it, it is shown, and it is not sent.

    calls: [(service, operation, parameters)], in order.
    """

    def __init__(self, session, stack_name):
        """Stand between a session and AWS. session: boto3.Session, before its first client."""
        self.calls, self.stack_name, self.region = [], stack_name, session.region_name
        session.events.register("provide-client-params", self._show)
        session.events.register("before-call", self._answer)

    def _show(self, params, model, **_):
        """Show one call; of many alike in a row, the first ones."""
        self.calls.append((model.service_model.service_name, model.name, params))
        alike = list(takewhile(lambda call: call[:2] == self.calls[-1][:2], reversed(self.calls)))
        shown = {name: value for name, value in params.items() if name != "Body"}
        if len(alike) <= SHOWN_ALIKE:
            print(f"{model.service_model.service_name} {model.name} {SHORT.repr(shown)}")
        elif len(alike) == SHOWN_ALIKE + 1:
            print(f"{model.service_model.service_name} {model.name} ... and so on")

    def _answer(self, model, **_):
        """Answer one call as if all went well; a stack can be created once only."""
        if model.name == "CreateStack" and self._count(model.name) > 1:
            error = {"Code": "AlreadyExistsException", "Message": "created before"}
            return AWSResponse("", 400, {}, None), {"Error": error, "ResponseMetadata": {}}
        return AWSResponse("", 200, {}, None), self._answers().get(model.name, {})

    def _answers(self):
        """Make the answers that the steps need, by operation."""
        account, instance = "111122223333", "i-00000000000000000"
        bucket = f"{self.stack_name}-{account}-{self.region}"
        outputs = {"BucketName": bucket, "ClusterId": "j-REHEARSAL", "HubSecretArn": "arn-of-the-secret"}
        stack = {
            "StackId": self.stack_name,
            "StackStatus": "DELETE_COMPLETE" if self._count("DeleteStack") else "UPDATE_COMPLETE",
            "Parameters": [{"ParameterKey": ENABLED, "ParameterValue": "true"}],
            "Outputs": [{"OutputKey": name, "OutputValue": value} for name, value in outputs.items()],
        }
        actions, allowed = self.calls[-1][2].get("ActionNames", []), {"EvalDecision": "allowed"}
        return {
            "SimulatePrincipalPolicy": {"EvaluationResults": [{"EvalActionName": one} | allowed for one in actions]},
            "GetServiceQuota": {"Quota": {"Value": 1000.0}},
            "GetCallerIdentity": {"Account": account, "Arn": f"arn:aws:iam::{account}:user/rehearsal"},
            "DescribeStacks": {"Stacks": [stack]},
            "ListBuckets": {"Buckets": [{"Name": bucket}]},
            "ListInstances": {"Instances": [{"Ec2InstanceId": instance}]},
            "AddJobFlowSteps": {"StepIds": ["s-REHEARSAL"]},
            "DescribeStep": {"Step": {"Status": {"State": "COMPLETED"}}},
            "CreateMultipartUpload": {"UploadId": "rehearsal"},
            "UploadPart": {"ETag": "rehearsal"},
        }

    def _count(self, operation):
        """Count the calls of an operation."""
        return sum(call[1] == operation for call in self.calls)


# --- The notebook's parameters -----------------------------------------------------------------------------------


def is_local_folder(path):
    """Say whether a folder of this machine is there."""
    return isinstance(path, str) and path != "" and "://" not in path and storage.is_folder(storage.resolve(path))


def is_region(region):
    """Say whether a region lies in the European Union; raises ValueError, with those that do, where it does not."""
    return regions.check_region(region) is None


def is_instance_type(name):
    """Say whether a type of machine has a known price; raises ValueError where it has not."""
    return isinstance(name, str) and count_cores(name) > 0


def is_whole(least, most):
    """Make a rule: a whole number from least to most."""
    return lambda number: type(number) is int and least <= number <= most


def is_among(*numbers):
    """Make a rule: one of some whole numbers, those that emr-cluster.yaml knows."""
    return lambda number: type(number) is int and number in numbers


def is_positive(number):
    """Say whether a value is a number above 0."""
    return type(number) in (int, float) and number > 0


def is_choice(value):
    """Say whether a value is true or false."""
    return isinstance(value, bool)


def is_below(prefix):
    """Make a rule: an address on S3 below a prefix of a bucket, or nothing."""
    return lambda path: path is None or (
        isinstance(path, str) and re.fullmatch(rf"s3://[^/]+/{prefix}/.+", path) is not None
    )


def is_security_group(name):
    """Say whether a value may be the identifier of a security group, or is empty."""
    return isinstance(name, str) and re.fullmatch(r"(sg-[0-9a-f]{8,17})?", name) is not None


def choose_run_rules(rules):
    """Choose the rules of what may be given for a run of cloud.ipynb. rules: those of the notebooks, by name.

    The bucket's paths and the cluster's Spark are not asked for. Other addresses are only looked at here: what they
    lead to may not be there before the cluster is. They lie in folders where the machines may read or write, and where
    no run takes them for pictures; that the bucket is the stack's, Stack.confirm_bucket checks, and that no run deletes
    them with its earlier results, the run itself.
    """
    is_file, is_packed = is_below("project"), is_below("output")
    changed = {
        "weights": (
            lambda value: value == "imagenet" or (value and is_file(value)),
            '"imagenet", or an address such as s3://BUCKET/project/MobileNetV2.weights.h5',
        ),
        "pca_model": (is_file, "an address such as s3://BUCKET/project/pca, or nothing"),
        "packed_path": (is_packed, "an address such as s3://BUCKET/output/packed, or nothing"),
        "trigger": (lambda value: value is None, "nothing, since such a run has no end: start it in the hub"),
    }
    return {name: changed.get(name, rule) for name, rule in rules.items() if name not in SET_FOR_A_RUN}


def complain_run(values):
    """Say what is wrong with the parameters of a run of cloud.ipynb together; None where they are right."""
    backbone = values.get("backbone", parameters.DEFAULT_BACKBONE)
    if backbone != parameters.DEFAULT_BACKBONE and values.get("weights", "imagenet") == "imagenet":
        return (
            f"backbone is {backbone!r}, whose weights would be downloaded, and the machines reach no internet: give "
            f"weights, a file of them such as s3://BUCKET/project/{backbone}.weights.h5"
        )
    return parameters.complain_saved(values)


def complain_nodes(values):
    """Say what is wrong with the numbers of core nodes together; None where they are right."""
    if values["core_nodes"] > values["max_core_nodes"]:
        return (
            f"core_nodes is {values['core_nodes']}, more than max_core_nodes, {values['max_core_nodes']}: "
            f"lower the first or raise the second"
        )
    return None


# name: (is it right?, what is expected), for parameters.check
RULES = {
    "region": (is_region, "a region in the European Union, such as eu-west-3"),
    "stack_name": (
        lambda name: isinstance(name, str) and re.fullmatch("[a-z][a-z0-9-]{1,25}[a-z0-9]", name),
        "3 to 27 small letters, digits and hyphens, a letter first: the bucket is named after it",
    ),
    "images_path": (is_local_folder, "a folder of this machine, from the project's root"),
    "results_path": (lambda path: isinstance(path, str) and path != "", "a folder of this machine"),
    "wheels_path": (lambda path: isinstance(path, str) and path != "", "a folder of this machine"),
    "primary_type": (is_instance_type, "a type of machine such as m6i.xlarge"),
    "worker_type": (is_instance_type, "a type of machine such as m6i.xlarge"),
    "core_nodes": (is_whole(1, 8), "a whole number from 1 to 8"),
    "max_core_nodes": (is_among(1, 2, 4, 8), "1, 2, 4 or 8"),
    "max_task_nodes": (is_among(0, 1, 2, 4, 8, 16, 32), "0, 1, 2, 4, 8, 16 or 32"),
    "idle_seconds": (is_whole(60, 604800), "a whole number from 60 to 604800"),
    "pictures_per_second_per_core": (is_positive, "a number above 0"),
    "max_hours": (is_positive, "a number above 0"),
    "poll_seconds": (is_positive, "a number above 0"),
    "run_parameters": (lambda values: isinstance(values, dict), "parameters of cloud.ipynb, such as {save_csv: true}"),
    "studio_security_group": (is_security_group, "a security group such as sg-0123456789abcdef0, or nothing"),
    "delete_bucket": (
        lambda name: isinstance(name, str) and re.fullmatch(r"(\S+-\d{12}-\S+)?", name),
        "nothing, or the bucket's name, which confirms it, such as fruits-123456789012-eu-west-3",
    ),
    "tear_down_on_failure": (is_choice, "true or false"),
    "dry_run": (is_choice, "true or false"),
}


def main(arguments=None):
    """Clean up from a terminal: 0 where nothing is left that costs by the hour, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m fruits.cluster", description="End a cluster and what it cost.")
    parser.add_argument("stack")
    parser.add_argument("--region", required=True)
    parser.add_argument(
        "--delete-bucket", default="", metavar="BUCKET", help="also the stack, this bucket of it, and all that it holds"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the calls, send none")
    options = parser.parse_args(arguments)
    try:
        stack = Stack(options.stack, options.region, dry_run=options.dry_run)
        stack.confirm_deletion(options.delete_bucket)
        if not stack.describe():
            print(f"there is no stack {options.stack!r} in {options.region}: is that its name?")
        stack.disable_cluster()
        if options.delete_bucket:
            stack.delete(stack.find_bucket())
        stack.prove_nothing_is_left()
    except (CloudError, ValueError, BotoCoreError, ClientError) as error:
        print(f"cluster: {explain(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
