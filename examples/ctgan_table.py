"""CTGAN (the package ``ctgan`` from PyPI, as it is) on a real table, with its penalty replaced.

    python examples/ctgan_table.py

Needs ``pip install ctgan``. The table is scikit-learn's breast cancer data: 30 measurements and a
diagnosis of 569 patients. CTGAN's critic takes packs of 10 rows: α is one per pack, the norm runs
over a whole pack, and it has dropout. Both ways draw the same random numbers, so that the losses
must be the same.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from ctgan import CTGAN
from ctgan.synthesizers.ctgan import Discriminator as Critic
from sklearn.datasets import load_breast_cancer

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=300, help="CTGAN's epochs, one step each here")
parser.add_argument("--rounds", type=int, default=5, help="how often to time each way, by turns")
parser.add_argument("--smoke", action="store_true", help="few rows and columns, few epochs")
arguments = parser.parse_args()


def calc_gradient_penalty(critic, real_data, fake_data, device="cpu", pac=10, lambda_=10):
    """In the place of CTGAN's own, which takes the same arguments."""
    return wgan_fast.gradient_penalty(critic, real_data, fake_data, device, pac=pac, weight=lambda_)


ORIGINAL = Critic.calc_gradient_penalty


def fit(penalty, epochs):
    """CTGAN fitted, always from the same seed; (the synthesizer, seconds)."""
    Critic.calc_gradient_penalty = penalty  # the line
    torch.manual_seed(0)
    np.random.seed(0)
    synthesizer = CTGAN(epochs=epochs)
    start = time.perf_counter()
    synthesizer.fit(table, discrete_columns=["target"])
    return synthesizer, time.perf_counter() - start


table, epochs, rounds = load_breast_cancer(as_frame=True).frame, arguments.epochs, arguments.rounds
if arguments.smoke:  # below 500 rows, CTGAN starts no worker processes
    table = table[["mean radius", "mean texture", "worst area", "target"]].head(400)
    epochs, rounds = 10, 1

fit(calc_gradient_penalty, 1)  # warms up what is started once in a process
ratios = []
for _ in range(rounds):
    theirs, seconds_before = fit(ORIGINAL, epochs)
    ours, seconds_after = fit(calc_gradient_penalty, epochs)
    ratios.append(seconds_before / seconds_after)
    print(f"fit: {seconds_before:.2f} s with CTGAN's penalty, {seconds_after:.2f} s with wgan_fast")
print(f"speed-up of fit: {statistics.median(ratios):.2f} (median of {rounds})")

# Every epoch's rounding is the next one's difference: a long training ends elsewhere.
first = slice(0, 10)
for name in ("Generator Loss", "Discriminator Loss"):
    one, other = theirs.loss_values[name][first], ours.loss_values[name][first]
    difference = ((one - other).abs() / one.abs().max()).max()
    print(f"{name}, wgan_fast next to CTGAN, ten epochs: {difference:.1e} apart at most")
print(ours.sample(5).round(2).to_string())
