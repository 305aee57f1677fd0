"""The template of the cluster: linted for each region, deployed on moto in both phases, read back, its policies tried.

Each check is a function of what was deployed; the last test breaks the template, one property at a time, and sees that
the check complains.
"""

import copy
import fnmatch
import functools
import json
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.session import get_session
from cfnlint.api import lint
from cfnlint.config import ManualArgs
from cfnlint.decode import cfn_yaml
from moto import mock_aws
from moto.cloudformation import parsing
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, iam_backends

from fruits import headless, regions

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "emr-cluster.yaml").read_text()
TEMPLATE = json.loads(json.dumps(cfn_yaml.loads(TEXT)))
REGION, ACCOUNT = "eu-west-3", "123456789012"
BUCKET = f"fruits-{ACCOUNT}-{REGION}"
BUCKET_ARN = f"arn:aws:s3:::{BUCKET}"
CLUSTER_ARN = f"arn:aws:elasticmapreduce:{REGION}:{ACCOUNT}:cluster/j-1"
NODES_ARN, SERVICE_ARN = (f"arn:aws:iam::{ACCOUNT}:role/fruits-{name}-{REGION}" for name in ("nodes", "service"))
SPOT_ARN = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
client = functools.cache(boto3.client)  # made once, they answer in each test's own moto
MANAGED_POLICIES = json.loads(aws_managed_policies_data)
TAG = "for-use-with-amazon-emr-managed-policies"
PAID_BY_THE_HOUR = {"Cluster", "SsmEndpoint", "SsmMessagesEndpoint", "SecretsEndpoint", "KeyEndpoint"}
ON_REQUEST = {"StudioToLivy"}
FREE_OR_CENTS = {  # the key and the secret are cents a day
    "AWS::EC2::RouteTable", "AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupIngress", "AWS::EC2::Subnet",
    "AWS::EC2::SubnetRouteTableAssociation", "AWS::EC2::VPC", "AWS::EC2::VPCEndpoint",
    "AWS::EMR::SecurityConfiguration", "AWS::IAM::InstanceProfile", "AWS::IAM::ManagedPolicy", "AWS::IAM::Role",
    "AWS::KMS::Key", "AWS::S3::Bucket", "AWS::S3::BucketPolicy", "AWS::SecretsManager::Secret",
}  # fmt: skip

# --- Deploying on moto, whose CloudFormation drops much of what a template says --------------------------------------


class StandIn:
    """A resource that moto's CloudFormation lacks or halves, made by boto3's calls, which botocore checks.

    Its methods are those that moto asks of a resource.
    """

    def __init__(self, identifier, region):
        self.physical_resource_id, self.region = identifier, region

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **_):
        return cls(cls.make(resource_name, cloudformation_json["Properties"], region_name), region_name)

    @classmethod
    def has_cfn_attr(cls, _):
        return True

    def get_cfn_attribute(self, name):
        return f"{name} of {self.physical_resource_id}"

    def is_created(self):
        return True

    def delete(self, *_):
        pass


class BucketPolicy(StandIn):
    @staticmethod
    def make(name, properties, region):
        policy = json.dumps(properties["PolicyDocument"])
        client("s3", region).put_bucket_policy(Bucket=properties["Bucket"], Policy=policy)
        return name


class Secret(StandIn):
    @staticmethod
    def make(name, properties, region):
        secrets = client("secretsmanager", region)
        password = secrets.get_random_password(**properties["GenerateSecretString"])["RandomPassword"]
        return secrets.create_secret(Name=name, SecretString=password)["ARN"]


class SecurityConfiguration(StandIn):
    @staticmethod
    def make(name, properties, region):
        settings = json.dumps(properties["SecurityConfiguration"])
        return client("emr", region).create_security_configuration(Name=name, SecurityConfiguration=settings)["Name"]


class Cluster(StandIn):
    request = None

    @staticmethod
    def make(_, properties, region):
        Cluster.request = write_request(properties)
        return client("emr", region).run_job_flow(**Cluster.request)["JobFlowId"]


def write_request(properties):
    """Write a cluster's properties as the call RunJobFlow wants them; what it does not know, botocore refuses."""
    request = copy.deepcopy(properties)
    instances = request["Instances"]
    groups = [instances.pop("MasterInstanceGroup") | {"InstanceRole": "MASTER"}]
    groups += [instances.pop("CoreInstanceGroup") | {"InstanceRole": "CORE"}]
    groups += [group | {"InstanceRole": "TASK"} for group in instances.pop("TaskInstanceGroups", [])]
    instances["InstanceGroups"] = [{"Market": "ON_DEMAND"} | group for group in groups]
    limits = request["ManagedScalingPolicy"]["ComputeLimits"]
    limits.update({name: int(value) for name, value in limits.items() if name != "UnitType"})
    settings = [one for one in request["Configurations"] if one]  # CloudFormation takes AWS::NoValue out of a list
    request["Configurations"] = [write_configuration(one) for one in settings]
    return request


def write_configuration(configuration):
    """Write one classification as the API wants it, whose key for the properties is another one."""
    written = {"Classification": configuration["Classification"]}
    written["Properties"] = configuration.get("ConfigurationProperties", {})
    written["Configurations"] = [write_configuration(one) for one in configuration.get("Configurations", [])]
    return written


def complete_bucket(name, properties, region):
    """Send what moto's CloudFormation drops of a bucket."""
    s3 = client("s3", region)
    if "PublicAccessBlockConfiguration" in properties:
        block = properties["PublicAccessBlockConfiguration"]
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
    if "VersioningConfiguration" in properties:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])
    if "OwnershipControls" in properties:
        s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=properties["OwnershipControls"])
    rules = []
    for rule in copy.deepcopy(properties["LifecycleConfiguration"]["Rules"]):
        names = {"ExpirationInDays": "Days", "ExpiredObjectDeleteMarker": "ExpiredObjectDeleteMarker"}
        if expiration := {names[name]: rule.pop(name) for name in names if name in rule}:
            rule["Expiration"] = expiration
        rules.append({"ID": rule.pop("Id"), "Filter": {"Prefix": rule.pop("Prefix", "")}} | rule)
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})


def complete_role(name, properties, region):
    """Send what moto's CloudFormation drops of a role: the policies attached; and its own ones as text."""
    iam = client("iam", region)
    for policy in properties["Policies"]:
        document = json.dumps(policy["PolicyDocument"])
        iam.put_role_policy(RoleName=name, PolicyName=policy["PolicyName"], PolicyDocument=document)
    for arn in properties.get("ManagedPolicyArns", []):
        if arn.startswith("arn:aws:iam::aws:"):  # moto has copies of all of AWS's own; one is enough
            title = arn.rpartition("/")[2]
            policy = AWSManagedPolicy.from_data(title, ACCOUNT, region, MANAGED_POLICIES[title])
            iam_backends[ACCOUNT]["aws"].managed_policies[arn] = policy
        iam.attach_role_policy(RoleName=name, PolicyArn=arn)


def complete_subnet(name, properties, region):
    """Send what moto's CloudFormation drops of a subnet."""
    is_public = {"Value": properties["MapPublicIpOnLaunch"]}
    client("ec2", region).modify_subnet_attribute(SubnetId=name, MapPublicIpOnLaunch=is_public)


def complete_endpoint(name, properties, region):
    """Send an endpoint's policy as text, which moto's CloudFormation keeps as an object."""
    if "PolicyDocument" in properties:
        document = json.dumps(properties["PolicyDocument"])
        client("ec2", region).modify_vpc_endpoint(VpcEndpointId=name, PolicyDocument=document)


def complete_vpc(name, properties, region):
    """Send what moto's CloudFormation drops of a network."""
    for attribute in ("EnableDnsSupport", "EnableDnsHostnames"):
        value = {"Value": properties.get(attribute, False)}
        client("ec2", region).modify_vpc_attribute(VpcId=name, **{attribute: value})


