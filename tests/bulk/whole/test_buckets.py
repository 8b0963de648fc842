"""Runs from a bucket into a bucket."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from support.analysis import patches, same_numbers
from support.analyze_command import BOXES, ENVIRONMENT
from support.analyze_command import options as analyze_options
from support.analyze_command import run as analyze
from support.bulk.command import options, run
from support.servers.s3 import S3Server

from app.cli import main


def fetched(client: Any, bucket: str, folder: Path) -> dict[str, bytes]:
    """Copy a bucket into a folder; return the bytes of each object."""
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for row in page.get("Contents", ()):
            data = client.get_object(Bucket=bucket, Key=row["Key"])["Body"].read()
            (folder / row["Key"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / row["Key"]).write_bytes(data)
            found[row["Key"]] = data
    return found


def verified(capsys: pytest.CaptureFixture[str], output: str) -> tuple[int, dict[str, str]]:
    """Exit code of `gateway verify`, and the faults by file."""
    capsys.readouterr()
    code = main(["verify", output, "--files-only", "--json"])
    *manifests, _ = map(json.loads, capsys.readouterr().out.splitlines())
    return code, {row["file"]: row["fault"] for one in manifests for row in one["problems"]}


def test_from_a_bucket_into_a_bucket(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same arrays as `gateway analyze` of files; digests hold; a second run skips; nothing temporary is left.

    The report and the tables are made in the bucket's place, and `gateway verify` finds what somebody changed there.
    """
    with S3Server() as server:
        for name, value in {**ENVIRONMENT, **server.environment}.items():
            monkeypatch.setenv(name, value)
        client = server.client()
        source, target = server.bucket("source"), server.bucket("target")
        for key in ("cam1/a b.mp4", "cam2/a b.mp4", "cam2/ü.mp4"):
            path = tmp_path / "in" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            client.upload_file(str(patches(path, 8)), "source", f"v/{key}")
        client.put_object(Bucket="source", Key="v/damaged.mp4", Body=b"no video")
        given = [f"{source}/v", *options(repository, tmp_path, BOXES), "--output", f"{target}/out"]
        code, rows, _ = run(*given, "--workers", "1")
        assert (code, rows["damaged.mp4"]["state"]) == (1, "failed")
        assert rows["cam2/ü.mp4"]["uri"] == "s3://source/v/cam2/ü.mp4"
        single = analyze_options(repository, tmp_path, BOXES)
        assert analyze("--video-path", tmp_path / "in", "--output", tmp_path / "single", *single)[0] == 0
        found = fetched(client, "target", tmp_path / "copy")
        for key in ("cam1/a b.mp4", "cam2/a b.mp4", "cam2/ü.mp4"):
            assert same_numbers(tmp_path / "single" / key, tmp_path / "copy" / "out" / "videos" / key)
            place = f"out/videos/{key}"
            for row in json.loads(found[f"{place}/manifest.json"])["artifacts"]:
                assert hashlib.sha256(found[f"{place}/{row['name']}"]).hexdigest() == row["sha256"]
        assert [key for key in found if "partial" in key or "attempts" in key] == []
        code, rows, _ = run(*given, "--workers", "1")
        assert sorted(row["state"] for row in rows.values()) == ["failed", "skipped", "skipped", "skipped"]
        report = tmp_path / "report.html"
        assert main(["bulk", "report", f"{target}/out", "--to", str(report)]) == 0
        assert "cam2/ü.mp4" in report.read_text(encoding="utf-8")
        assert main(["bulk", "tables", f"{target}/out"]) == 0
        assert any(key.endswith(".parquet") for key in fetched(client, "target", tmp_path / "tables"))
        assert verified(capsys, f"{target}/out/videos") == (0, {})
        changed = "cam1/a b.mp4/core_object_detections/detections.npz"
        key = f"out/videos/{changed}"
        client.put_object(Bucket="target", Key=key, Body=bytes(len(found[key])))
        assert verified(capsys, f"{target}/out/videos") == (1, {changed: "other_digest"})
