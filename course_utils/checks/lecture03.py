"""Checks of lecture 03: power iteration, its rate, the SN forward pass, subspace iteration, norms of convolutions."""

import math

import torch
from torch.nn import functional as F

from course_utils.checks.answers import as_tensor, as_vector
from course_utils.checks.core import (
    Wrong,
    compare,
    distance,
    exercise,
    expect_number,
    expect_tensor,
    expect_tuple,
    over,
    small_matrices,
)


def _unit(x):
    return x / x.norm()


@exercise("3.1", "Power iteration from the equations")
def check_power(answer, rng):
    """n rounds of (18)-(19) against powers of W W^T in double precision, from the same start."""
    worst = 0.0
    for rows, columns, n in [(6, 6, 3), (5, 5, 1), (4, 7, 2), (8, 3, 5), (1, 4, 1), (4, 1, 2), (5, 4, 40)]:
        scale = 1.5 if rows == 5 else 0.7
        for _ in range(50):
            W = scale * torch.randn(rows, columns, generator=rng, dtype=torch.float64) / math.sqrt(columns)
            if n == 40:  # a small gap: sigma seems to stand still long before u does
                U, S, Vh = torch.linalg.svd(W, full_matrices=False)
                W = U * torch.cat([S[:1], 0.9 * S[0] * torch.tensor([1, 0.8, 0.3])]) @ Vh
            start = 3 * torch.randn(rows, generator=rng, dtype=torch.float64)
            gram = W @ W.T
            before = _unit(torch.linalg.matrix_power(gram, n - 1) @ start)
            v = _unit(W.T @ before)
            u = _unit(W @ v)
            sigma = (W @ v).norm()
            if n < 3 or n == 40 or sigma < 0.97 * torch.linalg.matrix_norm(W, ord=2):
                break  # far from converged: only then do the mistakes below differ from the truth
        parts = expect_tuple(answer(W.float(), start.float(), n), 3, "The result (sigma, u, v)")
        sizes = [torch.as_tensor(part).numel() for part in parts if isinstance(part, (torch.Tensor, int, float))]
        if min(rows, columns) > 1 and sizes == [rows, columns, 1]:
            raise Wrong("order", "Return the three things in the order sigma, u, v.")
        got_sigma, got_u, got_v = parts
        if distance_to(got_u, -u) < 1e-3 and distance_to(got_v, -v) < 1e-3:
            got_u, got_v = -got_u, -got_v  # the opposite pair is as good
        for what, vector, size in [("u", got_u, rows), ("v", got_v, columns)]:
            flat = expect_tensor(vector, None, what)
            if flat.dim() == 1 and len(flat) == size and abs(float(flat.norm()) - 1) > 1e-3:
                raise Wrong(
                    "length",
                    f"{what} has the length {float(flat.norm()):.3g}, not 1: divide by its norm in each round.",
                )
        w, s = W, _unit(start)
        if rows == columns:  # W and its transpose exchanged
            for _ in range(n):
                y = _unit(w @ s)
                s = _unit(w.T @ y)
            if float((expect_tensor(got_u, (rows,), "u").double() - s).norm()) < 1e-3 and rows > 1:
                raise Wrong(
                    "transposed", "W and its transpose have changed places: (18) uses W^T on u, (19) uses W on v."
                )
            if n > 0 and distance_to(got_u, v) < 1e-3 and distance_to(got_v, u) < 1e-3:
                raise Wrong("swapped", "u and v have changed places in what you return: u has one entry per row of W.")
            s = _unit(start)
            for _ in range(n):
                y = _unit(W @ s)
                s = _unit(W @ y)
            if distance_to(got_u, s) < 1e-3:
                raise Wrong("transpose", "Both of your products use W. (18) needs the transpose: W.T @ u.")
        if n > 1:
            once = _unit(gram @ start)
            if distance_to(got_u, once) < 1e-3 and distance_to(u, once) > 1e-2:
                raise Wrong(
                    "one-round", "This is one round only: repeat (18) and (19) n times, starting again from the new u."
                )
        for code, m in [("more", n + 1), ("fewer", n - 1)]:
            if m > 0:
                other_v = _unit(W.T @ torch.linalg.matrix_power(gram, m - 1) @ start)
                other_u = _unit(W @ other_v)
                near = distance_to(got_u, other_u) < 0.1 * distance_to(u, other_u)
                if (
                    near
                    and distance_to(got_v, other_v) < 0.1 * distance_to(v, other_v)
                    and distance_to(got_u, u) > 1e-4
                ):
                    raise Wrong(code, f"That is n{m - n:+d} rounds: do exactly n.")
        U, _, Vh = torch.linalg.svd(W)
        for sign in (1, -1):
            exact = sign * U[:, 0]
            if distance_to(got_u, exact) < min(1e-3, 0.1 * distance_to(u, exact)) and n < 40:
                raise Wrong("converged", f"These are the singular vectors themselves, by a decomposition or many rounds. Do n rounds from the given u, here {n}.")  # fmt: skip
        for m in range(1, n - 1):
            early = _unit(torch.linalg.matrix_power(gram, m) @ start)
            if distance_to(got_u, early) < 0.1 * distance_to(early, u) and distance_to(got_u, u) > 1e-4:
                raise Wrong("early", f"That is what {m} rounds give. Do exactly n, here {n}, without stopping earlier.")
        extra = _unit(W.T @ u)
        if distance_to(got_v, extra) < 1e-4 and distance_to(v, extra) > 1e-2 and distance_to(got_u, u) < 1e-4:
            raise Wrong("extra", "u is right, but v is half a round ahead: after (19) there is no further product.")
        old = _unit(gram @ before)
        compare(
            got_u, u, 1e-4, "u", {"start": (_unit(start), "Your u is still the start vector: store what (19) gives.")}
        )
        worst = max(worst, compare(got_v, v, 1e-4, "v"))
        hints = {
            "squared": (sigma**2, "This is sigma squared: u^T W v is a product with W once."),
            "unit": (1.0, "This is 1, the length of a unit vector. The estimate is u^T W v, with W between."),
            "uv": (
                abs(float(u @ v)) if rows == columns else 1.0,
                "This is u . v, without the matrix between: u^T W v.",
            ),
            "late": (before @ W @ v, "Your sigma uses the u from before the last (19): take the new one."),
            "half-later": (
                (W.T @ old).norm(),
                "Your sigma is a half round ahead: it is u^T W v with the last u and v.",
            ),
            "exact": (
                torch.linalg.svdvals(W)[0],
                "This is the exact sigma, not the estimate after n rounds: use u^T W v.",
            ),
        }
        worst = max(worst, compare(got_sigma, sigma, 1e-4, "sigma", hints))
    return worst


