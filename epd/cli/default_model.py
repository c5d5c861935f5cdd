"""The embedded default: a small model that sees, hears and watches, shipped with the package.

It takes the way of every other checkpoint from here on.
"""

from __future__ import annotations

import logging
from pathlib import Path

import epd
from epd.config import Config, Section

log = logging.getLogger("epd.serve")

NAME = "epd-demo"
FOLDER = Path(epd.__file__).parent / "models" / "embedded"

MIB = 1 << 20
CACHES = {
    "gateway": {"media_budget_bytes": 256 * MIB, "responses_bytes": 64 * MIB},
    "encode": {"rows_bytes": 64 * MIB, "prepared_bytes": 64 * MIB},
    "language": {"kv_bytes": 64 * MIB, "host_bytes": 64 * MIB},
}
"""Enough for so small a model, so that it runs on a small machine; what is set stays as set."""


def path() -> Path:
    """The checkpoint's folder. Its README.md is the model card."""
    log.info("no MODEL given: serving the embedded one, which knows flat shapes and beeps")
    return FOLDER


def with_small_caches(config: Config) -> Config:
    """The configuration with CACHES for its defaults."""
    update = {}
    for name, values in CACHES.items():
        section: Section = getattr(config, name)
        unset = {key: value for key, value in values.items() if key not in section.model_fields_set}
        update[name] = section.model_copy(update=unset)
    return config.model_copy(update=update)
