"""Values of profiles: taken as they were meant, or refused with the place."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from support.analysis import PROFILES

from app.errors import InvalidParameter
from app.videos.profile import Profile

DETECT = "components: {core_object_detections: {variant: n}}\n"
CLIP = "components: {core_clip: {prompts: {a: [%s]}}}"


def detect(text: str) -> str:
    return f"components: {{core_object_detections: {{variant: n, {text}}}}}\n"


def prompts(profile: Profile, name: str = "a") -> tuple[str, ...]:
    assert profile.components.core_clip is not None
    return tuple(profile.components.core_clip.prompts[name])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x: 0x" + "f" * 4000 + "\n" + DETECT, "line 1: a number of 4002 characters"),
        ("x: 1" + ":59" * 3000 + "\n" + DETECT, "x: unknown key"),
        ("x: 1" + ":59" * 3000 + ".5\n" + DETECT, "x: unknown key"),
        ('name: "\\Uffffffff"\n' + DETECT, "no YAML"),
        ('name: "\\ud83d"\n' + DETECT, "lone surrogate"),
        (detect("conf: 0.9, conf: 0.1"), "the key 'conf' is given twice"),
        (detect("max_det: " + "9" * 5000), "a number of 5000 characters"),
        (detect("max_det: 1" + "0" * 400), "a number of 401 characters"),
        (detect("max_det: 1e30"), "max_det"),
        (detect("max_det: 0"), "max_det is from 1 to 3000"),
        (detect("max_det: 3001"), "max_det is from 1 to 3000"),
        (detect("conf: 1:30"), "conf: Input should be a valid number"),
        (detect("conf: 1e400"), "out of range"),
        (detect("conf: .inf"), "is not a number"),
        (detect("classes: [" + ",".join(["[]"] * 43_000) + "]"), "more than 5000 values"),
        (detect("classes: [" + ",".join(["[]"] * 2000) + "]"), "and [0-9]+ more"),
        (detect("classes: [" + ",".join(["1"] * 1001) + "]"), "the number of classes is from 0 to 1000"),
        (detect("track: {match: 0}"), r"match must lie in \(0, 1\]"),
        (detect("track: {match: 1.1}"), r"match must lie in \(0, 1\]"),
        (detect("track: {high: 1.1}"), "low <= high <= 1"),
        (detect("track: {low: -0.1}"), "low <= high <= 1"),
        (detect("track: {low: 0.6, high: 0.5}"), "low <= high <= 1"),
        (detect("track: {new: -1}"), r"new must lie in \[0, 1\]"),
        (detect("track: {new: 2}"), r"new must lie in \[0, 1\]"),
        (detect("track: {buffer_s: -1}"), "buffer_s"),
        (detect("track: {buffer_s: 60.1}"), "buffer_s is from 0 to 60"),
        (detect("track: {buffer_s: 1e30}"), "buffer_s"),
        (DETECT + "sampling: {every: 0}", "every"),
        (DETECT + "sampling: {every: 1" + "0" * 30 + "}", "out of range"),
        (DETECT + "sampling: {fps: 0}", "fps"),
        (DETECT + "sampling: {fps: 1001}", "fps"),
        (DETECT + "sampling: {fps: 1:30}", "fps"),
        (DETECT + "sampling: {start_s: -1}", "start"),
        (DETECT + "sampling: {start_s: 2024-01-01}", "start_s"),
        (DETECT + "analysis: {width: 0}", "width"),
        (CLIP % ",".join(f"p{i}" for i in range(1001)), "1001 prompts; the limit is 1000"),
        (CLIP % ",".join(f"p{i}" for i in range(17_000)), "more than 5000 values"),
        (CLIP % ("x" * 4097), "a prompt has 4097 characters; the limit is 4096"),
        (CLIP % '"\\ud83d"', "lone surrogate"),
        (f'{{"components": {{"core_clip": {{"prompts": {{"a": ["{chr(92)}ud83d"]}}}}}}}}', "lone surrogate"),
        ('{"components": {"core_optical_flow": {}}, "components": {}}', "'components' is given twice"),
        ("components: {core_optical_flow: {}, <<: {core_clip: {}}}", "components.<<: unknown key"),
        ("x" * 1000 + ": 1\n" + DETECT, "unknown key"),
    ],
)
def test_a_value_that_cannot_serve_is_refused(text: str, words: str) -> None:
    """Numbers without end, keys given twice, bounds and sizes: refused at the door, briefly and at once."""
    started = time.process_time()
    with pytest.raises(InvalidParameter, match=words) as caught:
        PROFILES.parse(text)
    assert caught.value.detail.startswith("profile: ")
    assert len(caught.value.detail) < 2500
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "text",
    [
        detect("track: {match: 1, high: 1, low: 0, new: 0, buffer_s: 60}"),
        detect("track: {match: 0.01, high: 0, low: 0, new: 1, buffer_s: 0}"),
        detect("conf: 0, iou: 1, max_det: 3000"),
        DETECT + "sampling: {every: 1, start_s: 0.5, end_s: 1}",
        DETECT + "sampling: {fps: 1000, keyframes: true}",
    ],
)
def test_bounds_themselves_are_allowed(text: str) -> None:
    """A profile accepts the bounds that a tracker and a sampler accept."""
    assert PROFILES.restored(json.dumps(PROFILES.parse(text).to_dict())) == PROFILES.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CLIP % '"a \U0001f600 cat"', "a \U0001f600 cat"),
        (CLIP % '"a \\U0001F600 cat"', "a \U0001f600 cat"),
        (CLIP % '"a \\ud83d\\ude00 cat"', "a \U0001f600 cat"),
        (CLIP % "no", "no"),
        (CLIP % "1:30", "1:30"),
        (CLIP % "2024-01-01", "2024-01-01"),
        (CLIP % '"\\t\\x07"', "\t\x07"),
        (
            '{"components": {"core_clip": {"prompts": {"a": ["\\ud83d\\ude00 \\u00e9"]}}}}',
            "\U0001f600 \u00e9",
        ),
        (CLIP % ("x" * 4096), "x" * 4096),
    ],
)
def test_prompts_survive_being_stored(text: str, expected: str) -> None:
    """A prompt is the same after a job was written to disk and read again, and so is the profile's hash."""
    sent = PROFILES.parse(text)
    stored = PROFILES.restored(json.dumps(sent.to_dict()))
    assert prompts(sent) == prompts(stored) == (expected,)
    assert sent.config_hash == stored.config_hash


