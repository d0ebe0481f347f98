"""The compute stack: cluster, one role per process, services, jobs, and how consumers scale.

Uses L1 constructs: the permissions, mounts and environment of a task are all in the template, and
only what ``policies`` lists is granted. Values of the earlier stacks come as parameters with the
names of their outputs; images come by digest.

A release changes the schema before it changes the services. So the migration task has its own image
parameter (``MigrateImage``), and with ``Running`` = no the stack has everything except services and
schedules: ``pixsift deploy`` migrates in between (docs/adr/0161).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import CfnCondition, CfnOutput, CfnParameter, CfnResource, Fn, RemovalPolicy, Stack
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from pixsift_infra import policies, scaling
from pixsift_infra.gpu_capacity import gpu_capacity
from pixsift_infra.ingest import acknowledge
from pixsift_infra.policies import Places
from pixsift_infra.service_scaling import ServiceScaling
from pixsift_infra.stage import Stage
from pixsift_infra.tasks import JOBS, Task, consumer_task, curator_task, server_task

_CPU_ARCHITECTURE = "X86_64"
_PASSED = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}


class ComputeStack(Stack):
    """Everything that runs."""

    def __init__(self, scope: Construct, id: str, stage: Stage, **options: Any) -> None:
        super().__init__(scope, id, description="pixsift: what runs", **options)
        self._stage, self._prefix = stage, stage.resource_prefix
        self._read_parameters()
        self._logs = logs.CfnLogGroup(
            self, "Logs", log_group_name=f"/{self._prefix}/tasks",
            retention_in_days=stage.compute.log_days,
        )  # fmt: skip
        self._logs.apply_removal_policy(RemovalPolicy.DESTROY)
        self._cluster = ecs.CfnCluster(
            self, "Cluster", cluster_name=self._prefix,
            cluster_settings=[ecs.CfnCluster.ClusterSettingsProperty(
                name="containerInsights", value="enabled"
            )],
        )  # fmt: skip
        self._execution = self._execution_role()
        self._gpu = (
            gpu_capacity(
                self, stage, cluster=self._cluster.ref, subnets=self._subnets, group=self._group
            )
            if stage.compute.consumer == "gpu"
            else None
        )
        for index, space in enumerate(stage.events.spaces):
            self._consumer(space, index)
        self._curator()
        if stage.compute.server:
            self._server()
        for job in JOBS:
            self._job(job)
        CfnOutput(self, "ClusterName", value=self._cluster.ref)
        for name, value in self._previous.items():
            CfnOutput(self, f"{name}Known", value=value)

    def _read_parameters(self) -> None:
        def text(name: str, description: str, **more: Any) -> str:
            return CfnParameter(self, name, description=description, **more).value_as_string

        digest = r"[^\s@]+@sha256:[0-9a-f]{64}"
        self._subnets = CfnParameter(
            self, "SubnetIds", type="CommaDelimitedList", description="of the network stack"
        ).value_as_list
        self._group = text("TaskSecurityGroupId", "of the network stack")
        secret = CfnParameter(self, "DatabaseSecretArn", description="of the database stack")
        acknowledge(self, "CloudFormation-Validate::W2509", "where the secret is, not the secret")
        self._secret = secret.value_as_string
        given = self._stage.database.kind == "given"
        self._host = "" if given else text("DatabaseHost", "of the database stack")
        self._gpu_image = text(
            "GpuImage", "Dockerfile.gpu-consumer, by digest", allowed_pattern=digest
        )
        self._services_image = text(
            "ServicesImage", "Dockerfile.services, by digest", allowed_pattern=digest
        )
        self._read_release(text, rf"|{digest}")
        self._raw = text("RawBucketName", "of the events stack")
        self._curated = text("CuratedBucketName", "of the events stack")
        self._derived = text("DerivedBucketName", "of the events stack")

    def _read_release(self, text: Any, digest_or_nothing: str) -> None:
        """What ``pixsift deploy`` changes step by step; the defaults are for other tools."""
        migrate = text(
            "MigrateImage", "of the migrate task; empty: ServicesImage", default="",
            allowed_pattern=digest_or_nothing,
        )  # fmt: skip
        own = CfnCondition(
            self, "HasMigrateImage", expression=Fn.condition_not(Fn.condition_equals(migrate, ""))
        )
        self._migrate_image = Fn.condition_if(own.logical_id, migrate, self._services_image)
        running = text(
            "Running", "no: neither services nor schedules, until the schema is there",
            default="yes", allowed_values=["yes", "no"],
        )  # fmt: skip
        self._running = CfnCondition(
            self, "IsRunning", expression=Fn.condition_equals(running, "yes")
        )
        self._previous = {
            name: text(
                name, "what ran before; a roll-back returns to it", default="",
                allowed_pattern=digest_or_nothing,
            )
            for name in ("PreviousGpuImage", "PreviousServicesImage")
        }  # fmt: skip

    def _while_running(self, resource: CfnResource) -> None:
        """Leave the resource out with ``Running`` = no."""
        resource.cfn_options.condition = self._running

    def _service_output(self, task: Task, service: ecs.CfnService) -> None:
        CfnOutput(
            self, f"{task.construct_id}Service", value=service.attr_name, condition=self._running
        )

    def _places(self, space: str) -> Places:
        def queue(name: str) -> str:
            return f"{self._arn('sqs')}:{self._prefix}-{name}"

        ingest = self._stage.ingest_queue(space)
        return Places(
            raw=f"arn:{self.partition}:s3:::{self._raw}",
            curated=f"arn:{self.partition}:s3:::{self._curated}",
            derived=f"arn:{self.partition}:s3:::{self._derived}",
            ingest=queue(ingest), ingest_dlq=queue(f"{ingest}-dlq"),
            requests=queue("snapshot-requests"), requests_dlq=queue("snapshot-requests-dlq"),
            event_bus=f"{self._arn('events')}:event-bus/default",
            database_secret=self._secret, raw_key=self._stage.events.raw_key_arn,
        )  # fmt: skip

    def _arn(self, service: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}"

    def _execution_role(self) -> iam.CfnRole:
        """The rights that ECS itself needs to start a task: for its image and its logs."""
        role = self._role("Execution", [
            {"Sid": "Login", "Effect": "Allow", "Action": ["ecr:GetAuthorizationToken"],
             "Resource": "*"},
            {"Sid": "Pull", "Effect": "Allow",
             "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer",
                        "ecr:BatchCheckLayerAvailability"],
             "Resource": f"{self._arn('ecr')}:repository/{self._prefix}/*"},
            {"Sid": "Log", "Effect": "Allow",
             "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
             "Resource": self._logs.attr_arn},
        ])  # fmt: skip
        for resource in (
            "*",
            f"arn:<AWS::Partition>:ecr:<AWS::Region>:<AWS::AccountId>:repository/{self._prefix}/*",
        ):
            acknowledge(
                role,
                f"AwsSolutions-IAM5[Resource::{resource}]",
                "GetAuthorizationToken knows no resources; the repositories are ours",
            )
        return role

    def _role(self, name: str, statements: Sequence[dict[str, Any]]) -> iam.CfnRole:
        role = iam.CfnRole(
            self, f"{name}Role",
            assume_role_policy_document={
                "Version": "2012-10-17",
                "Statement": [{
                    "Effect": "Allow", "Action": "sts:AssumeRole",
                    "Principal": {"Service": "ecs-tasks.amazonaws.com"},
                    "Condition": {
                        "StringEquals": {"aws:SourceAccount": self.account},
                        "ArnLike": {"aws:SourceArn": f"{self._arn('ecs')}:*"},
                    },
                }],
            },
            policies=[iam.CfnRole.PolicyProperty(
                policy_name="least",
                policy_document={"Version": "2012-10-17", "Statement": list(statements)},
            )],
        )  # fmt: skip
        for bucket in ("RawBucketName", "CuratedBucketName", "DerivedBucketName"):
            acknowledge(
                role, f"AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:s3:::<{bucket}>/*]",
                "all objects of that bucket are what the process is for",
            )  # fmt: skip
        acknowledge(
            role,
            "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:s3:::<CuratedBucketName>"
            "/.pixsift/obligations/*]",
            "one small object per obligation, under one prefix (docs/adr/0190)",
        )
        return role

    def _definition(
        self, task: Task, role: iam.CfnRole, *, gpu: bool = False
    ) -> ecs.CfnTaskDefinition:
        """Read-only root, no capabilities, an init process, a health check, /tmp of its own."""
        image = self._gpu_image if task.needs_model else self._services_image
        if task.name == "migrate":
            image = self._migrate_image.to_string()
        property_ = ecs.CfnTaskDefinition
        definition = property_(
            self, f"{task.construct_id}Task", family=f"{self._prefix}-{task.name}",
            cpu=str(task.cpu), memory=str(task.memory_mb), network_mode="awsvpc",
            requires_compatibilities=["MANAGED_INSTANCES" if gpu else "FARGATE"],
            runtime_platform=property_.RuntimePlatformProperty(
                cpu_architecture=_CPU_ARCHITECTURE, operating_system_family="LINUX"
            ),
            ephemeral_storage=None if gpu else property_.EphemeralStorageProperty(
                size_in_gib=task.disk_gb
            ),
            execution_role_arn=self._execution.attr_arn, task_role_arn=role.attr_arn,
            volumes=[property_.VolumeProperty(name="tmp")],
            container_definitions=[property_.ContainerDefinitionProperty(
                name=task.name, image=image, command=list(task.command), essential=True,
                user="10001:10001", readonly_root_filesystem=True, stop_timeout=task.stop_seconds,
                mount_points=[property_.MountPointProperty(
                    container_path="/tmp", source_volume="tmp", read_only=False  # noqa: S108
                )],
                linux_parameters=property_.LinuxParametersProperty(
                    init_process_enabled=True,
                    capabilities=property_.KernelCapabilitiesProperty(drop=["ALL"]),
                ),
                port_mappings=[property_.PortMappingProperty(container_port=port)
                               for port in task.ports],
                resource_requirements=[property_.ResourceRequirementProperty(
                    type="GPU", value="1"
                )] if gpu else None,
                health_check=property_.HealthCheckProperty(**task.health) if task.health else None,
                environment=[property_.KeyValuePairProperty(name=name, value=value)
                             for name, value in sorted(self._environment(task).items())],
                log_configuration=property_.LogConfigurationProperty(
                    log_driver="awslogs",
                    options={"awslogs-group": f"/{self._prefix}/tasks",
                             "awslogs-region": self.region, "awslogs-stream-prefix": task.name,
                             "mode": "non-blocking", "max-buffer-size": "4m"},
                ),
            )],
        )  # fmt: skip
        definition.add_resource_dependency(self._logs)
        acknowledge(
            definition,
            "AwsSolutions-ECS2",
            "variables are names and numbers; the password "
            "is read from Secrets Manager by the process, each time it connects",
        )
        return definition

    def _environment(self, task: Task) -> dict[str, str]:
        """The variables of a process; a test compares their names with its settings, both ways."""
        given = self._stage.database.kind == "given"
        url = (
            ""
            if given
            else (
                f"postgresql://{self._host}:5432/pixsift?sslmode=verify-full"
                "&sslrootcert=/opt/certs/rds-global-bundle.pem"
            )
        )
        return {
            "AWS_DEFAULT_REGION": self.region,
            "PIXSIFT_DATABASE_SECRET": self._secret,
            "PIXSIFT_DATABASE_CONNECT_SECONDS":
                "45" if self._stage.database.kind == "aurora" else "5",
            **({"PIXSIFT_DATABASE_URL": url} if url else {}),
            **({"PIXSIFT_STAGE": self._stage.name, "PIXSIFT_DERIVED_BUCKET": self._derived,
                "PIXSIFT_CURATED_BUCKET": self._curated,
                "PIXSIFT_SNAPSHOT_QUEUE": f"{self._prefix}-snapshot-requests",
                "PIXSIFT_SNAPSHOT_DLQ": f"{self._prefix}-snapshot-requests-dlq"}
               if task.name != "migrate" else {}),
            **({"PIXSIFT_INGEST_QUEUE": f"{self._prefix}-{task.ingest}",
                "PIXSIFT_INGEST_DLQ": f"{self._prefix}-{task.ingest}-dlq"} if task.ingest else {}),
            **task.environment,
        }  # fmt: skip

    def _service(self, task: Task, definition: ecs.CfnTaskDefinition, *, desired: int | None,
                 capacity: Sequence[Mapping[str, Any]]) -> ecs.CfnService:  # fmt: skip
        public = self._stage.network.egress == "public" and not self._stage.network.vpc_id
        property_ = ecs.CfnService
        service = property_(
            self, task.construct_id, cluster=self._cluster.ref, service_name=task.name,
            task_definition=definition.ref, desired_count=desired,
            capacity_provider_strategy=[
                property_.CapacityProviderStrategyItemProperty(**item) for item in capacity
            ],
            network_configuration=property_.NetworkConfigurationProperty(
                awsvpc_configuration=property_.AwsVpcConfigurationProperty(
                    subnets=self._subnets, security_groups=[self._group],
                    assign_public_ip="ENABLED" if public else "DISABLED",
                )
            ),
            deployment_configuration=property_.DeploymentConfigurationProperty(
                maximum_percent=200, minimum_healthy_percent=100 if task.ports else 0,
                deployment_circuit_breaker=property_.DeploymentCircuitBreakerProperty(
                    enable=True, rollback=True
                ),
            ),
            enable_execute_command=False, propagate_tags="SERVICE",
        )  # fmt: skip
        self._while_running(service)
        self._service_output(task, service)
        return service

    def _consumer(self, space: str, index: int) -> None:
        stage = self._stage
        task = consumer_task(stage, space)
        role = self._role(task.construct_id, policies.consumer(self._places(space)))
        definition = self._definition(task, role, gpu=self._gpu is not None)
        provider = self._gpu or "FARGATE"
        service = self._service(
            task, definition, desired=None, capacity=[{"capacity_provider": provider, "weight": 1}]
        )
        self._scaling(task).on_queue(
            service, f"{self._prefix}-{stage.ingest_queue(space)}",
            most=stage.compute.max_consumers, least=stage.compute.min_consumers,
            per_task=scaling.backlog_per_consumer(stage.compute.images_per_second),
        )  # fmt: skip

    def _curator(self) -> None:
        task = curator_task()
        role = self._role("Curator", policies.curator(self._places(self._stage.events.spaces[0])))
        service = self._service(
            task,
            self._definition(task, role),
            desired=None,
            capacity=[{"capacity_provider": "FARGATE", "weight": 1}],
        )
        queue = f"{self._prefix}-snapshot-requests"
        self._scaling(task).on_queue(service, queue, most=1, least=0, per_task=1)

    def _server(self) -> None:
        task = server_task(self._stage)
        role = self._role("Server", policies.server(self._places(self._stage.events.spaces[0])))
        self._service(
            task,
            self._definition(task, role),
            desired=1,
            capacity=[{"capacity_provider": "FARGATE", "weight": 1}],
        )

    def _job(self, task: Task) -> None:
        """Run by ``pixsift deploy`` (migrate), or by its schedule."""
        space = self._stage.events.spaces[0]
        role = self._role(task.construct_id, policies.ROLES[task.role](self._places(space)))
        definition = self._definition(task, role)
        CfnOutput(self, f"{task.construct_id}TaskArn", value=definition.ref)
        if not task.schedule:
            return
        starter = self._starter(task, definition, role)
        public = self._stage.network.egress == "public" and not self._stage.network.vpc_id
        property_ = events.CfnRule
        rule = property_(
            self, f"{task.construct_id}Schedule", schedule_expression=task.schedule,
            description=f"runs pixsift {task.name}",
            targets=[property_.TargetProperty(
                id="task", arn=self._cluster.attr_arn, role_arn=starter.attr_arn,
                ecs_parameters=property_.EcsParametersProperty(
                    task_definition_arn=definition.ref, task_count=1, launch_type="FARGATE",
                    network_configuration=property_.NetworkConfigurationProperty(
                        aws_vpc_configuration=property_.AwsVpcConfigurationProperty(
                            subnets=self._subnets, security_groups=[self._group],
                            assign_public_ip="ENABLED" if public else "DISABLED",
                        )
                    ),
                ),
            )],
        )  # fmt: skip
        self._while_running(rule)

    def _starter(
        self, task: Task, definition: ecs.CfnTaskDefinition, role: iam.CfnRole
    ) -> iam.CfnRole:
        return iam.CfnRole(
            self, f"{task.construct_id}Starter",
            assume_role_policy_document={
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
                               "Principal": {"Service": "events.amazonaws.com"},
                               "Condition": {"StringEquals": {"aws:SourceAccount": self.account}}}],
            },
            policies=[iam.CfnRole.PolicyProperty(policy_name="start", policy_document={
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Action": "ecs:RunTask", "Resource": definition.ref,
                     "Condition": {"ArnEquals": {"ecs:cluster": self._cluster.attr_arn}}},
                    {"Effect": "Allow", "Action": "iam:PassRole",
                     "Resource": [role.attr_arn, self._execution.attr_arn],
                     "Condition": _PASSED},
                ],
            })],
        )  # fmt: skip

    def _scaling(self, task: Task) -> ServiceScaling:
        return ServiceScaling(self, task, prefix=self._prefix, while_running=self._while_running)
