"""Train the embedded model.

    python -m demo.train FOLDER

States are saved in FOLDER every two minutes and at the end of each stage; started again, it goes
on from there. What comes out is the checkpoint FOLDER/model. `--save` writes the mean weights
of a stage's last state there, to look at them while training goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from demo import (
    checkpoint,
    ear_stage,
    loop,
    mixed_stage,
    settle_stage,
    tower_stage,
    verdict_stage,
    words_stage,
)
from demo.compiling import COMPILING
from demo.seeds import SEED
from demo.whole import Whole

EAR_SEED = 1


def train(folder: Path) -> None:
    """All stages, from where the states in `folder` stand."""
    COMPILING.wanted = True
    tokenizer = checkpoint.build_tokenizer()
    torch.manual_seed(SEED)
    tower = tower_stage.Tower()
    loop.train(tower, tower_stage, folder)
    torch.manual_seed(EAR_SEED)
    ear = ear_stage.Ear(tokenizer)
    loop.train(ear, ear_stage, folder)
    mixing = mixed_stage.Mixing(
        tokenizer, weight=mixed_stage.READING, pointing=mixed_stage.POINTING
    )
    mixing.start(tower.state_dict(), ear.state_dict())
    loop.train(words_stage.Words(mixing.thinker), words_stage, folder)
    loop.train(mixing, mixed_stage, folder)
    mixing.weight = settle_stage.READING
    loop.train(mixing, settle_stage, folder)
    mixing.keep_towers()
    mixing.verdicts = verdict_stage.VERDICTS
    run = loop.train(mixing, verdict_stage, folder)
    mean: Any = run.mean.module
    save(folder, mean, tokenizer)


def save(folder: Path, whole: Whole, tokenizer: Any) -> None:
    """As a checkpoint."""
    processor = checkpoint.build_processor(tokenizer)
    checkpoint.save(folder / "model", whole.thinker, processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for states, and for the checkpoint at the end")
    parser.add_argument(
        "--save",
        choices=("mixed", "settle", "verdict"),
        help="only write that stage's mean weights",
    )
    parser.add_argument("--threads", type=int, default=2, help="(default 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.save:
        return train(args.folder)
    tokenizer = checkpoint.build_tokenizer()
    run = loop.Run(Whole(tokenizer, weight=0.0))
    step = run.restore(args.folder / f"{args.save}.pt")
    mean: Any = run.mean.module
    save(args.folder, mean, tokenizer)
    print(f"{args.folder / 'model'}: after {step} steps")


if __name__ == "__main__":
    main()