def complete_security_group(name, properties, region):
    """Send what moto's CloudFormation drops of a security group: its rules outwards."""
    if "SecurityGroupEgress" not in properties:
        return
    group = boto3.resource("ec2", region).SecurityGroup(name)
    group.revoke_egress(IpPermissions=group.ip_permissions_egress)
    for rule in properties["SecurityGroupEgress"]:
        ports = {key: rule[key] for key in ("IpProtocol", "FromPort", "ToPort")}
        where = {"UserIdGroupPairs": [{"GroupId": rule["DestinationSecurityGroupId"]}]}
        if "CidrIp" in rule:
            where = {"IpRanges": [{"CidrIp": rule["CidrIp"]}]}
        group.authorize_egress(IpPermissions=[ports | where])


def complete_key(name, properties, region):
    """Send a key's policy as text, which moto's CloudFormation keeps as an object."""
    policy = json.dumps(properties["KeyPolicy"])
    client("kms", region).put_key_policy(KeyId=name, PolicyName="default", Policy=policy)


MADE = {
    "AWS::S3::BucketPolicy": BucketPolicy,
    "AWS::SecretsManager::Secret": Secret,
    "AWS::EMR::SecurityConfiguration": SecurityConfiguration,
    "AWS::EMR::Cluster": Cluster,
}
COMPLETED = {
    "AWS::S3::Bucket": complete_bucket,
    "AWS::IAM::Role": complete_role,
    "AWS::EC2::VPC": complete_vpc,
    "AWS::EC2::Subnet": complete_subnet,
    "AWS::EC2::VPCEndpoint": complete_endpoint,
    "AWS::EC2::SecurityGroup": complete_security_group,
    "AWS::KMS::Key": complete_key,
}


@pytest.fixture
def deploy(monkeypatch):
    """Deploy a template on a moto of its own: deploy(template, ClusterEnabled="true", ...).

    Returns SimpleNamespace: region, outputs, types and ids (by logical name, of what was created), request (the call
    that made the cluster).
    """
    create, models = parsing.parse_and_create_resource, parsing.get_model_map()
    monkeypatch.setattr(parsing, "get_model_map", lambda: models | MADE)

    def create_whole(logical_id, resource, resources, account_id, region_name):
        created = create(logical_id, resource, resources, account_id=account_id, region_name=region_name)
        if created is not None and resource["Type"] in COMPLETED:
            properties = parsing.clean_json(resource["Properties"], resources)
            COMPLETED[resource["Type"]](created.physical_resource_id, properties, region_name)
        return created

    monkeypatch.setattr(parsing, "parse_and_create_resource", create_whole)

    def deploy_it(template=TEMPLATE, region=REGION, **values):
        Cluster.request = None
        cloudformation = client("cloudformation", region)
        cloudformation.create_stack(
            StackName="fruits",
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        outputs = cloudformation.describe_stacks(StackName="fruits")["Stacks"][0].get("Outputs", [])
        rows = cloudformation.list_stack_resources(StackName="fruits")["StackResourceSummaries"]
        return SimpleNamespace(
            region=region,
            outputs={output["OutputKey"]: output["OutputValue"] for output in outputs},
            types={row["LogicalResourceId"]: row["ResourceType"] for row in rows if row["LogicalResourceId"].strip()},
            ids={row["LogicalResourceId"]: row.get("PhysicalResourceId") for row in rows},
            request=Cluster.request,
        )

    with mock_aws():
        yield deploy_it


# --- A small evaluator of policies, by the rules that AWS publishes --------------------------------------------------


def is_allowed(statements, action, resource, **context):
    """Say whether statements allow an action: one that denies wins, and nothing is allowed by itself.

    context: condition keys, with "__" for ":" (aws__RequestedRegion="eu-west-3"); the region is Paris unless said.
    """
    keys = {"aws:RequestedRegion": REGION} | {name.replace("__", ":"): value for name, value in context.items()}
    effects = {one["Effect"] for one in statements if applies(one, action, resource, keys)}
    return effects == {"Allow"}


def applies(statement, action, resource, keys):
    """Say whether a statement speaks of an action on a resource under conditions."""
    if "NotAction" in statement:
        speaks_of_action = not matches(action.lower(), [one.lower() for one in listed(statement["NotAction"])])
    else:
        speaks_of_action = matches(action.lower(), [one.lower() for one in listed(statement["Action"])])
    return speaks_of_action and matches(resource, listed(statement["Resource"])) and holds(statement, keys)


def holds(statement, keys):
    """Say whether all conditions of a statement hold; one on a key that is missing holds only where it negates."""
    return all(
        holds_one(operator, keys.get(key), listed(wanted))
        for operator, conditions in statement.get("Condition", {}).items()
        for key, wanted in conditions.items()
    )


def holds_one(operator, value, wanted):
    """Say whether one condition holds. value: None where the request lacks the key. Raises KeyError where unknown."""
    ways = {
        "StringEquals": lambda: value in wanted,
        "StringNotEquals": lambda: value not in wanted,
        "StringLike": lambda: matches(value, wanted),
        "ArnLike": lambda: matches(value, wanted),
        "ArnEquals": lambda: matches(value, wanted),
        "Bool": lambda: str(value).lower() in wanted,
        "NumericLessThan": lambda: float(value) < float(wanted[0]),
    }
    way = ways[operator]
    return operator == "StringNotEquals" if value is None else way()


def matches(text, patterns):
    """Say whether a text is one of some patterns with * and ?."""
    return any(fnmatch.fnmatchcase(text, pattern.replace("[", "[[]")) for pattern in patterns)


def listed(value):
    """Give a list also where a policy has one value."""
    return value if isinstance(value, list) else [value]


def read_role(name):
    """Read a role's statements back from IAM, its own and those of the policies attached."""
    iam = client("iam", REGION)
    documents = [
        iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
    ]
    for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        version = iam.get_policy(PolicyArn=policy["PolicyArn"])["Policy"]["DefaultVersionId"]
        found = iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId=version)
        documents.append(found["PolicyVersion"]["Document"])
    return [statement for document in documents for statement in document["Statement"]]


# --- The template itself ---------------------------------------------------------------------------------------------


def find_complaints(template, region):
    """List what cfn-lint says of a template for one region."""
    return [str(one) for one in lint(json.dumps(template), config=ManualArgs(regions=[region]))]


@pytest.mark.parametrize("region", regions.EUROPEAN_UNION)
def test_cfn_lint_has_nothing_to_say_in_a_region_of_the_union(region):
    assert lint(TEXT, config=ManualArgs(regions=[region])) == []


def test_cfn_lint_does_read_what_it_is_given():
    assert "E3002" in str(lint(TEXT.replace("EbsRootVolumeSize", "RootVolume"), config=ManualArgs(regions=[REGION]))[0])


def list_all_regions():
    """List the regions of all partitions of AWS, as botocore knows them: China's and the governments' too."""
    data = get_session().get_data("endpoints")["partitions"]
    return {region for partition in data for region in partition["regions"]}


def find_accepted_regions(template):
    """Find the regions in which every assertion of the template's rules holds, with the default parameters."""
    defaults = {name: str(parameter["Default"]) for name, parameter in template["Parameters"].items()}
    regions_known = list_all_regions()
    return {region for region in regions_known if holds_rules(template, defaults | {"AWS::Region": region})}


def holds_rules(template, values):
    """Say whether every assertion of the template's rules holds. values: {name that Ref may ask for: str}."""
    assertions = [one for rule in template["Rules"].values() for one in rule["Assertions"]]
    return all(evaluate(one["Assert"], values) for one in assertions)


def evaluate(expression, values):
    """Evaluate the functions of CloudFormation's rules that the template uses; another raises KeyError."""
    if isinstance(expression, list):
        return [evaluate(one, values) for one in expression]
    if not isinstance(expression, dict):
        return expression
    ((function, argument),) = expression.items()
    if function == "Ref":
        return values[argument]
    functions = {"Fn::And": all, "Fn::Or": any, "Fn::Equals": lambda two: two[0] == two[1]}
    functions["Fn::Contains"] = lambda two: two[1] in two[0]
    return functions[function](evaluate(argument, values))


def test_the_template_takes_no_more_core_nodes_than_their_limit():
    place = {"AWS::Region": REGION}
    limits = TEMPLATE["Parameters"]["MaxCoreNodes"]["AllowedValues"]
    for limit in limits:
        taken = [n for n in range(1, 9) if holds_rules(TEMPLATE, place | {"CoreCount": str(n), "MaxCoreNodes": limit})]
        assert taken == list(range(1, int(limit) + 1))


