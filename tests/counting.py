"""Pixels that tell which boxes were read of them."""


class Counting:
    """Pixels that remember which boxes were read."""

    def __init__(self, pixels):
        self._pixels, self.shape, self.dtype, self.reads = pixels, pixels.shape, pixels.dtype, []

    def __getitem__(self, key):
        self.reads.append(key)
        return self._pixels[key]
