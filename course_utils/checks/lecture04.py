"""Checks of lecture 04: stable rank, weight normalization's constraint (13), singular-value clipping."""

import math

import torch

from course_utils.checks.core import (
    Wrong,
    compare,
    exercise,
    expect_choice,
    expect_tensor,
    expect_tuple,
    over,
    small_matrices,
    tidy,
)


def matrix_of(W):
    """The weight as a matrix in double precision, one row for each output."""
    return W.reshape(W.shape[0], -1).double()


@exercise("4.1", "Stable rank without a decomposition")
def check_rank(answer, rng):
    worst = 0.0
    for shape, small in [((5, 5), 1), ((4, 9), 0.02), ((9, 4), 1), ((6, 3, 3, 3), 0.02), ((4, 8, 4, 4), 1)]:
        scale = float(torch.rand((), generator=rng) * 3 + 0.3) * small  # a small sigma shows what is added to it
        W = scale * torch.randn(shape, generator=rng)
        s = torch.linalg.svdvals(matrix_of(W))
        sigma = float(s[0]) if len(shape) == 2 else s[0].float()  # a number or a tensor with one element
        energy = s.square().sum()
        hints = {
            "sigma": (energy / s[0], "The sum of squares is there, but it is divided by sigma, not by its square."),
            "root": (
                energy.sqrt() / s[0],
                "This is the root of the stable rank: both sums of energy and sigma enter squared.",
            ),
            "inverse": (s[0] ** 2 / energy, "This is the inverse, the first component's share of the energy."),
            "unsquared": (
                s.sum() / s[0],
                "This adds up the singular values themselves. The stable rank adds their squares.",
            ),
            "rank": (float(len(s)), "This is the rank, which counts every singular value as one, however small it is."),
            "absolute": (
                [W.double().abs().sum() / s[0] ** 2, W.double().abs().sum() / s[0]],
                "The entries are added up as they are, without their signs. It is their squares that add up to the energy.",
            ),
            "sum": (
                [W.double().sum() / s[0] ** 2, W.double().sum() / s[0], W.double().sum() ** 2 / s[0] ** 2],
                "The entries themselves are added up, so they cancel. Square each of them first.",
            ),
            "norm": (
                energy.sqrt() / s[0] ** 2,
                "The Frobenius norm above is not squared, sigma below is. Both have to be.",
            ),
            "mean": (energy / W.numel() / s[0] ** 2, "This is the mean of the squares. The energy is their sum."),
            "fourth": (
                energy**2 / s[0] ** 2,
                "The sum of squares is squared once more: W.norm() ** 2 is the energy already.",
            ),
            "share": (
                energy / s[0] ** 2 / len(s),
                "This is divided by the number of singular values, too. The stable rank is not.",
            ),
            "energy": (energy, "This is the energy alone: divide it by the energy of the first component."),
        }
        worst = max(worst, compare(answer(W, sigma), energy / s[0] ** 2, 1e-4, "The stable rank", hints))
    return worst


def rows_of(W, dims, root=True):
    """W divided by its length (or, without root, the square of it) over the axes `dims`."""
    squared = W.square().sum(dim=dims, keepdim=True)
    return W / (squared.sqrt() if root else squared)


MIN_MAX = "This stretches between the smallest and the largest entry. Normalizing here means dividing by a length."


def scaled(W):
    """W scaled to [0, 1], or to [-1, 1], as a whole or output by output."""
    axes = tuple(range(1, W.ndim))
    some = [
        (W - W.amin(dims, keepdim=True)) / (W.amax(dims, keepdim=True) - W.amin(dims, keepdim=True))
        for dims in (axes, (0, *axes))
    ]
    return some + [2 * one - 1 for one in some]


def weight(shape, size, rng):
    """A random weight whose entries are of the given size, roughly."""
    return torch.randn(shape, generator=rng) * float(torch.rand((), generator=rng) * 3 + 0.3) * size