def check_regions(template):
    assert find_accepted_regions(template) == set(regions.EUROPEAN_UNION)
    (assertion,) = template["Rules"]["OnlyEuropeanUnion"]["Assertions"]
    assert all(region in assertion["AssertDescription"] for region in regions.EUROPEAN_UNION)


def test_the_template_refuses_every_region_but_the_six_of_the_union():
    assert {"eu-west-2", "eu-central-2", "us-east-1", "cn-north-1", "us-gov-west-1"} < list_all_regions()
    check_regions(TEMPLATE)


@pytest.mark.parametrize("region", ["eu-west-2", "eu-central-2", "us-east-1"])
def test_one_region_too_many_is_found(region):
    broken = copy.deepcopy(TEMPLATE)
    broken["Rules"]["OnlyEuropeanUnion"]["Assertions"][0]["Assert"]["Fn::Contains"][0].append(region)
    with pytest.raises(AssertionError):
        check_regions(broken)


def test_parameters_and_outputs_have_the_names_agreed():
    defaults = {name: str(parameter["Default"]) for name, parameter in TEMPLATE["Parameters"].items()}
    assert defaults == {
        "ProjectName": "fruits", "ClusterEnabled": "false", "ReleaseLabel": "emr-7.14.0", "PrimaryType": "m6i.xlarge",
        "WorkerType": "m6i.xlarge", "CoreCount": "1", "MaxCoreNodes": "2", "MaxTaskNodes": "4", "IdleSeconds": "1800",
        "InTransitEncryption": "false", "StudioSecurityGroup": "",
    }  # fmt: skip
    always = {"BucketName", "HubSecretArn", "InstanceRoleArn", "VpcId", "RouteTableId"}
    assert set(TEMPLATE["Outputs"]) == always | {"ClusterId", "PrimaryDns"}


def test_the_longest_project_name_makes_names_that_aws_takes():
    pattern, longest = TEMPLATE["Parameters"]["ProjectName"]["AllowedPattern"], "a" * 27
    assert re.fullmatch(pattern, longest)
    assert not re.fullmatch(pattern, longest + "a")
    assert not re.fullmatch(pattern, "Fruits")
    region = max(regions.EUROPEAN_UNION, key=len)
    assert len(f"{longest}-{ACCOUNT}-{region}") <= 63
    assert len(f"{longest}-service-{region}") <= 64


def test_the_mapping_sum_is_one_for_all_values_that_the_parameters_allow():
    cores, tasks = (TEMPLATE["Parameters"][name]["AllowedValues"] for name in ("MaxCoreNodes", "MaxTaskNodes"))
    assert TEMPLATE["Mappings"]["Sum"] == {core: {task: int(core) + int(task) for task in tasks} for core in cores}


# --- Deployed: what stands in the account ----------------------------------------------------------------------------


def check_phases(deployed):
    """What is paid by the hour is there with the cluster only; the rest always."""
    always = set(TEMPLATE["Resources"]) - PAID_BY_THE_HOUR - ON_REQUEST
    assert set(deployed.types) == (always if deployed.request is None else always | PAID_BY_THE_HOUR)
    assert {deployed.types[name] for name in always} == FREE_OR_CENTS
    endpoints = client("ec2", deployed.region).describe_vpc_endpoints()["VpcEndpoints"]
    paid = [one["ServiceName"].rpartition(".")[2] for one in endpoints if one["VpcEndpointType"] != "Gateway"]
    clusters = client("emr", deployed.region).list_clusters()["Clusters"]
    has_cluster = deployed.request is not None
    assert sorted(paid) == (["kms", "secretsmanager", "ssm", "ssmmessages"] if has_cluster else [])
    assert [one["Id"] for one in clusters] == ([deployed.outputs["ClusterId"]] if has_cluster else [])


def check_bucket(deployed):
    s3, bucket = client("s3", deployed.region), {"Bucket": deployed.outputs["BucketName"]}
    assert bucket == {"Bucket": f"fruits-{ACCOUNT}-{deployed.region}"}
    (rule,) = s3.get_bucket_encryption(**bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    block = s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"]
    assert len(block) == 4
    assert all(block.values())
    assert s3.get_bucket_versioning(**bucket)["Status"] == "Enabled"
    ownership = s3.get_bucket_ownership_controls(**bucket)["OwnershipControls"]
    assert ownership == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert s3.get_bucket_location(**bucket)["LocationConstraint"] == deployed.region


def check_lifecycle(deployed):
    s3, bucket = client("s3", deployed.region), deployed.outputs["BucketName"]
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert all(rule["Status"] == "Enabled" for rule in rules)
    found = {rule["ID"]: rule for rule in rules}
    assert found["noncurrent-versions"]["NoncurrentVersionExpiration"]["NoncurrentDays"] <= 30
    assert found["incomplete-uploads"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] <= 7
    whole = [found[name]["Filter"]["Prefix"] for name in ("noncurrent-versions", "incomplete-uploads")]
    assert whole == ["", ""]
    days = {rule["Filter"]["Prefix"]: rule.get("Expiration", {}).get("Days") for rule in rules}
    shown = dict.fromkeys(["images/", "output/figures/", "output/cloud.ipynb"], 365)
    assert days == {"": None, "logs/": 30} | shown  # tables of results stay: a run adds to them


def check_bucket_policy(deployed):
    policy = client("s3", deployed.region).get_bucket_policy(Bucket=deployed.outputs["BucketName"])["Policy"]
    statements = json.loads(policy)["Statement"]
    assert {(one["Effect"], one["Principal"]) for one in statements} == {("Deny", "*")}
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}  # what the caller may do otherwise
    for action in ("s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteBucket"):
        for resource in (BUCKET_ARN, f"{BUCKET_ARN}/images/a.jpg"):
            ask = [[everything, *statements], action, resource]
            assert is_allowed(*ask, aws__SecureTransport="true", s3__TlsVersion="1.2")
            assert not is_allowed(*ask, aws__SecureTransport="false")
            assert not is_allowed(*ask, aws__SecureTransport="true", s3__TlsVersion="1.1")


def check_network(deployed):
    """No way in from the world, and the only way out is to S3, to our bucket and the packages."""
    ec2 = client("ec2", deployed.region)
    (vpc,) = [one for one in ec2.describe_vpcs()["Vpcs"] if not one["IsDefault"]]
    mine = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
    (subnet,) = ec2.describe_subnets(Filters=mine)["Subnets"]
    assert not subnet["MapPublicIpOnLaunch"]
    assert all(
        ec2.describe_vpc_attribute(VpcId=vpc["VpcId"], Attribute=name[0].lower() + name[1:])[name]["Value"]
        for name in ("EnableDnsSupport", "EnableDnsHostnames")
    )
    gateways = ec2.describe_internet_gateways()["InternetGateways"] + ec2.describe_nat_gateways()["NatGateways"]
    assert [one for one in gateways if vpc["VpcId"] in str(one)] == []
    tables = ec2.describe_route_tables(Filters=mine)["RouteTables"]
    routes = [route for table in tables for route in table["Routes"]]
    assert {route.get("GatewayId", "").partition("-")[0] for route in routes} <= {"local", "vpce"}
    assert {route.get("DestinationCidrBlock") for route in routes} <= {vpc["CidrBlock"], None}
    for resource in (vpc, subnet):
        assert {"Key": TAG, "Value": "true"} in resource["Tags"]


