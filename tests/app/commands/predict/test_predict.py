"""`gateway detect`, `depth`, `flow`, `places` and `embed` as people run them: files in, rows, pictures and JSON out."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from support import videos
from support.commands import run_command
from support.models import repository as test_repository
from support.paths import ROOT
from support.servers.gateway import png, scene, server
from support.waiting import PATIENCE_S, eventually

from deploy.local.triton_server import free_ports
from routing import overlay

Said = tuple[int, str, str]
Run = Callable[..., Said]
PROVENANCE = ("branch", "resolved_model_mapping", "models_used", "model_signature", "degraded", "warnings")


@pytest.fixture(scope="module")
def gateway(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A real `gateway serve` over every family."""
    with server(all_families, tmp_path_factory.mktemp("gateway") / "log", embedded_threads=1) as (http, _):
        yield http


@pytest.fixture
def run(
    all_families: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Run a command in a folder of its own, with the embedded engine over every family: code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_REPOSITORY", str(all_families))
    monkeypatch.setenv("GATEWAY_EMBEDDED_THREADS", "1")

    def command(*arguments: str) -> Said:
        return run_command(capsys, *arguments)

    return command


def picture(path: Path, *patches: tuple[int, int, int, int], side: int = 256) -> Path:
    """A file in which the test repository's detector sees one box a patch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(scene(side, side, *patches)))
    return path


def without_input(document: dict[str, Any]) -> dict[str, Any]:
    """Return the gateway's answer without the fields that the command adds."""
    return {k: v for k, v in document.items() if k not in ("input", "input_sha256", "saved")}


def test_a_picture_is_a_row_and_its_boxes_are_saved(run: Run, tmp_path: Path) -> None:
    """The table counts by class; the drawn picture and the whole answer lie in the folder, and say what made them."""
    data = picture(tmp_path / "a.png", (0, 32, 32, 32), (1, 128, 128, 32), (0, 192, 32, 32)).read_bytes()
    code, out, err = run("detect", "a.png", "--save", "out")
    assert code == 0, err
    assert out.splitlines()[0].split() == ["input", "size", "branch", "ms", "found"]
    assert "256x256" in out
    assert "yolo11n_320" in out
    assert out.endswith("2 person, 1 bicycle\n")
    answer = json.loads((tmp_path / "out/a.detect.json").read_text())
    assert answer["input_sha256"] == hashlib.sha256(data).hexdigest()
    assert {*PROVENANCE} <= set(answer)
    assert len(answer["detections"]) == 3
    drawn = Image.open(tmp_path / "out/a.detect.png")
    assert drawn.size == (256, 256)
    assert drawn.tobytes() != Image.open(tmp_path / "a.png").convert("RGB").tobytes()
    assert answer["saved"] == ["out/a.detect.png", "out/a.detect.json"]
    assert "embedded engine, models in" in err
    assert "has random weights" in err
    assert "1 of 1 answered" in err


@pytest.mark.parametrize(
    ("command", "route"),
    [
        (["detect", "a.png", "--conf", "0.3", "--classes", "person,bicycle", "--max-det", "2"],
         "/v1/detect?conf=0.3&classes=person,bicycle&max_det=2"),
        (["depth", "a.png"], "/v1/depth"),
        (["places", "a.png", "--topk", "3", "--fit", "stretch"], "/v1/places?k=3&fit=stretch"),
        (["embed", "a.png", "--no-normalize"], "/v1/clip/image?normalize=false"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("save", [[], ["--save", "out"]], ids=["shown", "saved"])
def test_the_answers_are_those_of_the_http_route(
    run: Run, gateway: httpx2.Client, tmp_path: Path, command: list[str], route: str, save: list[str]
) -> None:
    """By --url, in this process and by curl: equal in every field, whether the command asks for JSON or for arrays."""
    data = picture(tmp_path / "a.png", (0, 32, 32, 32), (1, 128, 128, 32), (2, 192, 32, 32)).read_bytes()
    curl = gateway.post(route, content=data).json()
    for who in (["--url", str(gateway.base_url)], []):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        code, out, err = run(*command, "--json", *who, *save)
        assert code == 0, err
        said = json.loads(out)
        assert without_input(said) == curl
        if save:
            assert json.loads((tmp_path / f"out/a.{command[0]}.json").read_text()) == said


def test_flow_is_that_of_the_http_route(run: Run, gateway: httpx2.Client, tmp_path: Path) -> None:
    """Two pictures a row; the field is saved as an array, and as a picture that equals the route's own."""
    files = [picture(tmp_path / name, (0, x, 32, 32)) for name, x in (("a.png", 32), ("b.png", 64))]
    parts = {f"frame{at}": path.read_bytes() for at, path in enumerate(files)}
    curl = gateway.post("/v1/flow", files=parts).json()
    shown = gateway.post("/v1/flow", files=parts, headers={"Accept": "image/png"}).content
    for who in (["--url", str(gateway.base_url)], []):
        code, out, err = run("flow", "a.png", "b.png", "--json", "--save", "out", "--overwrite", *who)
        assert code == 0, err
        said = json.loads(out)
        assert said["input"] == ["a.png", "b.png"]
        assert without_input(said) == curl
        assert np.load(tmp_path / "out/a.flow.npy").shape == (2, 256, 256)
        assert (tmp_path / "out/a.flow.png").read_bytes() == shown


def test_depth_is_saved_as_numbers_and_as_a_picture(run: Run, gateway: httpx2.Client, tmp_path: Path) -> None:
    """The npy is the map at the picture's size, the PNG the route's coloured one."""
    data = picture(tmp_path / "a.png", (0, 32, 32, 96)).read_bytes()
    assert run("depth", "a.png", "--save", "out")[0] == 0
    npy = gateway.post("/v1/depth", content=data, headers={"Accept": "application/x-npy"}).content
    assert (tmp_path / "out/a.depth.npy").read_bytes() == npy
    colour = gateway.post("/v1/depth?render=color", content=data, headers={"Accept": "image/png"}).content
    assert (tmp_path / "out/a.depth.png").read_bytes() == colour


def test_texts_and_pictures_are_embedded_and_compared(
    run: Run, gateway: httpx2.Client, tmp_path: Path
) -> None:
    """Each text is an input of its own; a picture's row names the text that is most like it."""
    picture(tmp_path / "a.png", (0, 32, 32, 96))
    code, out, err = run("embed", "--text", "a cat", "--text", "two dogs", "a.png", "--save", "out")
    assert code == 0, err
    assert [line.split("  ")[0] for line in out.splitlines()] == ["input", "a cat", "two dogs", "a.png"]
    assert "nearest text: " in out.splitlines()[-1]
    prompts = gateway.post("/v1/clip/text", json={"prompts": ["a cat", "two dogs"]}).json()["embeddings"]
    for number, vector in enumerate(prompts, 1):
        saved = np.load(tmp_path / f"out/text-{number}.embed.npy")
        assert saved.dtype == np.float32
        assert saved.shape == (512,)
        np.testing.assert_array_equal(saved, np.asarray(vector, np.float32))
    assert json.loads((tmp_path / "out/text-1.embed.json").read_text())["input"] == "a cat"


def test_the_variant_that_is_built_answers(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A family of which only another variant than its default is built is served by that one, and listed so."""
    folder = test_repository.build(tmp_path_factory.mktemp("large"), ("raft_large_256",))
    monkeypatch.setenv("GATEWAY_REPOSITORY", str(folder))
    picture(tmp_path / "a.png", (0, 32, 32, 32))
    code, out, err = run("flow", "a.png", "a.png")
    assert (code, "raft_large_256" in out) == (0, True), err
    code, out, err = run("branches")
    assert (code, "large*" in out) == (0, True), err


@pytest.mark.parametrize("by_url", [False, True], ids=["here", "url"])
def test_a_video_is_answered_frame_by_frame(
    run: Run, gateway: httpx2.Client, tmp_path: Path, by_url: bool
) -> None:
    """One row and one line per frame, as the route answers them; the copy with boxes has as many frames, at their
    times.
    """
    frames = [scene(256, 256, (0, 32 + 2 * at, 32, 64)) for at in range(10)]
    videos.write(tmp_path / "clip.mp4", frames)
    who = ["--url", str(gateway.base_url)] if by_url else []
    options = ("--every", "2", "--provenance", "change", "--json", "--save", "out")
    code, out, err = run("detect", "clip.mp4", *options, *who)
    assert code == 0, err
    said = [json.loads(line) for line in out.splitlines()]
    assert ["branch" in line for line in said] == [True, False, False, False, False, False]
    clip = (tmp_path / "clip.mp4").read_bytes()
    curl = gateway.post("/v1/detect?every=2&provenance=change", content=clip).text.splitlines()
    curl_frames = [json.loads(line) for line in curl if "frame" in json.loads(line)]
    timed = ("timings_ms", "input")
    assert [{k: v for k, v in line.items() if k not in timed} for line in said[:-1]] == [
        {k: v for k, v in line.items() if k not in timed} for line in curl_frames
    ]
    assert said[-1]["summary"]["frames"] == 5
    kept = [json.loads(line) for line in (tmp_path / "out/clip.detect.ndjson").read_text().splitlines()]
    assert kept[:-1] == said[:-1]
    from app.media.video.reader import VideoReader  # noqa: PLC0415  # a child process, for this test alone

    with (tmp_path / "out/clip.detect.mp4").open("rb") as file, VideoReader(file) as reader:
        times = [(frame.time_s, frame.release())[0] for frame in reader]
    np.testing.assert_allclose(times, [line["frame"]["time_s"] for line in said[:-1]], atol=0.001)


def test_a_broken_file_is_its_own_row(run: Run, tmp_path: Path) -> None:
    """The others go on, in the order of the command line; the exit code is 1."""
    picture(tmp_path / "a.png", (0, 32, 32, 32))
    (tmp_path / "b.png").write_bytes(picture(tmp_path / "c.png").read_bytes()[:200])
    (tmp_path / "d.txt").write_text("no picture")
    code, out, err = run("detect", "a.png", "b.png", "nope.png", "d.txt", "c.png")
    assert code == 1
    rows = out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["a.png", "b.png", "nope.png", "d.txt", "c.png"]
    assert "failed: the PNG picture is cut off" in rows[1] or "failed: the PNG picture is damaged" in rows[1]
    assert "failed: no such file" in rows[2]
    assert "failed: the content is text" in rows[3]
    assert "2 of 5 answered" in err
    assert "3 failed" in err
    failed = json.loads(run("detect", "b.png", "a.png", "--json")[1].splitlines()[0])
    assert failed["error"]["code"] == "invalid_image"
    assert failed["input"] == "b.png"


def test_folders_patterns_and_same_names(run: Run, tmp_path: Path) -> None:
    """Folders are searched whole, patterns may be quoted, hidden files are left out, and no file is written twice."""
    for name in ("in/a.png", "in/sub/a.png", "in/sub/.hidden.png", "other/a.png", "other/A.PNG"):
        picture(tmp_path / name)
    (tmp_path / "in/x.gif").write_bytes(b"GIF89a" + bytes(20))
    code, out, _ = run("places", "in", "other/*", "--save", "out", "--json")
    said = [json.loads(line) for line in out.splitlines()]
    assert code == 1  # the GIF
    assert sorted(line["input"] for line in said) == [
        "in/a.png", "in/sub/a.png", "in/x.gif", "other/A.PNG", "other/a.png",
    ]  # fmt: skip
    saved = [path for line in said for path in line.get("saved", ())]
    assert len({path.casefold() for path in saved}) == 4
    assert {"out/a.places.json", "out/sub/a.places.json"} <= set(saved)


def test_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    """Files of an earlier run stop the next one before it begins; --overwrite replaces them."""
    picture(tmp_path / "a.png", (0, 32, 32, 32))
    assert run("places", "a.png", "--save", "out")[0] == 0
    before = (tmp_path / "out/a.places.json").read_bytes()
    code, out, err = run("places", "a.png", "--save", "out", "--topk", "2")
    assert (code, out) == (2, "")
    assert err.strip().splitlines()[-1].startswith("gateway places: out/a.places.json is there already")
    assert (tmp_path / "out/a.places.json").read_bytes() == before
    assert run("places", "a.png", "--save", "out", "--topk", "2", "--overwrite")[0] == 0
    assert len(json.loads((tmp_path / "out/a.places.json").read_text())["places"]) == 2
    assert list((tmp_path / "out").glob(".*")) == []


def test_a_name_can_not_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    """Escape sequences in a file's name are printed as text, in rows, in JSON and in the names of what is saved."""
    name = "evil\x1b[2J\nname.png"
    picture(tmp_path / name, (0, 32, 32, 32))
    for more in ([], ["--json"]):
        code, out, err = run("places", name, "--save", "out", "--overwrite", *more)
        assert code == 0
        assert "\x1b" not in out + err
        assert "evil\\x1b[2J\\nname" in out.replace("\\\\", "\\")
    assert all("\x1b" not in path.name for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("detect", "name at least one picture or video"),
        ("embed", "name at least one picture, or a text with --text"),
        ("flow a.png", "flow takes two pictures"),
        ("flow a.png a.png a.png", "3 pictures can't be split into pairs; --consecutive"),
        ("detect b.png", "no such file; did you mean 'a.png'?: b.png"),
        ("detect empty", "there is no picture or video in empty"),
        ("detect - -", "- is named twice"),
        ("detect a.png --branch yolo11n_64", "did you mean 'yolo11n_640'?"),
        ("detect a.png --classes persom", "did you mean 'person'?"),
        ("detect a.png --variant m", "yolo11m_320: its weights are missing"),
        ("detect a.png --url localhost:1", "did you mean http://localhost:1?"),
        ("detect a.png --url http://127.0.0.1:1", "nobody answers there"),
        ("detect a.png --url ftp://x", "no http:// or https:// address"),
        ("detect a.png --url http://[", "http://[ is no http:// or https:// address"),
        ("detect a.png --url http://a..b", "no http:// or https:// address"),
        ("detect a.png --url http://127.0.0.1:99999", "no http:// or https:// address"),
        ("detect a.png --url http://127.0.0.1:1/é", "no http:// or https:// address"),
        ("detect a.png --url http://127.0.0.1:1?x=1", "has a query or a fragment"),
        ("detect link.png", "no such file: it is a link to nowhere.png: link.png"),
        ("detect a.png --cacert x.pem", "go with --url"),
        ("detect a.png --url http://127.0.0.1:1 --api-key-file nope", "--api-key-file: nope: No such file"),
        ("detect a.png --repository nowhere", "no models: there is no folder nowhere"),
        ("detect a.png --save a.png", "--save a.png: "),
        ("detect https://example.org/a.png", "an address is not read"),
    ],
)
def test_what_is_wrong_with_the_line_is_one_line(run: Run, tmp_path: Path, line: str, words: str) -> None:
    """No traceback; what to do; exit code 2, and no model is loaded."""
    picture(tmp_path / "a.png", (0, 32, 32, 32))
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere.png")
    code, out, err = run(*line.split())
    assert code == 2
    assert words in err + out
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("detect a.png --clases dog", "did you mean '--classes'?"),
        ("detct a.png", "did you mean 'detect'?"),
        ("detect a.png --conf 2", "2 is not between 0 and 1"),
        ("places a.png --topk 0", "0 is less than 1"),
        ("places a.png --timeout 1e300", "1e300 is greater than 86400"),
        ("places -a.png", "-- goes before names of files that begin with -"),
        ("detect a.png --every 2 --fps 3", "not allowed with argument"),
    ],
)
def test_a_slip_in_an_option_has_a_hint(run: Run, tmp_path: Path, line: str, hint: str) -> None:
    """As in the other commands: exit code 2, and the name that is like it."""
    picture(tmp_path / "-a.png")
    code, _, err = run(*line.split())
    assert code == 2
    assert hint in err.splitlines()[-1]


def test_files_without_an_end_and_files_too_large_are_refused_by_their_head(run: Run, tmp_path: Path) -> None:
    """`/dev/zero` is of no known kind; of a picture no more is read than any gateway takes."""
    (tmp_path / "huge.png").write_bytes(png(scene(64, 64)))
    os.truncate(tmp_path / "huge.png", 1 << 40)
    code, out, _ = run("places", "/dev/zero", "huge.png", "--json")
    assert code == 1
    assert [json.loads(line)["error"]["detail"].partition(",")[0] for line in out.splitlines()] == [
        "the content is of an unknown kind",
        "it is larger than 256 MiB",
    ]


def test_the_longest_names_can_be_saved(run: Run, tmp_path: Path) -> None:
    """Names as long as a file system takes, in letters of several bytes, are cut so that suffixes fit."""
    picture(tmp_path / f"{'日' * 83}.png", (0, 32, 32, 32))
    assert run("places", ".", "--save", "out")[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{'日' * 60}.places.json"]


@pytest.mark.parametrize(
    ("redirection", "code"), [("metrics >/dev/full", 2), ("metrics >&-", 0), ("keys --help 2>&- <&-", 0)]
)
def test_output_that_is_full_or_closed_is_no_traceback(tmp_path: Path, redirection: str, code: int) -> None:
    """One line says that the output can't be written; a closed one is as the null device."""
    line = f"{shlex.quote(sys.executable)} -m triton_vision_gateway {redirection}"
    done = subprocess.run(["sh", "-c", line], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
                          capture_output=True, timeout=PATIENCE_S, check=False)  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stderr == (
        b"gateway: the output can't be written: No space left on device\n" if code else b""
    )


def test_options_may_stand_between_files(run: Run, tmp_path: Path) -> None:
    """As with most commands; after -- all is a file."""
    for name in ("a.png", "b.png", "--c.png"):
        picture(tmp_path / name, (0, 32, 32, 32))
    code, out, _ = run("detect", "a.png", "--conf", "0.3", "b.png", "--json", "--", "--c.png")
    assert code == 0
    assert [json.loads(line)["input"] for line in out.splitlines()] == ["a.png", "b.png", "--c.png"]


def test_a_folder_without_models_says_how_to_build_some(run: Run, tmp_path: Path) -> None:
    """The folder is named, and so is what to run."""
    picture(tmp_path / "a.png")
    (tmp_path / "models").mkdir()
    code, out, err = run("depth", "a.png", "--repository", "models")
    assert (code, out) == (2, "")
    assert "in models: no model of this family; `make run` builds some" in err


def test_files_that_are_not_those_of_the_record_are_told(
    run: Run, all_families: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged model may still answer: one line on stderr names it, and another one a setting that is none."""
    monkeypatch.setenv("GATEWAY_REPOSITRY", "elsewhere")
    picture(tmp_path / "a.png", (0, 32, 32, 32))
    catalogue = overlay.load(None)
    shutil.copytree(all_families, tmp_path / "models")
    for branch in catalogue["places"].branches:
        note = tmp_path / "models" / branch.weights_model / "1" / "weights.json"
        if not note.parent.is_dir():  # this size isn't built
            continue
        note.unlink(missing_ok=True)
        note.write_text(json.dumps({"digest": f"sha256:{'0' * 64}", "weights": "checkpoint"}))
    code, _, err = run("places", "a.png", "--repository", "models")
    assert code == 0
    assert "GATEWAY_REPOSITRY: there is no such setting; did you mean" in err
    assert err.count("its files differ from the digest in weights.json") == 1


def program(*arguments: str, folder: Path, **more: Any) -> subprocess.Popen[bytes]:
    """`gateway` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from app.start import main; sys.exit(main())", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GATEWAY_EMBEDDED_THREADS": "1"}, **more,
    )  # fmt: skip


def test_the_boxes_of_the_readme_are_those_of_curl(gateway: httpx2.Client, tmp_path: Path) -> None:
    """docs/astronaut.jpg by `gateway detect` in a process of its own, through stdin too, and by curl: equal answers."""
    data = (ROOT / "docs/astronaut.jpg").read_bytes()
    curl = gateway.post("/v1/detect", content=data).json()
    here = program(
        "detect", str(ROOT / "docs/astronaut.jpg"), "--json", "--url", str(gateway.base_url), folder=tmp_path
    )
    out, err = here.communicate(timeout=PATIENCE_S)
    assert here.returncode == 0, err
    assert without_input(json.loads(out)) == curl
    piped = program(
        "detect", "-", "--json", "--url", str(gateway.base_url), folder=tmp_path, stdin=subprocess.PIPE
    )
    assert without_input(json.loads(piped.communicate(data, timeout=PATIENCE_S)[0])) == curl


def examples(document: str) -> list[list[str]]:
    """The commands of this kind that a document tells its reader to run."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    wanted = ("detect", "depth", "flow", "places", "embed", "branches", "doctor")
    return [line[1:] for line in lines if line[:1] == [".venv/bin/gateway"] and line[1] in wanted]


@pytest.mark.parametrize("document", ["README.md", "docs/cli.md"])
def test_examples_of_the_documents_run(
    run: Run, gateway: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    """Every command of this kind that stands there ends with exit code 0, in the order of the document."""
    branches = (
        "yolo11n_640",
        "midas_512",
        "raft_512",
        "clip_image_448",
        "clip_text",
        "places365_resnet50_448",
    )
    monkeypatch.setenv("GATEWAY_REPOSITORY", str(test_repository.build(tmp_path / "models", branches)))
    monkeypatch.setenv("GATEWAY_PORT", str(free_ports(1)[0]))
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    lines = examples(document)
    assert lines
    for words in lines:
        line = [str(gateway.base_url) if word == "http://127.0.0.1:8080" else word for word in words]
        if "<" in line:
            data = Path(line[line.index("<") + 1]).read_bytes()
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
            line = line[: line.index("<")]
        code, _, err = run(*line)
        assert code == 0, (line, err)


def test_ctrl_c_ends_it_at_once(all_families: Path, tmp_path: Path) -> None:
    """Exit code 130, no traceback, and nothing unfinished in the folder."""
    videos.count(tmp_path / "long.mp4", 2000)
    process = program(
        "detect", "long.mp4", "--json", "--save", "out", "--repository", str(all_families), folder=tmp_path
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first frame
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert time.monotonic() - began < PATIENCE_S / 2
    assert b"Traceback" not in err
    eventually(lambda: list((tmp_path / "out").iterdir()) == [])


def test_a_closed_pipe_is_no_traceback(all_families: Path, tmp_path: Path) -> None:
    """`| head -1`: exit code 141, as the shell has it."""
    videos.count(tmp_path / "long.mp4", 500)
    with program(
        "detect", "long.mp4", "--json", "--repository", str(all_families), folder=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 128 + signal.SIGPIPE, err
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err


def test_help_imports_neither_numpy_nor_the_service() -> None:
    """`gateway --help` and the help of each command are quick."""
    script = (
        "import sys; sys.argv = ['gateway', 'detect', '--help']\n"
        "try:\n    from app.start import main; main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('numpy', 'cv2', 'fastapi', 'onnxruntime', 'PIL', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Exit code 0:" in done.stdout


def test_numbers_of_an_embedding_are_what_was_answered(run: Run, tmp_path: Path) -> None:
    """The array and the JSON hold the same float32 numbers."""
    picture(tmp_path / "a.png", (1, 32, 32, 96))
    _, out, _ = run("embed", "a.png", "--json", "--save", "out")
    vector = np.load(io.BytesIO((tmp_path / "out/a.embed.npy").read_bytes()))
    np.testing.assert_array_equal(vector, np.asarray(json.loads(out)["embedding"], np.float32))
