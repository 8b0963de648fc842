"""Lists of videos as people have them: folders, patterns, buckets and tables, with names that stay apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.servers.s3 import S3Server

from app.bulk.corpus.choice import Choice, Chosen, Shard
from app.bulk.corpus.corpus import Corpus
from app.bulk.corpus.digests import Digests, digest
from app.bulk.corpus.names import SourceError
from app.bulk.corpus.tables import Columns
from app.bulk.entries import Entry


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def names(*sources: object, root: str | None = None, columns: Columns | None = None) -> list[str]:
    return [entry.name for entry in Corpus([str(source) for source in sources], root, columns)]


@pytest.fixture
def cams(tmp_path: Path) -> Path:
    """Two cameras with a video of the same name, and files that are none."""
    write(tmp_path, "cam1/0001.mp4", "cam2/0001.mp4", "cam2/deep/é x.MKV", "cam2/._0001.mp4", "cam2/notes.md")
    return tmp_path


def test_names_are_relative_to_the_folder_that_holds_all_sources(cams: Path) -> None:
    """The same file name in two folders makes two names, whether the folders are given together or one by one."""
    everything = ["cam1/0001.mp4", "cam2/0001.mp4", "cam2/deep/é x.MKV"]
    assert names(cams) == names(cams / "cam1", cams / "cam2") == everything
    assert names(cams / "cam1") == names(cams / "cam1" / "0001.mp4") == ["0001.mp4"]
    assert names(cams / "cam1", root=str(cams)) == ["cam1/0001.mp4"]


def test_patterns(cams: Path) -> None:
    """`*` stays within a folder and `**` does not; the name is relative to the part before the pattern."""
    assert names(f"{cams}/*/0001.mp4") == ["cam1/0001.mp4", "cam2/0001.mp4"]
    assert names(f"{cams}/cam[2-9]/**") == ["cam2/0001.mp4", "cam2/deep/é x.MKV"]
    assert names(f"{cams}/**/*.MKV") == ["cam2/deep/é x.MKV"]
    assert names(f"{cams}/cam[2&&]/00*") == ["cam2/0001.mp4"]
    write(cams, "[odd] *.mp4")
    assert names(cams / "[odd] *.mp4") == ["[odd] *.mp4"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("absent", "there is no file or folder"),
        ("absent/*.mp4", "no video matches"),
        ("https://example.com/a.mp4", "https:// is not supported"),
        ("", "no path or URI"),
        ("empty", "there is no video at"),
        ("empty.txt", "lists no video"),
        ("head.csv", "lists no video"),
        ("twice.csv", "several columns named 'uri'"),
        ("twice.parquet", "several columns named 'uri'"),
        ("twice/[z-a].mp4", "no pattern: bad character range z-a"),
    ],
)
def test_a_source_that_names_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    """Before anything is begun, with the reason."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing yet\n")
    (tmp_path / "head.csv").write_text("uri,id\n")
    (tmp_path / "twice.csv").write_text("uri,uri\na.mp4,b.mp4\n")
    texts = [pa.array(["a.mp4"]), pa.array(["b.mp4"])]
    pq.write_table(pa.Table.from_arrays(texts, names=["uri", "uri"]), tmp_path / "twice.parquet")
    with pytest.raises(SourceError, match=words):
        names(source)


def rows(*sources: object, columns: Columns | None = None) -> list[tuple[str, str | None, str | None]]:
    found = Corpus([str(source) for source in sources], None, columns)
    return [(entry.name, entry.id, entry.fault) for entry in found]


def test_a_csv_with_ids(cams: Path) -> None:
    """Paths are relative to the table; a damaged or repeated row is a row with its reason, and the others stand."""
    table = cams / "list.csv"
    lines = ("id,path", "x,cam1/0001.mp4", "y,", "z,https://h/v.mp4", "w,./cam1//0001.mp4", "v,s3://b/k.mp4")
    table.write_text("\n".join(lines), "utf-8-sig")
    found = rows(table)
    assert found[0] == ("cam1/0001.mp4", "x", None)
    assert found[1] == ("list.csv#2", "y", "row 2 of list.csv: the row has no path or URI")
    assert found[2][2] is not None
    assert "https:// is not supported" in found[2][2]
    assert found[3][:2] == ("cam1/0001.mp4#2", "w")
    assert found[4] == ("b/k.mp4", "v", None)
    assert [entry.code for entry in Corpus([str(table)])][3] == "duplicate"


@pytest.mark.parametrize("text", ["clip;id\na.mp4;1\n", "clip\tid\na.mp4\t1\n", '"clip",id\n"a.mp4",1\n'])
def test_separators_and_other_columns(tmp_path: Path, text: str) -> None:
    """The separator is that of the head; a column of another name is named, and a wrong one is answered with a hint."""
    (tmp_path / "l.csv").write_text(text)
    assert rows(tmp_path / "l.csv", columns=Columns("clip")) == [("a.mp4", "1", None)]
    with pytest.raises(SourceError, match="did you mean 'clip'"):
        rows(tmp_path / "l.csv", columns=Columns("clips"))
    with pytest.raises(SourceError, match="--uri-column"):
        rows(tmp_path / "l.csv")


