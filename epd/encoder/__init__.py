"""The encode stage: items in, embedding rows out. Knows no sockets and no other stage.

Intake threads fetch, decode and preprocess; the step thread runs the towers and owns the rows.
"""

from epd.encoder.core import Encoder
from epd.encoder.events import ItemBroken, ItemEncoded, ItemPrepared

__all__ = ["Encoder", "ItemBroken", "ItemEncoded", "ItemPrepared"]
