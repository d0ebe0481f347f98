"""The database stack: RDS PostgreSQL, or Aurora Serverless v2, or nothing but a given secret.

RDS creates and rotates the password; the processes read it from Secrets Manager before every
connection, so that a rotation does not disturb them.
"""

from typing import Any

from aws_cdk import (
    CfnDeletionPolicy,
    CfnOutput,
    CfnParameter,
    CfnResource,
    CfnWaitConditionHandle,
    Stack,
)
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_rds as rds
from constructs import Construct

from pixsift_infra.ingest import acknowledge
from pixsift_infra.stage import Stage

DATABASE = "pixsift"
PORT = 5432
_TLS_ONLY = {"rds.force_ssl": "1"}


class DatabaseStack(Stack):
    """The ledger's server, reachable from the tasks' security group only."""

    def __init__(self, scope: Construct, id: str, stage: Stage, **options: Any) -> None:
        super().__init__(scope, id, description="pixsift: the ledger", **options)
        self._stage, self._settings = stage, stage.database
        if self._settings.kind == "given":
            self._given()
            return
        vpc = CfnParameter(self, "VpcId", description="of the network stack").value_as_string
        subnets = CfnParameter(
            self, "SubnetIds", type="CommaDelimitedList", description="two, in two zones"
        ).value_as_list
        tasks = self._tasks()
        group = ec2.CfnSecurityGroup(
            self, "Access", vpc_id=vpc, group_description="the ledger, from the tasks of pixsift",
            security_group_ingress=[
                ec2.CfnSecurityGroup.IngressProperty(
                    ip_protocol="tcp", from_port=PORT, to_port=PORT,
                    source_security_group_id=tasks, description="tasks of pixsift",
                )
            ],
        )  # fmt: skip
        self._subnets = rds.CfnDBSubnetGroup(
            self, "Subnets", subnet_ids=subnets, db_subnet_group_description="ledger of pixsift"
        )
        aurora = self._settings.kind == "aurora"
        secret, host = (self._aurora if aurora else self._instance)(group.attr_group_id)
        CfnOutput(self, "DatabaseSecretArn", value=secret)
        CfnOutput(self, "DatabaseHost", value=host)

    def _tasks(self) -> str:
        parameter = CfnParameter(self, "TaskSecurityGroupId", description="who may connect")
        return parameter.value_as_string

    def _given(self) -> None:
        """Nothing is created; the tasks are allowed into its security group if one is named."""
        CfnOutput(self, "DatabaseSecretArn", value=self._settings.secret_arn)
        if self._settings.security_group_id:
            ec2.CfnSecurityGroupIngress(
                self, "Access", group_id=self._settings.security_group_id, ip_protocol="tcp",
                from_port=PORT, to_port=PORT, source_security_group_id=self._tasks(),
                description="tasks of pixsift",
            )  # fmt: skip
        else:
            # CloudFormation refuses a template without resources; this one does nothing.
            CfnWaitConditionHandle(self, "Nothing")

    def _instance(self, group: str) -> tuple[str, str]:
        settings = self._settings
        parameters = rds.CfnDBParameterGroup(
            self, "Parameters", family=f"postgres{settings.engine_version.split('.')[0]}",
            description="pixsift: TLS only", parameters=_TLS_ONLY,
        )  # fmt: skip
        instance = rds.CfnDBInstance(
            self, "Ledger", engine="postgres", engine_version=settings.engine_version,
            db_instance_class=settings.instance, allocated_storage=str(settings.storage_gb),
            max_allocated_storage=settings.storage_gb * 4, storage_type="gp3",
            storage_encrypted=True, multi_az=settings.multi_az, db_name=DATABASE, port=str(PORT),
            master_username="pixsift", manage_master_user_password=True,
            enable_iam_database_authentication=True, publicly_accessible=False,
            vpc_security_groups=[group], db_subnet_group_name=self._subnets.ref,
            db_parameter_group_name=parameters.ref, backup_retention_period=settings.backup_days,
            deletion_protection=self._stage.protected, copy_tags_to_snapshot=True,
            auto_minor_version_upgrade=True, enable_cloudwatch_logs_exports=["postgresql"],
            enable_performance_insights=True,
        )  # fmt: skip
        _keep(instance, protected=self._stage.protected)
        return instance.attr_master_user_secret_secret_arn, instance.attr_endpoint_address

    def _aurora(self, group: str) -> tuple[str, str]:
        settings = self._settings
        family = f"aurora-postgresql{settings.aurora_version.split('.')[0]}"
        parameters = rds.CfnDBClusterParameterGroup(
            self, "Parameters", family=family, description="pixsift: TLS only",
            parameters=_TLS_ONLY,
        )  # fmt: skip
        cluster = rds.CfnDBCluster(
            self, "Ledger", engine="aurora-postgresql", engine_version=settings.aurora_version,
            database_name=DATABASE, port=PORT, storage_encrypted=True, master_username="pixsift",
            manage_master_user_password=True, enable_iam_database_authentication=True,
            vpc_security_group_ids=[group], db_subnet_group_name=self._subnets.ref,
            db_cluster_parameter_group_name=parameters.ref,
            backup_retention_period=settings.backup_days,
            deletion_protection=self._stage.protected, copy_tags_to_snapshot=True,
            enable_cloudwatch_logs_exports=["postgresql"],
            serverless_v2_scaling_configuration=rds.CfnDBCluster.ServerlessV2ScalingConfigurationProperty(
                min_capacity=settings.min_acu, max_capacity=settings.max_acu
            ),
        )  # fmt: skip
        _keep(cluster, protected=self._stage.protected)
        rds.CfnDBInstance(
            self, "Writer", engine="aurora-postgresql", db_cluster_identifier=cluster.ref,
            db_instance_class="db.serverless", publicly_accessible=False,
        )  # fmt: skip
        return cluster.attr_master_user_secret_secret_arn, cluster.attr_endpoint_address


def _keep(resource: CfnResource, *, protected: bool) -> None:
    """Take a last snapshot when the stack is deleted; the data is never deleted with it."""
    if not protected:
        acknowledge(resource, "AwsSolutions-RDS10", "the stage says protected = false: it is there "
                    "to be tried and deleted; a snapshot is taken then")  # fmt: skip
        acknowledge(resource, "AwsSolutions-RDS3", "one zone is enough for a trial")
    resource.cfn_options.deletion_policy = CfnDeletionPolicy.SNAPSHOT
    resource.cfn_options.update_replace_policy = CfnDeletionPolicy.SNAPSHOT
    acknowledge(resource, "AwsSolutions-RDS11", "a port that everyone knows; who may reach it is "
                "told by the security group")  # fmt: skip
