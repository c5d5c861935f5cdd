"""The `epd` command: serve a local cluster, run one role, check a configuration."""
