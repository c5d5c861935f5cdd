"""Run by .venvs/deploy: validate.py SCHEMAS, with a JSON list of [place, object] on stdin.

Prints a JSON list of what is wrong. Kubernetes' own kinds are validated against its schemas,
strictly; kinds with a file in SCHEMAS against that, and templates of pods inside them as pods.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

VERSIONS = ("1.30", "1.37")
"""Of Kubernetes: the oldest and the newest that the files are meant for."""


def main() -> None:
    folder = Path(sys.argv[1])
    found = [
        f"{place}: {fault}" for place, one in json.load(sys.stdin) for fault in faults(folder, one)
    ]
    print(json.dumps(found))


def faults(folder: Path, one: dict[str, Any]) -> Iterator[str]:
    kind = one.get("kind", "compose")
    file = folder / f"{kind}.yaml"
    if not file.is_file():
        yield from built_in(one)
        return
    schema = yaml.safe_load(file.read_text())
    for error in jsonschema.Draft202012Validator(schema).iter_errors(one):
        yield f"{error.json_path}: {error.message[:300]}"
    for template in templates(one):
        metadata = {"name": "a-pod", **template.get("metadata", {})}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        yield from built_in(pod)


def built_in(one: dict[str, Any]) -> Iterator[str]:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(map(str, error.path))
            yield f"Kubernetes {version}: {path}: {error.message[:300]}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"Kubernetes {version}: no schema of {one.get('kind')}: {error}"


def templates(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "workerTemplate":
                yield inner
            else:
                yield from templates(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from templates(inner)


if __name__ == "__main__":
    main()
