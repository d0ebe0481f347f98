"""The GPU instances of the cluster: ECS Managed Instances with their roles."""

from aws_cdk import Stack
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam

from pixsift_infra.ingest import acknowledge
from pixsift_infra.stage import Stage

_INFRASTRUCTURE = "AmazonECSInfrastructureRolePolicyForManagedInstances"
_INSTANCE = "AmazonECSInstanceRolePolicyForManagedInstances"


def gpu_capacity(
    stack: Stack, stage: Stage, *, cluster: str, subnets: list[str], group: str
) -> str:
    """Instances that ECS starts, patches and ends; Spot where it can be had. Returns their name."""
    infrastructure = iam.CfnRole(
        stack, "InfrastructureRole",
        assume_role_policy_document={
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
                           "Principal": {"Service": "ecs.amazonaws.com"},
                           "Condition": {"StringEquals": {"aws:SourceAccount": stack.account}}}],
        },
        managed_policy_arns=[
            f"arn:{stack.partition}:iam::aws:policy/{_INFRASTRUCTURE}"
        ],
    )  # fmt: skip
    instances = iam.CfnRole(
        stack, "InstanceRole",
        assume_role_policy_document={
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
                           "Principal": {"Service": "ec2.amazonaws.com"}}],
        },
        managed_policy_arns=[f"arn:{stack.partition}:iam::aws:policy/{_INSTANCE}"],
    )  # fmt: skip
    for role, policy in (
        (infrastructure, _INFRASTRUCTURE),
        (instances, _INSTANCE),
    ):
        rule = f"AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{policy}]"
        acknowledge(role, rule, "AWS's own policies for Managed Instances: it extends them itself")
    profile = iam.CfnInstanceProfile(stack, "InstanceProfile", roles=[instances.ref])
    property_ = ecs.CfnCapacityProvider
    provider = property_(
        stack, "Gpu", cluster_name=cluster, name=f"{stage.resource_prefix}-gpu",
        managed_instances_provider=property_.ManagedInstancesProviderProperty(
            infrastructure_role_arn=infrastructure.attr_arn, propagate_tags="CAPACITY_PROVIDER",
            instance_launch_template=property_.InstanceLaunchTemplateProperty(
                ec2_instance_profile_arn=profile.attr_arn,
                capacity_option_type="SPOT" if stage.compute.spot else "ON_DEMAND",
                network_configuration=property_.ManagedInstancesNetworkConfigurationProperty(
                    subnets=subnets, security_groups=[group]
                ),
                storage_configuration=property_.ManagedInstancesStorageConfigurationProperty(
                    storage_size_gib=80
                ),
                instance_requirements=property_.InstanceRequirementsRequestProperty(
                    allowed_instance_types=list(stage.compute.instance_types),
                    v_cpu_count=property_.VCpuCountRangeRequestProperty(min=4, max=16),
                    memory_mib=property_.MemoryMiBRequestProperty(min=16_384),
                ),
            ),
        ),
    )  # fmt: skip
    return provider.ref