def distance_to(value, vector):
    """Euclidean distance of a student's vector from `vector`; infinite if it has another shape."""
    if not isinstance(value, torch.Tensor) or value.shape != vector.shape:
        return math.inf
    return float((value.detach().double() - vector).norm())


@exercise("3.2", "How many rounds?")
def check_rounds(answer, rng):
    """Closed form on matrices with a chosen ratio, away from the whole numbers where rounding decides."""
    done = 0
    while done < 12:
        ratio = 0.3 + 0.68 * float(torch.rand((), generator=rng))
        eps = 10 ** (-1 - 7 * float(torch.rand((), generator=rng)))
        exact = math.log(eps) / (4 * math.log(ratio))
        if abs(exact - round(exact)) < 0.05 or exact < 1.2:
            continue
        rows, columns = [(4, 4), (5, 3), (3, 6)][done % 3]
        n = min(rows, columns)
        values = torch.cat([torch.tensor([1.0, ratio]), ratio * torch.rand(n - 2, generator=rng)]).double()
        left, right = (torch.linalg.qr(torch.randn(m, n, generator=rng).double()).Q for m in (rows, columns))
        scale = 10 ** (4 * float(torch.rand((), generator=rng)) - 2)
        raw = answer((scale * left @ torch.diag(values) @ right.T).float(), eps)
        k = expect_number(raw, "The number of rounds")
        truth = math.ceil(exact)
        done += 1
        if k == truth:
            continue
        wrong = [
            (
                "vector",
                math.ceil(2 * exact),
                "This is the number of rounds for the vector, whose factor is r^2 a round. For sigma it is the square of that, r^4.",
            ),
            (
                "half",
                math.ceil(4 * exact),
                "You count r per round: but a round has two products, and the error of sigma goes with the square of the angle.",
            ),
            ("eighth", math.ceil(exact / 2), "You count r^8 per round; the error of sigma shrinks by r^4."),
            ("floor", math.floor(exact), "One round too few: round up, since the factor must be at most eps."),
            ("next", truth + 1, "One round too many: the smallest k with r^(4k) <= eps was asked for."),
        ]
        for code, value, hint in wrong:
            if k == value and sum(value == other for _, other, _ in wrong) == 1:
                raise Wrong(code, hint)
        if abs(k - round(k)) > 1e-9:
            raise Wrong("whole", f"The number of rounds must be whole; you return {k:.4g}. Round up.")
        if k < 0:
            raise Wrong(
                "sign", "A negative number of rounds: use sigma_2 / sigma_1, which is below 1, not its inverse."
            )
        if any(k == value for _, value, _ in wrong):  # two mistakes give the same number here: try another matrix
            done -= 1
            continue
        raise Wrong("value", f"For r = {ratio:.3f} and eps = {eps:.1e} the answer is {truth}; you return {k:.0f}.")