def check_security_groups(deployed):
    ec2 = client("ec2", deployed.region)
    (vpc,) = [one for one in ec2.describe_vpcs()["Vpcs"] if not one["IsDefault"]]
    mine = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
    groups = [
        one for one in ec2.describe_security_groups(Filters=mine)["SecurityGroups"] if one["GroupName"] != "default"
    ]
    by_description = {group["Description"].split(",")[0]: group for group in groups}
    nodes, service, services = (
        by_description[name] for name in ("Every node of the cluster", "The service EMR", "Services of AWS")
    )
    assert not any(rule["IpRanges"] or rule["Ipv6Ranges"] for group in groups for rule in group["IpPermissions"])
    n, s = nodes["GroupId"], service["GroupId"]
    within = {("tcp", 0, 65535, n), ("udp", 0, 65535, n), ("icmp", -1, -1, n)}
    assert list_rules(nodes["IpPermissions"]) == within | {("tcp", 8443, 8443, s)}
    assert list_rules(service["IpPermissions"]) == {("tcp", 9443, 9443, n)}
    assert list_rules(service["IpPermissionsEgress"]) == {("tcp", 8443, 8443, n)}
    assert list_rules(services["IpPermissions"]) == {("tcp", 443, 443, n)}
    for group in (nodes, service):
        assert {"Key": TAG, "Value": "true"} in group["Tags"]


def list_rules(permissions):
    """List the rules of a security group: {(protocol, from port, to port, the other group)}."""
    return {
        (one["IpProtocol"], one["FromPort"], one["ToPort"], pair["GroupId"])
        for one in permissions
        for pair in one["UserIdGroupPairs"] or [{"GroupId": None}]
    }


def check_s3_endpoint(deployed):
    endpoints = client("ec2", deployed.region).describe_vpc_endpoints()["VpcEndpoints"]
    (gateway,) = [one for one in endpoints if one["VpcEndpointType"] == "Gateway"]
    assert gateway["ServiceName"] == f"com.amazonaws.{deployed.region}.s3"
    assert len(gateway["RouteTableIds"]) == 1
    statements = json.loads(gateway["PolicyDocument"])["Statement"]
    mine = {"aws__PrincipalAccount": ACCOUNT}
    assert is_allowed(statements, "s3:GetObject", f"{BUCKET_ARN}/images/a.jpg", **mine)
    assert is_allowed(statements, "s3:PutObject", f"{BUCKET_ARN}/output/features/a.parquet", **mine)
    assert is_allowed(statements, "s3:ListBucket", BUCKET_ARN, **mine)
    packages = f"arn:aws:s3:::al2023-repos-{deployed.region}-de612dc2/core/mirrors/x86_64/mirror.list"
    assert is_allowed(statements, "s3:GetObject", packages)
    assert is_allowed(statements, "s3:GetObject", f"arn:aws:s3:::repo.{deployed.region}.emr.amazonaws.com/a.rpm")
    assert not is_allowed(statements, "s3:PutObject", packages)
    assert not is_allowed(
        statements, "s3:GetObject", f"{BUCKET_ARN}/images/a.jpg", aws__PrincipalAccount="999999999999"
    )
    assert not is_allowed(statements, "s3:PutObject", "arn:aws:s3:::another-bucket/images/a.jpg", **mine)
    assert not is_allowed(statements, "s3:GetObject", "arn:aws:s3:::another-bucket/a", **mine)
    assert not is_allowed(statements, "s3:DeleteBucket", BUCKET_ARN, **mine)


def check_interface_endpoints(deployed):
    ec2 = client("ec2", deployed.region)
    endpoints = [one for one in ec2.describe_vpc_endpoints()["VpcEndpoints"] if one["VpcEndpointType"] == "Interface"]
    assert len(endpoints) == 4
    for endpoint in endpoints:
        assert endpoint["PrivateDnsEnabled"]
        assert endpoint["SubnetIds"] == [deployed.request["Instances"]["Ec2SubnetId"]]
    check_endpoint_policies(deployed, endpoints)


def check_endpoint_policies(deployed, endpoints):
    """Endpoints let through what the nodes' role may do, for that role, and nothing else."""
    documents = {one["ServiceName"].rpartition(".")[2]: json.loads(one["PolicyDocument"]) for one in endpoints}
    arns = {"HubSecretArn": deployed.outputs["HubSecretArn"], "DiskKeyArn": find_key_arn(deployed)}
    asked = [one for one in ALLOWED_TO_NODES + DENIED_TO_NODES if one[0].partition(":")[0] in documents]
    assert {action.partition(":")[0] for action, _ in asked} == {"ssm", "ssmmessages", "secretsmanager", "kms"}
    others = NODES_ARN.replace(ACCOUNT, "999999999999"), SERVICE_ARN, f"arn:aws:iam::{ACCOUNT}:user/a", None
    for action, resource in asked:
        ask = documents[action.partition(":")[0]]["Statement"], action, arns.get(resource, resource)
        wanted = (action, resource) in ALLOWED_TO_NODES
        assert is_allowed(*ask, aws__PrincipalArn=NODES_ARN) == wanted, (action, resource)
        assert not any(is_allowed(*ask, aws__PrincipalArn=other) for other in others), (action, resource)


def check_encryption(deployed):
    emr, kms = client("emr", deployed.region), client("kms", deployed.region)
    name = deployed.ids["SecurityConfiguration"]
    settings = json.loads(emr.describe_security_configuration(Name=name)["SecurityConfiguration"])
    encryption = settings["EncryptionConfiguration"]
    assert encryption["EnableAtRestEncryption"] is True
    at_rest = encryption["AtRestEncryptionConfiguration"]
    assert at_rest["S3EncryptionConfiguration"] == {"EncryptionMode": "SSE-S3"}
    disks = at_rest["LocalDiskEncryptionConfiguration"]
    assert (disks["EncryptionKeyProviderType"], disks["EnableEbsEncryption"]) == ("AwsKms", True)
    assert kms.describe_key(KeyId=disks["AwsKmsKey"])["KeyMetadata"]["KeyState"] == "Enabled"
    assert kms.get_key_rotation_status(KeyId=disks["AwsKmsKey"])["KeyRotationEnabled"]
    assert settings["InstanceMetadataServiceConfiguration"] == {
        "MinimumInstanceMetadataServiceVersion": 2,
        "HttpPutResponseHopLimit": 2,
    }
    return encryption