@exercise("4.2", "The constraint (13)")
def check_constraint(answer, rng):
    def case(W):
        value = expect_tuple(answer(W), 2, "What the function returns")
        if getattr(value[1], "shape", None) == W.shape and torch.as_tensor(value[0]).numel() == 1:
            raise Wrong("order", "The normalized weight comes first, then the sum.")
        rows = tuple(range(1, W.ndim))
        hints = {
            "keepdim": (
                W / W.norm(dim=1) if W.ndim == 2 and W.shape[0] == W.shape[1] else 0.0,
                "Without keepdim=True the lengths of the rows meet the columns; it only runs because W is square.",
            ),
            "columns": (
                rows_of(W, (0, *range(2, W.ndim))),
                "This gives unit length to each input (column). WN normalizes rows: one for each output.",
            ),
            "frobenius": (
                W / W.norm(),
                "This divides all of W by one number, its Frobenius norm. Each row has a length of its own.",
            ),
            "square": (
                rows_of(W, rows, root=False),
                "Each row is divided by the square of its length: the root is missing.",
            ),
            "entries": (
                W / W.norm(p=1, dim=rows, keepdim=True),
                "This is the sum of absolute values of each row, not its Euclidean length.",
            ),
            "min-max": (scaled(W), MIN_MAX),
            "maximum": (
                [W / W.abs().amax(), W / W.abs().amax(rows, keepdim=True)],
                "This divides by the largest entry. The length of a row is the root of the sum of its squares.",
            ),
            "mean": (
                rows_of(W, rows) * math.sqrt(W[0].numel()),
                "The length is the root of the *sum* of squares; this is that of their mean.",
            ),
            "sigma": (
                W / torch.linalg.matrix_norm(matrix_of(W), ord=2),
                "This is spectral normalization, W / sigma(W).",
            ),
        }
        if W.ndim == 4:
            hints["kernels"] = (
                rows_of(W, (2, 3)),
                "Each small k x k kernel has length 1 here. A row holds all the kernels of one output.",
            )
            hints["last"] = (
                rows_of(W, (1,)),
                "Only axis 1 is summed over. A row of a kernel holds the axes 1, 2 and 3 together.",
            )
        worst = compare(value[0], rows_of(W.double(), rows), 1e-4, "The normalized weight", hints)
        s = torch.linalg.svdvals(matrix_of(rows_of(W.double(), rows)))
        hints = {
            "unsquared": (s.sum(), "The sum is over the squares of the singular values, not over the values."),
            "raw": (
                matrix_of(W).square().sum(),
                "This is the sum for W as it was given. It is asked for the normalized weight.",
            ),
            "root": (math.sqrt(len(W)), "This is the root of the sum: the Frobenius norm. Square it."),
            "input": (float(matrix_of(W).shape[1]), "This is the number of inputs. The budget does not depend on it."),
            "first": (s[0] ** 2, "This is the square of the largest singular value alone."),
        }
        return max(worst, compare(value[1], float(len(W)), 1e-4, "The sum of squared singular values", hints))

    shapes = [((6, 6), 1), ((4, 9), 0.02), ((9, 4), 1), ((5, 5, 3, 3), 0.02), ((8, 3, 4, 4), 1)]
    cases = ((weight(shape, small, rng),) for shape, small in shapes)
    return over(answer, cases, case, [*[(W,) for W in small_matrices(rng)], (tidy((2, 1, 2, 2), rng),)])


