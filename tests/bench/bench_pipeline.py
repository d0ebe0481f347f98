"""The consumer without and with a real model, compared with a script that does one image at a time.

S3 and SQS are a counting stub in a process of its own; PostgreSQL is the embedded one, durable.
The consumer is the real process. Rates are taken between the first and the last tenth of the
images, so that starting and the last acknowledgement do not count. The naive script does the same
work per image (the same decoder functions, thumbnail, exact nearest neighbor in pgvector, one
durable row) in one thread; as many must be kept as the consumer keeps before anything is compared.
Measured without network latency, and with 15 ms added to every call, less than S3 takes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

import numpy as np
import psycopg
from PIL import Image, ImageFilter

from bench.report import publish, table
from faults.consumer_process import ConsumerProcess, outcomes
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.postgres.migrate import migrate
from pixsift.core.images import DecodedImage
from pixsift.core.sources import SourceRule

HERE = Path(__file__).resolve().parent
EPSILON = 0.001
RAW = "pixsift-raw"


def photo(seed: int) -> bytes:
    """0.2 megapixel (548 x 365) of soft shapes and grain: about 73 kB, all different."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (12, 18, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((548, 365), Image.Resampling.BICUBIC), np.int16)
    grain = chance.normal(0, 6, (365, 548, 1)).astype(np.int16)
    pixels = np.clip(soft + grain, 0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).filter(ImageFilter.SHARPEN).save(stream, "JPEG", quality=85)
    return stream.getvalue()