@exercise("3.3", "Three bugs")
def check_forward(answer, rng):
    """Values, modes and gradient of one forward pass, against formulas written out with u and v fixed."""

    def case(W, u0, training):
        W, u0 = W.double(), u0.double()  # what single precision holds
        v = _unit(W.T @ u0)
        u = _unit(W @ v) if training else u0
        sigma = u @ W @ v
        student_w = W.float().requires_grad_()
        got, got_u = expect_tuple(answer(student_w, u0.float(), training), 2, "The result (W_SN, u)")
        flat_u = expect_tensor(got_u, (len(W),), "u")
        if not training and distance_to(got_u, u0) > 1e-6:
            raise Wrong(
                "eval-moves",
                "In evaluation mode the returned u differs from the stored one: there u must stand still.",
            )
        if training and distance_to(got_u, u0) < 1e-6:
            raise Wrong("train-stands", "In training mode u did not move: do (21) there and return the new u.")
        if abs(float(flat_u.norm()) - 1) > 1e-4:
            raise Wrong(
                "length",
                f"The returned u has the length {float(flat_u.norm()):.3g}, not 1: (21) divides by the norm of W v.",
            )
        compare(got_u, u, 1e-4, "u")
        moved = _unit(W @ v)
        hints = {
            "undivided": (
                W,
                "W comes back undivided. In both modes it is divided by sigma; only u stands still in evaluation mode."
                if not training
                else "W comes back undivided: (22) divides it by sigma.",
            ),
            "v-length": (
                [W / (u @ W @ (W.T @ u0)), W / (_unit(W @ v) @ W @ (W.T @ u0))],
                "Your v was not divided by its length: (20) divides by the norm of W^T u.",
            ),
            "squared": (W / sigma**2, "You divide by the square of sigma."),
            "frobenius": (W / W.norm(), "You divide by the Frobenius norm; the estimate u^T W v was asked for."),
            "times": (W * sigma, "You multiply by sigma; (22) divides."),
            "sigma": (sigma, "This is sigma itself: return the weight divided by it."),
            "exact": (
                W / torch.linalg.svdvals(W)[0],
                "You divide by the exact sigma; the estimate u^T W v was asked for.",
            ),
            "eval-sigma" if not training else "old-u": (
                W / ((moved if not training else u0) @ W @ v),
                "In evaluation mode sigma has to use the stored u: your weight belongs to one that has moved."
                if not training
                else "Your sigma uses the old u: in training mode it comes after (21), with the new one.",
            ),
            "unnormalized": (W / (W @ v @ W @ v), "Your sigma uses a u that was not divided by its length."),
        }
        mode = "training" if training else "evaluation"
        worst = compare(got, W / sigma, 1e-4, f"W_SN in {mode} mode", hints)
        if isinstance(got_u, torch.Tensor) and got_u.requires_grad:
            raise Wrong(
                "graph", "The returned u carries a gradient: compute u and v under torch.no_grad(), or detach them."
            )
        weights = torch.randn(W.shape, generator=rng, dtype=torch.float64)
        gradient = None
        if isinstance(got, torch.Tensor) and got.requires_grad:
            (gradient,) = torch.autograd.grad((got * weights).sum(), student_w, allow_unused=True)
        if gradient is None:
            raise Wrong(
                "detached",
                "No gradient reaches W through W_SN: keep the line with sigma, and the division, outside torch.no_grad(), and detach nothing there.",
            )
        inner = (weights * W).sum() / sigma
        truth = (weights - inner * torch.outer(u, v)) / sigma
        free = W.clone().requires_grad_()
        v_free = F.normalize(free.T @ u0, dim=0)
        u_free = F.normalize(free @ v_free, dim=0) if training else u0
        (through,) = torch.autograd.grad((free / (u_free @ free @ v_free) * weights).sum(), free)
        compare(gradient, truth, 1e-4, "The gradient in W", {
            "sigma-constant": (weights / sigma, "The gradient treats sigma as a constant: sigma = u^T W v must depend on W, only u and v are fixed."),
            "through": (through, "The gradient runs through u and v as well: they are constants, compute them under torch.no_grad()."),
        })  # fmt: skip
        return worst

    shapes = [(training, shape) for training in (True, False) for shape in [(4, 4), (3, 6), (7, 2)]]
    cases = (
        (torch.randn(shape, generator=rng), _unit(torch.randn(shape[0], generator=rng)), training)
        for training, shape in shapes
    )
    u = torch.tensor([0.6, 0.8])
    return over(answer, cases, case, [(W, u, training) for W in small_matrices(rng) for training in (True, False)])


