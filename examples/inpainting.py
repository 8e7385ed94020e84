"""Inpainting by a WGAN-GP: the penalty is on the pixels to be filled in, under a mask.

    python examples/inpainting.py

The 1,797 digits of scikit-learn, 8×8, each with a hole of 4×4 somewhere. Writes inpainting.png:
twenty digits that were not trained on with their holes, as completed, and as they were.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=1500, help="generator steps")
parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
arguments = parser.parse_args()

BATCH, N_CRITIC, WEIGHT, CLOSENESS = 64, 3, 10.0, 5.0
IMAGES = torch.tensor(load_digits().images / 8 - 1).unsqueeze(1)


def make_generator():
    """From an image with a hole, and where that is, to an image."""
    return nn.Sequential(
        nn.Conv2d(2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 1024), nn.ReLU(),
        nn.Unflatten(1, (64, 4, 4)), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 1, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


class Critic(nn.Module):
    """(image, where the hole is) to a score."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 64, 4, 2, 1),
            nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(256, 1),
        )  # fmt: skip

    def forward(self, images, hole):
        return self.layers(torch.cat([images, hole], 1))


def draw_holes(count):
    """1 in a square of 4×4 pixels, 0 elsewhere; (count, 1, 8, 8)."""
    places, pixels = torch.randint(5, (2, count, 1)), torch.arange(8)
    rows, columns = ((pixels >= place) & (pixels < place + 4) for place in places)
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1).to(torch.get_default_dtype())


def complete(generator, images, hole):
    """The image, with what the generator makes of its hole."""
    made = generator(torch.cat([images * (1 - hole), hole], 1))
    return images * (1 - hole) + made * hole


def textbook_loss(critic, real, fake, hole):
    """The gradient is multiplied by the mask before its norm is taken."""
    alpha = torch.rand(len(real), 1, 1, 1)
    interpolates = (alpha * real + (1 - alpha) * fake).requires_grad_()
    scores = critic(interpolates, hole)
    (gradients,) = torch.autograd.grad(scores.sum(), interpolates, create_graph=True)
    penalty = (((gradients * hole).flatten(1).norm(2, dim=1) - 1) ** 2).mean()
    return critic(fake, hole).mean() - critic(real, hole).mean() + WEIGHT * penalty


def one_line(critic, real, fake, hole):
    """The same: the hole is the critic's second argument, and the mask of the penalty."""
    # was: textbook_loss(critic, real, fake, hole)
    return wgan_fast.critic_loss(critic, real, fake, cond=hole, mask=hole, weight=WEIGHT)


def train(compute_loss, steps):
    """Always from the same seed."""
    torch.manual_seed(0)
    generator, critic = make_generator(), Critic()
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=5e-4, betas=(0.0, 0.9))
    images, losses = IMAGES[:-20].to(torch.get_default_dtype()), []
    for _ in range(steps):
        for _ in range(N_CRITIC):
            real, hole = images[torch.randint(len(images), (BATCH,))], draw_holes(BATCH)
            loss = compute_loss(critic, real, complete(generator, real, hole).detach(), hole)
            critic_optimizer.zero_grad()
            loss.backward()
            critic_optimizer.step()
            losses.append(loss.item())
        fake = complete(generator, real, hole)
        generator_loss = wgan_fast.generator_loss(critic, fake, cond=hole)
        generator_loss = generator_loss + CLOSENESS * (fake - real).abs().sum() / hole.sum()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
    return generator, torch.tensor(losses)


def show(generator):
    """Three rows of digits."""
    import matplotlib.pyplot as plt

    real, hole = IMAGES[-20:].to(torch.get_default_dtype()), draw_holes(20)
    with torch.no_grad():
        rows = torch.stack([real * (1 - hole), complete(generator, real, hole), real])
    framed = nn.functional.pad(rows.squeeze(2), (1, 1, 1, 1), value=-1.0)
    grid = framed.permute(0, 2, 1, 3).reshape(30, 200)
    plt.imsave("inpainting.png", grid.kron(torch.ones(4, 4)), cmap="gray")


torch.set_default_dtype(torch.float64)  # Adam makes much of a rounding within a few steps
(_, theirs), (_, ours) = train(textbook_loss, 3), train(one_line, 3)
difference = ((ours - theirs).abs() / theirs.abs().max()).max().item()
print(f"critic losses, wgan_fast next to the textbook: {difference:.1e} apart at most")
torch.set_default_dtype(torch.float32)
show(train(one_line, 3 if arguments.smoke else arguments.steps)[0])
