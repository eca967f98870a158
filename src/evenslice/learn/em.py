"""How strong the augmentation ``em`` is: the table ``[em]`` of the settings of ``evenslice train``.

Strengths of grey values are in standard deviations of the training slices, so that they mean the same for every type of
volume; lengths are in pixels.
"""

from typing import Annotated

from pydantic import Field

from evenslice.learn.settings import Settings

Part = Annotated[float, Field(ge=0, le=1)]
Deviations = Annotated[float, Field(ge=0, le=5)]


class Brightness(Settings):
    """A constant is added to a section: up to ``size`` standard deviations, either way."""

    probability: Part = 0.5
    size: Deviations = 0.3


class Contrast(Settings):
    """The distance of a section from the mean grey value is multiplied by a factor of 1 - ``size`` to 1 + ``size``."""

    probability: Part = 0.5
    size: Annotated[float, Field(ge=0, lt=1)] = 0.3


class Blur(Settings):
    """A section is out of focus: blurred by a Gaussian whose sigma is up to ``size`` pixels."""

    probability: Part = 0.1
    size: Annotated[float, Field(ge=0, le=10)] = 1.5


class Noise(Settings):
    """Gaussian noise is added to a section, its deviation up to ``size`` of that of the volume."""

    probability: Part = 0.3
    size: Deviations = 0.3


class Missing(Settings):
    """A neighbour slice is lost: a ``blank`` part of those is the mean grey value, the others are a copy of the centre."""

    probability: Part = 0.05
    blank: Part = 0.5


class Shift(Settings):
    """A neighbour slice is badly aligned: shifted by up to ``size`` whole pixels along y and x."""

    probability: Part = 0.1
    size: Annotated[int, Field(ge=0, le=64)] = 4


class EM(Settings):
    """What goes wrong with sections under the microscope, each with the probability that a section suffers it."""

    brightness: Brightness = Brightness()
    contrast: Contrast = Contrast()
    blur: Blur = Blur()
    noise: Noise = Noise()
    missing: Missing = Missing()
    shift: Shift = Shift()
