"""What methods and architectures may answer: any other answer ends in a line that blames their package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fseft.errors import PluginContractError
from fseft.learn.networks.roles import Target

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture

TENSORS = "tensors by name"


def check_answers(owner: type[AdaptedNetwork] | AdaptedNetwork) -> None:
    """Let the hooks that a class or an object has of its own be checked at each call; changes it in place."""
    made = owner if isinstance(owner, type) else type(owner)
    for name, function in list(vars(owner).items()):
        if name in HOOKS and callable(function):
            setattr(owner, name, _checked(function, HOOKS[name], f"{made.__name__}.{name}()"))


def check_adapted(adapted: AdaptedNetwork, told: str) -> None:
    """Look at what a method says of an adapted network, and from now on at what its hooks answer.

    Args:
        adapted: What `apply` gave.
        told: Who gave it, for the error.

    Raises:
        AnswerError: The kind of something is wrong.
    """
    wanted: dict[str, tuple[Callable[[Any], bool], str]] = {
        "network": (lambda value: isinstance(value, nn.Module), "a module"),
        "learning_rate": (_is_number, "a number"),
        "rates": (lambda value: _maps(value, _is_number), "numbers by name"),
        "records": (_are_tensors, TENSORS),
        "optional": (_are_texts, "names"),
    }
    for name, (fits, what) in wanted.items():
        value = getattr(adapted, name)
        if not fits(value):
            raise PluginContractError(f"{told} gave {name} = {_short(value)}, not {what}")
    check_answers(adapted)


def check_architecture(
    architecture: Architecture, blamed: Callable[[], AbstractContextManager[None]]
) -> None:
    """Let what the functions of an architecture answer, and what they raise, be told in a line; changes it in place.

    Args:
        architecture: Of another package.
        blamed: A context for each call, which tells whose fault it is.

    Raises:
        PluginError: Its smallest patch or its divisor is none.
    """
    made = type(architecture).__name__
    with blamed():
        for name in ("divisor", "minimum_patch"):
            sides = getattr(architecture, name, None)
            if not (
                isinstance(sides, list | tuple) and len(sides) == 3 and all(map(_is_whole, sides))
            ):
                raise PluginContractError(
                    f"{made}.{name} is {_short(sides)}, not three numbers of voxels"
                )
    if not hasattr(architecture, "__dict__"):  # slots take no functions: it goes unchecked
        return
    for name, check in BUILDING.items():
        if hasattr(architecture, name) and name not in vars(
            architecture
        ):  # a factory may give the same one again
            asked = _checked(getattr(architecture, name), check, f"{made}.{name}()")
            object.__setattr__(
                architecture, name, _within(blamed, asked)
            )  # which may be a frozen dataclass


def tensors_by_name(told: str, value: Any) -> dict[str, Tensor]:
    """The same, if it is what it must be.

    Raises:
        AnswerError: It is not.
    """
    if not _are_tensors(value):
        raise PluginContractError(f"{told} gave {_short(value)}, not {TENSORS}")
    return dict(value)


def _checked(
    function: Callable[..., Any], check: Callable[[str, Any], Any], told: str
) -> Callable[..., Any]:
    @wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        try:
            answer = function(*arguments, **named)
        except TypeError as error:
            if (
                error.__traceback__ is not None and error.__traceback__.tb_next is None
            ):  # it was not even entered
                raise PluginContractError(str(error)) from error
            raise
        return check(told, answer)

    return checked


def _within(
    context: Callable[[], AbstractContextManager[None]], function: Callable[..., Any]
) -> Callable[..., Any]:
    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        with context():
            return function(*arguments, **named)

    return called


def _targets(told: str, answer: Any) -> list[Target]:
    if not (
        isinstance(answer, list | tuple) and all(isinstance(target, Target) for target in answer)
    ):
        raise PluginContractError(f"{told} gave {_short(answer)}, not targets")
    if not any(target.part == "head" for target in answer):
        raise PluginContractError(f"{told} gave no target whose part is the head")
    return list(answer)


def _module(told: str, answer: Any) -> nn.Module:
    if not isinstance(answer, nn.Module):
        raise PluginContractError(f"{told} gave {_short(answer)}, not a module")
    return answer


def _features(told: str, answer: Any) -> Tensor:
    if not (isinstance(answer, Tensor) and answer.dim() == 5):
        raise PluginContractError(f"{told} gave {_short(answer)}, not a tensor (B, F, i, j, k)")
    return answer


def _penalty(told: str, answer: Any) -> Any:
    one = isinstance(answer, Tensor) and answer.numel() == 1 and not answer.is_complex()
    if not (answer is None or one or _is_number(answer)):
        raise PluginContractError(f"{told} gave {_short(answer)}, not a tensor with one number")
    return answer.reshape(()) if one else answer


def _loss(told: str, answer: Any) -> float | None:
    if answer is None:
        return None
    if not (_is_number(answer) or (isinstance(answer, Tensor) and answer.numel() == 1)):
        raise PluginContractError(f"{told} gave {_short(answer)}, not a number")
    return float(answer)


def _indices(told: str, answer: Any) -> frozenset[int]:
    found: list[Any] = list(answer) if isinstance(answer, Iterable) else [None]
    if not all(isinstance(index, Integral) for index in found):
        raise PluginContractError(f"{told} gave {_short(answer)}, not indices of cases")
    return frozenset(int(index) for index in found)


def _losses(told: str, answer: Any) -> list[float]:
    try:
        if isinstance(answer, str):
            raise TypeError  # noqa: TRY301 - its letters may be digits
        return [float(loss) for loss in answer]
    except (TypeError, ValueError) as error:
        raise PluginContractError(f"{told} gave {_short(answer)}, not losses") from error


def _parameters(told: str, answer: Any) -> list[tuple[str, nn.Parameter]]:
    found: list[Any] = list(answer) if isinstance(answer, Iterable) else [None]
    pairs = [one for one in found if isinstance(one, tuple) and len(one) == 2]
    if len(pairs) < len(found) or not all(
        isinstance(n, str) and isinstance(p, nn.Parameter) for n, p in pairs
    ):
        raise PluginContractError(f"{told} gave {_short(answer)}, not names with their parameters")
    return found


def _groups(told: str, answer: Any) -> list[dict[str, Any]]:
    wanted = {"params", "lr"}
    if not (
        isinstance(answer, list)
        and all(isinstance(one, dict) and wanted <= one.keys() for one in answer)
    ):
        raise PluginContractError(
            f"{told} gave {_short(answer)}, not groups of params with their lr"
        )
    return answer


def _lines(told: str, answer: Any) -> tuple[str, ...]:
    if not _are_texts(answer):
        raise PluginContractError(f"{told} gave {_short(answer)}, not lines of text")
    return tuple(answer)


HOOKS: dict[str, Callable[[str, Any], Any]] = {
    "calibrate": lambda _, answer: answer,
    "solve": _loss,
    "regularizer": _penalty,
    "on_optimizer_step": lambda _, answer: answer,
    "held_out": _indices,
    "audit": lambda _, answer: answer,
    "training_state": tensors_by_name,
    "load_training_state": lambda _, answer: answer,
    "settled": _losses,
    "finish": lambda _, answer: answer,
    "notes": _lines,
    "trained": _parameters,
    "param_groups": _groups,
    "state_dict": tensors_by_name,
}
"""What an `AdaptedNetwork` may write anew, and what becomes of its answers."""


BUILDING: dict[str, Callable[[str, Any], Any]] = {
    "build": _module,
    "targets": _targets,
    "features": _features,
    "head": _module,
    "replace_head": lambda _, answer: answer,
    "take_text_head": lambda _, answer: answer,
    "text_driven": _module,
}
"""What an architecture is asked for, and what becomes of its answers."""


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)


def _are_tensors(value: Any) -> bool:
    return _maps(value, lambda one: isinstance(one, Tensor))


def _maps(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and fits(one) for name, one in value.items()
    )


def _short(value: Any) -> str:
    """A value, or its kind where it is longer than a line allows."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"a {type(value).__name__}"
