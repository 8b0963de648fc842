"""Profiles: what they say, and what is refused by name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.analysis import PROFILES
from support.paths import ROOT

from app.errors import InvalidParameter
from app.videos import profile_documents
from app.videos.components.detect import TrackingRule

FOLDER = ROOT / "profiles"
MINIMAL = "components: {core_optical_flow: {}}\n"


def write(folder: Path, text: str, name: str = "p.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", sorted(profile_documents.names(FOLDER)))
def test_our_profiles_can_be_read(name: str) -> None:
    """Every profile that is shipped is a profile, under its file's name, without any variable set."""
    profile = PROFILES.named(FOLDER, name, {})
    assert profile.name == name
    assert profile.on_missing == "error"


def test_the_baseline_has_29_prompts() -> None:
    """The baseline's prompts are a file that can be edited; comments and empty lines are none."""
    clip = PROFILES.named(FOLDER, "baseline_gpu_local", {}).components.core_clip
    assert clip is not None
    assert len(clip.prompts["baseline"]) == 29
    assert not any(prompt.startswith("#") for prompt in clip.prompts["baseline"])


def test_variables_come_from_the_environment() -> None:
    """`${VAR}` is replaced inside values, `${VAR:-default}` has a default, and an unknown one is named."""
    engine = PROFILES.named(FOLDER, "baseline_gpu_local", {"TRITON_URL": "gpu7:8001"}).engine
    assert engine is not None
    assert engine.triton_url == "gpu7:8001"
    yolo = PROFILES.named(FOLDER, "baseline_gpu_yolo_local", {"YOLO_VARIANT": "s"}).components
    assert yolo.core_object_detections is not None
    assert yolo.core_object_detections.variant == "s"


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    """Nothing is run with a hole in it."""
    path = write(tmp_path, MINIMAL + "engine: {kind: triton, triton_url: '${NOWHERE}:8001'}\n")
    with pytest.raises(InvalidParameter, match=r"p\.yaml: the environment has no NOWHERE"):
        PROFILES.load(path, {"HOME": "/"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("components: {core_depth: {}}", r"components\.core_depth: unknown key"),
        (
            "components: {core_depth_midas: {preview: 8}}",
            r"components\.core_depth_midas\.preview: unknown key",
        ),
        ("components: {}", "no component is named"),
        ("sampling: {fps: 2}", "components: is missing"),
        (MINIMAL + "sampling: {fps: 2, every: 3}", "fps and every exclude each other"),
        (MINIMAL + "sampling: {fps: .nan}", r"line 2: \.nan is not a number"),
        (MINIMAL + "sampling: {start_s: 4, end_s: 2}", "end is 2; it has to lie after start"),
        (MINIMAL + "on_missing: maybe", "on_missing"),
        (MINIMAL + "schema_version: 2", "schema_version"),
        (MINIMAL + "name: ../../etc", "name is a plain word"),
        ("components: {core_object_detections: {conf: 2}}", "conf is from 0 to 1"),
        ("components: {core_object_detections: {track: {hihg: 0.4}}}", r"track\.hihg: unknown key"),
        (
            f"components: {{core_optical_flow: {{}}}}\nsampling: {{every: {'9' * 30}}}",
            "9 is out of range",
        ),
        (
            f"components: {{core_optical_flow: {{}}}}\nsampling: {{every: {'9' * 4000}}}",
            "a number of 4000 characters",
        ),
        ("components: {core_optical_flow: {}}\nsampling: {every: -3}", "every has to lie .*, not -3"),
        ("components: {core_optical_flow: {}}\nsampling: {fps: 0.00001}", "fps has to lie between"),
        ("components: {core_optical_flow: {}}\nsampling: {start_s: 1.0e+300}", "start has to lie between"),
        ("components: {core_optical_flow: {}}\nsampling: {end_s: 1.0e+10}", "end has to lie between"),
        ("components: {core_clip: {prompts: {a: []}}}", "the prompt set a is empty"),
        ("components: {core_clip: {prompts: {'A b': [x]}}}", "no name of a prompt set"),
        ("components: {core_clip: {prompts: 7}}", r"core_clip\.prompts"),
        ("- a list", "a profile is a mapping"),
        ("a: [", "no YAML"),
        ("!!python/object/apply:os.system ['true']", "tags"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    """A typing error is an error with its place, never a setting that is silently ignored."""
    with pytest.raises(InvalidParameter, match=words):
        PROFILES.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "components: {core_clip: {prompts: {a: /etc/passwd}}}",
        MINIMAL + "engine: {kind: triton, triton_url: '${AWS_SECRET}'}",
    ],
)
def test_a_caller_s_profile_reads_nothing_of_ours(text: str) -> None:
    """Neither a file nor the environment of the server reaches a caller through a profile."""
    with pytest.raises(InvalidParameter, match="operator's profiles only"):
        PROFILES.parse(text)


@pytest.mark.parametrize("name", ["../profiles/baseline_gpu_local", "nope", "", "prompts", "a" * 200])
def test_profiles_are_found_by_name_alone(name: str) -> None:
    """A name is no path, and an unknown one lists those that there are."""
    with pytest.raises(InvalidParameter, match="there are baseline_gpu_local, baseline_gpu_yolo_local"):
        PROFILES.named(FOLDER, name, {})


def test_the_hash_is_that_of_what_shapes_the_numbers() -> None:
    """Order, name and engine change nothing; a threshold does."""
    one = PROFILES.parse("components: {core_object_detections: {conf: 0.3, iou: 0.6}}\nname: a\n")
    same = PROFILES.parse(
        "name: b\nengine: {kind: triton}\ncomponents: {core_object_detections: {iou: 0.6, conf: 0.3}}"
    )
    other = PROFILES.parse("components: {core_object_detections: {conf: 0.31, iou: 0.6}}")
    assert one.config_hash == same.config_hash
    assert one.config_hash != other.config_hash


def test_tracking_is_on_unless_it_is_switched_off() -> None:
    """`track` takes its thresholds, or false."""
    rules = []
    for text in ("{}", "{track: true}", "{track: {high: 0.6}}", "{track: false}"):
        detect = PROFILES.parse(
            f"components: {{core_object_detections: {text}}}"
        ).components.core_object_detections
        assert detect is not None
        rules.append(detect.tracking)
    assert rules == [TrackingRule(), TrackingRule(), TrackingRule(high=0.6), None]


def test_a_caller_s_aliases_are_refused_before_they_unfold() -> None:
    """Twenty-five lines that stand for 2^25 words are an error soon, and so is a profile of 1 MB."""
    bomb = "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [*{chr(ord(c) - 1)}, *{chr(ord(c) - 1)}]\n" for c in "bcdefghijklmno"
    )
    started = time.process_time()
    with pytest.raises(InvalidParameter, match="aliases"):
        PROFILES.parse(bomb)
    with pytest.raises(InvalidParameter, match="more than"):
        PROFILES.parse("x" * 1_000_000)
    assert time.process_time() - started < 10
