"""A critic of two tensors: digits together with their labels, both of them generated.

    python examples/several_tensors.py

The 1,797 digits of scikit-learn, 8×8; a sample is an image and ten numbers, its label's one-hot
row. Says how many of the generated labels are those that a nearest-neighbour classifier reads.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torch.nn.functional import one_hot

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=2000, help="generator steps")
parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
arguments = parser.parse_args()

BATCH, LATENT, N_CRITIC, WEIGHT = 64, 32, 3, 10.0
data = load_digits()
IMAGES, LABELS = torch.tensor(data.images / 8 - 1).flatten(1), torch.tensor(data.target)


class Generator(nn.Module):
    """From z to (image, probabilities of its label)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(LATENT, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 74)
        )

    def forward(self, z):
        image, label = self.layers(z).split([64, 10], 1)
        return image.tanh(), label.softmax(1)


class Critic(nn.Module):
    """From (image, label's row) to a score."""

    def __init__(self):
        super().__init__()
        self.of_image, self.of_label = nn.Linear(64, 256), nn.Linear(10, 256)
        self.layers = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
        )

    def forward(self, sample):
        image, label = sample
        return self.layers(self.of_image(image) + self.of_label(label))


def textbook_loss(critic, real, fake):
    """One alpha for both tensors of a sample, and one norm over both gradients."""
    alpha = torch.rand(BATCH, 1)
    mixed = [
        (alpha * r + (1 - alpha) * f).requires_grad_() for r, f in zip(real, fake, strict=True)
    ]
    gradients = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    penalty = ((torch.cat(gradients, 1).norm(2, dim=1) - 1) ** 2).mean()
    return critic(fake).mean() - critic(real).mean() + WEIGHT * penalty


def one_line(critic, real, fake):
    """The same; inputs="separate" would take a norm for each of the two instead."""
    # was: textbook_loss(critic, real, fake)
    return wgan_fast.critic_loss(critic, real, fake, weight=WEIGHT, inputs="joint")


def train(compute_loss, steps):
    """Always from the same seed."""
    torch.manual_seed(0)
    generator, critic = Generator(), Critic()
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=5e-4, betas=(0.0, 0.9))
    images = IMAGES.to(torch.get_default_dtype())
    labels, losses = one_hot(LABELS, 10).to(images.dtype), []
    for step in range(steps):
        for _ in range(N_CRITIC):
            rows = torch.randint(len(images), (BATCH,))
            with torch.no_grad():
                fake = generator(torch.randn(BATCH, LATENT))
            loss = compute_loss(critic, (images[rows], labels[rows]), fake)
            critic_optimizer.zero_grad()
            loss.backward()
            critic_optimizer.step()
            losses.append(loss.item())
        generator_loss = wgan_fast.generator_loss(critic, generator(torch.randn(BATCH, LATENT)))
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}: critic loss {sum(losses[-100:]) / 100:.3f}")
    return generator, torch.tensor(losses)


def read(generator):
    """How many of the generated labels are what is seen in the image."""
    with torch.no_grad():
        images, labels = generator(torch.randn(500, LATENT))
    reader = KNeighborsClassifier(5).fit(IMAGES, LABELS)
    fitting = reader.score(images, labels.argmax(1))
    print(f"labels that fit their digits: {fitting:.0%} (1 in 10 by chance)")


torch.set_default_dtype(torch.float64)  # Adam makes much of a rounding within a few steps
(_, theirs), (_, ours) = train(textbook_loss, 3), train(one_line, 3)
difference = ((ours - theirs).abs() / theirs.abs().max()).max().item()
print(f"critic losses, wgan_fast next to the textbook: {difference:.1e} apart at most")
torch.set_default_dtype(torch.float32)
read(train(one_line, 3 if arguments.smoke else arguments.steps)[0])
