"""What every stage may know about a checkpoint and its family, read from its JSON files alone.

Needs neither torch nor transformers, so the gateway can read it. A family is data here and a few
short functions in its adapter, which only the workers with weights import.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epd.errors import ConfigError, UnsupportedModel
from epd.models.families import REFUSED, families
from epd.models.family import FamilySpec
from epd.models.fingerprint import (
    checkpoint_fingerprint,
    stored_dtype,
    vocabulary_fingerprint,
)
from epd.models.sections import text_section
from epd.models.variants import refuse_variants

if TYPE_CHECKING:
    from epd.models.adapter import Adapter

SHAPES_TOKENS = ("architecture", "tokenizer", "vocabulary")
"""Parts of a fingerprint in which gateway and workers must agree: all that a prompt's tokens mean.

In the others workers of one pool agree among themselves.
"""

_SAID_OF_ALL = ("dtype", "torch_dtype", "quantization_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint folder whose architecture is supported; its weights are not read yet.

    `config` is config.json, `generation` generation_config.json (empty where there is none).
    `dtype` is what the weights are stored in. `vocab_size` counts rows of the embedding, which
    can be more than the tokenizer knows. Any of `eos_token_ids` ends an answer.

    `trust_remote_code`: a processor's code may come from the folder. `dummy`: weights are random,
    and the folder need not have any.

    Where the model is a part of a larger one, `config` and `architecture` are the part's, and the
    names of its weights in the files begin with `prefix`.
    """

    path: Path
    architecture: str
    config: dict[str, Any] = field(repr=False)
    generation: dict[str, Any] = field(repr=False)
    spec: FamilySpec
    name: str
    dtype: str
    max_context: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    prefix: str = ""
    trust_remote_code: bool = False
    dummy: bool = False

    def adapter(self) -> Adapter:
        """The family's adapter for it."""
        return self.spec.adapter(self)

    def fingerprint(self) -> dict[str, str]:
        """What two workers must have in common to serve one request, by name of the part.

        The dtype that a worker computes in is its own setting and is added by the worker.
        """
        return {
            "architecture": self.architecture,
            "vocabulary": vocabulary_fingerprint(self.config),
            **checkpoint_fingerprint(self.path, weights=not self.dummy),
        }


def read_checkpoint(
    path: str | Path,
    *,
    max_context: int | None = None,
    trust_remote_code: bool = False,
    dummy: bool = False,
) -> Checkpoint:
    """Read the folder's JSON files. ConfigError or UnsupportedModel say what is wrong with it.

    `max_context` may be less than the checkpoint's own, never more.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"no checkpoint: {folder} is not a folder")
    config = _read_json(folder / "config.json")
    if config is None:
        raise ConfigError(f"no checkpoint: {folder} has no config.json")
    architecture = _architecture(config, folder)
    spec = _family(architecture)
    config, prefix = _own(config, spec)
    refuse_variants(config, folder)
    generation = _read_json(folder / "generation_config.json")
    vocab_size = _positive(config, "vocab_size", folder)
    return Checkpoint(
        path=folder,
        architecture=spec.architectures[0] if prefix else architecture,
        config=config,
        generation=generation or {},
        spec=spec,
        name=folder.resolve().name,
        dtype=_dtype(config, folder, prefix, dummy=dummy),
        max_context=_context(config, folder, max_context),
        vocab_size=vocab_size,
        eos_token_ids=_eos(config, generation)
        or tuple(token for token in spec.eos_token_ids if token < vocab_size),
        prefix=prefix,
        trust_remote_code=trust_remote_code,
        dummy=dummy,
    )


def _read_json(file: Path) -> dict[str, Any] | None:
    """None where there is no such file."""
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"cannot read {file}: not a JSON object")
    return content


def _architecture(config: dict[str, Any], folder: Path) -> str:
    named = config.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise ConfigError(f"{folder / 'config.json'} names no architecture")
    return named[0]


def _family(architecture: str) -> FamilySpec:
    for family in families():
        if architecture in family.architectures:
            return family
    if architecture in REFUSED:
        raise UnsupportedModel(
            f"architecture {architecture} is not supported: {REFUSED[architecture]}"
        )
    known = ", ".join(sorted(name for family in families() for name in family.architectures))
    raise UnsupportedModel(f"architecture {architecture} is not supported; supported are: {known}")


def _own(config: dict[str, Any], spec: FamilySpec) -> tuple[dict[str, Any], str]:
    """What config.json says of this model, and how the names of its weights begin."""
    prefix = ""
    if spec.inside and isinstance(part := config.get(f"{spec.inside}_config"), dict):
        said_of_all = {key: config[key] for key in _SAID_OF_ALL if key in config}
        config, prefix = said_of_all | part, f"{spec.inside}."
    return config, prefix


def _positive(config: dict[str, Any], key: str, folder: Path) -> int:
    value = text_section(config).get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{folder / 'config.json'}: {key} is {value!r}, not a positive number")
    return value


def _context(config: dict[str, Any], folder: Path, wanted: int | None) -> int:
    most = _positive(config, "max_position_embeddings", folder)
    if wanted is not None and wanted > most:
        raise ConfigError(
            f"language.max_context is {wanted}: {folder.name} has {most} positions",
            param="language.max_context",
        )
    return wanted or most


def _dtype(config: dict[str, Any], folder: Path, prefix: str, *, dummy: bool) -> str:
    """As `dtype="auto"` decides it: what the configuration says, else what is stored.

    Where nothing is stored it is torch's own.
    """
    for source in (config, config.get("text_config") or {}):
        for key in ("dtype", "torch_dtype"):  # the second is the older name
            if isinstance(named := source.get(key), str):
                return named.removeprefix("torch.")
    return "float32" if dummy else stored_dtype(folder, prefix)


def _eos(config: dict[str, Any], generation: dict[str, Any] | None) -> tuple[int, ...]:
    """As `generate()` finds them: in generation_config.json; without that file, in config.json."""
    if generation is not None:
        ids = generation.get("eos_token_id")
    else:
        ids = text_section(config).get("eos_token_id")
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, list) else (ids,)
