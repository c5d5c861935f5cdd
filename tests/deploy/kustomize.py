"""The part of kustomize that launch/kubernetes uses, for tests where there is no kubectl.

Resources, components, patches by kind, name and labels, a namespace, ConfigMaps and replicas.
Anything else in a kustomization is refused, so that nothing is passed over in silence; a test
compares the result with kubectl's own where that is installed.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "components",
    "patches",
    "configMapGenerator",
    "replicas",
    "configurations",
}
CLUSTER_WIDE = {"Namespace"}
SCALED = ("Deployment", "StatefulSet")
MERGED_BY = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}


def render(folder: Path) -> list[Object]:
    """All objects of an overlay."""
    return _named(_render(folder.resolve(), []))


def _render(folder: Path, given: list[Object]) -> list[Object]:
    file = folder / "kustomization.yaml"
    said = yaml.safe_load(file.read_text())
    unknown = set(said) - KNOWN
    if unknown:
        raise ValueError(f"{file}: {', '.join(sorted(unknown))} is not known here")
    objects = given
    for entry in said.get("resources", ()):
        objects = objects + _resource(folder / entry)
    for options in said.get("configMapGenerator", ()):
        objects = [*objects, _config_map(folder, options)]
    for entry in said.get("components", ()):
        objects = _render((folder / entry).resolve(), objects)
    for patch in said.get("patches", ()):
        _patch(objects, folder, patch)
    for count in said.get("replicas", ()):
        _scale(objects, count["name"], count["count"])
    for one in objects:
        if "namespace" in said and one["kind"] not in CLUSTER_WIDE:
            one["metadata"]["namespace"] = said["namespace"]
    return objects


def _resource(path: Path) -> list[Object]:
    if path.is_dir():
        return _render(path.resolve(), [])
    objects = [one for one in yaml.safe_load_all(path.read_text()) if one]
    return list(json.loads(json.dumps(objects)))  # what YAML's aliases share is changed apart


def _patch(objects: list[Object], folder: Path, said: Object) -> None:
    patch = yaml.safe_load((folder / said["path"]).read_text())
    found = [index for index, one in enumerate(objects) if _is_meant(said["target"], one)]
    if not found and isinstance(patch, list):  # the others are components', for what may be there
        raise ValueError(f"{folder / said['path']}: there is no {said['target']}")
    for index in found:
        if isinstance(patch, list):
            _apply(objects[index], patch)
        else:
            change = {key: patch[key] for key in patch.keys() - {"apiVersion", "kind", "metadata"}}
            objects[index] = _merged(objects[index], change)


def _is_meant(target: Object, one: Object) -> bool:
    """Kinds and names are patterns."""
    labels = one["metadata"].get("labels", {})
    return (
        re.fullmatch(target["kind"], one["kind"]) is not None
        and re.fullmatch(target.get("name", ".*"), one["metadata"]["name"]) is not None
        and ("labelSelector" not in target or _selects(target["labelSelector"], labels))
    )


def _apply(one: Object, operations: list[Object]) -> None:
    """As JSON patches do."""
    for operation in operations:
        *way, last = operation["path"].lstrip("/").replace("~1", "/").split("/")
        place: Any = one
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        key = int(last) if isinstance(place, list) and last != "-" else last
        value = copy.deepcopy(operation.get("value"))
        match operation["op"], key:
            case "test", _:
                assert place[key] == value, operation
            case "add", "-":
                place.append(value)
            case "add" | "replace", _:
                place[key] = value
            case "remove", _:
                del place[key]
            case unknown, _:
                raise ValueError(f"{unknown} is not known here")


def _selects(selector: str, labels: dict[str, str]) -> bool:
    among = re.fullmatch(r"(\S+) in \((.+)\)", selector)
    if among:
        return labels.get(among[1]) in among[2].split(", ")
    key, _, value = selector.partition("=")
    return labels.get(key) == value


def _merged(base: Any, patch: Any, field: str = "") -> Any:
    """As a strategic merge: lists of named things by their names, other lists replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        found = dict(base)
        for key, value in patch.items():
            found[key] = _merged(base[key], value, key) if key in base else copy.deepcopy(value)
        return found
    if isinstance(base, list) and isinstance(patch, list) and field in MERGED_BY:
        return _merged_list(base, patch, MERGED_BY[field])
    return copy.deepcopy(patch)


def _merged_list(base: list[Object], patch: list[Object], key: str) -> list[Object]:
    changes = {one[key]: one for one in patch}
    kept = [_merged(one, changes.pop(one[key])) if one[key] in changes else one for one in base]
    return [*copy.deepcopy(list(changes.values())), *kept]


def _scale(objects: list[Object], name: str, count: int) -> None:
    found = [o for o in objects if o["kind"] in SCALED and o["metadata"]["name"] == name]
    if not found:
        raise ValueError(f"replicas: there is no {' or '.join(SCALED)} {name}")
    for one in found:
        one["spec"]["replicas"] = count


def _config_map(folder: Path, options: Object) -> Object:
    data = {name: (folder / name).read_text() for name in options["files"]}
    whole = {"kind": "ConfigMap", "name": "", "data": data}  # kustomize looks the name up wrongly
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for char in "<>&":  # as Go's encoder writes them
        text = text.replace(char, f"\\u{ord(char):04x}")
    suffix = hashlib.sha256(text.encode()).hexdigest()[:10]
    suffix = suffix.translate(str.maketrans("013ae", "ghkmt"))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{options['name']}-{suffix}",
            **({"labels": options["options"]["labels"]} if "options" in options else {}),
        },
        "data": data,
        "_called": options["name"],
    }


def _named(objects: list[Object]) -> list[Object]:
    """Who names a generated ConfigMap gets its whole name."""
    names = {one.pop("_called"): one["metadata"]["name"] for one in objects if "_called" in one}
    for one in objects:
        _rename(one, names)
    return objects


def _rename(value: Any, names: dict[str, str]) -> None:
    if isinstance(value, dict):
        reference = value.get("configMap")
        if isinstance(reference, dict) and reference.get("name") in names:
            reference["name"] = names[reference["name"]]
        for inner in value.values():
            _rename(inner, names)
    elif isinstance(value, list):
        for inner in value:
            _rename(inner, names)
