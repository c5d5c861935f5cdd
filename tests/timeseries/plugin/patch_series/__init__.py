"""A model family that epd has never heard of, as another package would bring it."""
