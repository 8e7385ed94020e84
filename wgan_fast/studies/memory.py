"""Peak memory of a critic step: standard GAN, WGAN-GP by double backward, WGAN-GP by wgan_fast."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import wgan_fast
from wgan_fast import reference
from wgan_fast.live_memory import peak_bytes
from wgan_fast.models import DCGANCritic
from wgan_fast.objectives import nonsaturating
from wgan_fast.studies.figures import BLUE, GREEN, GREY, ORANGE, label, panels
from wgan_fast.studies.study import Conditions, Finding, Study
from wgan_fast.training.data import digits

_BATCHES = (16, 32, 64, 128)
_CHANNELS, _IMAGE_SIZE = 32, 32
_CHUNKS = 4
GAN, DOUBLE, OURS, CHUNKED = "GAN", "double backward", "wgan_fast", "wgan_fast, in 4 chunks"

Loss = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Measured:
    """Peak bytes above what was there before the step, by kind of step, one per batch size."""

    batches: list[int]
    parameters: int
    """Bytes of the critic's parameters; gradients and each of Adam's two moments have the same."""
    peaks: dict[str, list[int]]


def _gan(critic: nn.Module, real: Tensor, fake: Tensor, _: Tensor) -> Tensor:
    return nonsaturating(critic(real), critic(fake))


def _double_backward(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    return reference.critic_loss(critic, real, fake, alpha)


def _ours(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    return wgan_fast.critic_loss(critic, real, fake, alpha=alpha)


def _in_chunks(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    chunk_size = len(real) // _CHUNKS
    return wgan_fast.critic_loss(critic, real, fake, alpha=alpha, chunk_size=chunk_size)


_LOSSES: dict[str, Loss] = {
    GAN: _gan,
    DOUBLE: _double_backward,
    OURS: _ours,
    CHUNKED: _in_chunks,
}


def measure(conditions: Conditions) -> Measured:
    """Counts critic steps on digits of 32 pixels, the fakes being given; ``steps`` of each kind."""
    rng = torch.Generator(conditions.device).manual_seed(conditions.seed)
    data = digits(_IMAGE_SIZE, conditions.device, torch.float32)
    parameters, peaks = 0, {}
    for name, loss in _LOSSES.items():
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(conditions.seed)
            critic = DCGANCritic(_IMAGE_SIZE, channels=_CHANNELS, image_channels=1)
        critic.to(conditions.device)
        parameters = sum(p.numel() * p.element_size() for p in critic.parameters())
        peaks[name] = [0] * len(_BATCHES)
        for _ in conditions.count(name):
            for place, batch in enumerate(_BATCHES):
                real = data(batch, rng)
                fake = torch.rand(real.shape, generator=rng, device=rng.device) * 2 - 1
                seen = _peak_of_a_step(critic, loss, real, fake, rng)
                peaks[name][place] = max(peaks[name][place], seen)
    return Measured(list(_BATCHES), parameters, peaks)


def _peak_of_a_step(
    critic: nn.Module, loss: Loss, real: Tensor, fake: Tensor, rng: torch.Generator
) -> int:
    alpha = torch.rand(len(real), generator=rng, device=rng.device)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-4, betas=(0.0, 0.9), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss(critic, real, fake, alpha).backward()
        optimizer.step()

    # The first step makes Adam's moments, which stay; its gradients go before the next one begins.
    step()
    optimizer.zero_grad()
    return peak_bytes(step, real.device)


def findings(measured: Measured) -> list[Finding]:
    """Ratios at the largest batch."""
    peak = {name: peaks[-1] for name, peaks in measured.peaks.items()}
    batch = measured.batches[-1]
    return [
        Finding(
            "WGAN-GP by double backward takes more memory than a standard GAN",
            peak[DOUBLE] > peak[GAN],
            f"{peak[DOUBLE] / peak[GAN]:.2f} times as much at batch {batch}",
        ),
        Finding(
            "wgan_fast takes less than the double backward",
            peak[OURS] < peak[DOUBLE],
            f"{peak[OURS] / peak[DOUBLE]:.2f} of it",
        ),
        Finding(
            "in four chunks less again",
            peak[CHUNKED] < peak[OURS],
            f"{peak[CHUNKED] / peak[DOUBLE]:.2f} of the double backward, "
            f"{peak[CHUNKED] / peak[GAN]:.2f} of the standard GAN",
        ),
    ]


def draw(measured: Measured) -> Figure:
    """Bars in MiB, grouped by batch size."""
    figure, (axes,) = panels(1, height=4)
    width = 0.2
    for number, ((name, peaks), colour) in enumerate(
        zip(measured.peaks.items(), (GREY, ORANGE, GREEN, BLUE), strict=True)
    ):
        places = [place + (number - 1.5) * width for place in range(len(peaks))]
        kind = name if name == GAN else f"WGAN-GP, {name}"
        bars = axes.bar(places, [peak / 2**20 for peak in peaks], width, color=colour, label=kind)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(measured.batches)), [str(batch) for batch in measured.batches])
    label(
        axes,
        "a critic step on 1×32×32 images, DCGAN critic with 32 channels",
        "batch size",
        "peak memory above the start, MiB",
    )
    axes.legend(loc="upper left", fontsize=9)
    return figure


STUDY = Study(
    name="memory",
    claim="the penalty's double backward costs memory, which first-order passes save",
    source="Gulrajani et al., 2017, arXiv 1704.00028, algorithm 1",
    steps=2,
    measure=measure,
    findings=findings,
    draw=draw,
)