def test_a_profile_holds_as_many_prompts_as_the_service_allows() -> None:
    """The route's limit is the profile's, over all sets together; 1,000 unless the service says otherwise."""
    text = "components: {core_clip: {prompts: {a: [%s], b: [%s]}}}"
    half = ",".join(f"p{i}" for i in range(500))
    assert len(prompts(PROFILES.parse(text % (half, half)), "b")) == 500
    with pytest.raises(InvalidParameter, match="1001 prompts; the limit is 1000"):
        PROFILES.parse(text % (half, half + ",more"))
    assert len(prompts(PROFILES.parse(CLIP % ",".join(["x"] * 7000), 7000))) == 7000


def test_a_wrong_threshold_is_the_only_fault_told() -> None:
    """`track` may be true or false, too, but whoever sends thresholds has no use for hearing that."""
    for text, fault in (
        ("{match: 0}", "match must lie in (0, 1], not 0.0"),
        ("{hihg: 0.4}", "unknown key"),
    ):
        with pytest.raises(InvalidParameter) as caught:
            PROFILES.parse(detect(f"track: {text}"))
        assert caught.value.detail.endswith(fault)
        assert "boolean" not in caught.value.detail


def test_ten_faults_are_told_and_the_others_counted() -> None:
    """A profile of many mistakes has a short answer."""
    text = "\n".join(f"key{i}: 1" for i in range(50)) + "\n" + DETECT
    with pytest.raises(InvalidParameter) as caught:
        PROFILES.parse(text)
    assert caught.value.detail.count("unknown key") == 10
    assert caught.value.detail.endswith("; and 40 more")


def test_a_stored_profile_with_a_bad_value_is_an_error_of_ours() -> None:
    """A value that an earlier version accepted fails its job with a reason."""
    stored = PROFILES.parse(DETECT).to_dict()
    for bad in ({"sampling": {"every": 10**30}}, {"name": "\ud83d"}, {"schema_version": 10**400}):
        with pytest.raises(InvalidParameter, match=r"profile\.json: "):
            PROFILES.restored(json.dumps(stored | bad))


def test_files_are_not_read_without_an_end(tmp_path: Path) -> None:
    """A profile, or its file of prompts, of more than 64 MiB is refused: a device such as /dev/zero never ends."""
    huge = tmp_path / "huge"
    huge.touch()
    os.truncate(huge, (64 << 20) + 1)
    with pytest.raises(InvalidParameter, match=r"huge can't be read: .*more than 67108864 characters"):
        PROFILES.load(huge, {})
    profile = tmp_path / "p.yaml"
    profile.write_text("components: {core_clip: {prompts: {a: huge}}}")
    with pytest.raises(InvalidParameter, match=r"huge can't be read: .*more than 67108864 characters"):
        PROFILES.load(profile, {})
