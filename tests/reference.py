"""The answer that epd must give: Hugging Face's whole model, its template, its generate().

The canonical result: Hugging Face's own processor is called on every item alone, what it puts in
the place of the item's placeholder goes into the rendered chat, the whole text is tokenised at
once, and the tensors are put side by side. For a request of one item that is what the processor
gives for the whole request, and `inputs` checks that it is. Nothing of epd decides anything here
but the torchvision shim.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from epd.models.torchvision_shim import prepare_torchvision
from tests.reference_omni import Omni

OF_BATCHES = ("attention_mask", "input_ids", "mm_token_type_ids")
OPTIONS: dict[str, Any] = {}


@dataclass(frozen=True)
class Video:
    """Chosen frames [frames, height, width, 3] of a clip, their numbers in it, and what it is.

    `fps` and `total` are the clip's own. `sound` are samples at the rate the model wants, if the
    request asked for the sound and there is any.
    """

    frames: NDArray[np.uint8]
    indices: tuple[int, ...]
    fps: float
    total: int
    sound: NDArray[np.float32] | None = None


Item = Image.Image | Video | NDArray[np.float32]
"""A picture, a video, or the samples of a sound at the rate the model wants."""


@dataclass(frozen=True)
class Alone:
    """One item as the processor sees it, called on nothing else.

    `text` takes the placeholder's place; `tensors` are what the model takes beside ids.
    """

    kind: str
    text: str
    tensors: dict[str, Any]
    sounds: bool = False


class Reference:
    """One checkpoint in fp32 on the CPU.

    `weights`: the folder of a thinker, for the folder of a whole model around it.
    """

    def __init__(self, path: str | Path, weights: Path | None = None) -> None:
        prepare_torchvision()
        import transformers

        transformers.utils.logging.disable_progress_bar()
        self.processor: Any = transformers.AutoProcessor.from_pretrained(path)
        if hasattr(self.processor, "image_processor"):
            # Backends differ by up to 0.015 per value, so one is pinned.
            self.images: Any = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
            self.processor.image_processor = self.images
        folder = weights or path
        config = transformers.AutoConfig.from_pretrained(folder)
        architecture = getattr(transformers, config.architectures[0])
        self.model: Any = architecture.from_pretrained(folder, dtype=torch.float32).eval()
        if weights is not None:  # what ends an answer is said by the whole folder, if at all
            said = transformers.GenerationConfig.from_pretrained(path)
            self.model.generation_config.eos_token_id = said.eos_token_id
        self._size = saved_video_size(Path(path)) if is_omni(self.processor) else None
        self.omni = Omni(self.model, self.processor) if is_omni(self.processor) else None

    @property
    def sampling_rate(self) -> int:
        """Samples per second that the model wants of sound."""
        rate: int = self.processor.feature_extractor.sampling_rate
        return rate

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """The checkpoint's chat template, one placeholder per item, ready for an answer."""
        text: str = self.processor.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        return text

    def alone(
        self, item: Item, asked: Mapping[str, Any] = OPTIONS, siblings: Sequence[Item] = ()
    ) -> Alone:
        """The processor on one item, `asked` in its words.

        `siblings` are all pictures of the chat, which one family wants to know: LLaVA-OneVision
        cuts a picture into tiles only where it is the only one.
        """
        kind, media = self._media(item)
        token = getattr(self.processor, f"{kind}_token")
        if kind == "image" and len(siblings) > 1 and "batch_num_images" in self._input_names():
            return self._among(item, asked, siblings)
        found = self._processed(
            text=[token],
            return_text_replacement_offsets=True,
            **media,
            **asked,
        )
        [[replaced]] = found.pop("text_replacement_offsets")
        tensors = {name: value for name, value in found.items() if name not in OF_BATCHES}
        sounds = isinstance(item, Video) and item.sound is not None
        return Alone(kind, replaced["replacement"], tensors, sounds)

    def _among(self, item: Item, asked: Mapping[str, Any], siblings: Sequence[Item]) -> Alone:
        """One picture of a chat of several: the processor is called on all, this one is kept."""
        found = self._processed(
            text=[self.processor.image_token * len(siblings)],
            images=[list(siblings)],
            return_text_replacement_offsets=True,
            **asked,
        )
        [replaced] = found.pop("text_replacement_offsets")
        at = next(number for number, other in enumerate(siblings) if other is item)
        tensors = {name: found[name][at : at + 1] for name in ("pixel_values", "image_sizes")}
        tensors["batch_num_images"] = torch.ones(1, dtype=torch.int64)
        return Alone("image", replaced[at]["replacement"], tensors)

    def _processed(self, **arguments: Any) -> Any:
        """The Omni ones give torch's numbers to numpy, which warns of it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return self.processor(return_tensors="pt", **arguments)

    def _media(self, item: Item) -> tuple[str, dict[str, Any]]:
        """The item's kind, and the arguments with which the processor takes it alone."""
        if isinstance(item, Image.Image):
            return "image", {"images": [item]}
        if not isinstance(item, Video):
            return "audio", {"audio": [item]}
        from transformers.video_utils import VideoMetadata

        height, width = item.frames.shape[1:3]
        metadata = VideoMetadata(
            total_num_frames=item.total,
            fps=item.fps,
            frames_indices=list(item.indices),
            duration=item.total / item.fps,
            height=height,
            width=width,
        )
        found: dict[str, Any] = {
            "videos": [torch.from_numpy(item.frames).permute(0, 3, 1, 2)],
            "video_metadata": [metadata],
            "do_sample_frames": False,
        }
        if is_omni(self.processor):  # it looks at this instead of the metadata
            found["fps"] = metadata.sampled_fps
            if self._size is not None:
                found["videos_kwargs"] = {"size": self._size}
        if item.sound is not None:
            found |= {
                "audio": [item.sound],
                "audio_from_video_indices": [0],
                "load_audio_from_video": True,
            }
        return "video", found

    def pieces(
        self,
        messages: Sequence[dict[str, Any]],
        items: Sequence[Item] = (),
        asked: Mapping[str, Any] = OPTIONS,
    ) -> list[str | Alone]:
        """The rendered chat, cut at the placeholders, each of which is its item."""
        pictures = [item for item in items if isinstance(item, Image.Image)]
        given = [self.alone(item, asked, pictures) for item in items]
        found: list[str | Alone] = []
        for at, text in enumerate(self._placeholders().split(self.render(messages))):
            if at % 2:
                one = next(one for one in given if self._token(one.kind) == text)
                given.remove(one)
                found.append(one)
            else:
                found.append(text)
        assert not given, "placeholders and items must be as many"
        return found

    def _placeholders(self) -> re.Pattern[str]:
        tokens = [self._token(kind) for kind in ("image", "video", "audio")]
        return re.compile(f"({'|'.join(re.escape(token) for token in tokens if token)})")

    def _token(self, kind: str) -> str | None:
        token: str | None = getattr(self.processor, f"{kind}_token", None)
        return token

    def inputs(
        self,
        messages: Sequence[dict[str, Any]],
        items: Sequence[Item] = (),
        asked: Mapping[str, Any] = OPTIONS,
    ) -> dict[str, torch.Tensor]:
        """What `generate` and `forward` of the whole model take, batch size 1."""
        pieces = self.pieces(messages, items, asked)
        found = self._tokens("".join(p if isinstance(p, str) else p.text for p in pieces))
        alone = [piece for piece in pieces if isinstance(piece, Alone)]
        for name in dict.fromkeys(name for one in alone for name in one.tensors):
            found[name] = joined([one.tensors[name] for one in alone if name in one.tensors])
        if len(counts := found.get("batch_num_images", ())) > 1:
            found["batch_num_images"] = torch.tensor([len(counts)])  # of one chat
        if len(items) == 1:
            self._check_whole(self.render(messages), items[0], asked, found)
        return found

    def _tokens(self, text: str) -> dict[str, torch.Tensor]:
        """As the processor tokenises: BOS where the tokenizer adds one and the text has none."""
        tokenizer = self.processor.tokenizer
        bos = tokenizer.bos_token
        written = bos is not None and text.startswith(bos)
        found = dict(tokenizer(text, return_tensors="pt", add_special_tokens=not written))
        found.pop("token_type_ids", None)
        if getattr(self.processor, "return_mm_token_type_ids", False):
            kinds = self.processor.create_mm_token_type_ids(found["input_ids"].tolist())
            found["mm_token_type_ids"] = torch.tensor(kinds)
        return found

    def _check_whole(
        self, text: str, item: Item, asked: Mapping[str, Any], found: dict[str, torch.Tensor]
    ) -> None:
        """One item: the processor on the whole request says the same as on the item alone."""
        bos = self.processor.tokenizer.bos_token
        written = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
        _, media = self._media(item)
        whole = self._processed(text=[text], **media, **asked, **written)
        for name, value in whole.items():
            if name in found:
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(found[name])), name

    @torch.inference_mode()
    def generate(
        self,
        messages: Sequence[dict[str, Any]],
        items: Sequence[Item] = (),
        max_tokens: int = 16,
        asked: Mapping[str, Any] = OPTIONS,
        **sampling: Any,
    ) -> tuple[list[int], list[int]]:
        """(prompt ids, new ids), greedy. The last new id is an eos id if one ended the answer.

        The checkpoint's generation_config gives repetition_penalty and eos ids; `sampling`, in
        generate()'s words, goes before it. `asked` are the processor's settings.
        """
        found = self._with_videos_alone(self.inputs(messages, items, asked), items, asked)
        # Greedy does not look at these, but generate() warns where they are set beside it.
        unused = {"temperature": None, "top_p": None, "top_k": None}
        options = {"do_sample": False, "max_new_tokens": max_tokens, **unused, **sampling}
        with self._positions(messages, items, asked, found):
            sequence = self.model.generate(**found, **options)[0].tolist()
        num_prompt = found["input_ids"].shape[1]
        return sequence[:num_prompt], sequence[num_prompt:]

    def _with_videos_alone(
        self, found: dict[str, Any], items: Sequence[Item], asked: Mapping[str, Any]
    ) -> dict[str, Any]:
        """LLaVA-OneVision takes several videos only if they are equally long: others one by one.

        Its forward takes encoded items or pixels, not both, so pictures are encoded here as well.
        """
        videos = [item for item in items if isinstance(item, Video)]
        if "batch_num_images" not in self._input_names() or len(videos) < 2:
            return found
        pixels = [self.alone(one, asked).tensors["pixel_values_videos"] for one in videos]
        encoded = [self.model.get_video_features(one, return_dict=True) for one in pixels]
        encoded[0].pooler_output = torch.cat([one.pooler_output for one in encoded], dim=1)
        outputs = {"video": encoded[0]}
        names = ("pixel_values", "image_sizes", "batch_num_images")
        pictures = {name: found.pop(name) for name in names if name in found}
        if pictures:
            outputs["image"] = self.model.get_image_features(**pictures, return_dict=True)
        del found["pixel_values_videos"]
        return {**found, "mm_encoder_outputs": outputs}

    def _input_names(self) -> Sequence[str]:
        images = getattr(self.processor, "image_processor", None)
        return () if images is None else tuple(images.model_input_names)

    def _positions(
        self,
        messages: Sequence[dict[str, Any]],
        items: Sequence[Item],
        asked: Mapping[str, Any],
        found: dict[str, torch.Tensor],
    ) -> AbstractContextManager[None]:
        """The model's own, but for the Omni models, where they are composed item by item."""
        if self.omni is None or not items:
            return nullcontext()
        pieces = [
            (self._tokens(piece if isinstance(piece, str) else piece.text)["input_ids"][0], piece)
            for piece in self.pieces(messages, items, asked)
            if piece
        ]
        return self.omni.positions(
            [(ids, None if isinstance(p, str) else (p.tensors, p.sounds)) for ids, p in pieces],
            found,
        )


def is_omni(processor: Any) -> bool:
    return hasattr(processor, "load_audio_from_video")


def saved_video_size(path: Path) -> dict[str, Any] | None:
    """What the folder says of the size of videos, if anything.

    The Omni processors have a default of their own, which would go before it unless it is said.
    """
    file = path / "processor_config.json"
    settings = json.loads(file.read_text()) if file.is_file() else {}
    size: dict[str, Any] | None = settings.get("video_processor", {}).get("size")
    return size


def joined(values: Sequence[Any]) -> Any:
    """The same field of several items, side by side; shorter ones get zeros at their ends.

    Only what models mask or cut off again is ever padded: tiles of LLaVA pictures, whose number
    follows from their sizes, and mel frames, whose number follows from the mask.
    """
    if len(values) == 1:
        return values[0]
    tensors = [torch.as_tensor(value) for value in values]
    longest = [max(sizes) for sizes in zip(*(one.shape[1:] for one in tensors), strict=True)]
    padded = []
    for one in tensors:
        missing = [size - have for size, have in zip(longest, one.shape[1:], strict=True)]
        pads = [pad for size in reversed(missing) for pad in (0, size)]
        padded.append(torch.nn.functional.pad(one, pads))
    return torch.cat(padded)