@exercise("3.4", "Who is fastest?")
def check_order(answer, rng):
    """The order, from the exact error after many rounds of each spectrum."""
    table = {"a": [100, 90, 1, 1], "b": [40, 20, 20, 20], "c": [5, 4, 3, 2], "d": [1, 1, 0.3, 0.1]}

    def factor(values):
        s = torch.tensor(values, dtype=torch.float64) / values[0]
        k = torch.tensor([6.0, 7.0], dtype=torch.float64)
        lost = (s[:, None] ** (4 * k - 2) * (1 - s[:, None] ** 2)).sum(0) / (s[:, None] ** (4 * k - 2)).sum(0)
        return float(lost[1] / lost[0])

    right = "".join(sorted(table, key=lambda name: factor(table[name])))
    raw = answer()
    if isinstance(raw, (list, tuple)):
        raw = "".join(str(letter) for letter in raw)
    if not isinstance(raw, str):
        raise Wrong("type", 'Return the four letters as one string, such as "abcd".')
    found = "".join(letter for letter in raw.lower() if letter.isalnum())
    if sorted(found) != list("abcd"):
        raise Wrong("option", f"{raw!r} is not an order of the letters a, b, c, d, each once.")
    if found == right:
        return (
            "What counts is the largest singular value below sigma_1, divided by sigma_1: 0.3 in d, where the second only "
            "mixes into u, then 0.5, 0.8 and 0.9. Neither the size of the matrix nor a difference plays a part."
        )
    if found == right[::-1]:
        raise Wrong(
            "reversed",
            "Exactly the other way round. The fastest comes first; and what counts is a ratio of singular values, not "
            "their difference.",
        )
    if found in ("bacd", "dcab"):
        raise Wrong("gap", "You ordered by the differences. A factor in front changes those, but not the rate: ratios.")
    if found == "bcad":
        raise Wrong(
            "degenerate",
            "That is the order for the vectors. In d the vector stays a mixture of u_1 and u_2, but every such mixture gives the right sigma.",
        )
    if found in ("abcd", "dcba"):
        raise Wrong(
            "size",
            "You ordered by the size of sigma_1. A factor in front of the matrix changes nothing: look at ratios.",
        )
    if found[0] != "d":
        raise Wrong(
            "first",
            f"Not {found[0]} first. In one of the matrices only the third component has to die out, and it does so fast.",
        )
    raise Wrong("rest", "d comes first, yes. For the other three compare sigma_2 / sigma_1: the smaller, the faster.")


