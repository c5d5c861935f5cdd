"""The overlays of launch/kubernetes render, and our renderer does what kustomize does."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kustomize import Object, render
from tests.deploy.overlays import KUBERNETES, OVERLAYS, objects

KUBECTL = shutil.which("kubectl")


def by_name(found: Iterable[Object]) -> dict[tuple[str, str], Any]:
    return {(one["kind"], one["metadata"]["name"]): normal(one) for one in found}


def normal(value: Any) -> Any:
    """Without the order of environment variables, mounts and the like, which merges may change."""
    if isinstance(value, dict):
        return {key: normal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted(
            (normal(inner) for inner in value), key=lambda one: json.dumps(one, sort_keys=True)
        )
    return value


@pytest.mark.deploy
@pytest.mark.skipif(KUBECTL is None, reason="no kubectl here")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_our_renderer_says_what_kustomize_says(overlay: str) -> None:
    """The version of kubectl that runs here decides, hashes of generated names included."""
    command = [str(KUBECTL), "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    theirs = by_name(yaml.safe_load_all(done.stdout))
    ours = by_name(objects(overlay))
    assert sorted(ours) == sorted(theirs)
    for name, one in ours.items():
        assert one == theirs[name], name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_there_once_and_in_the_namespace(overlay: str) -> None:
    found = [(one["kind"], one["metadata"]["name"]) for one in objects(overlay)]
    assert len(found) == len(set(found))
    for one in objects(overlay):
        inside = one["metadata"].get("namespace") == "epd"
        assert inside or one["kind"] == "Namespace"


def test_what_the_renderer_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("namePrefix: x-\n")
    with pytest.raises(ValueError, match="namePrefix"):
        render(tmp_path)


def test_a_patch_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    patches = "patches: [{path: patch.yaml, target: {kind: Deployment}}]\n"
    (tmp_path / "kustomization.yaml").write_text(patches)
    (tmp_path / "patch.yaml").write_text("[]\n")
    with pytest.raises(ValueError, match="there is no .*Deployment"):
        render(tmp_path)
