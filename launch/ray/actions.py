"""The commands, on a Ray cluster that runs."""

from __future__ import annotations

from typing import Any

from epd.errors import ConfigError
from launch.ray import actor as actor_module
from launch.ray.actor import RoleActor
from launch.ray.cluster import Actors, RayCluster
from launch.ray.plan import files, options, settings

MARGIN_S = 30.0
"""Beside `drain_s`, before a process that ends is killed."""


def connected(cluster: RayCluster, address: str) -> RayActors:
    """ConfigError where Ray is missing or does not run."""
    try:
        import ray
        from ray import cloudpickle
    except ImportError:
        raise ConfigError("Ray is not installed: pip install 'epd[ray]'") from None
    cloudpickle.register_pickle_by_value(actor_module)
    try:
        ray.init(address=address, namespace=cluster.namespace, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError) as error:
        raise ConfigError(f"no Ray answers at {address}: {error}") from None
    return RayActors(cluster, ray)


class RayActors:
    """What runs, against what the file says."""

    def __init__(self, cluster: RayCluster, ray: Any) -> None:
        self._cluster = cluster
        self._ray = ray
        self._grace_s = cluster.checked().drain_s + MARGIN_S

    def running(self) -> list[str]:
        """Names of our actors, those being started again included."""
        from ray.util import list_named_actors

        rows = list_named_actors(all_namespaces=True)
        return sorted(r["name"] for r in rows if r["namespace"] == self._cluster.namespace)

    def start(self) -> int:
        """Start what is missing, wait until it serves, then drain what is too many."""
        there = self.running()
        wanted = self._cluster.wanted()
        head = self._head()
        for name, (role, actors) in wanted.items():
            if name not in there:
                self._create(name, role, actors, head)
        code = self._show(list(wanted))
        return code | self._end([name for name in there if name not in wanted])

    def stop(self) -> int:
        """All of them, the gateway first."""
        there = self.running()
        return self._end(sorted(there, key=lambda name: not name.startswith("gateway")))

    def status(self) -> int:
        """What each says, and where it is."""
        return self._show(list(self._cluster.wanted()))

    def _head(self) -> str:
        """The address of Ray's head node."""
        for node in self._ray.nodes():
            if node["Alive"] and "node:__internal_head__" in node["Resources"]:
                return str(node["NodeManagerAddress"])
        raise ConfigError("Ray shows no head node that is alive")

    def _create(self, name: str, role: str, actors: Actors, head: str) -> None:
        ray, cluster = self._ray, self._cluster

        given = settings(cluster, name, role, actors, head)
        remote = ray.remote(RoleActor).options(**options(cluster, name, role, actors))
        remote.remote(role, cluster.python, given, files(cluster))

    def _show(self, names: list[str]) -> int:
        """A line for each; 1 where one does not serve."""
        there, code = self.running(), 0
        limit = self._cluster.start_timeout_s
        asked = {
            name: self._ray.get_actor(name).ready.remote(limit) for name in names if name in there
        }
        for name in names:
            state, words = "stopped", ""
            if name in asked:
                try:
                    said = self._ray.get(asked[name], timeout=limit)
                except self._ray.exceptions.RayError as error:
                    said = {"error": f"{type(error).__name__}: no node for it, or it has just died"}
                state = "ready" if said.get("ready") else "failed"
                words = str(said.get("error") or said.get("url") or "")
            print(f"{name:12} {state:8} {words}".rstrip(), flush=True)
            code |= state != "ready"
        return int(code)

    def _end(self, names: list[str]) -> int:
        """Drain each and let it go; what Ray is just starting again only goes."""
        for name in names:
            actor = self._ray.get_actor(name)
            try:
                self._ray.get(actor.stop.remote(self._grace_s), timeout=self._grace_s + MARGIN_S)
            except self._ray.exceptions.RayError as error:
                print(f"{name:12} did not drain: {type(error).__name__}", flush=True)
            self._ray.kill(actor, no_restart=True)
            print(f"{name:12} stopped", flush=True)
        return 0
