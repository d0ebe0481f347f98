"""``pixsift reembed``: the estimate, the question, the run."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto import mock_aws
from PIL import Image

from ledger_world import image, ledger_of, new_collection, outcomes, turned
from pixsift.adapters.calibration.calibrations import default_calibration
from pixsift.adapters.models.stub_embedder import StubEmbedder

Run = Callable[..., tuple[int, str, str]]


def test_reembed__estimates_asks_and_switches(
    run_pixsift: Run, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    monkeypatch.setenv("PIXSIFT_MODEL", "stub")
    body = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(body, "PNG")
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="raw")
        s3.create_bucket(Bucket="pixsift-curated")  # the journal's
        s3.put_bucket_versioning(Bucket="raw", VersioningConfiguration={"Status": "Enabled"})
        version = s3.put_object(Bucket="raw", Key="a.png", Body=body.getvalue())["VersionId"]
        with ledger_of(database_url) as ledger:
            size = len(body.getvalue())
            ledger.commit(
                new_collection(ledger),
                [image("a.png", turned(0), version=version, size_bytes=size)],
            )
        status, out, _ = run_pixsift("reembed", "c", "--dry-run", "--json")
        told = json.loads(out)
        assert (status, told["fetches"], told["bytes"], told["measured_on"]) == (0, 1, size, 1)
        status, _, err = run_pixsift("reembed", "c", "--recipe", "px1")
        assert status == 2 and "not px1" in err
        status, _, err = run_pixsift("reembed", "c", answer="n\n")
        assert status == 2 and "nothing was changed" in err and "1 GET requests" in err
        assert "not calibrated with this model" in err
        theirs, mine = (tmp_path / f"{name}.json" for name in ("theirs", "mine"))
        measured = default_calibration(StubEmbedder().space).to_json()
        measured |= {"epsilon": 0.07, "calibrated": True}
        theirs.write_text(json.dumps(measured | {"weights_sha256": "0" * 64}))
        mine.write_text(json.dumps(measured))
        status, _, err = run_pixsift("reembed", "c", "--calibration", str(theirs))
        assert status == 2 and "measured with other weights" in err
        wanted = ("reembed", "c", "--calibration", str(mine), "--preset", "moving_camera")
        status, out, _ = run_pixsift(*wanted, "--dry-run", "--json")
        answer = json.loads(out)
        assert (status, answer["calibrated"], answer["epsilon"]) == (0, True, 0.2)
        status, out, err = run_pixsift(*wanted, answer="y\n")
        assert status == 0 and "1 kept, 0 duplicates" in out, err
        assert "embedding: 1 of 1" in err
        assert outcomes(database_url)[f"a.png@{version}"][0] == "kept"
        shown = json.loads(run_pixsift("collection", "show", "c", "--json")[1])
        assert shown["calibration"]["epsilon"] == 0.07
        assert "not calibrated" not in run_pixsift("status")[1]
        status, _, err = run_pixsift("reembed", "c", "--yes")
        assert status == 2 and "already" in err
