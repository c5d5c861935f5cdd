"""How often the model is right, by the stock processor and generate(), one prompt at a time.

    python -m demo.evaluate [MODEL] [--num 200] [--jobs 2] [--group "held-out media"] [--card]

An answer counts when it is the expected one to the letter. `--card` writes the table into the
model card.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from demo.checkpoint import size
from demo.sizes import FRAME_TOKENS
from demo.tasks import TASKS, Prompt, Task
from epd.cli.default_model import FOLDER
from epd.models.torchvision_shim import prepare_torchvision

MOST_TOKENS = 64


class Judge:
    """A checkpoint, loaded by transformers alone."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        prepare_torchvision()
        from transformers import AutoProcessor, Qwen2_5OmniThinkerForConditionalGeneration

        self.processor: Any = AutoProcessor.from_pretrained(folder)
        self.model: Any = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
            folder, dtype=dtype
        ).eval()

    def answer(self, prompt: Prompt) -> str:
        inputs = self.inputs(prompt)
        with torch.inference_mode():
            ids = self.model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        said: str = self.processor.tokenizer.decode(new, skip_special_tokens=True)
        return said

    def inputs(self, prompt: Prompt) -> Any:
        """What the model takes: the media come first, then the question."""
        content = [{"type": kind} for kind, _ in prompt.media]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": [*content, {"type": "text", "text": prompt.question}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        return self.processor(text=[text], return_tensors="pt", **_media(prompt))


def _media(prompt: Prompt) -> dict[str, Any]:
    """The processor has sizes of its own for videos, whatever was saved."""
    found: dict[str, Any] = {}
    for kind, data in prompt.media:
        if kind == "image":
            found.setdefault("images", []).append(data)
        elif kind == "audio":
            found.setdefault("audio", []).append(data)
        else:
            found["videos"] = [torch.from_numpy(data).permute(0, 3, 1, 2)]
            found["do_sample_frames"] = False
            found["videos_kwargs"] = {"size": size(FRAME_TOKENS)}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    task: Task
    num: int
    wrong: list[tuple[str, str, str]] = field(default_factory=list)  # question, expected, said

    @property
    def share(self) -> float:
        return 1 - len(self.wrong) / self.num


def judge(judge: Judge, task: Task, num: int) -> Result:
    wrong = []
    for prompt in task.prompts(num):
        said = judge.answer(prompt)
        if said != prompt.answer:
            wrong.append((prompt.question, prompt.answer, said))
    return Result(task=task, num=num, wrong=wrong)


@dataclass(frozen=True, slots=True)
class _Bench:
    """What each of the judging processes is given."""

    model: Path
    dtype: torch.dtype
    num: int

    def open(self) -> None:
        """Load the model, once in a process."""
        torch.set_num_threads(1)
        _LOADED.append(Judge(self.model, self.dtype))

    def judged(self, task: Task) -> Result:
        return judge(_LOADED[0], task, self.num)


_LOADED: list[Judge] = []


def table(results: Sequence[Result]) -> str:
    """Markdown, group by group."""
    lines = ["| task | right | asked for |", "|---|---|---|"]
    for group in dict.fromkeys(result.task.group for result in results):
        lines.append(f"| **{group}** | | |")
        for result in results:
            if result.task.group == group:
                least = f"{result.task.least:.0%}" + (
                    "" if result.share >= result.task.least else ": missed"
                )
                lines.append(
                    f"| {result.task.name} | {result.share:.1%} of {result.num} | {least} |"
                )
    return "\n".join(lines)


def write_card(card: Path, written: str) -> None:
    """Put the table between the card's two marks."""
    marks = r"(<!-- accuracy -->\n).*(<!-- end of accuracy -->)"
    text, num = re.subn(
        marks, lambda m: f"{m[1]}{written}\n{m[2]}", card.read_text(), flags=re.DOTALL
    )
    assert num == 1, "the card has no place for the table"
    card.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--num", type=int, default=200, help="prompts per task")
    parser.add_argument("--jobs", type=int, default=2, help="processes, a core each (default 2)")
    parser.add_argument("--group", help="only this group of tasks")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--card", action="store_true", help="write the model card's table")
    args = parser.parse_args()
    tasks = [task for task in TASKS if args.group in (None, task.group)]
    results = []
    bench = _Bench(args.model, getattr(torch, args.dtype), args.num)
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, spawned, bench.open) as judges:
        for result in tqdm(judges.map(bench.judged, tasks), total=len(tasks)):
            results.append(result)
            tqdm.write(
                f"{result.share:7.1%}  {result.task.group}: {result.task.name}", file=sys.stderr
            )
            for wrong in result.wrong[:3]:
                tqdm.write("          " + " | ".join(wrong), file=sys.stderr)
    if args.card:
        write_card(args.model / "README.md", table(results))
    print(table(results), file=sys.stderr)
    print(json.dumps({f"{r.task.group}: {r.task.name}": r.share for r in results}))


if __name__ == "__main__":
    main()
