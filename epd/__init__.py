"""epd: encode, prefill and decode of multimodal language models as separate stages."""

__version__ = "0.1.0"
