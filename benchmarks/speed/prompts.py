"""29 prompts through the gateway's HTTP on a real Triton: who is asked when, counted by Triton itself.

    python -m benchmarks.speed.prompts [--repository triton/models] [--json FILE]

A table with a row a run of the same prompts: cold, again, again by another gateway process that finds the folder of
embeddings, after the weights have changed (Triton restarted, the gateway running), and after the first weights have
come back. `calls` is the growth of `success.count` in Triton's own statistics of `clip_text_onnx`; that a run makes
no call means that every embedding came from the cache. Answers are compared as well: equal where the weights are,
different where they aren't. They aren't normalised, so that a change of all values by one factor shows.

Then, without any cache, the prompts one after another (29 requests) against all in one request, whose calls are in
flight side by side: interleaved rounds, medians, and their ratio.

Without `clip_text` in the repository a stand-in takes its place, whose model computes next to nothing; the result
says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx
import psutil
from onnx import numpy_helper

from benchmarks import ROOT
from benchmarks.common import null_models, services
from deploy.local.triton_server import TritonServer
from export import manifest, repository
from export.artifacts import MODEL_FILE, write_atomic
from routing import catalogue as catalogues

CATALOGUE = catalogues.load()
BRANCH = CATALOGUE.branches["clip_text"]
MODEL = BRANCH.weights_model
CHANGED = 1.5  # what the largest parameter is multiplied with: other weights
_open = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
).open  # Triton is here, whatever proxy is set

Row = dict[str, Any]


def main() -> None:
    """Measure, print the table, and write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, default=ROOT / "triton" / "models")
    parser.add_argument("--prompts", type=Path, default=ROOT / "profiles" / "prompts" / "baseline.txt")
    parser.add_argument(
        "--rounds", type=int, default=7, help="of one after another against all in one request"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    prompts = read_prompts(options.prompts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = prepare(options.repository, folder)
        with TritonServer(folder / "models", folder / "triton.log") as triton:
            figures = {
                "prompts": len(prompts),
                "model": model,
                "runs": cache_runs(triton, folder, prompts),
                "without_cache": in_flight(triton, folder, prompts, options.rounds),
            }
    figures["environment"] = environment()
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def read_prompts(path: Path) -> list[str]:
    """One a line; empty lines and those that begin with `#` are none."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def prepare(source: Path, folder: Path) -> Row:
    """A repository of `clip_text` alone under `folder`, its files linked; what the model is."""
    models, record = folder / "models", manifest.read(MODEL, source)
    if record is None:
        null_models.build(models, (BRANCH.name,))
    else:
        (models / MODEL).mkdir(parents=True)
        shutil.copytree(source / MODEL / "1", models / MODEL / "1", copy_function=os.link)
        (models / BRANCH.name / "1").mkdir(parents=True)
    texts = repository.configs(CATALOGUE)
    repository.write_configs({spec.name: texts[spec.name] for spec in BRANCH.models}, models)
    served = manifest.read(MODEL, models)
    assert served is not None
    return {
        "stand_in": record is None,
        "weights": served.provenance.weights,
        "digest": served.digest,
        "megabytes": round((models / MODEL / "1" / MODEL_FILE).stat().st_size / 1e6, 1),
    }


def cache_runs(triton: TritonServer, folder: Path, prompts: list[str]) -> list[Row]:
    """The table's rows, in the order in which they are run."""
    first, settings = folder / "first.onnx", {"text_cache_folder": folder / "embeddings"}
    shutil.copyfile(folder / "models" / MODEL / "1" / MODEL_FILE, first)
    rows: list[Row] = []

    def run(http: httpx2.Client, name: str) -> np.ndarray:
        row, vectors = measured(triton, http, prompts)
        rows.append({"run": name, **row})
        return vectors

    with gateway(triton, folder, "a", **settings) as http:
        cold = run(http, "cold")
        assert np.array_equal(run(http, "again: in memory"), cold)
    with gateway(triton, folder, "b", **settings) as http:
        assert np.array_equal(run(http, "again: another process, from the folder"), cold)
        swap(triton, http, folder, lambda path: change(first, path))
        other = run(http, "after the weights changed")
        assert np.abs(other - cold).max() > 1e-3, "other weights gave the same embeddings"
        assert np.array_equal(run(http, "again: in memory, those weights"), other)
        swap(triton, http, folder, lambda path: shutil.copyfile(first, path))
        assert np.array_equal(run(http, "after the first weights came back"), cold)
    return rows


@contextlib.contextmanager
def gateway(triton: TritonServer, folder: Path, name: str, **settings: Any) -> Iterator[httpx2.Client]:
    """A client of a real `gateway serve` in front of this Triton."""
    manifest.write_manifest(folder / "models", folder / "manifest.json")
    given = {"manifest": folder / "manifest.json", **settings}
    environment = {f"GATEWAY_{key.upper()}": str(value) for key, value in given.items()}
    log = folder / f"{name}.log"
    with (
        services.gateway(triton.grpc_url, folder / "models", log, environment=environment) as (port, _),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        yield http


def measured(triton: TritonServer, http: httpx2.Client, prompts: list[str]) -> tuple[Row, np.ndarray]:
    """One request with all prompts: time, calls as the gateway says and as Triton counts, and the embeddings."""
    before = counted(triton)
    answer, seconds = asked(http, prompts)
    calls = counted(triton) - before
    assert calls == answer["model_calls"], f"Triton counted {calls}, the gateway {answer['model_calls']}"
    row = {"triton_calls": calls, "ms": 1000 * seconds, "signature": answer["model_signature"]}
    return row, np.array(answer["embeddings"], np.float32)


def asked(http: httpx2.Client, prompts: list[str]) -> tuple[Row, float]:
    """One request: its answer, and the seconds it took."""
    started = time.perf_counter()
    response = http.post("/v1/clip/text?normalize=false", json={"prompts": prompts})
    seconds = time.perf_counter() - started
    response.raise_for_status()
    return response.json(), seconds


def counted(triton: TritonServer) -> int:
    """Inferences of the text model that Triton has carried out since it loaded it.

    It counts an inference a moment after it has answered: the number is taken when it stands still.
    """
    numbers = [-1, _counted(triton)]
    while numbers[-1] != numbers[-2]:
        time.sleep(0.1)
        numbers.append(_counted(triton))
    return numbers[-1]


def _counted(triton: TritonServer) -> int:
    with _open(f"{triton.http_url}/v2/models/{MODEL}/stats", timeout=10) as answer:
        (row,) = json.load(answer)["model_stats"]
    return int(row["inference_stats"]["success"]["count"])


def change(source: Path, target: Path) -> None:
    """The same network with another largest parameter."""
    model = onnx.load(source)
    floats = (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    tensor = max(floats, key=lambda t: numpy_helper.to_array(t).size)
    values = numpy_helper.to_array(tensor) * np.float32(CHANGED)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    target.write_bytes(model.SerializeToString(deterministic=True))


def swap(triton: TritonServer, http: httpx2.Client, folder: Path, write: Callable[[Path], object]) -> None:
    """Other weights as an operator would put them there: the files, then a restart; until the gateway serves them."""
    record = manifest.read(MODEL, folder / "models")
    assert record is not None
    write(folder / "made.onnx")
    (folder / "models" / MODEL / "1" / MODEL_FILE).unlink()  # it is a link to somebody's file
    write_atomic(folder / "next.onnx", (folder / "made.onnx").read_bytes())
    made = manifest.publish(MODEL, folder / "next.onnx", folder / "models", record.provenance)
    triton.restart()
    limit = time.monotonic() + 60
    while described(http) != ("ready", made.digest):
        assert time.monotonic() < limit, "the gateway doesn't see the new weights"
        time.sleep(0.1)


def described(http: httpx2.Client) -> tuple[str, str]:
    """Readiness and digest of `clip_text`, as the gateway says them."""
    families = http.get("/v1/branches").json()["families"]
    row = next(row for family in families for row in family["branches"] if row["name"] == BRANCH.name)
    return row["readiness"], row["weights_digest"]


def in_flight(triton: TritonServer, folder: Path, prompts: list[str], rounds: int) -> Row:
    """Medians in ms of the prompts one after another and in one request, with no cache at all."""
    seconds: dict[str, list[float]] = {"one_after_another": [], "one_request": []}
    with gateway(triton, folder, "c", text_cache_bytes=0) as http:
        ways: dict[str, list[list[str]]] = {
            "one_after_another": [[prompt] for prompt in prompts],
            "one_request": [prompts],
        }
        before = counted(triton)
        for number in range(rounds + 1):
            for name in ways if number % 2 else reversed(ways):
                took = sum(asked(http, request)[1] for request in ways[name])
                if number:  # the first round warms up
                    seconds[name].append(took)
        calls = counted(triton) - before
    assert calls == 2 * (rounds + 1) * len(prompts), "without a cache every prompt is a call"
    medians = {f"{name}_ms": 1000 * statistics.median(values) for name, values in seconds.items()}
    ratio = medians["one_request_ms"] / medians["one_after_another_ms"]
    return {**medians, "rounds": rounds, "triton_calls": calls, "ratio": ratio}


def environment() -> Row:
    return {
        "cpu_count": psutil.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "grpcio", "tritonclient", "onnxruntime")},
    }


def report(figures: Row) -> None:
    model = figures["model"]
    kind = "a stand-in that computes next to nothing" if model["stand_in"] else f"{model['megabytes']} MB"
    print(f"{figures['prompts']} prompts, clip_text: {kind}, weights: {model['weights']}")
    print(f"{'run':44}{'calls (Triton)':>15}{'ms':>9}")
    for row in figures["runs"]:
        print(f"{row['run']:44}{row['triton_calls']:15}{row['ms']:9.1f}")
    free = figures["without_cache"]
    slow, fast = free["one_after_another_ms"], free["one_request_ms"]
    print(f"no cache: one after another {slow:.0f} ms, all in one request {fast:.0f} ms")
    print(f"ratio {free['ratio']:.2f} (medians of {free['rounds']} interleaved rounds)")


if __name__ == "__main__":
    main()
