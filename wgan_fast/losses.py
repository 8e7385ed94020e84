"""The critic's objective as a module, for DistributedDataParallel and for whoever likes modules."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from wgan_fast import routes
from wgan_fast.adaptive_weight import AdaptiveWeight, with_adaptive
from wgan_fast.critic_calls import objective_of
from wgan_fast.critic_objective import critic_loss, loss_settings
from wgan_fast.critic_shapes import shaped
from wgan_fast.lazy import Lazy
from wgan_fast.objectives import Objective, score_loss
from wgan_fast.penalties import Penalty, check_penalty


class CriticLoss(nn.Module):
    """E f(fake) − E f(real) + λ E φ(‖∇f(x̂)‖₂) of a critic that it holds: :func:`critic_loss`.

    Gulrajani et al., 2017 (arXiv 1704.00028). One call is one ordinary first-order backward, so
    ``DistributedDataParallel(CriticLoss(critic))`` averages the gradients of the whole objective,
    the penalty's among them, which wrapping the critic itself does not do for a double backward.

    Args:
        critic: callable from ``(B, ...)`` to one score per sample; a module's parameters become
            this module's.
        penalty: a name or a :class:`Penalty`, as for :func:`critic_loss`; or ``"adaptive"``, which
            is ``"gp"`` with ``weight=AdaptiveWeight()``.
        weight: λ, a number, or an :class:`AdaptiveWeight`, which is updated in each call in
            training mode; the penalty's own if left out, which is 10 without ``penalty``.
        target: the norm at which the penalty is zero; 1 if left out. Not with ``penalty``.
        sided: ``"two"``, as if left out, or ``"one"``. Not with ``penalty``.
        at: where the gradient is penalised: ``"mix"``, as if left out, ``"real"``, ``"fake"``,
            ``"both"`` or ``"dragan"``. Not with ``penalty``.
        every: lazy regularisation: the penalty comes in every so-manieth call in training mode
            alone, beginning with the first, times so many (Karras et al., 2020, arXiv 1912.04958,
            where it is 16). Calls in evaluation mode all have it, once.
        objective: ``"wasserstein"``, ``"hinge"``, ``"nonsaturating"``, ``"relativistic"``, or a
            function of the real and the fake scores; a pickle needs one that can be imported.
        drift: factor of E f(real)².
        backend: ``"auto"``, ``"explicit"``, ``"autograd"`` or ``"first_order"``.
        chunk_size: take the batch in slices of so many samples.
        select: which part of the critic's output is the score.
        pac: samples to a pack.
        inputs: for samples of several tensors, ``"joint"`` or ``"separate"``.

    Shape:
        ``real`` and ``fake`` are ``(B, ...)``, or several tensors; the result is a scalar.
    """

    def __init__(
        self,
        critic: Callable[..., Any],
        *,
        penalty: str | Penalty | None = None,
        weight: float | AdaptiveWeight | None = None,
        target: float | None = None,
        sided: str | None = None,
        at: str | None = None,
        every: int = 1,
        objective: str | Objective = "wasserstein",
        drift: float = 0.0,
        backend: str = "auto",
        chunk_size: int | None = None,
        select: Any = None,
        pac: int = 1,
        inputs: str = "joint",
    ) -> None:
        super().__init__()
        self.critic = critic
        penalty, weight = with_adaptive(penalty, weight, target=target, sided=sided, at=at)
        self.adaptive: AdaptiveWeight | None = None
        if isinstance(weight, AdaptiveWeight):
            self.adaptive, weight = weight, None
        self.lazy = Lazy(every) if every != 1 else None
        form = check_penalty(penalty, target=target, sided=sided, at=at)
        # Checked here rather than in the first call.
        settings = loss_settings(form, weight, objective, drift)
        self.options: dict[str, Any] = {
            "penalty": form,
            "weight": settings.weight,
            "objective": objective,
            "drift": drift,
            "backend": backend,
            "chunk_size": chunk_size,
            "select": select,
            "pac": pac,
            "inputs": inputs,
        }

    def forward(
        self,
        real: Any,
        fake: Any,
        alpha: Tensor | None = None,
        *,
        cond: Any = None,
        cond_kwargs: Mapping[str, Any] | None = None,
        mask: Any = None,
    ) -> Tensor:
        """The loss, with the batch's labels and its mask; raises as :func:`critic_loss` does."""
        options = {**self.options, "cond": cond, "cond_kwargs": cond_kwargs, "mask": mask}
        if self.adaptive is not None:
            # The update writes λ in place, and autograd may keep the one that it multiplied by.
            options["weight"] = self.adaptive.weight.clone()
        if self.lazy is not None and self.training:
            if not self.lazy.due():
                return self._without_penalty(real, fake, options)
            options["weight"] = options["weight"] * self.lazy.every
        loss, seen = critic_loss(self.critic, real, fake, alpha=alpha, return_stats=True, **options)
        if self.adaptive is not None and self.training:
            self.adaptive.update(seen.gradient_norm)
        return loss

    def _without_penalty(self, real: Any, fake: Any, options: dict[str, Any]) -> Tensor:
        names = ("cond", "cond_kwargs", "select", "pac", "mask", "inputs")
        of_shape = {name: options[name] for name in names}
        critic, real, fake, _ = shaped(self.critic, real, fake, **of_shape)
        settings = loss_settings(options["penalty"], None, options["objective"], options["drift"])
        scores = routes.scores_of_both(critic, real.detach(), fake.detach())
        objective = objective_of(critic, settings.objective)
        return score_loss(objective, settings.drift, *scores)

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
