"""Whether a grammar can be worked with: tried in a process of its own, for a bounded time.

Some grammars of a few lines take hours to compile, and no limit of the library holds them back.
What was tried is remembered.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import epd
from epd.errors import BadRequest, InternalError
from epd.grammar.frames import read_frame, write_frame
from epd.types import MAX_GRAMMAR_BYTES

_START_S = 120.0
_ENDING_S = 5.0
_WALL = 4.0  # where others have the processor, its time passes slower than that of a clock
_REMEMBERED = 1024


class Checker:
    """For one thread at a time, but close(). The process starts with the first grammar."""

    def __init__(
        self,
        read: Callable[[], str],
        *,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        timeout_s: float,
    ) -> None:
        self._read = read
        self._facts = {
            "vocab_size": vocab_size,
            "eos_token_ids": list(eos_token_ids),
            "timeout_s": timeout_s,
        }
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._known: OrderedDict[bytes, str] = OrderedDict()  # by digest: why not, or ""

    def check(self, grammar: str) -> None:
        """BadRequest says why it is not taken."""
        data = grammar.encode()
        if len(data) > MAX_GRAMMAR_BYTES:
            refusal = f"the answer's form is larger than {MAX_GRAMMAR_BYTES} bytes"
        else:
            digest = hashlib.sha256(data).digest()
            known = self._known.pop(digest, None)
            refusal = self._tried(grammar) if known is None else known
            self._known[digest] = refusal
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if refusal:
            raise BadRequest(refusal, code="grammar")

    def close(self) -> None:
        """Any thread; a check under way ends."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _tried(self, grammar: str) -> str:
        process = self._started()
        late = f"the answer's form takes longer than {self._timeout_s:g} s to compile"
        try:
            write_frame(_pipe(process.stdin), {"grammar": grammar})
            said = _answer(process, _WALL * self._timeout_s)
        except TimeoutError:
            self.close()
            return late
        except (OSError, EOFError, ValueError):
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING_S)
            self.close()
            too_long = process.returncode == -signal.SIGXCPU
            return late if too_long else "the answer's form takes too much memory to compile"
        return str(said["refusal"])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=_environment(),
        )
        try:
            write_frame(_pipe(process.stdin), {"tokenizer": self._read(), **self._facts})
            _answer(process, _START_S)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise InternalError("gateway: the process that tries grammars did not start") from error
        return process


def _answer(process: subprocess.Popen[bytes], seconds: float) -> dict[str, object]:
    pipe = _pipe(process.stdout)
    if not select.select([pipe], [], [], seconds)[0]:
        raise TimeoutError
    return read_frame(pipe)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _environment() -> dict[str, str]:
    """What this process imports from; nothing else of ours is for it."""
    paths = dict.fromkeys([str(Path(epd.__file__).parent.parent), *filter(None, sys.path)])
    return {"PYTHONPATH": os.pathsep.join(paths)}
