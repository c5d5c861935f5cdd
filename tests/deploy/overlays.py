"""The overlays of launch/kubernetes, rendered, and what tests ask of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.deploy.kustomize import Object, render

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "launch" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())

ADDRESS = "10.0.0.7"
VALUES = {"POD_NAME": "a-pod", "POD_IP": ADDRESS, "ADMIN_KEY": "key", "OMP_NUM_THREADS": "4"}
"""What a node puts in place of $(NAME)."""


@cache
def objects(overlay: str) -> list[Object]:
    """All of one overlay; not to be changed."""
    return render(KUBERNETES / "overlays" / overlay)


def of_kind(overlay: str, kind: str) -> list[Object]:
    return [one for one in objects(overlay) if one["kind"] == kind]


@dataclass(frozen=True)
class Pod:
    """One template of pods: whose it is, its labels and its spec."""

    owner: str
    replicas: int
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def main(self) -> dict[str, Any]:
        [container] = self.spec["containers"]
        return dict(container)

    @property
    def arguments(self) -> list[str]:
        """As the container gets them."""
        found = []
        for argument in self.main["args"]:
            for name, value in VALUES.items():
                argument = argument.replace(f"$({name})", value)
            found.append(argument)
        return found

    def setting(self, key: str) -> str:
        prefix = f"--set={key}="
        [found] = [a.removeprefix(prefix) for a in self.arguments if a.startswith(prefix)]
        return found


def pods(overlay: str) -> Iterator[Pod]:
    """Those of Deployments and StatefulSets, and of the roles of a DisaggregatedSet."""
    for one in [*of_kind(overlay, "Deployment"), *of_kind(overlay, "StatefulSet")]:
        template = one["spec"]["template"]
        labels = template["metadata"]["labels"]
        yield Pod(one["metadata"]["name"], one["spec"]["replicas"], labels, template["spec"])
    for one in of_kind(overlay, "DisaggregatedSet"):
        for role in one["spec"]["roles"]:
            template = role["spec"]["leaderWorkerTemplate"]["workerTemplate"]
            name = f"{one['metadata']['name']}-{role['name']}"
            labels = template["metadata"]["labels"]
            yield Pod(name, role["spec"].get("replicas", 1), labels, template["spec"])


def every_pod() -> list[tuple[str, Pod]]:
    return [(overlay, pod) for overlay in OVERLAYS for pod in pods(overlay)]
