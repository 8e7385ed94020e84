"""Which of a module's parameters are meant: by name, by the type of module, by a predicate."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import Tensor, nn

from wgan_fast.arguments import describe

ParameterFilter: TypeAlias = (
    Callable[[str, Tensor], bool] | str | type[nn.Module] | Iterable[str | type[nn.Module]]
)
_Matches = Callable[[str, Tensor, list[nn.Module]], bool]


def chosen_parameters(module: nn.Module, include: Any, exclude: Any) -> list[Tensor]:
    """The module's parameters that ``include`` names and ``exclude`` does not.

    A parameter that goes by several names is excluded if any of them is.

    Raises:
        TypeError: a filter is none.
        ValueError: nothing is left.
    """
    included = _matcher("include", include) if include is not None else None
    excluded = _matcher("exclude", exclude) if exclude is not None else None
    chosen: dict[Tensor, bool] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners = _owners(module, name)
        wanted = included is None or included(name, parameter, owners)
        refused = excluded is not None and excluded(name, parameter, owners)
        if refused or wanted:
            chosen[parameter] = not refused and chosen.get(parameter, True)
    left = [parameter for parameter, kept in chosen.items() if kept]
    if not left:
        raise ValueError(
            f"include, exclude: expected them to leave a parameter of {type(module).__name__}, got "
            f"include={include!r}, exclude={exclude!r}"
        )
    return left


def _owners(module: nn.Module, name: str) -> list[nn.Module]:
    """The modules in which the parameter of that name lies, the given one among them."""
    owners = [module]
    for step in name.split(".")[:-1]:
        owners.append(getattr(owners[-1], step))
    return owners


def _matcher(argument: str, given: Any) -> _Matches:
    one = isinstance(given, (str, type))
    if not one and callable(given):
        return lambda name, parameter, owners: bool(given(name, parameter))
    try:
        pieces = (given,) if one else tuple(given)
    except TypeError:
        pieces = (given,)
    for piece in pieces:
        if not isinstance(piece, str) and not (
            isinstance(piece, type) and issubclass(piece, nn.Module)
        ):
            raise TypeError(
                f"{argument}: expected names, module types or a predicate of name and parameter, "
                f"got {describe(piece)}"
            )
    patterns = [piece for piece in pieces if isinstance(piece, str)]
    types = tuple(piece for piece in pieces if not isinstance(piece, str))

    def matches(name: str, parameter: Tensor, owners: list[nn.Module]) -> bool:
        by_name = any(fnmatchcase(name, pattern) for pattern in patterns)
        return by_name or any(isinstance(owner, types) for owner in owners)

    return matches