def check_key_policy(deployed):
    kms = client("kms", deployed.region)
    (key,) = [one["KeyId"] for one in kms.list_keys()["Keys"]]
    statements = json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])["Statement"]
    root, everybody = statements
    assert root["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}  # leaves it to the roles' own policies
    assert everybody["Principal"] == "*"
    mine = {"kms__CallerAccount": ACCOUNT}
    assert is_allowed([everybody], "kms:CreateGrant", "key", aws__PrincipalArn=SPOT_ARN, **mine)
    assert not is_allowed([everybody], "kms:ScheduleKeyDeletion", "key", aws__PrincipalArn=SPOT_ARN, **mine)
    assert not is_allowed([everybody], "kms:Decrypt", "key", aws__PrincipalArn=NODES_ARN, **mine)
    assert not is_allowed([everybody], "kms:Decrypt", "key", aws__PrincipalArn=SPOT_ARN, kms__CallerAccount="9")


ALLOWED_TO_NODES = [
    ("s3:ListBucket", BUCKET_ARN),
    ("s3:GetBucketLocation", BUCKET_ARN),
    ("s3:ListBucketMultipartUploads", BUCKET_ARN),
    *[("s3:GetObject", f"{BUCKET_ARN}/{key}") for key in (
        "project/bootstrap-emr.sh", "project/wheels/numpy.whl", "images/Pêche/果 é.jpg", "output/pca/metadata",
        "jupyter/jovyan/cloud.ipynb", "project", "images", "output", "jupyter",
    )],
    *[(f"s3:{verb}", f"{BUCKET_ARN}/{folder}/a") for folder in ("output", "jupyter") for verb in (
        "PutObject", "DeleteObject", "AbortMultipartUpload", "ListMultipartUploadParts",
    )],
    ("s3:PutObject", f"{BUCKET_ARN}/logs/j-1/steps/s-1/stderr.gz"),
    ("secretsmanager:GetSecretValue", "HubSecretArn"),
    ("kms:GenerateDataKey", "DiskKeyArn"),
    ("kms:Decrypt", "DiskKeyArn"),
    *[(action, "*") for action in (
        "ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    )],
]  # fmt: skip
DENIED_TO_NODES = [
    *[(f"s3:{verb}", BUCKET_ARN) for verb in (
        "DeleteBucket", "PutBucketPolicy", "DeleteBucketPolicy", "PutBucketPublicAccessBlock", "PutBucketVersioning",
        "PutLifecycleConfiguration", "PutEncryptionConfiguration", "PutBucketAcl",
    )],
    *[(f"s3:{verb}", "arn:aws:s3:::another-bucket") for verb in ("ListBucket", "GetBucketLocation")],
    *[(f"s3:{verb}", f"arn:aws:s3:::another-bucket/{key}") for verb in ("GetObject", "PutObject") for key in (
        "images/a.jpg", "output/a",
    )],
    *[("s3:GetObject", f"{BUCKET_ARN}-of-others/images/a.jpg")],
    *[(f"s3:{verb}", f"{BUCKET_ARN}/images/a.jpg") for verb in ("PutObject", "DeleteObject", "PutObjectAcl")],
    *[(f"s3:{verb}", f"{BUCKET_ARN}/project/bootstrap-emr.sh") for verb in ("PutObject", "DeleteObject")],
    *[(f"s3:{verb}", f"{BUCKET_ARN}/logs/a") for verb in ("GetObject", "DeleteObject")],
    *[(f"s3:{verb}", f"{BUCKET_ARN}/output/a") for verb in ("DeleteObjectVersion", "PutObjectAcl", "BypassGovernance")],
    ("s3:GetObject", f"{BUCKET_ARN}/secret-folder/a"),
    ("s3:GetObject", f"{BUCKET_ARN}/images-of-others/a"),
    ("s3:ListAllMyBuckets", "*"),
    ("s3:CreateBucket", "arn:aws:s3:::another-bucket"),
    ("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:other-AbCdEf"),
    ("secretsmanager:PutSecretValue", "HubSecretArn"),
    ("secretsmanager:ListSecrets", "*"),
    ("kms:Decrypt", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/other"),
    ("kms:ScheduleKeyDeletion", "DiskKeyArn"),
    ("kms:CreateGrant", "DiskKeyArn"),
    ("iam:PassRole", NODES_ARN),
    ("iam:PassRole", SERVICE_ARN),
    ("iam:CreateUser", f"arn:aws:iam::{ACCOUNT}:user/a"),
    ("iam:AttachRolePolicy", NODES_ARN),
    ("iam:PutRolePolicy", NODES_ARN),
    ("sts:AssumeRole", SERVICE_ARN),
    ("ssm:GetParameters", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/a"),
    ("ssm:SendCommand", "*"),
    ("ssm:StartSession", "*"),
    ("ec2:RunInstances", "*"),
    ("ec2:DescribeInstances", "*"),
    ("elasticmapreduce:RunJobFlow", "*"),
    ("elasticmapreduce:TerminateJobFlows", CLUSTER_ARN),
    ("cloudformation:DeleteStack", "*"),
    ("dynamodb:PutItem", "*"),
    ("lambda:InvokeFunction", "*"),
]  # fmt: skip


def find_key_arn(deployed):
    """Find the ARN of the one key there is."""
    (key,) = client("kms", deployed.region).list_keys()["Keys"]
    return key["KeyArn"]


def check_nodes_policy(deployed):
    """The nodes may do what the job needs, in the Union only, and nothing beside it."""
    statements = read_role(f"fruits-nodes-{deployed.region}")
    arns = {"HubSecretArn": deployed.outputs["HubSecretArn"], "DiskKeyArn": find_key_arn(deployed)}
    for action, resource in ALLOWED_TO_NODES:
        assert is_allowed(statements, action, arns.get(resource, resource)), (action, resource)
        for region in ("us-east-1", "eu-west-2", "eu-central-2"):
            ask = statements, action, arns.get(resource, resource)
            assert not is_allowed(*ask, aws__RequestedRegion=region), (action, region)
    for action, resource in DENIED_TO_NODES:
        assert not is_allowed(statements, action, arns.get(resource, resource)), (action, resource)


TAGGED = {f"aws__ResourceTag/{TAG}": "true"}
ALLOWED_TO_SERVICE = [
    ("iam:PassRole", NODES_ARN, {"iam__PassedToService": "ec2.amazonaws.com"}),
    ("iam:CreateServiceLinkedRole", SPOT_ARN, {"iam__AWSServiceName": "spot.amazonaws.com"}),
    ("ec2:RunInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:subnet/subnet-1", TAGGED),
    ("ec2:RunInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/sg-1", TAGGED),
    ("ec2:TerminateInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-1", TAGGED),
    ("ec2:DescribeInstances", "*", {}),
    ("kms:GenerateDataKeyWithoutPlaintext", "DiskKeyArn", {}),
    ("kms:CreateGrant", "DiskKeyArn", {"kms__GrantIsForAWSResource": "true"}),
]
DENIED_TO_SERVICE = [
    ("iam:PassRole", NODES_ARN, {"iam__PassedToService": "lambda.amazonaws.com"}),
    ("iam:PassRole", SERVICE_ARN, {"iam__PassedToService": "ec2.amazonaws.com"}),
    ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin", {"iam__PassedToService": "ec2.amazonaws.com"}),
    ("iam:CreateServiceLinkedRole", SPOT_ARN, {"iam__AWSServiceName": "ec2.amazonaws.com"}),
    ("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/a", {}),
    ("iam:AttachRolePolicy", SERVICE_ARN, {}),
    ("ec2:RunInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:subnet/subnet-of-others", {}),
    ("ec2:TerminateInstances", f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-of-others", {}),
    ("ec2:DeleteVpc", "*", TAGGED),
    ("s3:GetObject", f"{BUCKET_ARN}/images/a.jpg", {}),
    ("s3:DeleteBucket", BUCKET_ARN, {}),
    ("secretsmanager:GetSecretValue", "HubSecretArn", {}),
    ("kms:CreateGrant", "DiskKeyArn", {}),
    ("kms:ScheduleKeyDeletion", "DiskKeyArn", {}),
]


def check_service_policy(deployed):
    """EMR may run machines in the tagged network, give them the nodes' role and no other, in the Union only."""
    statements = read_role(f"fruits-service-{deployed.region}")
    arns = {"HubSecretArn": deployed.outputs["HubSecretArn"], "DiskKeyArn": find_key_arn(deployed)}
    for action, resource, context in ALLOWED_TO_SERVICE:
        ask = statements, action, arns.get(resource, resource)
        assert is_allowed(*ask, **context), (action, resource)
        # IAM is not of a region: its calls count as North Virginia's.
        assert is_allowed(*ask, **context, aws__RequestedRegion="us-east-1") == action.startswith("iam:"), action
    for action, resource, context in DENIED_TO_SERVICE:
        assert not is_allowed(statements, action, arns.get(resource, resource), **context), (action, resource)


def check_region_policy(deployed):
    """The policy of both roles refuses all regions but the six, even to somebody who may do everything."""
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    for name in ("nodes", "service"):
        denials = [one for one in read_role(f"fruits-{name}-{deployed.region}") if one["Effect"] == "Deny"]
        accepted = {
            region
            for region in list_all_regions()
            if is_allowed([everything, *denials], "s3:PutObject", "*", aws__RequestedRegion=region)
        }
        assert accepted == set(regions.EUROPEAN_UNION)


def check_trust(deployed):
    iam = client("iam", deployed.region)
    service, nodes = (
        iam.get_role(RoleName=f"fruits-{name}-{deployed.region}")["Role"]["AssumeRolePolicyDocument"]["Statement"]
        for name in ("service", "nodes")
    )
    assert [one["Principal"] for one in service] == [{"Service": "elasticmapreduce.amazonaws.com"}]
    assert holds(service[0], {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": CLUSTER_ARN})
    assert not holds(service[0], {"aws:SourceAccount": "999999999999", "aws:SourceArn": CLUSTER_ARN})
    assert not holds(
        service[0], {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": CLUSTER_ARN.replace(REGION, "us-east-1")}
    )
    assert [one["Principal"] for one in nodes] == [{"Service": "ec2.amazonaws.com"}]
    (profile,) = iam.list_instance_profiles()["InstanceProfiles"]
    assert [profile["InstanceProfileName"]] == [role["RoleName"] for role in profile["Roles"]]
    assert deployed.outputs["InstanceRoleArn"] == profile["Roles"][0]["Arn"] == NODES_ARN


JUSTIFIED = {  # statements on every resource
    "NothingOutsideTheEuropeanUnion": "denies",
    "SsmOfOwnNodes": "as SessionWithoutOpenPort, and for the nodes' role alone",
    "SsmMessagesOfOwnNodes": "as SessionWithoutOpenPort, and for the nodes' role alone",
    "SessionWithoutOpenPort": "the actions of Systems Manager's agent know no narrower resource",
    "RolesDecide": "in a key's policy it means this key",
    "SpotNodes": "in a key's policy it means this key",
}
JUSTIFIED_ACTIONS = {  # statements on every action of a service, or on all but some
    "NothingOutsideTheEuropeanUnion": "denies",
    "OnlyTls": "denies",
    "OnlyTls12": "denies",
    "RolesDecide": "AWS's own default: without it nobody could mend the key's policy",
}


def check_wildcards(template):
    """No statement of the template is on everything, but those that are justified by name."""
    wide = {one.get("Sid") for one in find_statements(template) if "*" in listed(one.get("Resource"))}
    assert wide == set(JUSTIFIED)
    every = {
        one.get("Sid")
        for one in find_statements(template)
        if "NotAction" in one or any(action == "*" or action.endswith(":*") for action in listed(one.get("Action", [])))
    }
    assert every == set(JUSTIFIED_ACTIONS)
    assert all(one["Effect"] == "Deny" for one in find_statements(template) if "NotAction" in one)
    managed = [str(arn) for arn in find_values(template, "ManagedPolicyArns")]
    assert re.findall(r"policy/[\w/-]+", str(managed)) == ["policy/service-role/AmazonEMRServicePolicy_v2"]


def find_statements(template):
    """Find every statement of every policy in a template."""
    return [one for statements in find_values(template, "Statement") for one in statements]


def find_values(node, name):
    """Find every value that has a name, at any depth."""
    if isinstance(node, dict):
        found = [value for key, value in node.items() if key == name]
        return found + [one for value in node.values() for one in find_values(value, name)]
    return [one for value in node for one in find_values(value, name)] if isinstance(node, list) else []


# --- The cluster -----------------------------------------------------------------------------------------------------


def check_cluster(deployed):
    """The cluster as EMR would describe it, and what of the request moto does not keep."""
    emr = client("emr", deployed.region)
    ask = {"ClusterId": deployed.outputs["ClusterId"]}
    cluster = emr.describe_cluster(**ask)["Cluster"]
    assert cluster["ReleaseLabel"] == "emr-7.14.0"
    assert {one["Name"] for one in cluster["Applications"]} == {"Hadoop", "Spark", "Livy", "JupyterHub"}
    assert cluster["LogUri"] == f"s3://{BUCKET}/logs/"
    assert cluster["ServiceRole"] == f"fruits-service-{deployed.region}"
    assert {"Key": TAG, "Value": "true"} in cluster["Tags"]
    assert cluster["SecurityConfiguration"] == deployed.ids["SecurityConfiguration"]
    assert cluster["AutoTerminate"] is False
    assert cluster["TerminationProtected"] is False
    where = cluster["Ec2InstanceAttributes"]
    assert where["IamInstanceProfile"] == f"fruits-nodes-{deployed.region}"
    assert "Ec2KeyName" not in where
    groups = {"EmrManagedMasterSecurityGroup", "EmrManagedSlaveSecurityGroup", "ServiceAccessSecurityGroup"}
    assert {where[name] for name in groups} <= {
        one["GroupId"] for one in client("ec2", deployed.region).describe_security_groups()["SecurityGroups"]
    }
    assert where["ServiceAccessSecurityGroup"] != where["EmrManagedMasterSecurityGroup"]
    (bootstrap,) = emr.list_bootstrap_actions(**ask)["BootstrapActions"]
    assert bootstrap["ScriptPath"] == f"s3://{BUCKET}/project/bootstrap-emr.sh"
    assert bootstrap["Args"] == [f"s3://{BUCKET}/project"]
    (step,) = emr.list_steps(**ask)["Steps"]
    assert step["Config"]["Jar"] == "command-runner.jar"
    assert step["ActionOnFailure"] == "CONTINUE"


def check_nodes(deployed):
    """Which machines there are, how many more there may be, and when they end."""
    rows = client("emr", deployed.region).list_instance_groups(ClusterId=deployed.outputs["ClusterId"])
    groups = {one["InstanceGroupType"]: one for one in rows["InstanceGroups"]}
    markets = {name: one["Market"] for name, one in groups.items()}
    assert markets == {"MASTER": "ON_DEMAND", "CORE": "ON_DEMAND", "TASK": "SPOT"}
    assert {name: one["RequestedInstanceCount"] for name, one in groups.items()} == {"MASTER": 1, "CORE": 1, "TASK": 0}
    assert not any(one.get("BidPrice") for one in groups.values())
    assert deployed.request["ManagedScalingPolicy"]["ComputeLimits"] == {
        "UnitType": "Instances",
        "MinimumCapacityUnits": 1,
        "MaximumCapacityUnits": 6,
        "MaximumCoreCapacityUnits": 2,
        "MaximumOnDemandCapacityUnits": 2,
    }
    assert deployed.request["AutoTerminationPolicy"] == {"IdleTimeout": 1800}
    assert deployed.request["Instances"]["KeepJobFlowAliveWhenNoSteps"] is True


def read_configurations(deployed):
    """Read the classifications back from EMR: {classification: properties}."""
    cluster = client("emr", deployed.region).describe_cluster(ClusterId=deployed.outputs["ClusterId"])["Cluster"]
    return {one["Classification"]: one for one in cluster["Configurations"]}


YARN_MIB = 12 * 1024  # what EMR gives YARN on a node of 4 vCPU and 16 GiB


def sum_memory(spark, whose):
    """Sum what a process of Spark asks YARN for, in MiB. spark: properties. whose: "driver" or "executor"."""
    return sum(int(spark[f"spark.{whose}.{name}"].removesuffix("m")) for name in ("memory", "memoryOverhead"))


def check_spark(deployed):
    """One Python for all, and memory that fits: an executor with its workers, and the driver, in one node of 16 GiB."""
    spark = read_configurations(deployed)["spark-defaults"]["Properties"]
    (venv,) = re.findall(r'^VENV="\$ROOT(/\S+)"', (ROOT / "bootstrap-emr.sh").read_text(), re.M)
    for name in (
        "spark.pyspark.python",
        "spark.pyspark.driver.python",
        "spark.yarn.appMasterEnv.PYSPARK_PYTHON",
        "spark.executorEnv.PYSPARK_PYTHON",
    ):
        assert spark[name] == f"{venv}/bin/python"
    mebibytes = {name: int(value[:-1]) for name, value in spark.items() if "memory" in name}
    cores = int(spark["spark.executor.cores"])
    assert sum_memory(spark, "executor") + sum_memory(spark, "driver") <= YARN_MIB
    assert mebibytes["spark.executor.memoryOverhead"] >= cores * 1024 + 0.1 * mebibytes["spark.executor.memory"]
    assert "spark.executor.pyspark.memory" not in spark
    assert spark["spark.executorEnv.OMP_NUM_THREADS"] == "1"
    assert spark["spark.yarn.appMasterEnv.AWS_DEFAULT_REGION"] == deployed.region
    assert spark["spark.executorEnv.AWS_DEFAULT_REGION"] == deployed.region
    assert deployed.request["Instances"]["InstanceGroups"][1]["InstanceType"] == "m6i.xlarge"


def check_other_settings(deployed):
    settings = read_configurations(deployed)
    livy = settings["livy-conf"]["Properties"]
    assert livy["livy.spark.deploy-mode"] == "cluster"  # the settings of the driver are for a core node
    assert livy["livy.server.session.timeout-check"] == "true"
    assert livy["livy.server.session.timeout-check.skip-busy"] == "true"
    assert re.fullmatch(r"[1-5]?\dm", livy["livy.server.session.timeout"])  # an idle session keeps a cluster alive
    hub = settings["jupyter-s3-conf"]["Properties"]
    assert hub == {"s3.persistence.enabled": "true", "s3.persistence.bucket": BUCKET}
    # Else a cell that failed would not stop those after it. As text, any value counts as true.
    assert settings["jupyter-sparkmagic-conf"]["Properties"] == {"all_errors_are_fatal": "true"}
    assert settings["yarn-site"]["Properties"] == {
        "yarn.node-labels.enabled": "true", "yarn.node-labels.am.default-node-label-expression": "CORE",
    }  # fmt: skip
    drivers = settings["capacity-scheduler"]["Properties"]
    assert drivers == {"yarn.scheduler.capacity.maximum-am-resource-percent": "1"}
    (export,) = [one for one in deployed.request["Configurations"] if one["Classification"] == "hadoop-env"]
    assert export["Configurations"][0]["Properties"] == {"AWS_DEFAULT_REGION": deployed.region}


# --- The hub's password ----------------------------------------------------------------------------------------------


def check_password(deployed):
    """The password is drawn for each stack, and is nowhere but in the secret."""
    secrets = client("secretsmanager", deployed.region)
    password = secrets.get_secret_value(SecretId=deployed.outputs["HubSecretArn"])["SecretString"]
    assert re.fullmatch("[A-Za-z0-9]{32}", password)
    assert password not in json.dumps(deployed.request, default=str) + TEXT
    script = deployed.request["Steps"][0]["HadoopJarStep"]["Args"][-1]
    assert re.findall(r"jovyan:(\S*)", script) == [r"%s\n'"]  # printf fills in the secret
    assert deployed.outputs["HubSecretArn"] in script
    assert "${" not in script  # CloudFormation has filled in everything


@pytest.fixture
def run_step(deploy, tmp_path):
    """Run the step's real script; aws, sudo and docker are stood in for: run_step(aws="exit 1", ...).

    The stood-in container keeps its shadow file, and chpasswd changes it. Returns (result, folder).
    """

    def run(aws="echo s3cret", chpasswd='cat >"$HOME/stdin"; echo changed >"$HOME/shadow"'):
        script = deploy(ClusterEnabled="true").request["Steps"][0]["HadoopJarStep"]["Args"]
        (tmp_path / "shadow").write_text("jovyan:$6$of-the-manual\n")
        docker = f"""case "$*" in
            *getent*) cat "$HOME/shadow" ;;
            *chpasswd*) {chpasswd} ;;
            "stop jupyterhub") touch "$HOME/stopped" ;;
            *) exit 9 ;;
            esac"""
        logged = 'echo "$0 $*" >>"$HOME/calls"'
        for name, body in {"aws": aws, "docker": docker, "sudo": 'exec "$@"'}.items():
            command = tmp_path / name
            command.write_text(f"#!/bin/bash\n{logged}\n{body}\n")
            command.chmod(0o755)
        environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60), tmp_path

    return run


def test_the_step_gives_the_hub_the_password_of_the_secret_and_shows_it_to_no_process(run_step):
    result, folder = run_step()
    assert result.returncode == 0, result.stderr
    assert (folder / "stdin").read_text() == "jovyan:s3cret\n"
    calls = (folder / "calls").read_text()
    assert f"get-secret-value --region {REGION} --secret-id arn:aws:secretsmanager:{REGION}" in calls
    assert "s3cret" not in calls + result.stdout + result.stderr
    assert not (folder / "stopped").exists()


@pytest.mark.parametrize(
    "failure",
    [{"aws": "exit 255"}, {"chpasswd": "exit 1"}, {"chpasswd": "cat >/dev/null"}],
    ids=["no secret", "chpasswd fails", "chpasswd does nothing"],
)
def test_a_hub_that_keeps_its_default_password_is_stopped_and_the_step_fails(run_step, failure):
    result, folder = run_step(**failure)
    assert result.returncode != 0
    assert "the hub is stopped: its default password could not be replaced" in result.stderr
    assert (folder / "stopped").exists()


# --- All checks, and each of them on what is broken ------------------------------------------------------------------

ALWAYS = [
    check_phases, check_bucket, check_lifecycle, check_bucket_policy, check_network, check_security_groups,
    check_s3_endpoint, check_encryption, check_key_policy, check_nodes_policy, check_service_policy,
    check_region_policy, check_trust,
]  # fmt: skip
WITH_CLUSTER = [
    check_interface_endpoints, check_cluster, check_nodes, check_spark, check_other_settings, check_password,
]  # fmt: skip


def test_the_stack_without_a_cluster_passes_every_check(deploy):
    deployed = deploy(ClusterEnabled="false")
    assert set(deployed.outputs) == set(TEMPLATE["Outputs"]) - {"ClusterId", "PrimaryDns"}
    for name, kind in (("VpcId", "vpc"), ("RouteTableId", "rtb")):
        assert deployed.outputs[name].startswith(f"{kind}-")
    for check in ALWAYS:
        check(deployed)


def test_the_stack_with_a_cluster_passes_every_check(deploy):
    deployed = deploy(ClusterEnabled="true")
    assert set(deployed.outputs) == set(TEMPLATE["Outputs"])
    for check in ALWAYS + WITH_CLUSTER:
        check(deployed)


def test_without_task_nodes_drivers_are_not_kept_apart_so_that_core_nodes_come_for_executors(deploy):
    deployed = deploy(ClusterEnabled="true", MaxTaskNodes="0")
    settings = read_configurations(deployed)
    assert "yarn-site" not in settings
    share = float(settings["capacity-scheduler"]["Properties"]["yarn.scheduler.capacity.maximum-am-resource-percent"])
    driver, executor = (sum_memory(settings["spark-defaults"]["Properties"], whose) for whose in ("driver", "executor"))
    assert driver <= share * YARN_MIB <= YARN_MIB - executor  # there is place for both


def test_no_statement_is_wider_than_justified_by_name():
    check_wildcards(TEMPLATE)


def test_livy_answers_as_headless_runs_and_the_hub_expect_it(deploy):
    encryption = check_encryption(deploy())
    assert encryption["EnableInTransitEncryption"] is False  # with it Livy would answer by https alone
    assert "InTransitEncryptionConfiguration" not in encryption
    assert headless.LIVY.startswith("http://")


def test_encryption_between_nodes_takes_its_certificates_from_the_bucket(deploy):
    encryption = check_encryption(deploy(InTransitEncryption="true"))
    assert encryption["EnableInTransitEncryption"] is True
    certificates = encryption["InTransitEncryptionConfiguration"]["TLSCertificateConfiguration"]
    assert certificates == {"CertificateProviderType": "PEM", "S3Object": f"s3://{BUCKET}/project/certificates.zip"}


def test_a_studio_that_is_named_reaches_livy_and_nothing_else(deploy):
    studio = client("ec2", REGION).create_security_group(GroupName="studio", Description="SageMaker Studio")["GroupId"]
    deployed = deploy(StudioSecurityGroup=studio)
    groups = client("ec2", REGION).describe_security_groups()["SecurityGroups"]
    rules = {one["GroupId"]: list_rules(one["IpPermissions"]) for one in groups}
    nodes = deployed.ids["NodeSecurityGroup"]
    from_studio = {(group, rule) for group in rules for rule in rules[group] if studio in rule and group != studio}
    assert from_studio == {(nodes, ("tcp", 8998, 8998, studio))}
    assert ":8998" in headless.LIVY


@pytest.mark.parametrize("value", ["0.0.0.0/0", "sg-", "10.0.0.0/8", "pl-0123456789", "sg-0123456789abcdef0 "])
def test_nothing_but_a_security_group_may_be_let_in(value):
    assert not re.fullmatch(TEMPLATE["Parameters"]["StudioSecurityGroup"]["AllowedPattern"], value)


def test_parameters_reach_the_cluster(deploy):
    values = {"PrimaryType": "m6i.2xlarge", "WorkerType": "m5.xlarge", "CoreCount": "3", "MaxCoreNodes": "4"}
    request = deploy(ClusterEnabled="true", MaxTaskNodes="32", IdleSeconds="600", **values).request
    groups = request["Instances"]["InstanceGroups"]
    assert [one["InstanceType"] for one in groups] == ["m6i.2xlarge", "m5.xlarge", "m5.xlarge"]
    assert groups[1]["InstanceCount"] == 3
    limits = request["ManagedScalingPolicy"]["ComputeLimits"]
    assert (limits["MinimumCapacityUnits"], limits["MaximumCapacityUnits"]) == (3, 36)
    assert request["AutoTerminationPolicy"]["IdleTimeout"] == 600


@pytest.mark.parametrize("region", regions.EUROPEAN_UNION)
def test_the_stack_stands_in_each_region_of_the_union(deploy, region):
    deployed = deploy(region=region, ClusterEnabled="true")
    check_phases(deployed)
    check_bucket(deployed)
    check_region_policy(deployed)


def test_the_bucket_and_its_policy_alone_outlive_the_stack():
    # A creation that fails leaves neither.
    for policy, value in {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}.items():
        kept = {name: resource[policy] for name, resource in TEMPLATE["Resources"].items() if policy in resource}
        assert kept == {"Bucket": value, "BucketPolicy": value}


GONE = "taken away"
BUCKET_, CLUSTER_ = "Bucket.Properties.", "Cluster.Properties."
JOB, LACKS = (f"{role}.Properties.Policies.0.PolicyDocument.Statement." for role in ("InstanceRole", "ServiceRole"))
OUTSIDE = "OnlyEuropeanUnion.Properties.PolicyDocument.Statement.0."
SECURITY = "SecurityConfiguration.Properties.SecurityConfiguration."
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
BROKEN = [
    ("SsmEndpoint.Condition", GONE, check_phases),
    (f"{BUCKET_}BucketEncryption", GONE, check_bucket),
    (f"{BUCKET_}PublicAccessBlockConfiguration", GONE, check_bucket),
    (f"{BUCKET_}PublicAccessBlockConfiguration.BlockPublicPolicy", False, check_bucket),
    (f"{BUCKET_}VersioningConfiguration.Status", "Suspended", check_bucket),
    (f"{BUCKET_}LifecycleConfiguration.Rules.0.Status", "Disabled", check_lifecycle),
    (f"{BUCKET_}LifecycleConfiguration.Rules.3.Prefix", "pictures/", check_lifecycle),
    ("BucketPolicy.Properties.PolicyDocument.Statement.0.Effect", "Allow", check_bucket_policy),
    ("BucketPolicy.Properties.PolicyDocument.Statement.0.Resource", [BUCKET_ARN], check_bucket_policy),
    ("Subnet.Properties.MapPublicIpOnLaunch", True, check_network),
    ("Vpc.Properties.Tags", [], check_network),
    ("Gateway", {"Type": "AWS::EC2::InternetGateway"}, check_phases),
    ("ServiceToNodes.Properties.FromPort", 22, check_security_groups),
    ("S3Endpoint.Properties.PolicyDocument.Statement.0.Resource", "*", check_s3_endpoint),
    (f"{SECURITY}EncryptionConfiguration.EnableAtRestEncryption", False, check_encryption),
    (f"{SECURITY}InstanceMetadataServiceConfiguration.MinimumInstanceMetadataServiceVersion", 1, check_encryption),
    (f"{SECURITY}InstanceMetadataServiceConfiguration", GONE, check_encryption),
    ("DiskKey.Properties.EnableKeyRotation", False, check_encryption),
    ("DiskKey.Properties.KeyPolicy.Statement.1.Condition", {}, check_key_policy),
    (f"{JOB}0.Resource", "*", check_nodes_policy),
    (f"{JOB}1.Resource", [f"{BUCKET_ARN}/*"], check_nodes_policy),
    (f"{JOB}2.Action", ["s3:*"], check_nodes_policy),
    (f"{JOB}3.Resource", [f"{BUCKET_ARN}/project"], check_nodes_policy),
    (f"{JOB}5.Resource", "*", check_nodes_policy),
    (f"{JOB}5", GONE, check_nodes_policy),
    (f"{JOB}7.Action", ["ssm:*"], check_nodes_policy),
    ("InstanceRole.Properties.ManagedPolicyArns", [], check_nodes_policy),
    (f"{LACKS}0.Resource", "*", check_service_policy),
    (f"{LACKS}0.Condition", {}, check_service_policy),
    (f"{LACKS}3.Condition", {}, check_service_policy),
    (f"{OUTSIDE}NotAction", ["iam:*", "s3:*"], check_region_policy),
    (f"{OUTSIDE}Condition.StringNotEquals.aws:RequestedRegion.0", "eu-west-2", check_region_policy),
    (f"{OUTSIDE}Effect", "Allow", check_region_policy),
    ("ServiceRole.Properties.AssumeRolePolicyDocument.Statement.0.Condition", {}, check_trust),
    ("InstanceProfile.Properties.InstanceProfileName", "another", check_trust),
    (f"{CLUSTER_}SecurityConfiguration", GONE, check_cluster),
    (f"{CLUSTER_}Instances.ServiceAccessSecurityGroup", {"Ref": "NodeSecurityGroup"}, check_cluster),
    (f"{CLUSTER_}Instances.TerminationProtected", True, check_cluster),
    (f"{CLUSTER_}LogUri", GONE, check_cluster),
    (f"{CLUSTER_}Applications.3", GONE, check_cluster),
    (f"{CLUSTER_}Tags.1", GONE, check_cluster),
    (f"{CLUSTER_}Instances.TaskInstanceGroups.0.Market", "ON_DEMAND", check_nodes),
    (f"{CLUSTER_}Instances.CoreInstanceGroup.Market", "SPOT", check_nodes),
    (f"{CLUSTER_}AutoTerminationPolicy.IdleTimeout", 604800, check_nodes),
    (f"{CLUSTER_}Configurations.0.ConfigurationProperties.spark.executor.memory", "8192m", check_spark),
    (f"{CLUSTER_}Configurations.0.ConfigurationProperties.spark.pyspark.python", "/usr/bin/python3", check_spark),
    (f"{CLUSTER_}Configurations.3.ConfigurationProperties.livy.server.session.timeout", "8h", check_other_settings),
    (f"{CLUSTER_}Steps.0.HadoopJarStep.Args.2", "echo jovyan:jupyter | chpasswd", check_password),
    ("SsmEndpoint.Properties.PrivateDnsEnabled", False, check_interface_endpoints),
    ("SsmEndpoint.Properties.PolicyDocument", GONE, check_interface_endpoints),
    ("SsmMessagesEndpoint.Properties.PolicyDocument.Statement.0.Condition", {}, check_interface_endpoints),
    ("SecretsEndpoint.Properties.PolicyDocument.Statement.0.Resource", "*", check_interface_endpoints),
    ("KeyEndpoint.Properties.PolicyDocument.Statement.0.Action", ["kms:*"], check_interface_endpoints),
    ("KeyEndpoint.Properties.PolicyDocument.Statement.0.Action", ["kms:Decrypt"], check_interface_endpoints),
]  # fmt: skip


def break_template(place, value):
    """Make a copy of the template with one thing of its resources set, or taken away. place: keys joined by dots."""
    broken = copy.deepcopy(TEMPLATE)
    node, keys = broken["Resources"], place.split(".")
    if "ConfigurationProperties" in keys:  # the names of Spark's and Livy's settings have dots themselves
        cut = keys.index("ConfigurationProperties") + 1
        keys = [*keys[:cut], ".".join(keys[cut:])]
    keys = [int(key) if key.isdigit() else key for key in keys]
    for key in keys[:-1]:
        node = node[key]
    if value is GONE:
        del node[keys[-1]]
    else:
        node[keys[-1]] = value
    return broken


@pytest.mark.parametrize(
    ("place", "value", "check"), BROKEN, ids=[f"{place} {value}"[:90] for place, value, _ in BROKEN]
)
def test_what_is_broken_is_found(deploy, place, value, check):
    broken = break_template(place, value)
    assert broken != TEMPLATE
    deployed = deploy(broken, ClusterEnabled="false" if check is check_phases else "true")
    with pytest.raises((AssertionError, KeyError, ValueError, ClientError)):
        check(deployed)


@pytest.mark.parametrize("place", [f"{JOB}1", f"{LACKS}1", "S3Endpoint.Properties.PolicyDocument.Statement.1"])
def test_a_statement_on_everything_is_found(place):
    with pytest.raises(AssertionError):
        check_wildcards(break_template(place, EVERYTHING))
