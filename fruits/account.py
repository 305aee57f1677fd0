"""What an account allows, asked before anything is created in it: the caller's rights, and how many vCPUs may run."""

from botocore.exceptions import ClientError

from fruits.cluster import CloudError, count_cores, explain

# What it takes to create the stack, to use it and to delete it, by what it acts on: not all of it, but a part of each
# service's. Who lacks one of these would find out minutes later, with half of the stack there.
ACTIONS = {
    "arn:aws:cloudformation:{region}:{account}:stack/{stack}/*": [
        *(f"cloudformation:{verb}Stack" for verb in ("Create", "Update", "Delete", "CancelUpdate")),
        "cloudformation:DescribeStackEvents",
    ],
    "arn:aws:s3:::{bucket}": [
        *(f"s3:{verb}" for verb in ("CreateBucket", "ListBucket", "PutBucketPolicy", "PutLifecycleConfiguration")),
        *(f"s3:{verb}" for verb in ("ListBucketVersions", "DeleteBucket")),
    ],
    "arn:aws:s3:::{bucket}/*": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"],
    "arn:aws:iam::{account}:role/{stack}-nodes-{region}": [
        *(f"iam:{verb}" for verb in ("CreateRole", "PutRolePolicy", "AttachRolePolicy", "PassRole", "DeleteRole")),
    ],
    "arn:aws:iam::{account}:role/{stack}-service-{region}": ["iam:PassRole"],
    "*": [
        *(f"ec2:Create{what}" for what in ("Vpc", "Subnet", "SecurityGroup", "VpcEndpoint")),
        *("ec2:DescribeVpcs", "ec2:DescribeVpcEndpoints", "ec2:DeleteVpcEndpoints"),
        *(f"ec2:Describe{what}" for what in ("Instances", "Volumes", "Addresses", "NatGateways")),
        *(f"elasticmapreduce:{verb}" for verb in ("RunJobFlow", "AddJobFlowSteps", "CreateSecurityConfiguration")),
        *(f"elasticmapreduce:Put{policy}Policy" for policy in ("ManagedScaling", "AutoTermination")),
        *(f"elasticmapreduce:{verb}" for verb in ("ListClusters", "DescribeCluster", "TerminateJobFlows")),
        *(f"elasticmapreduce:{verb}" for verb in ("DescribeStep", "ListInstances")),
        "iam:CreateInstanceProfile",
        "iam:AddRoleToInstanceProfile",
        "kms:CreateKey",
        "secretsmanager:CreateSecret",
    ],
}
ON_DEMAND, SPOT = "L-1216C47A", "L-34B43A08"  # Service Quotas' codes: vCPUs of families A, C, D, H, I, M, R, T, Z


def check_rights(stack):
    """Ask IAM whether the caller may do what the stack needs; nothing is done. Prints what was found.

    Raises CloudError with what is denied. Who may not ask is told so, and goes on; so is who is denied something on
    conditions that IAM cannot know of beforehand.
    """
    caller = stack.client("sts").get_caller_identity()
    names = {"region": stack.region, "account": caller["Account"], "stack": stack.name, "bucket": stack.name_bucket()}
    try:
        principal = find_principal(stack, caller["Arn"])
        results = [
            result
            for resource, actions in ACTIONS.items()
            for result in simulate(stack, principal, actions, resource.format(**names))
        ]
    except ClientError as error:
        print(f"rights not checked: {explain(error)}")
        return
    denied = [result for result in results if result["EvalDecision"] != "allowed"]
    sure = [result["EvalActionName"] for result in denied if not result.get("MissingContextValues")]
    if sure:
        raise CloudError(f"{caller['Arn']} may not do {', '.join(sure)}: give it these rights, or call as another")
    unsure = [f", {len(denied)} depend on conditions"] if denied else []
    print(f"rights: {len(results) - len(denied)} of {sum(map(len, ACTIONS.values()))} actions allowed", *unsure, sep="")


def find_principal(stack, arn):
    """Find the user or role behind a caller, as IAM wants it. arn: the caller's, a session's where it has a role."""
    if ":assumed-role/" in arn:
        return stack.client("iam").get_role(RoleName=arn.split("/")[1])["Role"]["Arn"]  # a role's path is not in arn
    return arn


def simulate(stack, principal, actions, resource):
    """Let IAM evaluate some actions on a resource: list of its results."""
    region = {"ContextKeyName": "aws:RequestedRegion", "ContextKeyType": "string"}
    # IAM has no region: its calls count as North Virginia's.
    region["ContextKeyValues"] = ["us-east-1" if ":iam:" in resource else stack.region]
    answer = stack.client("iam").simulate_principal_policy(
        PolicySourceArn=principal, ActionNames=actions, ResourceArns=[resource], ContextEntries=[region]
    )
    return answer.get("EvaluationResults", [])


def check_quotas(stack, primary_type, worker_type, core_nodes, max_core_nodes, max_task_nodes):
    """Ask how many vCPUs may run in the region, which new accounts have few of. Prints what was found.

    Raises CloudError where the cluster could not start. One that cannot grow to its full size is only told of.
    """
    first, each = 2 * count_cores(primary_type), 2 * count_cores(worker_type)
    for code, market, least, most in (
        (ON_DEMAND, "on demand", first + core_nodes * each, first + max_core_nodes * each),
        (SPOT, "as spot machines", 0, (max_core_nodes - core_nodes + max_task_nodes) * each),
    ):
        try:
            answer = stack.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)
        except ClientError as error:
            print(f"vCPUs {market} not checked: {explain(error)}")
            continue
        quota = int(answer["Quota"]["Value"])
        remedy = f"ask for more in Service Quotas (ec2, {code}), or take smaller or fewer machines"
        if quota < least:
            found = f"{quota} vCPUs may run {market} in {stack.region}"
            raise CloudError(f"{found}, the cluster begins with {least}: {remedy}")
        print(f"vCPUs {market}: {quota} allowed, {least} to {most} needed" + (f": {remedy}" if quota < most else ""))
