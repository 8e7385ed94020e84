"""A critic with flash attention, whose kernels have no double backward at all.

    python examples/flash_attention_critic.py

The textbook's penalty stops with an error; ``backend="first_order"`` takes the same penalty through
the same kernel, its gradient by a central difference of first derivatives.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=300, help="critic steps")
parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
arguments = parser.parse_args()

BATCH, TOKENS, FEATURES, HEADS, WEIGHT = 32, 16, 8, 4, 10.0


class Critic(nn.Module):
    """Tokens (B, time, features) to a score: one transformer block with smooth activations."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel
        self.embed = nn.Linear(FEATURES, 64)
        self.queries_keys_values, self.out = nn.Linear(64, 3 * 64), nn.Linear(64, 64)
        self.score = nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x):
        h = self.embed(x)
        q, k, v = self.queries_keys_values(h).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(self.kernel):
            attended = F.scaled_dot_product_attention(q, k, v)
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        return self.score(h.mean(1))


def textbook_penalty(critic, real, fake, alpha):
    """The double backward."""
    alpha = alpha.reshape(-1, 1, 1)
    interpolates = (alpha * real + (1 - alpha) * fake).requires_grad_()
    (gradients,) = torch.autograd.grad(critic(interpolates).sum(), interpolates, create_graph=True)
    return ((gradients.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def gradient(value, critic):
    """Of the penalty in the critic's parameters, as one vector."""
    grads = torch.autograd.grad(value, list(critic.parameters()), materialize_grads=True)
    return torch.cat([grad.flatten() for grad in grads])


def draw(scale):
    """Random walks with steps of that size: real ones and fake ones differ in nothing else."""
    return scale * torch.randn(BATCH, TOKENS, FEATURES).cumsum(1)


torch.manual_seed(0)
critic, slow_critic = Critic(SDPBackend.FLASH_ATTENTION), Critic(SDPBackend.MATH)
slow_critic.load_state_dict(critic.state_dict())
real, fake, alpha = draw(0.3), draw(0.2), torch.rand(BATCH)

try:
    textbook_penalty(critic, real, fake, alpha).backward()
except RuntimeError as error:
    print(f"the textbook with flash attention: {str(error).splitlines()[0]}")

exact = textbook_penalty(slow_critic, real, fake, alpha)
near = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, backend="first_order")
exact, near = gradient(exact, slow_critic), gradient(near, critic)
error = ((near - exact).norm() / exact.norm()).item()
print(f"penalty's gradient, first_order next to the math kernel's: {error:.1e} of its norm apart")

optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
for step in range(3 if arguments.smoke else arguments.steps):
    # was: critic(fake).mean() - critic(real).mean() + 10 * textbook_penalty(...)
    loss = wgan_fast.critic_loss(critic, draw(0.3), draw(0.2), weight=WEIGHT, backend="first_order")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if (step + 1) % 100 == 0:
        print(f"step {step + 1}: critic loss {loss.item():.3f}")
print(f"critic loss after training: {loss.item():.3f}")
