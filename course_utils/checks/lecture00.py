"""Checks of lecture 00: how an exercise works."""

import torch

from course_utils.checks.core import compare, exercise, expect_choice


@exercise("00-pixels", "from [-1, 1] to [0, 1]")
def check_pixels(answer, rng):
    worst = 0.0
    for shape in [(5,), (2, 1, 4, 4), (3, 3, 2, 2)]:
        images = torch.rand(shape, generator=rng) * 2 - 1
        truth = images.mul(0.5).add(0.5)
        hints = {
            "half": (images / 2, "Now the values lie in [-1/2, 1/2]: halving is right, what has to be added?"),
            "shifted": (images + 1, "Now the values lie in [0, 2]: the shift is right, what is left to do?"),
            "order": (images / 2 + 1, "Now the values lie in [1/2, 3/2]: add 1 before you halve, or add 1/2 after it."),
            "inverse": (images * 2 - 1, "This goes the other way, from [0, 1] to [-1, 1]. Turn it round."),
            "clamped": (
                images.clamp(0, 1),
                "Clamping turns everything below 0 into black: the picture is lost. Rescale.",
            ),
            "absolute": (images.abs(), "The absolute value makes black white. Rescale instead."),
        }
        worst = max(worst, compare(answer(images), truth, 1e-5, "The image", hints))
    return worst


@exercise("00-prediction", "before you run it")
def check_prediction(answer, rng):
    later = "A good guess, and many people's first. Look at the comparison that follows in the lecture, at the means over three seeds, and come back."
    expect_choice(answer(), "abc", "b", {"a": later, "c": later})
