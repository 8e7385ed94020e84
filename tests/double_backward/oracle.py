"""The explicit engine against the reference: the same value, the same gradient of every parameter.

``python -m tests.double_backward.oracle 10000`` runs that many random critics.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress

import torch

import wgan_fast
from tests.double_backward.critics import random_critic, scale_of
from wgan_fast import reference


class ReferenceFails(Exception):  # noqa: N818 - the reference is what fails
    """Autograd has no double backward for this critic: there is nothing to compare with."""


class IllConditioned(Exception):  # noqa: N818 - the critic is what is at fault
    """The reference's own gradient moves as much when the samples move by a rounding error."""


def samples(shape):
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    return real, fake, torch.rand(shape[0], dtype=torch.float64)


def same_start(critic, work):
    """Run ``work`` from the critic's present state and random numbers, and put both back."""
    state = {name: value.clone() for name, value in critic.state_dict().items()}
    numbers = torch.get_rng_state()
    try:
        return work()
    finally:
        critic.load_state_dict(state)
        torch.set_rng_state(numbers)


def gradients(loss, critic):
    return torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True)


def error(ours, theirs) -> float:
    """The largest difference between two lists of gradients, relative to the largest gradient."""
    scale, worst = scale_of(theirs), 0.0
    for mine, other in zip(ours, theirs, strict=True):
        if mine is None or other is None:
            rest = other if mine is None else mine
            worst = max(worst, 0.0 if rest is None else rest.abs().max().item() / scale)
        else:
            worst = max(worst, (mine - other).abs().max().item() / scale)
            assert mine.isfinite().all()
    return worst


def by_reference(work):
    try:
        return work()
    except RuntimeError as failure:
        if "is not implemented" in str(failure):
            raise ReferenceFails(str(failure)) from failure
        raise


def penalty_error(critic, shape, backend="explicit") -> float:
    """How far gradient_penalty is from the reference on fresh samples."""
    real, fake, alpha = samples(shape)

    def ours():
        loss = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, backend=backend)
        return loss.detach(), gradients(loss, critic)

    def theirs():
        loss = reference.gradient_penalty(critic, real, fake, alpha)
        return loss.detach(), gradients(loss, critic)

    value, mine = same_start(critic, ours)
    expected, other = same_start(critic, lambda: by_reference(theirs))
    distance = abs(value - expected).item() / max(abs(expected).item(), 1e-12)
    return max(distance, error(mine, other))


def loss_error(critic, shape, backend="auto", **options) -> float:
    """How far critic_loss is from the reference on fresh samples."""
    real, fake, alpha = samples(shape)

    def ours():
        loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend=backend, **options)
        return loss.detach(), gradients(loss, critic)

    def theirs():
        loss = reference.critic_loss(critic, real, fake, alpha, **options)
        return loss.detach(), gradients(loss, critic)

    value, mine = same_start(critic, ours)
    expected, other = same_start(critic, lambda: by_reference(theirs))
    distance = abs(value - expected).item() / max(abs(expected).item(), 1.0)
    return max(distance, error(mine, other))


def own_movement(critic, shape) -> float:
    """How far the reference's gradient moves when the samples move by 1e-14 relative."""
    real, fake, alpha = samples(shape)

    def work():
        nudged = [x * (1 + 1e-14 * torch.randn_like(x)) for x in (real, fake)]
        return gradients(reference.gradient_penalty(critic, *nudged, alpha), critic)

    def unmoved():
        return gradients(reference.gradient_penalty(critic, real, fake, alpha), critic)

    return error(same_start(critic, work), same_start(critic, unmoved))


def well_posed_error(critic, shape) -> float:
    """:func:`penalty_error`, of samples where the reference's own rounding is no larger."""
    start = torch.get_rng_state()
    distance = penalty_error(critic, shape)
    if distance >= 1e-10:
        torch.set_rng_state(start)
        if own_movement(critic, shape) >= distance / 100:
            raise IllConditioned
    return distance


def random_errors(seed: int) -> tuple[float, str]:
    """The error of one random critic, and which critic it was."""
    torch.manual_seed(seed)
    critic, shape = random_critic(seed)
    distance = well_posed_error(critic.double(), shape)
    return distance, f"seed {seed}, input {shape}: {critic}"


def errors_of(seeds: Iterable[int]) -> Iterator[tuple[float, str]]:
    """:func:`random_errors` of those that the reference can do, and does to the last digits."""
    for seed in seeds:
        with suppress(ReferenceFails, IllConditioned):
            yield random_errors(seed)


def main(count: int) -> int:
    """Compare ``count`` random critics; print what was found; 0 if all agree."""
    seen: Counter[str] = Counter()
    worst = 0.0
    for seed in range(count):
        try:
            distance, what = random_errors(seed)
        except (ReferenceFails, IllConditioned) as reason:
            seen[type(reason).__name__] += 1
            continue
        worst = max(worst, distance)
        seen["agree" if distance < 1e-10 else "differ"] += 1
        if distance >= 1e-10:
            print(f"{distance:.2e} {what}")
    print(f"{dict(seen)}; the worst is off by {worst:.2e} relative, in float64")
    return int(seen["differ"] > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
