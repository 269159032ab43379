"""The checks of readers detect each violation."""

from __future__ import annotations

import pytest

from fseft.builtin.readers.folders import Reader
from fseft.plugin import Case
from fseft.testing import readers
from fseft.testing.readers import Layout


class Flawed(Reader):
    """A correct reader, of which subclasses break one property each."""

    changed = staticmethod(lambda _: {})

    def read(self, folder):
        dataset = super().read(folder)
        return dataset.model_copy(update=self.changed(dataset))


class DetectsAll(Flawed):
    detects = staticmethod(lambda _: True)


class ListsUnsorted(Flawed):
    changed = staticmethod(lambda dataset: {"cases": dataset.cases[::-1]})


class ListsAMissingFile(Flawed):
    changed = staticmethod(
        lambda dataset: {
            "cases": (Case(name="a", images=(dataset.cases[0].images[0].parent / "c",)),)
        }
    )


class LosesAChannel(Flawed):
    changed = staticmethod(
        lambda dataset: {"cases": (Case(name="a", images=dataset.cases[0].images * 3),)}
    )


class KeepsTheBackground(Flawed):
    changed = staticmethod(lambda _: {"labels": {"air": 0}})


class OpensImages(Flawed):
    changed = staticmethod(
        lambda dataset: {"cases": tuple(c for c in dataset.cases if c.images[0].read_bytes())}
    )


def layout_of(flawed, folder):
    (folder / "imagesTr").mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        (folder / "imagesTr" / name).write_bytes(b"voxels")

    class FlawedLayout(Layout):
        reader = flawed()

    return FlawedLayout("folders", folder)


@pytest.mark.parametrize("check", readers.CHECKS)
def test_a_correct_reader_passes(check, tmp_path):
    check(layout_of(Flawed, tmp_path))


@pytest.mark.parametrize(
    ("flawed", "check"),
    [
        (DetectsAll, readers.detects_its_layout),
        (ListsUnsorted, readers.lists_cases_in_a_fixed_order),
        (ListsAMissingFile, readers.lists_existing_files),
        (LosesAChannel, readers.has_an_image_per_channel),
        (KeepsTheBackground, readers.excludes_the_background),
        (OpensImages, readers.opens_no_image),
    ],
)
def test_a_violation_is_detected(flawed, check, tmp_path):
    with pytest.raises(AssertionError):
        check(layout_of(flawed, tmp_path))
