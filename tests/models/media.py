"""Something of every modality, two or three of different sizes each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epd.media.decoded import Media, Picture, Series
from epd.models.towers import Prepared, Towers
from epd.types import Modality
from tests.models.clips import CLIPS
from tests.models.pictures import asked, picture
from tests.models.sounds import SOUNDS

_WAVES = np.sin(np.arange(120, dtype=np.float32) / 7).reshape(60, 2)

MEDIA: dict[Modality, Sequence[Media]] = {
    Modality.IMAGE: [
        Picture(image=picture(*size, seed=seed))
        for seed, size in enumerate(((60, 60), (300, 100), (127, 333)))
    ],
    Modality.VIDEO: [CLIPS["odd"], CLIPS["even"]],
    Modality.AUDIO: [SOUNDS["short"], SOUNDS["a second"]],
    Modality.TIME_SERIES: [Series(values=_WAVES), Series(values=_WAVES[:20])],
}


def prepared(towers: Towers) -> list[Prepared]:
    """All that the towers take."""
    return [
        towers.prepare(media, asked(modality, towers.dtype_name))
        for modality in towers.modalities
        for media in MEDIA[modality]
    ]
