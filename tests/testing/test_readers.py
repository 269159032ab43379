"""The checks of readers find what they are there to find."""

from __future__ import annotations

import pytest

from fseft.builtin.readers.folders import Reader
from fseft.plugin import Case
from fseft.testing import readers
from fseft.testing.readers import Layout


class Flawed(Reader):
    """A reader that is right but for what the subclasses change in the dataset."""

    changed = staticmethod(lambda _: {})

    def read(self, folder):
        found = super().read(folder)
        return found.model_copy(update=self.changed(found))


class DetectsAll(Flawed):
    detects = staticmethod(lambda _: True)


class ListsAsItComes(Flawed):
    changed = staticmethod(lambda found: {"cases": found.cases[::-1]})


class NamesWhatIsNotThere(Flawed):
    changed = staticmethod(
        lambda found: {"cases": (Case(name="a", images=(found.cases[0].images[0].parent / "c",)),)}
    )


class LosesAChannel(Flawed):
    changed = staticmethod(
        lambda found: {"cases": (Case(name="a", images=found.cases[0].images * 3),)}
    )


class KeepsTheBackground(Flawed):
    changed = staticmethod(lambda _: {"labels": {"air": 0}})


class Opens(Flawed):
    changed = staticmethod(
        lambda found: {"cases": tuple(c for c in found.cases if c.images[0].read_bytes())}
    )


def layout_of(flawed, folder):
    (folder / "imagesTr").mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        (folder / "imagesTr" / name).write_bytes(b"voxels")

    class OfTheFlawed(Layout):
        reader = flawed()

    return OfTheFlawed("folders", folder)


@pytest.mark.parametrize("check", readers.CHECKS)
def test_a_reader_that_is_right_passes(check, tmp_path):
    check(layout_of(Flawed, tmp_path))


@pytest.mark.parametrize(
    ("flawed", "check"),
    [
        (DetectsAll, readers.knows_its_layout),
        (ListsAsItComes, readers.lists_the_same_each_time),
        (NamesWhatIsNotThere, readers.names_files_that_are_there),
        (LosesAChannel, readers.gives_each_channel_an_image),
        (KeepsTheBackground, readers.leaves_the_background_out),
        (Opens, readers.opens_no_image),
    ],
)
def test_a_flaw_is_found(flawed, check, tmp_path):
    with pytest.raises(AssertionError):
        check(layout_of(flawed, tmp_path))