@contextmanager
def stub() -> Iterator[str]:
    """A stub AWS in a process of its own; its URL."""
    process = subprocess.Popen(
        [sys.executable, str(HERE.parent / "faults" / "stub_aws.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    try:
        url: str = json.loads(process.stdout.readline())["url"]
        os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "stub",
                       "AWS_SECRET_ACCESS_KEY": "stub",
                       "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
        yield url
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def facts(url: str, what: str = "facts") -> dict[str, Any]:
    with urlopen(f"{url}/_stub/{what}") as answer:  # noqa: S310 - our own stub
        document: dict[str, Any] = json.loads(answer.read())
    return document


@contextmanager
def ledger_of(server: EmbeddedPostgres, name: str, model: str) -> Iterator[str]:
    """A fresh database with the collection ``test``; its URL."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    migrate(server.url(name))
    space = load_embedder(model).space
    with Database(server.url(name)) as database:
        ledger = Ledger(database)
        ledger.ensure_space(space)
        ledger.create_collection(
            "test", sources=[SourceRule(RAW)], space_id=space.space_id, epsilon=EPSILON
        )
    yield server.url(name)


def upload(images: list[bytes]) -> None:
    objects = S3Objects()
    for number, image in enumerate(images):
        objects.put(RAW, f"{number}.jpg", image)


def prepare(url: str, images: list[bytes], latency: float) -> None:
    """Upload, then forget the calls that took and set the latency."""
    facts(url, "latency?seconds=0")
    upload(images)
    facts(url, f"latency?seconds={latency}")
    facts(url, "reset")


def rate_while(url: str, count: int, *, patience: float) -> float:
    """Images per second between a tenth and nine tenths of ``count`` acked."""
    started, left = wait_for(url, count - count // 10, patience)
    ended, rest = wait_for(url, count // 10, patience)
    return (left - rest) / (ended - started)


def wait_for(url: str, left: int, patience: float) -> tuple[float, int]:
    """The time, and how many messages are left, once that is at most ``left``."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        now = facts(url)["left"]
        if now <= left:
            return time.monotonic(), now
        time.sleep(0.02)
    raise TimeoutError(f"not down to {left} messages in {patience} s")


def run_consumer(
    server: EmbeddedPostgres,
    url: str,
    images: list[bytes],
    model: str,
    name: str,
    *,
    latency: float,
) -> tuple[float, float, dict[str, tuple[str, str]], float]:
    """Images/s, outcomes, and per image SQS calls and CPU milliseconds, the start included.

    Returns rate, calls, outcomes, CPU.
    """
    with ledger_of(server, name, model) as database_url:
        prepare(url, images, latency)
        environment = {
            **{n: v for n, v in os.environ.items() if n.startswith("AWS_")},
            "PIXSIFT_DATABASE_URL": database_url, "PIXSIFT_MODEL": model,
            "PIXSIFT_LOG_LEVEL": "WARNING",
            "OMP_NUM_THREADS": "1" if model == "stub" else str(os.cpu_count() or 1),
        }  # fmt: skip
        used = children_cpu_seconds()
        with ConsumerProcess(environment) as consumer:
            rate = rate_while(url, len(images), patience=600)
            wait_for(url, 0, 60)
            calls = sqs_calls(facts(url)["calls"]) / len(images)
            consumer.stop()
        cpu = 1000 * (children_cpu_seconds() - used) / len(images)
        return rate, calls, outcomes(database_url), cpu


def children_cpu_seconds() -> float:
    """CPU seconds of the child processes that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def sqs_calls(calls: dict[str, int]) -> int:
    names = ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch",
             "GetQueueUrl", "GetQueueAttributes")  # fmt: skip
    return sum(calls.get(name, 0) for name in names)


def run_naive(
    server: EmbeddedPostgres, url: str, images: list[bytes], name: str, *, latency: float
) -> tuple[float, int, float]:
    """Images/s, the number kept, CPU ms per image: one image at a time, a process of its own."""
    with ledger_of(server, name, "stub") as database_url:
        prepare(url, images, latency)
        used = children_cpu_seconds()
        process = subprocess.Popen(
            [sys.executable, __file__, "--naive", database_url],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        try:
            rate = rate_while(url, len(images), patience=600)
            process.wait(60)
        finally:
            if process.poll() is None:
                process.kill()
        with psycopg.connect(database_url) as connection:
            row = connection.execute("SELECT count(*) FROM naive WHERE kept").fetchone()
        assert row is not None
        return rate, row[0], 1000 * (children_cpu_seconds() - used) / len(images)


def naive(database_url: str) -> None:
    """What a first version does: receive one, fetch, decode, embed, ask, insert, delete."""
    import boto3

    from pixsift.adapters.decode.pool import DecodeLimits
    from pixsift.adapters.decode.recipe import decode_image
    from pixsift.core.events import parse_notification

    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    queue = sqs.get_queue_url(QueueName="pixsift-ingest")["QueueUrl"]
    embedder = load_embedder("stub")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE naive (key text, kept boolean, embedding halfvec(384))")
        while True:
            answer = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                [event] = parse_notification(message["Body"]).records
                body = s3.get_object(Bucket=event.bucket, Key=event.key)["Body"].read()
                image = decode_image(body, embedder.input_side, DecodeLimits())
                assert isinstance(image, DecodedImage)
                s3.put_object(Bucket="pixsift-derived", Key=f"thumbnails/{event.key}",
                              Body=image.thumbnail_webp)  # fmt: skip
                vector = str(embedder.embed([image.model_input]).embeddings[0].tolist())
                near = connection.execute(
                    "SELECT embedding <=> %s::halfvec FROM naive WHERE kept ORDER BY 1 LIMIT 1",
                    (vector,),
                ).fetchone()
                connection.execute(
                    "INSERT INTO naive VALUES (%s, %s, %s)",
                    (event.key, near is None or near[0] > EPSILON, vector),
                )
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            if not answer.get("Messages"):
                return


def run_bare_model(images: list[bytes]) -> float:
    """Images/s of the model alone, in a process of its own with the consumer's threads."""
    with tempfile.NamedTemporaryFile() as file:
        for image in images:
            file.write(len(image).to_bytes(4, "big") + image)
        file.flush()
        output = subprocess.run(
            [sys.executable, __file__, "--bare", file.name],
            env=os.environ | {"OMP_NUM_THREADS": str(os.cpu_count() or 1)},
            stdout=subprocess.PIPE, check=True, text=True,
        ).stdout  # fmt: skip
    return float(output)


def bare(path: str) -> None:
    """Print the model's images/s on decoded pixels in full batches: the median of five."""
    raw = Path(path).read_bytes()
    images = []
    while raw:
        size = int.from_bytes(raw[:4], "big")
        images.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    embedder = load_embedder("efficientnet-lite0")
    with DecoderPool(embedder.input_side, workers=1) as pool:
        decoded = [r for r in pool.decode(images) if isinstance(r, DecodedImage)]
    inputs = [image.model_input for image in decoded]
    times = []
    for _ in range(6):
        started = time.perf_counter()
        for at in range(0, len(inputs), embedder.batch_size):
            embedder.embed(inputs[at : at + embedder.batch_size])
        times.append(time.perf_counter() - started)
    sys.stdout.write(f"{len(inputs) / sorted(times[1:])[2]}\n")


def beside_naive(
    server: EmbeddedPostgres, url: str, images: list[bytes], *, repeats: int, latency: float
) -> dict[str, Any]:
    """Consumer and naive script in turn, with ``latency`` seconds added to every AWS call."""
    tag = f"{round(1000 * latency)}ms"
    fast: list[float] = []
    slow: list[float] = []
    calls = cpu = naive_cpu = 0.0
    for number in range(repeats):
        rate, per_image, found, cpu = run_consumer(
            server, url, images, "stub", f"stub_{tag}_{number}", latency=latency
        )
        naive_rate, naive_kept, naive_cpu = run_naive(
            server, url, images, f"naive_{tag}_{number}", latency=latency
        )
        kept = sum(outcome == "kept" for outcome, _ in found.values())
        assert kept == naive_kept, f"answers differ: {kept} kept, naive {naive_kept}"
        fast.append(rate)
        slow.append(naive_rate)
        calls = max(calls, per_image)
    ratios = sorted(a / b for a, b in zip(fast, slow, strict=True))
    return {
        f"consumer images/s, {tag} per call": sorted(fast)[repeats // 2],
        f"consumer spread, {tag}": [min(fast), max(fast)],
        f"naive images/s, {tag} per call": sorted(slow)[repeats // 2],
        f"ratio to naive, {tag}": ratios[repeats // 2],
        f"SQS calls per image, {tag}": calls,
        f"CPU ms per image, {tag}": cpu,
        f"naive CPU ms per image, {tag}": naive_cpu,
    }


def beside_bare_model(
    server: EmbeddedPostgres, url: str, images: list[bytes], *, repeats: int
) -> dict[str, Any]:
    """The whole pipeline and the model alone in turn, the latter also last: machines drift."""
    alone = [run_bare_model(images[:64])]
    whole: list[float] = []
    for number in range(repeats):
        name = f"model_{number}"
        rate, *_ = run_consumer(server, url, images, "efficientnet-lite0", name, latency=0)
        whole.append(rate)
        alone.append(run_bare_model(images[:64]))
    ratios = [2 * rate / (alone[n] + alone[n + 1]) for n, rate in enumerate(whole)]
    figures: dict[str, Any] = {}
    for name, values in (
        ("model alone images/s", alone),
        ("pipeline with model images/s", whole),
        ("pipeline / model", ratios),
    ):
        figures |= {name: median(values), f"{name}, spread": [min(values), max(values)]}
    return figures


def main(count: int, model_count: int, repeats: int) -> dict[str, Any]:
    """Run all of it; the figures."""
    images = [photo(seed) for seed in range(count)]
    again = images[: count // 40]
    images[-len(again) :] = again  # one in forty arrives twice
    figures: dict[str, Any] = {"images": count, "mean bytes": sum(map(len, images)) // count}
    with tempfile.TemporaryDirectory(prefix="px-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server, stub() as url:
            for latency in (0.0, 0.015):
                found = beside_naive(server, url, images, repeats=repeats, latency=latency)
                print(found, flush=True)  # noqa: T201 - what is known, should a later part fail
                figures |= found
            if model_count:
                of_model = images[:model_count]
                figures |= beside_bare_model(server, url, of_model, repeats=repeats)
    rows = [[name, value] for name, value in figures.items()]
    publish("pipeline", figures, table(["figure", "value"], rows))
    return figures


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--naive", default="")
    arguments.add_argument("--bare", default="")
    arguments.add_argument("--count", type=int, default=1000)
    arguments.add_argument("--model-count", type=int, default=400)
    arguments.add_argument("--repeats", type=int, default=3)
    options = arguments.parse_args()
    if options.naive:
        naive(options.naive)
    elif options.bare:
        bare(options.bare)
    else:
        main(options.count, options.model_count, options.repeats)
