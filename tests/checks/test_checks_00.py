"""Right and wrong answers to the exercises of lecture 00."""

import numpy as np
import torch
from harness import Case, test_exercise  # noqa: F401


def by_lerp(images):
    return torch.lerp(torch.full_like(images, 0.5), torch.ones_like(images), images)


def in_double(images):
    return (images.double() + 1) / 2


def in_numpy(images):
    return (images.numpy() + 1) * 0.5


def in_place(images):
    return images.add_(1).div_(2)


def by_own_range(images):
    return (images - images.min()) / (images.max() - images.min())


class Rescale:
    """A callable object is a function, too."""

    def __call__(self, images):
        return torch.from_numpy(np.interp(images.numpy(), [-1, 1], [0, 1]))


CASES = [
    Case(
        "0.1",
        right=[by_lerp, in_double, in_numpy, Rescale()],
        wrong={
            "half": lambda images: images / 2,
            "shifted": lambda images: 1 + images,
            "order": lambda images: images / 2 + 1,
            "inverse": lambda images: 2 * images - 1,
            "clamped": lambda images: images.clamp(min=0),
            "absolute": torch.abs,
            "inplace": in_place,
            "min-max": by_own_range,
            "precedence": lambda images: images + 1 / 2,
            "flipped": lambda images: 0.5 - images / 2,
            "sigmoid": torch.sigmoid,
            "8-bit": lambda images: (images + 1) / 2 * 255,
            "none": lambda images: None,
        },
    ),
    Case(
        "0.2",
        right=[lambda: "b", lambda: "B"],
        wrong={"choice-a": lambda: "a", "choice-c": lambda: "c", "option": lambda: "d", "type": lambda: 2},
    ),
]
