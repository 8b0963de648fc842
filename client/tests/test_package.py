"""The installed wheel: its types, its dependencies, its contents."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest

import triton_vision_gateway_client as package

FOLDER = Path(package.__file__).parent
NAME = "triton-vision-gateway-client"
EXAMPLE = """
import asyncio
from pathlib import Path

import numpy as np
from PIL import Image

from triton_vision_gateway_client import AsyncClient, Client, Detections, Frame, Job, RateLimited


def boxes(client: Client) -> list[tuple[float, float, float, float]]:
    found: Detections = client.detect("photo.jpg", conf=0.4, classes=["person", 2], timeout=None)
    client.detect(np.zeros((2, 2, 3), np.uint8))
    client.detect(Image.new("RGB", (2, 2)), session="a", timestamp=0.5)
    client.detect(Path("photo.jpg").open("rb"))
    for outcome in client.detect_batch([b"", Path("photo.jpg")]):
        if outcome.error is None:
            print(outcome.answer.track_ids.sum(), outcome.answer.models_used[0].weights_digest)
    print(client.depth("photo.jpg").values.mean(), client.embed_text(["a"]).vectors.shape)
    return [one.box for one in found.detections]


def frames(client: Client) -> list[Frame[Detections]]:
    with client.detect_video("video.mp4", fps=2, conf=0.1) as video:
        return list(video)


def job(client: Client) -> Job:
    try:
        return client.submit("video.mp4", "detect_embedded").wait(progress=True)
    except RateLimited as error:
        print(error.retry_after, error.code)
        raise


async def several(client: AsyncClient) -> int:
    async with client.depth_video("video.mp4", every=2) as video:
        return sum([frame.answer.map.width async for frame in video])


async def main() -> None:
    async with AsyncClient(api_key="gw") as client:
        found, width = await asyncio.gather(client.detect("photo.jpg"), several(client))
        print(found.reason.upper(), width, found.to_coco()["images"])
"""
MISTAKES = """
from triton_vision_gateway_client import Client

client = Client()
client.detect("photo.jpg", confidence=0.4)
client.detect("photo.jpg", conf="0.4")
client.detect(5)
client.depth("photo.jpg", size="large")
client.detect("photo.jpg").boxes.append(1)
client.detect("photo.jpg").detections[0].score = 1
"""


def check(path: Path) -> subprocess.CompletedProcess[str]:
    """Run `mypy --strict` on a user's file, which sees the installed package."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", path.name]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)


def test_a_user_s_file_is_clean_under_mypy_strict(tmp_path: Path) -> None:
    """The types are those of the wheel."""
    path = tmp_path / "example.py"
    path.write_text(EXAMPLE, encoding="utf-8")
    done = check(path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mistakes_are_found(tmp_path: Path) -> None:
    """A misspelt parameter, another type, a number for a picture, a wrong choice, a change of an answer."""
    path = tmp_path / "mistakes.py"
    path.write_text(MISTAKES, encoding="utf-8")
    lines = check(path).stdout.splitlines()
    wrong = {int(line.split(":")[1]) for line in lines if ": error:" in line}
    assert wrong == set(range(5, 11)), lines


def test_the_tests_run_with_the_wheel() -> None:
    """Not with the source beside them; types and licence are in it."""
    assert "site-packages" in FOLDER.parts
    assert (FOLDER / "py.typed").is_file()
    files = {str(file) for file in distribution(NAME).files or ()}
    assert any(name.endswith("licenses/LICENSE") for name in files)
    assert not any("tests" in Path(name).parts for name in files)
    assert distribution(NAME).version == package.__version__


def test_dependencies() -> None:
    """Httpx and NumPy; the rest are extras."""
    needed = [row for row in requires(NAME) or () if "extra ==" not in row]
    assert sorted(row.partition(">")[0] for row in needed) == ["httpx", "numpy"]
    assert set(distribution(NAME).metadata.get_all("Provides-Extra") or ()) == {
        "images",
        "pandas",
        "progress",
        "supervision",
    }


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.stem)
def test_imports(path: Path) -> None:
    """The standard library, httpx (in transports and clients), NumPy, itself; extras only when they are used."""
    allowed = {*sys.stdlib_module_names, "numpy", "triton_vision_gateway_client"}
    if path.parent.name == "transports" or path.stem.endswith("client"):
        allowed.add("httpx")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] in allowed


def test_it_works_without_extras() -> None:
    """Importing it loads none of them."""
    script = (
        "import sys, triton_vision_gateway_client\n"
        "print(*{'tqdm', 'pandas', 'supervision', 'PIL', 'app'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_both_clients_have_the_same_methods() -> None:
    """With the same parameters."""
    import inspect  # noqa: PLC0415

    def methods(kind: type) -> dict[str, list[str]]:
        public = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in public if name[0] != "_"}

    assert methods(package.Client) == methods(package.AsyncClient)
    assert methods(package.JobHandle) == methods(package.AsyncJobHandle)
