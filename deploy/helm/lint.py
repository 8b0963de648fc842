"""Checks the Helm chart without a cluster.

    python -m deploy.helm.lint

For the default values and every `values-*.yaml`: Helm's own lint, and each rendered document against the schemas of
Kubernetes, strictly, in two versions; documents of custom resources against `schemas/`. A kind without a schema is an
error.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils as kubernetes_schemas

FOLDER = Path(__file__).parent
CHART = FOLDER / "triton-vision-gateway"
SCHEMAS = FOLDER / "schemas"
# The oldest that the chart supports (Chart.yaml), and the newest whose schemas are there.
VERSIONS = ("1.30", "1.37")
Document = dict[str, Any]


class _Strict(yaml.CSafeLoader):  # type: ignore[misc]  # its package has no types
    """Refuses a key that is given twice, as Kubernetes' clients do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} twice", node.start_mark)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def main(chart: Path = CHART) -> int:
    """Print what is wrong; 1 if anything is."""
    with packaged(chart) as archive:
        faults = [*checked(archive, None)]
        for path in sorted(chart.glob("values-*.yaml")):
            faults += checked(archive, path)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


@contextlib.contextmanager
def packaged(chart: Path = CHART) -> Iterator[Path]:
    """Context manager with the archive that `helm package` makes, which holds what the chart's symbolic links name."""
    with tempfile.TemporaryDirectory() as folder:
        with _without_stderr():  # a line for every symbolic link
            archive = helm.package(chart, destination=folder)
        yield Path(archive)


def checked(archive: Path, path: Path | None) -> Iterator[str]:
    """Yield what is wrong with a chart under a file of values; None: the defaults."""
    name = "values.yaml" if path is None else path.name
    try:
        values = {} if path is None else read_values(path)
        for version in VERSIONS:
            report = helm.lint(archive, values, strict=True, kube_version=f"v{version}.0")
            for message in report["messages"]:
                yield f"{name}: helm lint, Kubernetes {version}: {message['path']}: {message['error']}"
        documents = rendered(archive, values)
    except (helm.HelmError, yaml.YAMLError) as error:
        yield f"{name}: {error}"
        return
    for document in documents:
        yield from (f"{name}: {fault}" for fault in faults_of(document))


def read_values(path: Path) -> Document:
    """Return the content of a file of values."""
    values: Document = yaml.load(path.read_text("utf-8"), _Strict)  # noqa: S506  # a safe loader
    return values


def rendered(archive: Path, values: Mapping[str, Any]) -> list[Document]:
    """Return the documents that `helm template vision -n serving` makes, without those that are empty.

    Raises:
        helm.HelmError: the values are refused, or a template fails.
        yaml.YAMLError: a template makes no YAML.
    """
    with helm.Chart.load_archive(archive.read_bytes()) as chart:
        manifests = chart.render(dict(values), name="vision", namespace="serving")
    return [
        document
        for path, text in sorted(manifests.items())
        if not path.endswith(("NOTES.txt", ".tpl"))
        for document in yaml.load_all(text, _Strict)  # a safe loader
        if document
    ]


def faults_of(document: Document) -> Iterator[str]:
    """Yield what is wrong with a document, in any of the versions."""
    kind, group = document.get("kind", ""), document.get("apiVersion", "")
    named = f"{kind} {document.get('metadata', {}).get('name', '')}"
    custom = SCHEMAS / f"{kind.lower()}-{group.replace('/', '-')}.json"
    if custom.is_file():
        for error in jsonschema.Draft7Validator(json.loads(custom.read_text("utf-8"))).iter_errors(document):
            yield f"{named}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{named}: Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError:
            yield f"{named}: Kubernetes {version} has no {kind} of {group}, and {SCHEMAS.name}/ neither"


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  # a device
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# It reads the same files of a megabyte for every document.
kubernetes_schemas.schema_contents = functools.cache(kubernetes_schemas.schema_contents)

if __name__ == "__main__":
    sys.exit(main())