def test_a_parquet_table(tmp_path: Path) -> None:
    """Nulls and numbers are rows without a path; a file that is none is refused."""
    table = pa.table({"uri": ["/v/a.mp4", None], "id": [7, 8]})
    pq.write_table(table, tmp_path / "l.parquet")
    assert rows(tmp_path / "l.parquet") == [
        ("v/a.mp4", "7", None), ("l.parquet#2", "8", "row 2 of l.parquet: the row has no path or URI"),
    ]  # fmt: skip
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match="no Parquet file"):
        rows(tmp_path / "broken.parquet")


def test_a_text_list(tmp_path: Path) -> None:
    """One path per line, relative to the list; bytes that are no UTF-8 name the file that has them."""
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbfa b.mp4\r\n# no\n\ncaf\xe9.mp4\n")
    found = list(Corpus([str(tmp_path / "l.txt")]))
    assert [entry.name for entry in found] == ["a b.mp4", "caf\\xe9.mp4"]
    assert found[1].uri == str(tmp_path / "caf\udce9.mp4")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_lists_of_windows(tmp_path: Path, encoding: str) -> None:
    """Lists and tables may be UTF-16 with its mark, as Excel's "Unicode text" is."""
    (tmp_path / "l.txt").write_bytes("\ufeffé.mp4\r\n".encode(encoding))
    (tmp_path / "l.csv").write_bytes("\ufeffuri\tid\r\né.mp4\t7\r\n".encode(encoding))
    assert rows(tmp_path / "l.txt") == [("é.mp4", None, None)]
    assert rows(tmp_path / "l.csv") == [("é.mp4", "7", None)]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


def test_buckets(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefixes, patterns, single objects and tables of a bucket; what is not there is refused."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = server.bucket("corpus")
    for key in ("v/cam1/1.mp4", "v/cam2/1.mp4", "v/cam2/2 ü.mp4", "v/notes.txt"):
        server.client().put_object(Bucket="corpus", Key=key, Body=b"x")
    server.client().put_object(Bucket="corpus", Key="l.csv", Body=b"url\ns3://corpus/v/cam1/1.mp4\n")
    assert (
        sorted(names(f"{bucket}/v"))
        == sorted(names(f"{bucket}/v/"))
        == ["cam1/1.mp4", "cam2/1.mp4", "cam2/2 ü.mp4"]
    )
    assert sorted(names(f"{bucket}/v/*/1.mp4")) == ["cam1/1.mp4", "cam2/1.mp4"]
    assert names(f"{bucket}/v/cam2/2 ü.mp4") == ["2 ü.mp4"]
    assert names(f"{bucket}/l.csv") == ["v/cam1/1.mp4"]
    assert [entry.uri for entry in Corpus([f"{bucket}/v/cam1"])] == ["s3://corpus/v/cam1/1.mp4"]
    for absent in ("nothing", "v/absent.mp4", "absent.csv"):
        with pytest.raises((SourceError, OSError)):
            names(f"{bucket}/{absent}")


def listed(count: int) -> list[Entry]:
    return [Entry(f"{number}.mp4", "x") for number in range(count)]


def test_shards_part_a_corpus() -> None:
    """Every video is in one shard, always the same, whatever else is listed."""
    shards = [Chosen(listed(100), Choice(Shard.parse(f"{n}/3"))) for n in (1, 2, 3)]
    parts = [{entry.name for entry in shard} for shard in shards]
    assert sorted(name for part in parts for name in part) == sorted(entry.name for entry in listed(100))
    assert all(20 < len(part) < 50 for part in parts)
    fewer = {entry.name for entry in Chosen(listed(50), Choice(Shard.parse("2/3")))}
    assert fewer < parts[1]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    """The number runs from 1 to the count."""
    with pytest.raises(ValueError, match="a shard is i/n"):
        Shard.parse(text)


def test_a_sample_is_always_the_same() -> None:
    """Two iterations and another order give the same videos, spread over the corpus."""
    chosen = Chosen(listed(1000), Choice(sample=10))
    first = [entry.name for entry in chosen]
    assert first == [entry.name for entry in chosen]
    assert first == [entry.name for entry in Chosen(listed(1000)[::-1], Choice(sample=10))]
    assert max(int(name.removesuffix(".mp4")) for name in first) > 300
    assert [entry.name for entry in Chosen(listed(9), Choice(limit=2))] == ["0.mp4", "1.mp4"]


def test_names_that_were_seen_are_known() -> None:
    """However many there are: each is new once, and known from then on."""
    seen, names_ = Digests(), [f"{number}.mp4" for number in range(5000)]
    assert all(seen.add(digest(name)) for name in names_)
    assert not any(seen.add(digest(name)) for name in names_)
    assert seen.add(digest("another.mp4"))
