"""The configuration: one YAML file, every key of which can be set from the command line.

Building a configuration reads no network, no device and no model. Each room receives its own
section only.
"""

from epd.config.sections import (
    Config,
    EncodeConfig,
    GatewayConfig,
    LanguageConfig,
    MediaConfig,
    WireConfig,
)

__all__ = [
    "Config",
    "EncodeConfig",
    "GatewayConfig",
    "LanguageConfig",
    "MediaConfig",
    "WireConfig",
]
