"""Checks of lecture 00: how an exercise works."""

import torch

from course_utils.checks.core import compare, exercise, expect_choice


@exercise("0.1", "From [-1, 1] to [0, 1]")
def check_pixels(answer, rng):
    worst = 0.0
    for shape in [(5,), (2, 1, 4, 4), (3, 3, 2, 2)]:
        images = torch.rand(shape, generator=rng) * 2 - 1
        truth = images.mul(0.5).add(0.5)
        hints = {
            "half": (images / 2, "Now the values lie in [-1/2, 1/2]: halving is right, what has to be added?"),
            "shifted": (images + 1, "Now the values lie in [0, 2]: the shift is right, what is left to do?"),
            "order": (images / 2 + 1, "Now the values lie in [1/2, 3/2]: add 1 before you halve, or add 1/2 after it."),
            "min-max": (
                [
                    (images - low) / (high - low)
                    for dims in {tuple(range(images.dim())), tuple(range(1, images.dim())), (images.dim() - 1,)} - {()}
                    for low, high in [(images.amin(dims, keepdim=True), images.amax(dims, keepdim=True))]
                ],
                "This stretches each batch by its own extremes. The range is known: -1 becomes 0, and 1 becomes 1.",
            ),
            "precedence": (
                images + 1 / 2,
                "Now the values lie in [-1/2, 3/2]. 1 / 2 is divided first: write (images + 1) / 2, or halve the images, too.",
            ),
            "flipped": ((1 - images) / 2, "Black and white have changed places."),
            "sigmoid": (
                images.sigmoid(),
                "A sigmoid bends the grey values: -1 has to become 0 exactly. A line will do.",
            ),
            "8-bit": ((images + 1) * 127.5, "Now the values lie in [0, 255]: that is the range of 8 bits, not [0, 1]."),
            "inverse": (images * 2 - 1, "This goes the other way, from [0, 1] to [-1, 1]. Turn it round."),
            "clamped": (
                images.clamp(0, 1),
                "Clamping turns everything below 0 into black: the picture is lost. Rescale.",
            ),
            "rounded": (
                (images > 0).float(),
                "Every pixel is black or white now. A grey value between -1 and 1 stays grey.",
            ),
            "absolute": (images.abs(), "The absolute value makes black white. Rescale instead."),
        }
        worst = max(worst, compare(answer(images), truth, 1e-5, "The image", hints))
    return worst


@exercise("0.2", "Predict, then run")
def check_prediction(answer, rng):
    look = "Look at the comparison that follows, at the means over three seeds, and come back."
    return expect_choice(answer(), "abc", "b", {
        "a": f"A good guess, and many people's first: but a generator learns from slopes, not from a perfect judge. {look}",
        "b": "A discriminator on a leash has slopes everywhere, and slopes are all that the generator learns from.",
        "c": f"Normalization changes what the generator is told at every step; that adds up. {look}",
    })  # fmt: skip
