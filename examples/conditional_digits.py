"""A conditional WGAN-GP: digits by their labels, which the critic takes as a second argument.

    python examples/conditional_digits.py

The 1,797 digits of scikit-learn, 8×8. Writes conditional_digits.png, one row per label.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=1500, help="generator steps")
parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
arguments = parser.parse_args()

BATCH, LATENT, N_CRITIC, WEIGHT = 64, 32, 3, 10.0
data = load_digits()
IMAGES, LABELS = torch.tensor(data.images / 8 - 1).unsqueeze(1), torch.tensor(data.target)


class Generator(nn.Module):
    """(z, label) to an image."""

    def __init__(self):
        super().__init__()
        self.labels = nn.Embedding(10, 16)
        self.layers = nn.Sequential(
            nn.Linear(LATENT + 16, 64 * 4), nn.ReLU(), nn.Unflatten(1, (64, 2, 2)),
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z, labels):
        return self.layers(torch.cat([z, self.labels(labels)], dim=1))


class Critic(nn.Module):
    """(image, label) to a score; the label is a second channel."""

    def __init__(self):
        super().__init__()
        self.labels = nn.Embedding(10, 64)
        self.layers = nn.Sequential(
            nn.Conv2d(2, 32, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(256, 1),
        )  # fmt: skip

    def forward(self, images, labels):
        return self.layers(torch.cat([images, self.labels(labels).reshape(-1, 1, 8, 8)], dim=1))


def textbook_loss(critic, real, fake, labels):
    """What a conditional WGAN-GP has: three calls of the critic and a double backward."""
    alpha = torch.rand(len(real), 1, 1, 1)
    interpolates = (alpha * real + (1 - alpha) * fake).requires_grad_()
    scores = critic(interpolates, labels)
    (gradients,) = torch.autograd.grad(scores.sum(), interpolates, create_graph=True)
    penalty = ((gradients.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
    return critic(fake, labels).mean() - critic(real, labels).mean() + WEIGHT * penalty


def one_line(critic, real, fake, labels):
    """The same; the labels go to the critic as its second argument."""
    # was: textbook_loss(critic, real, fake, labels)
    return wgan_fast.critic_loss(critic, real, fake, cond=labels, weight=WEIGHT)


def train(compute_loss, steps):
    """Always from the same seed."""
    torch.manual_seed(0)
    generator, critic = Generator(), Critic()
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=5e-4, betas=(0.0, 0.9))
    images, losses = IMAGES.to(torch.get_default_dtype()), []
    for step in range(steps):
        for _ in range(N_CRITIC):
            rows = torch.randint(len(images), (BATCH,))
            real, labels = images[rows], LABELS[rows]
            fake = generator(torch.randn(BATCH, LATENT), labels).detach()
            loss = compute_loss(critic, real, fake, labels)
            critic_optimizer.zero_grad()
            loss.backward()
            critic_optimizer.step()
            losses.append(loss.item())
        labels = torch.randint(10, (BATCH,))
        generator_loss = -critic(generator(torch.randn(BATCH, LATENT), labels), labels).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}: critic loss {sum(losses[-100:]) / 100:.3f}")
    return generator, torch.tensor(losses)


def show(generator):
    """Ten images of each label; how many a nearest-neighbour classifier reads as that label."""
    import matplotlib.pyplot as plt

    labels = torch.arange(10).repeat_interleave(10)
    with torch.no_grad():
        fake = generator(torch.randn(100, LATENT), labels)
    reader = KNeighborsClassifier(5).fit(IMAGES.flatten(1), LABELS)
    print(f"read as their label: {reader.score(fake.flatten(1), labels):.0%} of the digits drawn")
    framed = nn.functional.pad(fake, (1, 1, 1, 1), value=-1.0).reshape(10, 10, 10, 10)
    grid = framed.permute(0, 2, 1, 3).reshape(100, 100)
    plt.imsave("conditional_digits.png", grid.kron(torch.ones(4, 4)), cmap="gray")


torch.set_default_dtype(torch.float64)  # Adam makes much of a rounding within a few steps
(_, theirs), (_, ours) = train(textbook_loss, 3), train(one_line, 3)
difference = ((ours - theirs).abs() / theirs.abs().max()).max().item()
print(f"critic losses, wgan_fast next to the textbook: {difference:.1e} apart at most")
torch.set_default_dtype(torch.float32)
show(train(one_line, 3 if arguments.smoke else arguments.steps)[0])
