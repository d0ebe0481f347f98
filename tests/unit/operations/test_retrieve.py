"""The kept images nearest to others."""

from pathlib import Path

import numpy as np
import pytest

from ledger_world import image, new_collection, turned
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.errors import RequestError, SettingError
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.retrieve import nearest, only_collection, retrieve


def test_nearest__to_any_of_the_queries_with_its_distance(
    database: Database, ledger: Ledger
) -> None:
    angles = {"a": 0.0, "b": 40.0, "c": 90.0}
    collection = ledger.collection("c")
    ledger.commit(collection, [image(key, turned(angle)) for key, angle in angles.items()])
    queries = np.stack([turned(0), turned(80)]).astype(np.float32)
    found = nearest(database, ledger.collection("c"), queries, ["zero", "eighty"], k=2)
    assert [(n.uri, n.nearest_to) for n in found] == [
        ("s3://raw/a?versionId=v1", "zero"), ("s3://raw/c?versionId=v1", "eighty"),
    ]  # fmt: skip
    assert found[0].distance == 0.0
    assert found[1].distance == pytest.approx(1 - np.cos(np.radians(10)), abs=2e-3)


def test_only_collection__asks_when_there_are_two(database: Database, ledger: Ledger) -> None:
    assert only_collection(database, None).name == "c"
    new_collection(ledger, "d")
    with pytest.raises(RequestError, match="c, d") as error:
        only_collection(database, None)
    assert error.value.remedy is not None and error.value.remedy.code == "name_collection"


def test_retrieve__another_model_is_refused_with_its_remedy_as_data(
    database: Database, ledger: Ledger, tmp_path: Path
) -> None:
    with pytest.raises(SettingError) as error:
        retrieve(database, [tmp_path / "a.png"], collection="c", model=ModelChoice("stub"), k=1)
    assert error.value.code == "other_space"
    assert error.value.remedy is not None and error.value.remedy.code == "use_its_model"
    assert dict(error.value.remedy.arguments) == {"collection": "c"}
