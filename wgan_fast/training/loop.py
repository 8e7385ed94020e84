"""The trainer: one function that reads top to bottom."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

import wgan_fast
from wgan_fast.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from wgan_fast.training.config import TrainConfig
from wgan_fast.training.data import draw_reals, load_data
from wgan_fast.training.errors import ConfigError
from wgan_fast.training.metrics import IntervalMean, require_finite
from wgan_fast.training.networks import build_networks
from wgan_fast.training.optimizers import build_optimizers
from wgan_fast.training.progress import ProgressLine
from wgan_fast.training.resuming import TrainingState
from wgan_fast.training.run_folder import RunFolder
from wgan_fast.training.watching import Watch

# A random stream apart from the one that draws the parameters.
_TRAINING_STREAM = 1 << 32


def train(config: TrainConfig, console: Console | None = None) -> Path:
    """Trains a generator against a critic and leaves a run folder.

    Each step is one call of :class:`wgan_fast.CriticLoop`: ``n_critic`` critic steps, then one
    generator step. All randomness after the initialisation comes from one stream, in this order:
    the real batches of the critic's steps, then what the loop draws. The generator's
    step has the labels, or the images with holes, of the last critic step.

    Args:
        config: every setting.
        console: where the progress goes; standard error if left out.

    Returns:
        The path of the run folder.

    Raises:
        ConfigError: the device is not there.
        RunFolderError: the run folder is taken or cannot be made.
        NonFiniteLossError: a loss became infinite or NaN; the run folder keeps what it held.
    """
    return _train(config, console or Console(stderr=True))


def resume(
    run: Path,
    steps: int | None = None,
    run_folder: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Goes on with a run from its checkpoint, in a run folder of its own.

    With the run's settings and from the very state that it was in: what is learnt is what an
    uninterrupted run would have learnt.

    Args:
        run: a run folder, or a checkpoint file.
        steps: generator steps in all, those of the run among them; the run's own if left out.
        run_folder: where everything is written, as for :class:`TrainConfig`.
        console: where the progress goes; standard error if left out.

    Returns:
        The path of the new run folder.

    Raises:
        ConfigError, RunFolderError, NonFiniteLossError: as :func:`train`; or there is no step left.
        CheckpointError: there is no whole checkpoint, or it is from another kind of device.
    """
    start = load_checkpoint(run)
    steps = start.config.steps if steps is None else steps
    config = dataclasses.replace(start.config, steps=steps, run_folder=run_folder)
    if config.steps <= start.step:
        raise ConfigError(
            f"steps: expected more than the {start.step} that the run has taken, got {config.steps}"
        )
    return _train(config, console or Console(stderr=True), start)


def _train(config: TrainConfig, console: Console, start: Checkpoint | None = None) -> Path:
    device, dtype = choose_device(config.device), getattr(torch, config.dtype)

    data = load_data(config, device, dtype)
    generator, critic = build_networks(config, device, dtype)
    generator_optimizer, critic_optimizer = build_optimizers(config, generator, critic)

    rng = torch.Generator(device).manual_seed(config.seed + _TRAINING_STREAM)
    watch = Watch(config, data, generator, critic)

    loop = wgan_fast.CriticLoop(
        generator,
        critic,
        generator_optimizer,
        critic_optimizer,
        latent_shape=config.latent_dim,
        objective=config.objective,
        n_critic=config.n_critic,
        penalty=config.penalty,
        weight=weight_of(config),
        every=config.penalty_every,
        drift=config.drift,
        clip_value=config.clip_value if config.clips else None,
        regulariser=regulariser_of(config),
        mode=config.loop,
        rng=rng,
        backend=config.backend,
        select=config.select,
        pac=config.pac,
        inputs=config.inputs,
    )
    state = TrainingState(generator_optimizer, critic_optimizer, loop, rng)
    first_step = 1
    if start is not None:
        generator.load_state_dict(start.generator.state_dict())
        critic.load_state_dict(start.critic.state_dict())
        state.restore(start.training)
        first_step = start.step + 1
    interval = IntervalMean()
    with (
        cpu_threads(config.threads),
        RunFolder(config) as run,
        ProgressLine(config.steps, console) as progress,
    ):
        what = f"{config.objective} with {config.lipschitz} on {config.data} ({device})"
        console.print(f"Training {what} into {run.path}")
        began = interval_began = time.perf_counter()
        steps_in_interval = 0
        for step in range(first_step, config.steps + 1):
            drawn = draw_reals(data, config, rng)
            mask = None if config.penalty is None else drawn.mask
            stats = loop(drawn.real, drawn.cond or None, mask=mask)
            interval.add({name: seen for name, seen in stats._asdict().items() if seen is not None})
            steps_in_interval += 1

            last = step == config.steps
            if step % config.log_every == 0 or last:
                metrics = interval.read()
                require_finite(metrics, step)
                if "gradient_norm" not in metrics:
                    metrics["gradient_norm"] = watch.gradient_norm()
                now = time.perf_counter()
                metrics["seconds"] = now - began
                metrics["steps_per_second"] = steps_in_interval / (now - interval_began)
                interval_began, steps_in_interval = now, 0
                run.log(step, metrics)
                progress.update(step, metrics)

            if step % config.picture_every == 0 or last:
                watch.picture(run.picture_path(step))
                run.show_picture(step)
                save_checkpoint(run.checkpoint_path, config, step, generator, critic, state.saved())
    return run.path


def weight_of(config: TrainConfig) -> float | wgan_fast.AdaptiveWeight:
    """λ of the penalty, to begin with if it is adaptive."""
    if config.penalty == "adaptive":
        return wgan_fast.AdaptiveWeight(config.penalty_weight)
    return config.penalty_weight


def regulariser_of(config: TrainConfig) -> Callable[[nn.Module], Tensor] | None:
    """What is added to the critic's loss besides a penalty: β Σ ‖WᵀW − I‖² for ortho."""
    if config.lipschitz != "ortho":
        return None
    return partial(wgan_fast.orthogonal_regularisation, weight=config.penalty_weight)


def choose_device(name: str) -> torch.device:
    """The named device, or for "auto" the GPU where there is one and the CPU where not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "meta":
        raise ConfigError("device: meta holds no numbers; expected auto, cpu or cuda")
    try:
        torch.empty(0, device=device)
    # torch has an error type of its own for each way in which a device is not there.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device: {name} is not there; expected auto, cpu or cuda") from error
    return device


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Lets torch use so many threads for one operation, and puts the former number back."""
    former = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(former)