@exercise("4.3", "The strongest layer under WN")
def check_strongest(answer, rng):
    worst = 0.0
    for d_in, d_out in [(6, 6), (9, 4), (4, 9), (5, 1), (1, 5)]:
        h = torch.randn(d_in, generator=rng)
        h = h / h.norm() * float(torch.rand((), generator=rng) * 2 + 1.5)  # any length but 1
        value = answer(h, d_out)
        if isinstance(value, torch.Tensor) and tuple(value.shape) == (d_in, d_out) != (d_out, d_in):
            raise Wrong(
                "transposed", "The matrix is the transpose of the one wanted: rows belong to outputs, d_out of them."
            )
        W = expect_tensor(value, (d_out, d_in), "The matrix").double()
        h = h.double()
        lengths = W.norm(dim=1)
        if (lengths - 1).abs().max() > 1e-4:
            if d_in == d_out and (W.norm(dim=0) - 1).abs().max() < 1e-4:
                raise Wrong("transposed", "The columns have length 1. WN asks for the rows.")
            if (lengths - h.norm()).abs().max() < 1e-4:
                raise Wrong("length", "Each row is as long as h. WN wants rows of length 1, and h may have any length.")
            if abs(float(W.norm()) - 1) < 1e-4:
                raise Wrong(
                    "frobenius", "All rows together have length 1: Frobenius normalization. WN wants that of every row."
                )
            low, high = f"{lengths.min():.3g}", f"{lengths.max():.3g}"
            found = f"length {low}" if low == high else f"lengths from {low} to {high}"
            raise Wrong("rows", f"WN's constraint is not met: the rows have {found}.")
        stretch = float((W @ h).norm() / h.norm())
        if abs(stretch - math.sqrt(d_out)) > 1e-4 * math.sqrt(d_out):
            reason = "Each row should do as much as it can for this h; what a row does for other inputs does not count."
            raise Wrong(
                "stretch",
                f"The rows are right, but |W h| / |h| = {stretch:.3f} and {math.sqrt(d_out):.3f} is possible. {reason}",
            )
        worst = max(worst, abs(stretch / math.sqrt(d_out) - 1))
    return worst


@exercise("4.5", "Before you run it")
def check_predict(answer, rng):
    return expect_choice(answer(), "abcd", "b", {
        "b": "Under WN every row chooses on its own, and all choose the direction with the most energy; under SN each "
             "singular value may rise to 1, and each adds to the length.",
        "a": "For WN, yes. Under SN, what would a small singular value be good for? Raising it adds to the length and costs nothing.",
        "c": "The other way round: which of the two charges for many rows that are alike, and which does not?",
        "d": "For SN, yes. Under WN each row is on its own: which single direction gives it the most?",
    })  # fmt: skip


@exercise("4.6", "Singular-value clipping")
def check_clip(answer, rng):
    def case(W, bound):
        U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
        hints = {
            "kept": (W, "Nothing was clipped."),
            "rescaled": (
                W * (bound / float(S[0])),
                "All singular values are multiplied by one factor, as SN does. Those below the bound should stay.",
            ),
            "entries": (
                W.clamp(-bound, bound),
                "This clips the entries of W. It is the singular values that are to be clipped.",
            ),
            "floor": (
                U * S.clamp(min=bound) @ Vh,
                "This lifts the small singular values to the bound. The large ones are to be lowered.",
            ),
            "equal": (
                U @ Vh * bound,
                "All singular values are equal to the bound now. Those below it should stay as they are.",
            ),
            "one": (U * S.clamp(max=1.0) @ Vh, "This clips at 1, whatever `bound` is."),
            "first-only": (
                W - (float(S[0]) - bound) * torch.outer(U[:, 0], Vh[0]) if S[0] > bound else W,
                "Only the first singular value was lowered. All that are above the bound have to be.",
            ),
            "subtracted": (
                U * (S - bound).clamp(min=0) @ Vh,
                "The bound is subtracted from the singular values. Those above it should become equal to it, the others stay.",
            ),
            "frobenius": (
                W * (bound / float(W.double().norm())),
                "All of W is multiplied by one factor, with the Frobenius norm in it. The small singular values should stay.",
            ),
            "squared": (U * S.clamp(max=bound) ** 2 @ Vh, "The singular values have been squared on the way."),
            "no-u": (torch.diag(S.clamp(max=bound)) @ Vh if len(W) == len(S) else 0.0, "U is missing: U @ diag @ Vh."),
            "cut": (
                U * torch.where(S > bound, 0.0, S) @ Vh,
                "The large singular values were removed. They should become equal to the bound.",
            ),
        }
        if W.shape[0] == W.shape[1]:
            message = (
                "The right singular vectors are transposed once too often: torch's svd returns them already transposed."
            )
            both = [torch.linalg.svd(A) for A in (W, W.double())]  # the signs depend on the precision
            hints["transposed"] = ([U * S.clamp(max=bound) @ Vh.mT for U, S, Vh in both], message)
        return compare(answer(W, bound), U * S.clamp(max=bound) @ Vh, 1e-4, "The matrix", hints)

    def cases():
        for d_out, d_in, share, rank in [
            (5, 5, 0.4, 5),
            (4, 8, 0.3, 4),
            (8, 4, 0.3, 4),
            (6, 6, 1.5, 6),
            (1, 5, 0.2, 1),
            (5, 4, 0.5, 2),
        ]:
            W = torch.randn(d_out, d_in, generator=rng)
            if rank < min(d_out, d_in):
                W = W[:, :rank] @ torch.randn(rank, d_in, generator=rng)
            yield W, share * float(torch.linalg.svdvals(W.double())[0])  # share above 1: nothing to clip

    small = [(W, share * float(torch.linalg.svdvals(W)[0])) for W in small_matrices(rng) for share in (0.75, 0.25)]
    return over(answer, cases(), case, small)


