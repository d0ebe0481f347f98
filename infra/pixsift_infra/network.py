"""The network stack: a VPC of two zones with one of three ways out, or an existing VPC.

In L1, so that every route and every endpoint can be read in the template.
"""

from typing import Any

from aws_cdk import CfnOutput, CfnTag, Fn, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from pixsift_infra.stage import Stage

ENDPOINTS = (
    "ecr.api", "ecr.dkr", "ecs", "ecs-agent", "ecs-telemetry", "events", "logs", "secretsmanager",
    "sqs", "sts",
)  # fmt: skip
"""What the processes and ECS itself call; S3 goes through the free gateway."""
_ANYWHERE = "0.0.0.0/0"


class NetworkStack(Stack):
    """VPC, subnets, the way out, and the security group of the tasks (no inbound traffic)."""

    def __init__(self, scope: Construct, id: str, stage: Stage, **options: Any) -> None:
        super().__init__(scope, id, description="pixsift: network", **options)
        self._settings, self._prefix = stage.network, stage.resource_prefix
        if self._settings.vpc_id:
            vpc_id, subnets = self._settings.vpc_id, list(self._settings.subnet_ids)
            cidr = None
        else:
            cidr = self._settings.cidr
            vpc = ec2.CfnVPC(
                self, "Vpc", cidr_block=cidr, enable_dns_hostnames=True, enable_dns_support=True,
                tags=[CfnTag(key="Name", value=self._prefix)],
            )  # fmt: skip
            vpc_id, subnets = vpc.attr_vpc_id, self._own_subnets(vpc.attr_vpc_id)
            self._log_flows(vpc_id)
        tasks = ec2.CfnSecurityGroup(
            self, "Tasks", vpc_id=vpc_id, group_description="pixsift tasks: out only",
            security_group_egress=[
                ec2.CfnSecurityGroup.EgressProperty(
                    ip_protocol="tcp", from_port=port, to_port=port, cidr_ip=_ANYWHERE,
                    description=what,
                )
                for port, what in ((443, "AWS"), (5432, "PostgreSQL"))
            ],
        )  # fmt: skip
        if self._settings.egress == "endpoints" and not self._settings.vpc_id:
            self._endpoints(vpc_id, subnets, str(cidr))
        CfnOutput(self, "VpcId", value=vpc_id)
        CfnOutput(self, "SubnetIds", value=",".join(subnets))
        CfnOutput(self, "TaskSecurityGroupId", value=tasks.attr_group_id)

    def _own_subnets(self, vpc_id: str) -> list[str]:
        """Ids of the two subnets that tasks and database are in."""
        blocks = Fn.cidr(self._settings.cidr, 4, "8")
        self._tables: list[str] = []
        if self._settings.egress == "endpoints":
            return [self._subnet(vpc_id, "Private", zone, Fn.select(zone + 2, blocks))
                    for zone in range(2)]  # fmt: skip
        gateway = ec2.CfnInternetGateway(self, "Gateway")
        attached = ec2.CfnVPCGatewayAttachment(
            self, "Attached", vpc_id=vpc_id, internet_gateway_id=gateway.attr_internet_gateway_id
        )
        public = [
            self._subnet(vpc_id, "Public", zone, Fn.select(zone, blocks)) for zone in range(2)
        ]
        for index, table in enumerate(self._tables):
            route = ec2.CfnRoute(
                self, f"Out{index}", route_table_id=table, destination_cidr_block=_ANYWHERE,
                gateway_id=gateway.attr_internet_gateway_id,
            )  # fmt: skip
            route.add_resource_dependency(attached)
        if self._settings.egress == "public":
            return public
        address = ec2.CfnEIP(self, "Address", domain="vpc")
        nat = ec2.CfnNatGateway(
            self, "Nat", subnet_id=public[0], allocation_id=address.attr_allocation_id
        )
        nat.add_resource_dependency(attached)
        self._tables.clear()
        private = [self._subnet(vpc_id, "Private", zone, Fn.select(zone + 2, blocks))
                   for zone in range(2)]  # fmt: skip
        for index, table in enumerate(self._tables):
            ec2.CfnRoute(
                self, f"ThroughNat{index}", route_table_id=table,
                destination_cidr_block=_ANYWHERE, nat_gateway_id=nat.attr_nat_gateway_id,
            )  # fmt: skip
        self._gateway_endpoint(vpc_id)
        return private

    def _subnet(self, vpc_id: str, kind: str, zone: int, cidr: str) -> str:
        name = f"{kind}{zone + 1}"
        subnet = ec2.CfnSubnet(
            self, name, vpc_id=vpc_id, cidr_block=cidr, map_public_ip_on_launch=False,
            availability_zone=Fn.select(zone, Fn.get_azs()),
            tags=[CfnTag(key="Name", value=f"{self._prefix}-{name.lower()}")],
        )  # fmt: skip
        table = ec2.CfnRouteTable(self, f"{name}Routes", vpc_id=vpc_id)
        ec2.CfnSubnetRouteTableAssociation(
            self, f"{name}Association", subnet_id=subnet.attr_subnet_id,
            route_table_id=table.attr_route_table_id,
        )  # fmt: skip
        self._tables.append(table.attr_route_table_id)
        return subnet.attr_subnet_id

    def _gateway_endpoint(self, vpc_id: str) -> None:
        ec2.CfnVPCEndpoint(
            self, "S3", vpc_id=vpc_id, vpc_endpoint_type="Gateway", route_table_ids=self._tables,
            service_name=f"com.amazonaws.{self.region}.s3",
        )  # fmt: skip

    def _endpoints(self, vpc_id: str, subnets: list[str], cidr: str) -> None:
        self._gateway_endpoint(vpc_id)
        group = ec2.CfnSecurityGroup(
            self, "Endpoints", vpc_id=vpc_id, group_description="AWS services, from the VPC",
            security_group_ingress=[
                ec2.CfnSecurityGroup.IngressProperty(
                    ip_protocol="tcp", from_port=443, to_port=443, cidr_ip=cidr, description="VPC"
                )
            ],
        )  # fmt: skip
        for service in ENDPOINTS:
            ec2.CfnVPCEndpoint(
                self, f"Endpoint{service.title().replace('.', '').replace('-', '')}",
                vpc_id=vpc_id, vpc_endpoint_type="Interface", private_dns_enabled=True,
                service_name=f"com.amazonaws.{self.region}.{service}", subnet_ids=subnets,
                security_group_ids=[group.attr_group_id],
            )  # fmt: skip

    def _log_flows(self, vpc_id: str) -> None:
        group = logs.CfnLogGroup(
            self, "Flows", log_group_name=f"/{self._prefix}/flows", retention_in_days=14
        )
        group.apply_removal_policy(RemovalPolicy.DESTROY)
        role = iam.CfnRole(
            self, "FlowsRole",
            assume_role_policy_document={
                "Version": "2012-10-17",
                "Statement": [{
                    "Effect": "Allow", "Action": "sts:AssumeRole",
                    "Principal": {"Service": "vpc-flow-logs.amazonaws.com"},
                    "Condition": {"StringEquals": {"aws:SourceAccount": self.account}},
                }],
            },
            policies=[iam.CfnRole.PolicyProperty(
                policy_name="write",
                policy_document={
                    "Version": "2012-10-17",
                    "Statement": [{
                        "Effect": "Allow",
                        "Action": ["logs:CreateLogStream", "logs:PutLogEvents",
                                   "logs:DescribeLogStreams"],
                        "Resource": [group.attr_arn],
                    }],
                },
            )],
        )  # fmt: skip
        ec2.CfnFlowLog(
            self, "FlowLog", resource_id=vpc_id, resource_type="VPC", traffic_type="REJECT",
            deliver_logs_permission_arn=role.attr_arn, log_group_name=f"/{self._prefix}/flows",
        ).add_resource_dependency(group)  # fmt: skip
