"""Documents of results that nobody measured: drawn from a seed, for the tests of what is made of them."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

from lsst.daf.butler_dcache.bench.histogram import Histogram

KB, MB = 1000, 1000**2

# Client: (seconds of overhead per operation, bytes per second of one stream, requests at door and pool,
# new connections per operation)
CLIENTS = {
    "ours": ("store", 0.0040, 900e6, (1.0, 1.0), 0.01),
    "path": ("path", 0.0046, 850e6, (1.0, 1.0), 0.01),
    "curl": ("program", 0.0031, 1000e6, (1.0, 1.0), 0.02),
    "upstream": ("path", 0.0101, 500e6, (2.0, 1.0), 1.0),
    "webdavclient3": ("store", 0.0152, 300e6, (4.0, 1.0), 1.0),
    "webdav4": ("store", 0.0122, 320e6, (2.0, 1.0), 0.5),
    "fsspec-http": ("store", 0.0080, 420e6, (2.0, 1.0), 0.3),
}
EVERYBODY = tuple(CLIENTS)
FEW = ("ours", "curl", "upstream")


def row(
    name: str,
    title: str,
    group: str,
    *,
    operation: str = "get",
    size: int = 100 * KB,
    count: int = 200,
    threads: int = 8,
    rate: float = 0.0,
    clients: tuple[str, ...] = FEW,
    target: str = "embedded",
    repetitions: int = 4,
    seed: int = 1,
    noise: float = 0.03,
    slower: float = 1.0,
) -> dict[str, Any]:
    """Return one entry of ``results``.

    Parameters
    ----------
    slower : `float`, optional
        Of the client ``ours``.
    """
    draw = random.Random(f"{name} {seed}")
    work = {
        "operation": operation,
        "size_bytes": size,
        "count": count,
        "threads": threads,
        "processes": 1,
        "rate": rate,
        "steps": [],
    }
    peers = {
        client: _peer(client, work, draw, repetitions, noise, slower if client == "ours" else 1.0)
        for client in clients
    }
    return {
        "row": name,
        "title": title,
        "group": group,
        "target": target,
        "client": "ours",
        "work": work,
        "peers": peers,
        "ratios": _ratios(peers),
        "figures": _figures(peers),
    }


def document(results: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Return a document of schema 2."""
    return {
        "schema": "dcache-butler-bench",
        "schema_version": 2,
        "complete": True,
        "reason": "",
        "environment": {
            "time": "2026-11-24T15:00:00+00:00",
            "host": "node17",
            "processor": "Xeon of the Tests",
            "cores": 8,
            "kernel": "Linux 6.12",
            "python": "3.13.1",
            "openssl": "OpenSSL 3.5.1",
            "curl": "curl 8.14.1",
            "versions": {"lsst-daf-butler-dcache": "0.1.0", "lsst-resources": "30.0", "webdav4": None},
            "source": {"commit": "ba183358d1", "branch": "main", "changed": False},
        },
        "arguments": {"suite": "field", "budget": 300, "seed": 1},
        "targets": {
            "embedded": {
                "kind": "webdav",
                "title": "embedded dCache, http (not dCache)",
                "version": "embedded 0.1.0",
                "server_header": "dCache/11.2.4",
                "tls": False,
                "is_dcache": False,
                "rtt_ms": {"door": 0.05},
                "link": {"rtt_ms": None, "loss": 0, "bandwidth_mbit": None},
                "limiter": True,
            }
        },
        "problems": [],
        "skipped": [],
        "results": results,
    } | changes


