"""How the channels of a dataset reach a model that takes one channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.errors import FseftError, IncompatibleError, pluralise
from fseft.schemas import Decision
from fseft.volume.intensity import modality_name

if TYPE_CHECKING:
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.plugin import MethodSpec
    from fseft.schemas import ChannelMode, Dataset, Fingerprint, Plan

NAME = "channels"
"""Name of the decision in a plan."""
_REQUESTED = "requested"
_RANDOM = "random weights take all channels"
_REPEATED = (
    "the model takes one: its first layer is repeated over the channels and trained, from their "
    "mean on"
)
_REJECTED = {
    "all": ("mean and first, which lose what differs between the channels",),
    "mean": ("first, which leaves out the others",),
}


def check_channels(
    model: FoundationModel, dataset: Dataset, chosen: ChannelMode | None = None
) -> None:
    """Refuses a dataset whose channels the model does not take.

    Args:
        model: The foundation model.
        dataset: The dataset.
        chosen: What the user chose for several channels.

    Raises:
        FseftError: The model takes another number of channels, and more than one; or a choice for
            a model that takes the channels as they are.
    """
    expected, names = model.card.contract.channels, dataset.channels
    if not model.pretrained or expected == 1:
        return
    described = f"{dataset.name} has {len(names)} ({', '.join(names)})"
    if expected != len(names):
        modalities = " or ".join(map(modality_name, model.card.contract.intensity))
        takes = f"{modalities} with {pluralise(expected, 'channel')}".removeprefix(" with ")
        raise FseftError(
            f"the model {model.name} takes {takes}, {described}",
            hint="Use a model of one channel, which takes any number, or one of these channels.",
        )
    if chosen in ("first", "mean"):
        raise FseftError(
            f"the model {model.name} takes {expected} channels, and `channels` {chosen!r} is for "
            f"models that take one; {described}",
            hint="Leave it out.",
        )


@dataclass(frozen=True)
class ChannelChoice:
    """How the channels of a dataset reach the network.

    Attributes:
        channels: Names of the channels.
        mode: As in `Preprocessing`; None if the network takes the channels as they are.
        reason: Why; empty for one channel.
    """

    channels: tuple[str, ...]
    mode: ChannelMode | None = None
    reason: str = ""

    @property
    def inputs(self) -> int:
        """Channels of the network's input."""
        return 1 if self.mode in ("first", "mean") else len(self.channels)

    @property
    def decisions(self) -> list[Decision]:
        """The decision of a plan; none for one channel."""
        if not self.reason:
            return []
        value = f"{self.mode or 'all'} of {', '.join(self.channels)}"
        rejected = _REJECTED.get(self.mode or "", ()) if self.reason != _REQUESTED else ()
        return [Decision(name=NAME, value=value, reason=self.reason, rejected=rejected)]


def choose_channels(
    model: FoundationModel, channels: tuple[str, ...], chosen: ChannelMode | None
) -> ChannelChoice:
    """Decides how the channels of a dataset reach a model.

    Args:
        model: The foundation model.
        channels: Names of the channels of the dataset.
        chosen: What the user chose.

    Raises:
        FseftError: The user chose `all`, and the first layer cannot be repeated.
    """
    from fseft.learn.networks.stem import find_stem

    count, card = len(channels), model.card
    if count == 1:
        return ChannelChoice(channels)
    if chosen in ("first", "mean"):
        return ChannelChoice(channels, chosen, _REQUESTED)
    if not model.pretrained:
        return ChannelChoice(channels, None, _RANDOM)
    if card.contract.channels == count:
        return ChannelChoice(channels, None, "the model takes them")
    try:
        find_stem(card.architecture, card.hparams, count)
    except FseftError as error:
        if chosen:
            raise
        return ChannelChoice(channels, "mean", error.cause)
    return ChannelChoice(channels, "all", _REPEATED)


def constant_channels(fingerprint: Fingerprint) -> list[str]:
    """Returns a warning for each of several channels that shows nothing.

    Args:
        fingerprint: Measurements of the dataset.
    """
    names, statistics = fingerprint.channels, fingerprint.intensities
    constant = [
        name
        for name, stats in zip(names, statistics, strict=True)
        if stats.minimum == stats.maximum and names[1:]
    ]
    return [
        f"the channel {name} has one value in the structures of all cases: leave it out"
        for name in constant
    ]


def choose_for_method(
    model: FoundationModel, spec: MethodSpec, channels: tuple[str, ...], chosen: ChannelMode | None
) -> ChannelChoice:
    """Decides how the channels of a dataset reach a model under a method.

    Methods on frozen features cannot train a first layer for several channels: they take the mean,
    from which such a layer starts.

    Args:
        model: The foundation model.
        spec: Describes the method.
        channels: Names of the channels of the dataset.
        chosen: What the user chose.

    Raises:
        IncompatibleError: The user chose `all`, and the method trains on frozen features.
        FseftError: As for `choose_channels`.
    """
    choice = choose_channels(model, channels, chosen)
    if choice.mode != "all":
        return choice
    if not spec.needs_model:
        return ChannelChoice(channels, None, _RANDOM)
    if spec.access != "black-box":
        return choice
    if chosen:
        raise IncompatibleError(
            f"the method {spec.name!r} trains on features of a frozen network, and `channels` "
            "'all' repeats and trains its first layer",
            hint="Take the mean of the channels or the first one, or a method such as lora.",
        )
    reason = f"the model takes one, and {spec.name} trains on features of the frozen network"
    return ChannelChoice(channels, "mean", reason)


def for_method(
    plan: Plan, model: FoundationModel, spec: MethodSpec, channels: tuple[str, ...]
) -> Plan:
    """Returns a plan with the channels as a method takes them; errors as for `choose_for_method`.

    Args:
        plan: The plan.
        model: The foundation model.
        spec: Describes the method.
        channels: Names of the channels of the dataset.
    """
    choice = choose_for_method(model, spec, channels, plan.options.channels)
    if choice.mode == plan.preprocessing.channel_mode:
        return plan
    others = [decision for decision in plan.decisions if decision.name != NAME]
    preprocessing = plan.preprocessing.model_copy(update={"channel_mode": choice.mode})
    return plan.model_copy(
        update={"preprocessing": preprocessing, "decisions": (*choice.decisions, *others)}
    )
