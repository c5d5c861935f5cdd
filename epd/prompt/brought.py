"""Chat templates that requests bring with them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from transformers import PreTrainedTokenizerFast

from epd.errors import BadRequest, ConfigError
from epd.prompt.aliases import Aliases
from epd.prompt.renderer import BoundedRenderer
from epd.prompt.template import Template
from epd.types import Modality

_REMEMBERED = 16


class BroughtTemplates:
    """Those used last are kept. Thread-safe; slow calls."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        aliases: Aliases,
        placeholders: Mapping[Modality, str],
        *,
        timeout_s: float,
    ) -> None:
        self._tokenizer = tokenizer
        self._aliases = aliases
        self._placeholders = placeholders
        self._renderer = BoundedRenderer(timeout_s=timeout_s)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Template] = OrderedDict()

    def close(self) -> None:
        """Ends their process."""
        self._renderer.close()

    def of(self, source: str) -> Template:
        """BadRequest says why it cannot be used."""
        with self._lock:
            if source in self._known:
                self._known.move_to_end(source)
                return self._known[source]
        try:
            found = Template(
                self._tokenizer, source, self._aliases, self._placeholders, self._renderer
            )
        except ConfigError as error:
            raise BadRequest(f"chat_template: {error.message}", param="chat_template") from None
        with self._lock:
            self._known[source] = found
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found
