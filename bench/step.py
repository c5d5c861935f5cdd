"""How near is one step of the language engine to what memory and arithmetic allow?

One process, no cluster, a CPU. The same checkpoint is loaded up to three times: *plain* with
transformers' own leaf modules, *packed* with ours, *compiled* as workers load it, with our decoder
layers too. All run the engine's steps, in turn, in the same run: decode with 1 to 16 requests, and
one prefill chunk. The floor of a decode step is the time to read every weight once at the speed at
which this machine, in this run, reads 1 GB.

    python bench/step.py                      # builds half a billion random weights once
    python bench/step.py --checkpoint FOLDER --threads 2 --batches 1 8

A table of medians goes to stderr; the last line of stdout is one JSON object with every time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from epd.attention import ATTENTION
from epd.attention import register as register_attention
from epd.cli.environment import cache_folder, num_cores
from epd.config.sections import LanguageConfig
from epd.engine import Engine, EngineRequest
from epd.models.language import LanguageModel, load_language
from epd.models.partial import load_part
from epd.models.random_checkpoint import HALF_BILLION, build_random_checkpoint
from epd.models.spec import Checkpoint, read_checkpoint
from epd.models.torchvision_shim import prepare_torchvision
from epd.types import RequestKey, SamplingParams

GB = 1e9
VARIANTS = ("plain", "packed", "compiled")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def main() -> None:
    """Load both, measure, report."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    checkpoint = read_checkpoint(args.checkpoint or half_billion(args.family))
    models, product_bytes = load(checkpoint, args)
    rate = read_rate()
    decode = measure_decode(models, args)
    prefill = measure_prefill(models, args)
    result = {
        "question": "one step of the language engine",
        "machine": machine(args.threads),
        "versions": versions(),
        "workload": {key: str(value) for key, value in vars(args).items()},
        "checkpoint": checkpoint.name,
        "read_gb_per_s": rate,
        "product_bytes": product_bytes,
        "floor_ms": product_bytes / rate / GB * 1e3,
        "weight_bytes": {name: model.weight_bytes for name, model in models.items()},
        "decode": decode,
        "prefill": prefill,
    }
    table(result)
    print(json.dumps(result))


def parse_args() -> argparse.Namespace:
    """The workload."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="random weights unless given")
    parser.add_argument("--family", default="qwen2_5_vl", help="of the random weights")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--context", type=int, default=128, help="prompt tokens of a decode")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--chunks", type=int, nargs="*", default=[128, 512])
    parser.add_argument("--steps", type=int, default=15, help="timed per batch size")
    parser.add_argument("--repeats", type=int, default=3, help="of a prefill chunk")
    return parser.parse_args()


def half_billion(family: str) -> Path:
    """The random checkpoint, built at the first run."""
    folder = cache_folder() / f"half-billion-{family}"
    if not (folder / "tokenizer_config.json").is_file():
        print(f"building {folder}", file=sys.stderr)
        build_random_checkpoint(folder, family=family, sizes=HALF_BILLION)
    return folder


def load(checkpoint: Checkpoint, args: argparse.Namespace) -> tuple[dict[str, TimedModel], int]:
    """The variants asked for, and the bytes that a step's matrix products read."""
    plain, product_bytes = load_plain(checkpoint, args.dtype)

    def ours(cache: Path | None) -> LanguageModel:
        return load_language(checkpoint, device="cpu", dtype=args.dtype, cache=cache)

    makers = {
        "plain": lambda: plain,
        "packed": lambda: ours(None),
        "compiled": lambda: ours(cache_folder() / "compiled"),
    }
    return {name: TimedModel(makers[name]()) for name in args.variants}, product_bytes


def load_plain(checkpoint: Checkpoint, dtype: str) -> tuple[LanguageModel, int]:
    """With transformers' own leaf modules, and the bytes that its matrix products read."""
    prepare_torchvision()
    register_attention()
    adapter = checkpoint.adapter()
    model = load_part(checkpoint, adapter.language_parts(), device="cpu", dtype=dtype)
    adapter.decoder(model).config._attn_implementation = ATTENTION
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return LanguageModel(adapter, model), sum(linear.weight.nbytes for linear in linears)


