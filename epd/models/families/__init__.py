"""The families: one file each, holding its adapter and its row of the registry, `FAMILY`.

Families from outside register an object of type FamilySpec under the entry point group
`epd.families`. A family file imports torch and transformers inside functions only: the gateway
reads these rows where neither is installed.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from epd.errors import ConfigError
from epd.models.families.qwen3_5 import REFUSED as REFUSED
from epd.models.family import FamilySpec

BUILT_IN = (
    "internvl",
    "llava",
    "llava_next",
    "llava_onevision",
    "qwen2_5_omni",
    "qwen2_5_vl",
    "qwen2_audio",
    "qwen2_vl",
    "qwen3_omni_moe",
    "qwen3_vl",
    "qwen3_vl_moe",
)

GROUP = "epd.families"


def built_in() -> tuple[FamilySpec, ...]:
    """Those in this folder, by name."""
    return tuple(import_module(f"{__name__}.{name}").FAMILY for name in BUILT_IN)


@cache
def families() -> tuple[FamilySpec, ...]:
    """All of them, ours first. ConfigError for an installed one that cannot be used."""
    found = [*built_in()]
    for entry in entry_points(group=GROUP):
        try:
            family = entry.load()
        except Exception as error:  # whatever a stranger's module raises
            raise ConfigError(f"entry point {entry.value} of {GROUP}: {error}") from error
        if not isinstance(family, FamilySpec):
            raise ConfigError(f"entry point {entry.value} of {GROUP} is no FamilySpec")
        found.append(family)
    return tuple(found)