@exercise("4.4", "Find the bug")
def check_bug(answer, rng):
    def case(W):
        hints = {
            "unchanged": (rows_of(W, (2, 3), root=False), "Both mistakes are still there: look at the axes, and at what a length is."),
            "kernels": (rows_of(W, (2, 3)), "One mended: the root is there. But each small kernel still has a length of its own; a row holds all of an output's kernels."),
            "square": (rows_of(W, (1, 2, 3), root=False), "One mended: the axes are right. But the row is divided by the square of its length."),
            "columns": (rows_of(W, (0, 2, 3)), "This gives each input channel length 1. Rows belong to outputs, which are axis 0."),
            "frobenius": (W / W.norm(), "One length for all outputs together: Frobenius normalization. WN has one for each output."),
            "last": (rows_of(W, (1,)), "The root is there. But only axis 1 is summed over; a row of a kernel holds the axes 1, 2 and 3 together."),
            "axes": ([rows_of(W, (1, 2)), rows_of(W, (1, 3))], "Two of the three axes of a row are summed over: it takes 1, 2 and 3."),
            "entries": ([W / W.norm(p=1, dim=(1, 2, 3), keepdim=True), W / W.flatten(1).norm(p=1, dim=1).view(-1, 1, 1, 1)], "This is the sum of absolute values of each row, not its Euclidean length."),
            "mean": (rows_of(W, (1, 2, 3)) * math.sqrt(W[0].numel()), "A length is the root of the *sum* of squares; this is that of their mean."),
            "min-max": (scaled(W), MIN_MAX),
            "maximum": ([W / W.abs().amax(), W / W.abs().amax((1, 2, 3), keepdim=True)], "This divides by the largest entry. A length is the root of the sum of squares."),
            "sigma": (W / torch.linalg.matrix_norm(matrix_of(W), ord=2), "This is spectral normalization. WN divides each row by its own length."),
            "budget": (W / W.norm() * math.sqrt(len(W)), "The sum of squared singular values is right now, but it is one factor for all: each row must have length 1 on its own."),
        }  # fmt: skip
        if W.shape[0] == W.shape[1]:
            hints["keepdim"] = (
                W / W.norm(dim=1),
                "Only axis 1 is summed over, and without keepdim=True the lengths meet the wrong axes.",
            )
        return compare(answer(W), rows_of(W.double(), (1, 2, 3)), 1e-4, "The normalized kernel", hints)

    shapes = [((4, 4, 3, 3), 1), ((6, 2, 4, 4), 0.02), ((2, 6, 3, 3), 1), ((5, 1, 3, 3), 0.02)]
    small = [(tidy((2, 1, 2, 2), rng),), (tidy((2, 2, 1, 2), rng),)]
    return over(answer, ((weight(shape, size, rng),) for shape, size in shapes), case, small)