def _close(value, truth, tol=1e-3):
    """Whether no entry differs by more than tol times the largest of truth."""
    return distance(value, truth) < tol


def _deflated_by_one(S, k):
    """The values that deflation finds when it subtracts u v^T without sigma."""
    left, found = S.clone(), []
    for _ in range(k):
        i = int(left.argmax())
        found.append(left[i].clone())
        left[i] = (left[i] - 1).abs()
    return torch.stack(found)


@exercise("3.5", "The k largest")
def check_topk(answer, rng):
    """Subspace iteration or deflation against the chosen singular values."""
    worst = 0.0
    for rows, columns, k in [(8, 8, 3), (6, 10, 2), (12, 7, 4), (5, 9, 1), (4, 4, 4)]:
        n = min(rows, columns)
        S = (2.0 * 0.6 ** torch.arange(n)).double() * (1 + 0.1 * torch.rand((), generator=rng, dtype=torch.float64))
        left, right = (torch.linalg.qr(torch.randn(m, n, generator=rng).double()).Q for m in (rows, columns))
        left = left * torch.randn(n, generator=rng, dtype=torch.float64).sign()  # or QR's signs would cancel in V^T W V
        W, V = left @ torch.diag(S) @ right.T, torch.randn(columns, k, generator=rng, dtype=torch.float64)
        value = as_vector(answer(W.float(), V.float(), 40))
        if k > 1:
            flat = expect_tensor(value, None, "The vector of values")
            if flat.shape == (k,):
                if float((flat.double() - S[0]).abs().max()) < 1e-2 * float(S[0]):
                    raise Wrong(
                        "no-qr",
                        "All values are the same: each column has turned to v_1. Make the columns orthogonal in each round (QR), or subtract what you found.",
                    )
                if float((flat.double().abs() - S[:k]).abs().max()) < 1e-3 and (flat < 0).any():
                    raise Wrong(
                        "sign",
                        "Right up to the sign: the diagonal of R may be negative. Singular values are lengths, so take the absolute value.",
                    )
                rest = flat[1:].double()
                stays = _close(flat[:1].double(), S[:1]) and not _close(rest, S[1:k], 1e-2)
                if _close(flat.double(), _deflated_by_one(S, k)) and stays:
                    raise Wrong("no-sigma", "Subtract sigma u v^T, not u v^T.")
                columns = stays and bool((rest >= 0).all() and (rest <= 1.001 * S[1]).all())
                parallel = [math.sqrt(k) * S[0], *[0.0] * (k - 1)]  # the singular values of k equal columns
                if columns or _close(flat.double(), torch.tensor(parallel, dtype=torch.float64)):
                    raise Wrong(
                        "late-qr",
                        "Without QR between the rounds, all columns have already turned to v_1; QR in every round.",
                    )
        worst = max(worst, compare(value, S[:k], 1e-3, "The vector of values", {
            "squared": (S[:k] ** 2, "These are the squares: V^T W^T W V has the squared singular values. Take the root."),
            "ascending": (S[:k].flip(0), "Right values, smallest first: return the largest first."),
            "all": (S, "These are all singular values; only the k largest were asked for."),
            "matrix": (torch.diag(S[:k]), "This is a matrix with the values on the diagonal: return the k values."),
            "frobenius": (S[:k].norm(), "One number only, their common length: return the k values one by one."),
            "largest": (S[0], "This is sigma_1 alone: return k values."),
        }))  # fmt: skip
    return worst


def _dense(K, shape, stride, padding):
    """The convolution as a matrix: its columns are the images of the unit images."""
    basis = torch.eye(math.prod(shape), dtype=K.dtype).reshape(-1, *shape)
    return F.conv2d(basis, K, stride=stride, padding=padding).flatten(1).T


