"""Which slices train and which validate: blocks along z with a gap, so that no slice is seen by both."""

from evenslice.errors import BadInputError

VALIDATION_PART = 0.2


def split_slices(
    depth: int, slices: int, validation: range | None = None, source: str = "the volume"
) -> tuple[list[int], list[int]]:
    """Split the slices of a volume into training and validation.

    Parameters
    ----------
    depth
        Number of slices of the volume.
    slices
        S; also the gap left between the two, so that their windows share no slice.
    validation
        Slices to validate on; the last 20 % when None.
    source
        What the volume is called in a message.

    Returns
    -------
    tuple
        Centre slices for training, centre slices for validation.

    Raises
    ------
    BadInputError
        If the volume is too small for both.
    """
    if validation is None:
        validation = range(depth - max(1, round(VALIDATION_PART * depth)), depth)
    if not validation or validation[0] < 0 or validation[-1] >= depth:
        raise BadInputError(
            f"validation slices {validation.start}:{validation.stop} were asked for, expected some of 0:{depth}; change --validation"
        )
    train = [z for z in range(depth) if z < validation[0] - slices or z > validation[-1] + slices]
    if not train:
        raise BadInputError(
            f"{source} has {depth} slices, which leaves none to train on beside {len(validation)} for validation and a gap of {slices}, "
            "expected more; use a deeper volume or fewer --validation slices"
        )
    return train, list(validation)
