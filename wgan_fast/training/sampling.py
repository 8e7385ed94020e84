"""Drawing from a trained generator."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast.training.checkpoint import load_checkpoint
from wgan_fast.training.choices import CLASSES, LARGEST_SEED
from wgan_fast.training.config import TrainConfig
from wgan_fast.training.data import Drawn, draw_real, load_data
from wgan_fast.training.errors import ConfigError
from wgan_fast.training.pictures import save_grid, save_scatter


def draw(generator: nn.Module, z: Tensor, *cond: Tensor) -> Any:
    """Samples for z, in eval mode and without a graph; the generator's mode is put back."""
    was_training = generator.training
    generator.eval()
    with torch.no_grad():
        samples = generator(z, *cond)
    generator.train(was_training)
    return samples


def in_order(count: int, device: torch.device | str = "cpu") -> Tensor:
    """``count`` labels sorted, each as often as the others or nearly: of 100, ten rows of ten."""
    return torch.arange(count, device=device) * CLASSES // count


def shown(config: TrainConfig, made: Any, drawn: Drawn) -> Tensor:
    """What is to be seen of generated samples, where real ones with their holes were ``drawn``.

    Pairs in the order of their labels; filled holes between the image with its hole and the image
    as it was.
    """
    if config.pairs != "none":
        images, labels = made
        return images[labels.argmax(1).argsort(stable=True)]
    if config.inpaint:
        (holed,) = drawn.cond
        return torch.cat([holed[:, :-1], made, drawn.real], 3)
    return made


def sample(
    run: Path,
    count: int = 100,
    seed: int = 0,
    output: Path | None = None,
    label: int | None = None,
) -> Path:
    """Draws from a run's checkpoint and writes one picture: a grid, or a scatter of 2-D points.

    A run that fills holes is given real digits, and each is shown with its hole, filled, and as it
    was.

    Args:
        run: a run folder, or a checkpoint file.
        count: how many samples.
        seed: of z, and of digits and holes; one seed, one picture.
        output: the PNG to write; sample-seed-SEED.png beside the checkpoint if left out.
        label: of a conditional run, what all samples show; all labels in their order if left out.

    Returns:
        The path of the picture.

    Raises:
        ConfigError: count, seed or label is out of range, there is a label for a run that is not
            conditional, or the picture cannot be written there.
        CheckpointError: there is no whole checkpoint.
    """
    if count < 1:
        raise ConfigError(f"count: expected at least 1, got {count}")
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed: expected a number from 0 to {LARGEST_SEED}, got {seed}")
    checkpoint = load_checkpoint(run)
    config = checkpoint.config
    if label is not None and not config.conditional:
        raise ConfigError(f"label: expected none, the run is not conditional; got {label}")
    if label is not None and not 0 <= label < CLASSES:
        raise ConfigError(f"label: expected a digit from 0 to {CLASSES - 1}, got {label}")
    if output is None:
        folder = run if run.is_dir() else run.parent
        output = folder / f"sample-seed-{seed}.png"
    rng, dtype = torch.Generator().manual_seed(seed), getattr(torch, config.dtype)
    z = torch.randn(count, config.latent_dim, generator=rng, dtype=dtype)
    drawn = Drawn(None)
    if config.conditional:
        labels = in_order(count) if label is None else torch.full((count,), label)
        drawn = Drawn(None, (labels,))
    if config.inpaint:
        drawn = draw_real(load_data(config, rng.device, dtype), config, count, rng)
    samples = shown(config, draw(checkpoint.generator, z, *drawn.cond), drawn)
    save = save_scatter if config.is_2d else save_grid
    try:
        save(samples, output)
    except (OSError, ValueError) as error:
        raise ConfigError(f"output: cannot write {output}: {error}") from error
    return output
