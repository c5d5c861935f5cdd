"""What every worker of a model imports, for a process that makes workers as copies of itself."""

from __future__ import annotations

from importlib import import_module

from epd.models.spec import Checkpoint


def preload(checkpoint: Checkpoint) -> None:
    """Import it. Starts no thread and touches no GPU. Whatever importing raises."""
    import_module("epd.workers.process")
    from epd.models.partial import model_class

    model_class(checkpoint)
