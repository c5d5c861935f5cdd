"""What every actor is given: Ray's options, and the settings of its role. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from launch.ray.cluster import Actors, RayCluster

HEAD = "node:__internal_head__"
"""The resource that only Ray's head node has."""
A_LITTLE = 0.001


def options(cluster: RayCluster, name: str, role: str, actors: Actors) -> dict[str, Any]:
    """For `.options()` of an actor's class. The gateway takes none of the workers' cores."""
    gateway = role == "gateway"
    return {
        "name": name,
        "namespace": cluster.namespace,
        "lifetime": "detached",
        "max_restarts": -1,
        "max_concurrency": 4,
        "num_cpus": 0 if gateway else actors.cpus,
        "num_gpus": actors.gpus,
        "resources": {HEAD: A_LITTLE} if gateway else dict(actors.resources),
    }


def settings(cluster: RayCluster, name: str, role: str, actors: Actors, head: str) -> list[str]:
    """key=value for a role; {address} is its node's, known where it starts."""
    first, last = map(int, cluster.ports.split("-"))
    found = [*cluster.common(), *actors.settings, f"name={name}"]
    if role == "gateway":
        found.append(f"listen=tcp://{{address}}:{first}-{first + 1}")
    else:
        found.append(f"listen=tcp://{{address}}:{first + 2}-{last}")
        found += [f"gateways=[tcp://{head}:{first}]", f"threads={actors.cpus}"]
    if cluster.keys is not None:
        found.append("wire.curve_dir={folder}/keys")
    return found


def files(cluster: RayCluster) -> dict[str, str]:
    """Written on the node of every actor, for it alone."""
    found = {"config.yaml": cluster.configuration()} if cluster.config else {}
    if cluster.keys is not None:
        for file in sorted(cluster.keys.glob("cluster.*")):
            found[f"keys/{file.name}"] = file.read_text(encoding="ascii")
    return found


def described(cluster: RayCluster) -> Iterator[str]:
    """The dry run."""
    for name, (role, actors) in cluster.wanted().items():
        needs = options(cluster, name, role, actors)
        shown = ", ".join(
            f"{key}={needs[key]}" for key in ("num_cpus", "num_gpus", "resources") if needs[key]
        )
        yield f"# {name}: {shown or 'nothing'}"
        words = " ".join(
            f"--set {each}" for each in settings(cluster, name, role, actors, "{head}")
        )
        yield f"{cluster.python} -m epd {role} {words}"