CONV_HINTS = {
    "transpose": "That is not the transposed map: conv_transpose2d takes the same K, unflipped.",
    "grows": "Without its stride and padding conv_transpose2d is not the transposed map, and the image grows in each round.",
    "channel": "Each channel has been normalized by itself; divide by x.norm(), the length of all of them together.",
    "pixel": "Each pixel has been normalized by itself; divide by x.norm().",
}


def _conv_mistakes(K, start, stride, padding, n):
    """(code, what a student may return) for wrong normalizations and wrong transposes."""
    forward = lambda x: F.conv2d(x, K, stride=stride, padding=padding)
    back = lambda y, K=K: F.conv_transpose2d(y, K, stride=stride, padding=padding)
    backs = [lambda y: back(y, K.flip(2, 3))]
    if K.shape[0] == K.shape[1] and stride == 1:  # elsewhere the sizes do not fit, and torch says so
        swapped = K.transpose(0, 1)
        backs += [forward, lambda y: F.conv2d(y, swapped, padding=padding), lambda y: back(y, swapped)]
    runs = [("transpose", b, _unit, _unit, _unit(start)) for b in backs]
    runs += [("pixel", back, F.normalize, f, x) for f in (_unit, F.normalize) for x in (start, F.normalize(start))]
    channel = lambda x: x / x.norm(dim=(2, 3), keepdim=True)
    runs += [("channel", back, channel, lambda y: y, x) for x in (_unit(start), channel(start))]
    for strides in {1, stride}:
        runs.append(
            ("grows", lambda y, s=strides: F.conv_transpose2d(y, K, stride=s), _unit, lambda y: y, _unit(start))
        )
    for code, transposed, unit, unit_y, x in runs:
        for _ in range(n):
            old, y = x, forward(x)
            z = transposed(unit_y(y))
            x = unit(z)
            if x.shape != start.shape and (code != "grows" or x.shape[-1] > 300):
                break
        else:
            last = forward(x)
            ends = [last.norm(), last.norm() / x.norm(), y.norm(), y.norm() / old.norm()]
            ends += [z.norm(), (z.norm() * y.norm()).sqrt()]
            yield from ((code, float(end)) for end in ends)


@exercise("3.6", "Norm without a matrix")
def check_conv(answer, rng):
    """Power iteration through the convolution against the SVD of its dense matrix."""
    worst = 0.0
    for o, i, k, stride, padding, side in [
        (2, 2, 3, 1, 1, 5),
        (3, 2, 3, 1, 0, 6),
        (2, 3, 4, 2, 1, 6),
        (4, 1, 3, 2, 1, 7),
    ]:
        for _ in range(50):  # a gap, so that 100 rounds are enough
            K = torch.randn(o, i, k, k, generator=rng, dtype=torch.float64)
            S = torch.linalg.svdvals(_dense(K, (i, side, side), stride, padding))
            if S[1] / S[0] < 0.97:
                break
        for _ in range(50):  # and a start that is not all but orthogonal to the image that is stretched most
            x = start = torch.randn(1, i, side, side, generator=rng, dtype=torch.float64)
            for _ in range(99):
                x = _unit(
                    F.conv_transpose2d(
                        F.conv2d(x, K, stride=stride, padding=padding), K, stride=stride, padding=padding
                    )
                )
            near = F.conv2d(x, K, stride=stride, padding=padding).norm()
            if near > (1 - 2e-4) * S[0]:
                break
        reshaped = torch.linalg.svdvals(K.flatten(1))[0]
        other = torch.linalg.svdvals(_dense(K, (i, side, side), 1 if stride > 1 else stride, padding))[0]
        unpadded = torch.linalg.svdvals(_dense(K, (i, side, side), stride, 0 if padding else padding))[0]
        got = answer(K.float(), start.float(), stride, padding, 100)
        number = as_tensor(got)
        if number is not None and number.numel() == 1 and not bool((number.abs() < 1e6 * S[0]).all()):
            raise Wrong("overflow", "The numbers overflow: normalize x in each round.")
        hints = {
            "reshaped": (reshaped, "This is sigma of the reshaped kernel. The norm of the map on whole images was asked for."),
            "squared": (S[0] ** 2, "This is the norm squared: a round passes through the convolution twice. Take the root, or the length of K * x."),
            "cubed": (S[0] ** 3, "This is the norm to the third power: the last x, after the loop, is not a unit image. Divide it by x.norm() before the last convolution."),
            "root": (S[0] ** 0.5, "This is the root of the norm: one root too many."),
            "circular": (
                [torch.linalg.matrix_norm(torch.fft.fft2(K, s=(n, n)).permute(2, 3, 0, 1), ord=2).max() for n in range(side, side + 3)],
                "This is the norm with circular padding, which the FFT gives. Here the padding is with zeros, and the stride counts.",
            ),
            "stride": (other, "This is the norm at stride 1: pass the stride on to both convolutions."),
            "padding": (unpadded, "This is the norm without padding: pass the padding on to both convolutions."),
            "frobenius": (K.norm(), "This is the length of the kernel, not the norm of the map."),
            "no-rounds": (F.conv2d(start, K, stride=stride, padding=padding).norm() / start.norm(), "This is the stretch of the start image: the rounds do not move x."),
            "unit": (1.0, "This is 1, the length of a unit image: return the length of K * x."),
        }  # fmt: skip
        wrong = number is not None and number.numel() == 1 and distance(number, S[0]) > 2e-3
        if wrong and all(distance(number, value) > 2e-4 for value, _ in hints.values()):
            for code, value in _conv_mistakes(K, start, stride, padding, 100):
                if distance(number, value) < 2e-4:
                    raise Wrong(code, CONV_HINTS[code])
        worst = max(worst, compare(got, S[0], 2e-3, "The norm", hints))
        if float(number) < (1 - 2e-5) * float(near):
            raise Wrong(
                "rounds",
                "Near the norm, but 99 rounds from the given x are nearer. If all n rounds are done, a round is slightly "
                "off: x divided by its whole length, no epsilon, all channels together, nothing rounded?",
            )
    return worst