class TimedModel:
    """A language model that counts the seconds spent inside it."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.seconds = 0.0
        self.embed = self._timed(model.embed)
        self.forward = self._timed(model.forward)
        self.logits = self._timed(model.logits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def _timed(self, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args: Any, **kwargs: Any) -> torch.Tensor:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return call


def measure_decode(models: dict[str, TimedModel], args: argparse.Namespace) -> dict[str, Any]:
    """Steps in which that many requests get one token each; requests join as batches grow."""
    largest = max(args.batches, default=0)
    most_new = (args.steps + 1) * len(args.batches) + largest + 1
    size = 1024 + largest * (args.context + most_new)
    config = LanguageConfig(kv_tokens=size, max_running=max(1, largest), prefix_cache=False)
    sides = {name: Side(model, Engine(model, config)) for name, model in models.items()}
    found: dict[str, Any] = {name: {} for name in sides}
    running = 0
    for batch in sorted(args.batches):
        for side in sides.values():
            for number in range(running, batch):
                side.start(number, args.context, most_new)
                side.step()
            side.step()
        running = batch
        for name, times in alternate(sides, args.steps).items():
            found[name][str(batch)] = times
    return found


def measure_prefill(models: dict[str, TimedModel], args: argparse.Namespace) -> dict[str, Any]:
    """One chunk that is the whole prompt, with the sampling of its token."""
    found: dict[str, Any] = {name: {} for name in models}
    for chunk in args.chunks:
        config = LanguageConfig(kv_tokens=2 * chunk, max_step_tokens=chunk, prefix_cache=False)
        sides = {name: Side(model, Engine(model, config)) for name, model in models.items()}
        for side in sides.values():
            side.start(0, chunk, 1)
            side.step()
        every: dict[str, dict[str, list[float]]] = {}
        for number in range(1, args.repeats + 1):
            for side in sides.values():
                side.start(number, chunk, 1)
            for name, times in alternate(sides, 1).items():
                kept = every.setdefault(name, {key: [] for key in times})
                for key, values in times.items():
                    kept[key] += values
        for name, times in every.items():
            found[name][str(chunk)] = times
    return found


@dataclass(frozen=True)
class Side:
    """One of those that are compared."""

    model: TimedModel
    engine: Engine

    def start(self, number: int, num_prompt: int, max_tokens: int) -> None:
        """A request that runs to its last token."""
        key = RequestKey(f"r{number}", 0)
        self.engine.reserve(key, num_prompt)
        self.engine.start(
            EngineRequest(
                key=key,
                token_ids=[(token * 31 + number * 7) % 1000 for token in range(num_prompt)],
                positions=torch.arange(num_prompt),
                position_delta=0,
                sampling=SamplingParams(max_tokens=max_tokens),
            )
        )

    def step(self) -> tuple[float, float]:
        """Milliseconds of a whole step, and of what the model did not take of it."""
        self.model.seconds = 0.0
        begin = time.perf_counter()
        self.engine.step()
        seconds = time.perf_counter() - begin
        return seconds * 1e3, (seconds - self.model.seconds) * 1e3


def alternate(sides: dict[str, Side], num: int) -> dict[str, dict[str, list[float]]]:
    """A step of each in turn, so that whatever else the machine does slows all."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"ms": [], "outside_ms": []} for name in sides
    }
    for _ in range(num):
        for name, side in sides.items():
            whole, outside = side.step()
            found[name]["ms"].append(whole)
            found[name]["outside_ms"].append(outside)
    return found


def read_rate() -> float:
    """GB/s of reading 1 GB with all threads, the median of 7."""
    big = torch.ones(250_000_000)
    rates = []
    for _ in range(8):
        begin = time.perf_counter()
        big.sum()
        rates.append(big.nbytes / GB / (time.perf_counter() - begin))
    return statistics.median(rates[1:])


def machine(threads: int) -> dict[str, Any]:
    """What decides about speed."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = facts.get("flags", "").split()
    return {
        "cpu": facts.get("model name", platform.processor()),
        "cores": num_cores(),
        "threads": threads,
        "flags": {flag: flag in flags for flag in FLAGS},
    }


def versions() -> dict[str, str]:
    """Of what was measured."""
    import transformers

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return {
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr)


def table(result: dict[str, Any]) -> None:
    """Medians for people."""
    floor = result["floor_ms"]
    say(f"{result['machine']['cpu']}, {result['machine']['threads']} threads")
    say(f"reads {result['read_gb_per_s']:.1f} GB/s: no decode step under {floor:.1f} ms")
    held = result["weight_bytes"]
    say("weights held: " + ", ".join(f"{name} {held[name] / GB:.2f} GB" for name in held))
    say(f"{'':12}" + "".join(f"{name:>14}" for name in held) + f"{'floor':>8}{'outside':>9}")
    for batch in next(iter(result["decode"].values())):
        times = {name: found[batch] for name, found in result["decode"].items()}
        cells = "".join(f"{statistics.median(found['ms']):>11.1f} ms" for found in times.values())
        *_, last = times.values()
        say(f"decode {batch:<5}{cells}{floor / statistics.median(last['ms']):>8.0%}{outside(last)}")
    for chunk in next(iter(result["prefill"].values())):
        times = {name: found[chunk] for name, found in result["prefill"].items()}
        rates = [int(chunk) * 1e3 / statistics.median(found["ms"]) for found in times.values()]
        *_, last = times.values()
        say(f"prefill {chunk:<4}" + "".join(f"{r:>11.0f} t/s" for r in rates) + outside(last, 17))


def outside(times: dict[str, list[float]], width: int = 9) -> str:
    """The share of a step that its model did not take."""
    return f"{statistics.median(times['outside_ms']) / statistics.median(times['ms']):>{width}.1%}"


if __name__ == "__main__":
    main()
