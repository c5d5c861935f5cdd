"""The servers: how each is started, in which environment, and how it is asked for an answer of an
exact length."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.serving.load import chat_body
from epd.cli.environment import num_cores
from tests.clients import environments

OVERLAYS = Path(__file__).parent / "overlays"
OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
KV_BYTES = 256 << 20
"""More than any load takes; vLLM is given whole GiB."""

LONGEST = 8192
"""Tokens of a request; enough for every load."""

MOST_PICTURES = 8


class Body(Protocol):
    """Makes the body of a greedy request whose answer has exactly `max_tokens` tokens."""

    def __call__(self, model: str, messages: Sequence[Any], max_tokens: int) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`command` comes before what is appended of checkpoint, host and port; `environment` is the
    name of its folder below .venvs, None is our own. `versions`: the distributions that matter."""

    name: str
    command: Sequence[str]
    after: Sequence[str] = ()
    environment: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    overlays: Sequence[str] = ()
    preloaded: Sequence[Path] = ()
    versions: Sequence[str] = ()
    ready: str = "/health"
    body: Body = chat_body

    @property
    def python(self) -> str:
        """Its interpreter."""
        return (
            sys.executable
            if self.environment is None
            else str(environments.python(self.environment))
        )

    def argv(self, checkpoint: Path, port: int) -> list[str]:
        """The whole command."""
        where = ["--host", "127.0.0.1", "--port", str(port)]
        return [self.python, *self.command, str(checkpoint), *where, *self.after]

    def described(self, checkpoint: Path) -> dict[str, Any]:
        """For the results: what to type in a checkout, with its own port."""
        root = str(environments.ROOT) + os.sep
        argv = ["CHECKPOINT" if one == str(checkpoint) else one for one in self.argv(checkpoint, 0)]
        argv[0] = argv[0].removeprefix(root) if self.environment else "python"
        own = {key: value.replace(root, "") for key, value in self._own().items()}
        return {"argv": argv, "variables": own}

    def environ(self) -> dict[str, str]:
        """Variables of its process."""
        return {**os.environ, **OFFLINE, **self._own()}

    def _own(self) -> dict[str, str]:
        paths = [str(OVERLAYS / overlay) for overlay in self.overlays]
        own = {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
        if preloaded := [str(path) for path in self.preloaded if path.is_file()]:
            own["LD_PRELOAD"] = os.pathsep.join(preloaded)
        return {**own, **self.variables}


def transformers_body(model: str, messages: Sequence[Any], max_tokens: int) -> dict[str, Any]:
    """`transformers serve` refuses fields that it does not know, and ends at the end token unless
    so many tokens are asked for at least. It always tells its usage."""
    generation = {
        "do_sample": False,
        "repetition_penalty": 1.0,
        "min_new_tokens": max_tokens,
        "max_new_tokens": max_tokens,
    }
    return {
        "model": model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "stream": True,
        "generation_config": json.dumps(generation),
    }


def _epd(topology: str) -> Server:
    settings = (
        "language.prefix_cache=false",
        "wire.dead_after_s=60",
        f"language.kv_bytes={KV_BYTES}",
        f"language.host_bytes={KV_BYTES}",
    )
    return Server(
        name=f"epd-{topology}",
        command=("-m", "epd", "serve"),
        ready="/ready",
        after=("--topology", topology, *(a for s in settings for a in ("--set", s))),
    )


def _vllm(dtype: str) -> Server:
    """As its guide for CPUs has it: KV space by hand, tcmalloc and Intel's OpenMP preloaded where
    there are such. By default it would keep one of two cores free; it is given both. Without
    profiling it only starts sooner."""
    limit = json.dumps({"image": MOST_PICTURES, "video": 0})
    return Server(
        name=f"vllm-{dtype}",
        environment="vllm",
        command=("-m", "vllm.entrypoints.cli.main", "serve"),
        after=(
            *("--dtype", dtype, "--max-model-len", str(LONGEST), "--no-enable-prefix-caching"),
            *("--limit-mm-per-prompt", limit, "--skip-mm-profiling"),
        ),
        variables={
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{num_cores() - 1}",
        },
        overlays=("torchvision", "vllm"),
        preloaded=(
            Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"),
            environments.FOLDER / "vllm" / "lib" / "libiomp5.so",
        ),
        versions=("vllm-cpu", "torch", "transformers"),
    )


def _transformers(dtype: str) -> Server:
    """Its continuous batching takes models of language alone; with others it answers one by one."""
    return Server(
        name=f"transformers-{dtype}",
        environment="transformers",
        command=("-m", "transformers.cli.transformers", "serve"),
        after=("--device", "cpu", "--dtype", dtype),
        overlays=("torchvision",),
        versions=("transformers", "torch"),
        body=transformers_body,
    )


SERVERS: Mapping[str, Server] = {
    server.name: server
    for server in (
        _epd("EPD"),
        _vllm("bfloat16"),
        _epd("1E1PD"),
        _vllm("float32"),
        _epd("1E1P1D"),
        _transformers("float32"),
        _transformers("bfloat16"),
    )
}
"""In the order of the first round."""

USUAL = tuple(name for name in SERVERS if name != "transformers-bfloat16")
"""Those that are measured unless others are named. Peers may compute in the checkpoint's bfloat16
or in float32, which a CPU without instructions for bfloat16 multiplies faster where there are many
rows. There transformers takes so long in bfloat16 that it has to be asked for by name."""

OURS = tuple(name for name in SERVERS if name.startswith("epd-"))
PEERS = tuple(name for name in SERVERS if name not in OURS)
