"""A Lightning module of a WGAN-GP; the critic's loss is the one line that changed.

Needs ``pip install lightning``. Then:

    python examples/lightning_module.py

The optimisation is manual, as Lightning asks of whoever has two optimisers.
"""

import argparse

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
arguments = parser.parse_args()

LATENT, N_CRITIC, WEIGHT = 16, 5, 10.0


def textbook_loss(critic, real, fake):
    """Three calls of the critic and a double backward."""
    alpha = torch.rand(len(real), 1, device=real.device)
    interpolates = (alpha * real + (1 - alpha) * fake).requires_grad_()
    (gradients,) = torch.autograd.grad(critic(interpolates).sum(), interpolates, create_graph=True)
    penalty = ((gradients.norm(2, dim=1) - 1) ** 2).mean()
    return critic(fake).mean() - critic(real).mean() + WEIGHT * penalty


class WGANGP(lightning.LightningModule):
    """Two optimisers, so that Lightning leaves the order of the steps to the module."""

    def __init__(self, critic_loss):
        super().__init__()
        self.automatic_optimization = False
        self.critic_loss = critic_loss
        self.generator = nn.Sequential(
            nn.Linear(LATENT, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh()
        )
        self.critic = nn.Sequential(
            nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2),
            nn.Linear(128, 1),
        )  # fmt: skip
        self.losses = []

    def configure_optimizers(self):
        return [
            torch.optim.Adam(part.parameters(), lr=2e-4, betas=(0.0, 0.9))
            for part in (self.generator, self.critic)
        ]

    def fakes(self, real):
        return self.generator(torch.randn(len(real), LATENT, device=self.device))

    def training_step(self, batch, batch_index):
        (real,) = batch
        generator_optimizer, critic_optimizer = self.optimizers()

        # was: loss = textbook_loss(self.critic, real, self.fakes(real).detach())
        loss = self.critic_loss(self.critic, real, self.fakes(real).detach())
        critic_optimizer.zero_grad()
        self.manual_backward(loss)
        critic_optimizer.step()
        self.log("critic_loss", loss)
        self.losses.append(loss.item())

        if (batch_index + 1) % N_CRITIC == 0:
            generator_loss = wgan_fast.generator_loss(self.critic, self.fakes(real))
            generator_optimizer.zero_grad()
            self.manual_backward(generator_loss)
            generator_optimizer.step()
            self.log("generator_loss", generator_loss)


def train(critic_loss, precision, **length):
    """Always from the same seed; (the module, what it logged last)."""
    torch.manual_seed(0)
    images = torch.tensor(load_digits().data / 8 - 1)
    images = images if precision.startswith("64") else images.float()
    module = WGANGP(critic_loss)
    trainer = lightning.Trainer(
        precision=precision, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **length,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(images), 64, shuffle=True, drop_last=True))
    return module, trainer.logged_metrics


def fast_loss(critic, real, fake):
    return wgan_fast.critic_loss(critic, real, fake, weight=WEIGHT)


few = {"max_epochs": 1, "limit_train_batches": 12}
theirs, ours = (train(loss, "64-true", **few)[0].losses for loss in (textbook_loss, fast_loss))
difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / max(map(abs, theirs))
print(f"critic losses, wgan_fast next to the textbook: {difference:.1e} apart at most")
length = few if arguments.smoke else {"max_epochs": arguments.epochs}
_, logged = train(fast_loss, "32-true", **length)
print({name: round(value.item(), 3) for name, value in logged.items()})
