"""The critic's objective as a module, for DistributedDataParallel and for whoever likes modules."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from wgan_fast import routes
from wgan_fast.adaptive_weight import AdaptiveWeight, with_adaptive
from wgan_fast.critic_objective import checked, critic_loss, loss_settings
from wgan_fast.lazy import Lazy
from wgan_fast.objectives import Objective, score_loss
from wgan_fast.penalties import Penalty, check_penalty
from wgan_fast.penalty_points import check_draw


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
            where it is 16). Calls in evaluation mode all have it, once; a call that raises is not
            counted. ``state_dict`` has the count; a module with another ``every`` goes on from it,
            save one with 1, which has none: from its state, a count begins anew.
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
        lazy = self.lazy if self.training else None
        if lazy is not None and not lazy.due:
            loss = self._without_penalty(real, fake, alpha, options)
        else:
            if lazy is not None:
                options["weight"] = options["weight"] * lazy.every
            loss, seen = critic_loss(
                self.critic, real, fake, alpha=alpha, return_stats=True, **options
            )
            if self.adaptive is not None and self.training:
                self.adaptive.update(seen.gradient_norm)
        if lazy is not None:
            lazy.count()  # here, so that a call that raised is none
        return loss

    def _without_penalty(
        self, real: Any, fake: Any, alpha: Tensor | None, options: dict[str, Any]
    ) -> Tensor:
        """The same without its last term, and with all of its checks."""
        (critic, real, fake, _), settings = checked(self.critic, real, fake, **options)
        check_draw(settings.penalty, real, alpha)
        scores = routes.scores_of_both(critic, real.detach(), fake.detach())
        return score_loss(settings.objective, settings.drift, *scores)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # A penalty in every call has no count to keep. To begin with one is to begin a new one.
        count = f"{prefix}lazy._extra_state"
        if self.lazy is None:
            state_dict.pop(count, None)
        else:
            state_dict.setdefault(count, 0)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
