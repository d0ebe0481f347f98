"""The status report: the content of the ledger, and what is still in the queues."""

from collections.abc import Mapping

from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.overview import Overview
from pixsift.adapters.postgres.database import Database
from pixsift.answers.collections import AnomalyCount, CollectionStatus, ReasonCount, StatusReport
from pixsift.answers.queues import QueueDepth
from pixsift.core.calibration import vouches_for
from pixsift.core.outcomes import ObjectOutcome
from pixsift.errors import PixsiftError

Queues = Mapping[str, SqsQueue | str]
"""Queue by name; or why the settings do not lead to one."""


def status(database: Database, queues: Queues) -> StatusReport:
    """Outcomes per collection, the queues' depths, anomalies.

    The ledger's part is shown even if a queue does not answer.
    """
    overview = Overview(database)
    return StatusReport(
        collections=[
            CollectionStatus(
                name=collection.name,
                model=overview.settings(collection)["space"]["name"],
                calibrated=vouches_for(
                    collection.calibration, collection.epsilon, collection.second_look
                ),
                epsilon=collection.epsilon,
                generation=collection.generation,
                seq=collection.seq,
                **overview.counts(collection),
            )
            for collection in Collections(database).collections()
        ],
        queues=depths(queues),
        anomalies=[AnomalyCount(**row) for row in overview.anomalies()],
    )


def depths(queues: Queues) -> dict[str, QueueDepth]:
    """Each queue's depth, or why it does not answer."""
    return {name: _depth(queue) for name, queue in queues.items()}


def ledger_answers(database: Database) -> bool:
    """Whether the ledger answers a query now."""
    try:
        with database.connection() as connection:
            connection.execute("SELECT")
    except PixsiftError:
        return False
    return True


def outcome_counts(database: Database, collection: str) -> list[ReasonCount]:
    """Objects by outcome and reason. Raises NotFoundError for an unknown collection."""
    found = Collections(database).collection(collection)
    return [ReasonCount(**row) for row in Overview(database).outcome_counts(found)]


def current_outcomes(database: Database, collection: str) -> list[ObjectOutcome]:
    """Every object's outcome, in the order of arrival. Raises as ``outcome_counts`` does."""
    return Overview(database).current_outcomes(Collections(database).collection(collection))


def _depth(queue: SqsQueue | str) -> QueueDepth:
    if isinstance(queue, str):
        return QueueDepth(waiting=None, in_flight=None, error=queue)
    try:
        waiting, in_flight = queue.depth()
    except PixsiftError as error:
        return QueueDepth(waiting=None, in_flight=None, error=str(error))
    return QueueDepth(waiting=waiting, in_flight=in_flight, error=None)
