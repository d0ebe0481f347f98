"""Which collection is meant, and by which model files are searched with."""

from pathlib import Path

import pytest

from ledger_world import new_collection
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.api import SearchAsk
from pixsift.errors import RequestError, SettingError
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.find import find_by_files
from pixsift.operations.retrieve import only_collection


def test_only_collection__asks_when_there_are_two(database: Database, ledger: Ledger) -> None:
    assert only_collection(database, None).name == "c"
    new_collection(ledger, "d")
    with pytest.raises(RequestError, match="c, d") as error:
        only_collection(database, None)
    assert error.value.remedy is not None and error.value.remedy.code == "name_collection"


def test_retrieve__another_model_is_refused_with_its_remedy_as_data(
    database: Database, ledger: Ledger, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"any")
    with pytest.raises(SettingError) as error:
        find_by_files(database, [file], SearchAsk(collection="c", k=1), model=ModelChoice("stub"))
    assert error.value.code == "other_space"
    assert error.value.remedy is not None and error.value.remedy.code == "use_its_model"
    assert dict(error.value.remedy.arguments) == {"collection": "c"}