def field(
    seed: int = 1, repetitions: int = 4, slower: float = 1.0, only: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Return rows like those of the standard suite, all of them or those named."""

    def asked(name: str, title: str, group: str, **how: Any) -> dict[str, Any]:
        return {"name": name, "title": title, "group": group, **how}

    sizes = (
        ("yaml", "metadata, 4 kB", 4 * KB, 400),
        ("raw", "raw image, 18 MB", 18 * MB, 40),
        ("visit", "visit image, 110 MB", 110 * MB, 8),
        ("coadd", "coadd, 180 MB", 180 * MB, 6),
    )
    rows = [
        asked(
            f"{operation}-{name}",
            f"{operation} {title}",
            "whole files",
            operation=operation,
            size=size,
            count=count,
            clients=EVERYBODY if name == "raw" else FEW,
        )
        for operation in ("get", "put")
        for name, title, size, count in sizes
    ]
    rows += [
        asked(
            f"{name}-visit",
            title,
            "parts of files",
            operation=name,
            size=110 * MB,
            count=60,
            threads=1,
        )
        for name, title in (("header", "header of a visit image"), ("cutout", "cutout of 256 x 256 pixels"))
    ]
    rows += [asked("exists", "is it there?", "names", operation="look", size=1, count=500, clients=EVERYBODY)]
    rows += [
        asked(
            f"concurrency-{threads}",
            f"get 1 MB, {threads} at a time",
            "concurrency",
            size=MB,
            count=60 * threads,
            threads=threads,
        )
        for threads in (1, 2, 4, 8, 16, 32)
    ]
    rows += [
        asked(
            f"arrivals-{rate}",
            f"get 1 MB, {rate} arrive in a second",
            "arrivals",
            size=MB,
            count=rate * 5,
            rate=float(rate),
            threads=32,
            clients=("ours", "upstream"),
        )
        for rate in (25, 50, 100, 200, 400)
    ]
    more: dict[str, Any] = {"seed": seed, "repetitions": repetitions, "slower": slower}
    return [row(**one, **more) for one in rows if not only or one["name"] in only]


def _peer(
    client: str, work: dict[str, Any], draw: random.Random, repetitions: int, noise: float, slower: float
) -> dict[str, Any]:
    level, overhead, speed, requests, connections = CLIENTS[client]
    rate, threads, count = work["rate"], work["threads"], work["count"]
    moved = work["size_bytes"] if work["operation"] in ("get", "put") else 3000
    put = work["operation"] == "put"
    alone = (overhead * (1.6 if put else 1.0) + moved / speed) * slower
    capacity = min(threads, 10) / alone
    waits = alone * max(1.0, threads / 10) if not rate else alone / max(0.03, 1 - rate / capacity)
    phases = {
        "tcp": 0.0002 * connections,
        "tls": 0.0006 * connections,
        "door": 0.25 * overhead,
        "mover": 0.35 * overhead + (waits - alone) * 0.8,
        "first_byte": 0.1 * overhead,
        "transfer": moved / speed,
        "publish": 0.5 * overhead if put else 0.0,
    }
    samples = []
    for repetition in range(repetitions):
        factor = math.exp(draw.gauss(0, noise))
        times = [waits * factor * draw.lognormvariate(0, 0.35) for _ in range(min(count, 150))]
        served = min(rate, capacity) if rate else min(threads, 10) / alone / factor
        wall = count / served
        samples.append(
            {
                "repetition": repetition,
                "wall_seconds": wall,
                "cpu_seconds": count
                * (overhead * 0.4 + moved / 3e9)
                * slower
                * math.exp(draw.gauss(0, noise)),
                "peak_bytes": round(12e6 * math.exp(draw.gauss(0, 0.02))),
                "server_cpu_seconds": count * 0.001,
                "operations": count,
                "bytes_moved": moved * count,
                "errors": {},
                "counts": {
                    "door_requests": round(requests[0] * count * (2 if put else 1)),
                    "pool_requests": round(requests[1] * count),
                    "door_connections": min(threads, 8),
                    "pool_connections": max(1, round(connections * count)),
                    "door_handshakes": 0,
                    "pool_handshakes": 0,
                    "resumed": 0,
                    "sent_bytes": moved * count,
                    "refused": 0,
                },
                "counted": {},
                "histograms": {"operation": Histogram(times).encode()},
            }
        )
    return {
        "level": level,
        "title": f"{client}, as it comes",
        "notes": [] if client == "ours" else ["compares no checksum"],
        "samples": samples,
        "observed": None,
        "summary": _summary(samples, requests, put, phases if client in ("ours", "path") else {}),
    }


def _summary(
    samples: list[dict[str, Any]], requests: tuple[float, float], put: bool, phases: dict[str, float]
) -> dict[str, Any]:
    def median(name: str) -> float:
        return statistics.median(sample[name] for sample in samples)

    merged = Histogram()
    for sample in samples:
        merged.add(Histogram.decode(sample["histograms"]["operation"]))
    wall, count, moved = median("wall_seconds"), samples[0]["operations"], samples[0]["bytes_moved"]
    counts = samples[0]["counts"]
    return {
        "throughput_bytes_per_second": moved / wall,
        "operations_per_second": count / wall,
        "cpu_seconds_per_operation": median("cpu_seconds") / count,
        "cpu_seconds_per_gib": median("cpu_seconds") / (moved / 2**30),
        "server_cpu_seconds_per_operation": median("server_cpu_seconds") / count,
        "peak_bytes": max(sample["peak_bytes"] for sample in samples),
        "requests_per_operation": {"door": requests[0] * (2 if put else 1), "pool": requests[1]},
        "connections": {"door": counts["door_connections"], "pool": counts["pool_connections"]},
        "handshakes": {"door": counts["door_handshakes"], "pool": counts["pool_handshakes"]},
        **{
            f"{name}_seconds": merged.percentile(percent)
            for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("p999", 99.9), ("max", 100))
        },
        "phases": phases,
    }


def _ratios(peers: dict[str, Any]) -> dict[str, Any]:
    ratios: dict[str, Any] = {"wall": {}, "cpu": {}, "requests": {}}
    own = peers["ours"]["samples"]
    for name, peer in peers.items():
        if name in ("ours", "path"):
            continue
        for key, quantity in (("wall", "wall_seconds"), ("cpu", "cpu_seconds")):
            logs = [math.log(a[quantity] / b[quantity]) for a, b in zip(own, peer["samples"], strict=True)]
            half = 3.18 * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else None
            mean = statistics.fmean(logs)
            ratios[key][name] = {
                "ratio": math.exp(mean),
                "low": None if half is None else math.exp(mean - half),
                "high": None if half is None else math.exp(mean + half),
                "pairs": len(logs),
            }
        theirs = sum(peer["summary"]["requests_per_operation"].values())
        ours = sum(peers["ours"]["summary"]["requests_per_operation"].values())
        ratios["requests"][name] = {
            "ratio": ours / theirs, "low": ours / theirs, "high": ours / theirs, "pairs": len(own)
        }  # fmt: skip
    return ratios


def _figures(peers: dict[str, Any]) -> list[dict[str, Any]]:
    measured = 1.15
    return [
        {
            "claim": "door requests",
            "quantity": "door",
            "peer": "",
            "at_least": False,
            "measured": {"median": 1.0, "low": 1.0, "high": 1.0},
            "limit": 1.0,
            "met": True,
            "counted": True,
        },
        {
            "claim": "wall time / curl",
            "quantity": "wall",
            "peer": "curl",
            "at_least": False,
            "measured": {"median": measured, "low": 1.1, "high": 1.21},
            "limit": 1.05,
            "met": False,
            "counted": False,
        },
    ]