@exercise("3.7", "The steepest kernel")
def check_worst(answer, rng):
    """sigma of the reshaped kernel by SVD, and the norm by FFT on large images."""
    worst = 0.0
    for d_out, d_in, k in [(4, 3, 3), (2, 2, 2), (1, 1, 3), (1, 5, 4), (3, 1, 5), (2, 3, 1)]:
        K = expect_tensor(answer(d_out, d_in, k), (d_out, d_in, k, k), "The kernel").double()
        sigma = float(torch.linalg.svdvals(K.flatten(1))[0])
        if sigma == 0:
            raise Wrong("zero", "The kernel is zero, its sigma too.")
        norms = []
        for side in (24, 40):
            blocks = torch.fft.fft2(K, s=(side, side)).permute(2, 3, 0, 1)
            norms.append(float(torch.linalg.matrix_norm(blocks, ord=2).max()))
        ratio = max(norms) / sigma
        if abs(ratio - k) <= 1e-3 * k and abs(sigma - 1) > 1e-3:
            if abs(sigma - math.sqrt(d_out * d_in) * k) < 1e-3:
                raise Wrong(
                    "scale", "The right shape of kernel, but it is not scaled: divide by sigma of the reshaped matrix."
                )
            if abs(max(norms) - 1) < 1e-3 * k:
                raise Wrong(
                    "true-norm",
                    "You divided by the true norm, which makes that 1. Divide by sigma of the reshaped matrix.",
                )
            raise Wrong(
                "scale",
                f"The ratio is right, but sigma of the reshaped matrix is {sigma:.4g} for {d_in} -> {d_out} channels and k = {k}; it should be 1.",
            )
        if k > 1 and abs(ratio - 1) < 1e-3:
            raise Wrong(
                "delta",
                f"With k = {k} both norms are the same, as for a delta: the kernel must pile up one frequency, so spread it over all k x k places.",
            )
        if abs(ratio - k) > 1e-3 * k:
            raise Wrong(
                "ratio",
                f"With {d_in} -> {d_out} channels and k = {k} the norm is {ratio:.3f} times sigma of the reshaped matrix, not {k} times.",
            )
        worst = max(worst, abs(sigma - 1), abs(max(norms) / k - 1))
    return worst
