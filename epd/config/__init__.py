"""The configuration: one YAML file, every key of which can be set from the command line.

Building a configuration reads no network, no device and no model. Each room receives its own
section only.
"""

from epd.config.keys import ApiKey
from epd.config.loading import dump_config, load_config
from epd.config.media import DocumentLimits, FileLimits, ItemLimits, MediaConfig
from epd.config.placement import Placement, PlacementConfig
from epd.config.section import Section
from epd.config.sections import (
    Config,
    EncodeConfig,
    GatewayConfig,
    LanguageConfig,
    ServeConfig,
    WireConfig,
)
from epd.config.topology import ROLES, Topology

__all__ = [
    "ROLES",
    "ApiKey",
    "Config",
    "EncodeConfig",
    "GatewayConfig",
    "DocumentLimits",
    "FileLimits",
    "ItemLimits",
    "LanguageConfig",
    "MediaConfig",
    "Placement",
    "PlacementConfig",
    "Section",
    "ServeConfig",
    "Topology",
    "WireConfig",
    "dump_config",
    "load_config",
]
