"""Tells checkpoints apart without reading all of them: hashes of their files and of the libraries.

Knows safetensors' header (8 bytes of length, then JSON) and nothing about models.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from epd.errors import ConfigError

_PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
_VOCABULARY_KEYS = ("vocab_size", "_token_id", "_token_ids", "_token_index")
_LIBRARIES = ("transformers", "pillow")  # what shapes rows; torch's rounding is no difference
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_SAMPLES = 16
_SAMPLE_BYTES = 4096
_MAX_HEADER = 100 << 20  # safetensors' own limit


def checkpoint_fingerprint(folder: Path, *, weights: bool = True) -> dict[str, str]:
    """Part -> short hash or version. Cheap: of the weights only headers and samples are read.

    Without `weights` none are: these are random.
    """
    return {
        "config": _hash_files(folder, ("config.json",)),
        "processor": _hash_files(folder, _PROCESSOR_FILES),
        "tokenizer": _hash_files(folder, _TOKENIZER_FILES),
        "weights": _hash_weights(folder) if weights else "random",
        **{name: version(name) for name in _LIBRARIES},
    }


def vocabulary_fingerprint(config: dict[str, Any]) -> str:
    """Of what a model's configuration says of token ids, in all of its sections."""
    digest = hashlib.sha256(json.dumps(_vocabulary(config), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _vocabulary(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found[key] = _vocabulary(value)
        elif key.endswith(_VOCABULARY_KEYS):
            found[key] = value
    return found


def stored_dtype(folder: Path, prefix: str = "") -> str:
    """The dtype of the first floating-point tensor in the first weight file that has one.

    Only names that begin with `prefix` count.
    """
    for header in weight_headers(folder):
        for name, entry in header.items():
            if name.startswith(prefix) and entry.get("dtype") in _DTYPES:
                return _DTYPES[entry["dtype"]]
    raise ConfigError(f"{folder}: no floating-point weights found")


def weight_headers(folder: Path) -> Iterator[dict[str, Any]]:
    """Of each weight file: tensor name -> its dtype, shape and place."""
    for file in _weight_files(folder):
        yield _header(file)


def _hash_files(folder: Path, names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        if (file := folder / name).is_file():
            _add(digest, name.encode(), file.read_bytes())
    return digest.hexdigest()[:16]


def _hash_weights(folder: Path) -> str:
    """Headers say names, shapes and places; spread samples tell a fine-tune from its base."""
    digest = hashlib.sha256()
    for file in _weight_files(folder):
        size = file.stat().st_size
        with file.open("rb") as stream:
            _add(digest, file.name.encode(), str(size).encode())
            for i in range(_SAMPLES):
                stream.seek(size * i // _SAMPLES)
                _add(digest, stream.read(_SAMPLE_BYTES))
        _add(digest, json.dumps(_header(file), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _add(digest: Any, *parts: bytes) -> None:
    """Length-prefixed, so that no two lists of parts hash alike."""
    for part in parts:
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} has no weights in safetensors files")
    return files


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(stream.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise ConfigError(f"{file} is no safetensors file: {error}") from error
    return header if isinstance(header, dict) else {}
