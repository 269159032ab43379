"""The array cache: one folder per case, with compressed arrays of which patches are read without the rest.

`<root>/<case>/` holds `image.b2nd` (C, i, j, k), `label.b2nd` (i, j, k) where the case is labelled,
`locations.npz` (voxels of each class) and `case.json` (whatever the writer wants to remember).
"""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fseft.errors import FseftError
from fseft.workspace import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.lib.npyio import NpzFile

Array: TypeAlias = NDArray[Any]

CHUNK, BLOCK = (
    96,
    32,
)  # voxels along an axis: a chunk is about a patch, a block is the least that is unpacked
LOCATIONS = 10_000  # voxels kept per class
IMAGE, LABEL, PLACES, META = "image.b2nd", "label.b2nd", "locations.npz", "case.json"


def write_case(
    root: Path,
    case: str,
    image: Array,
    label: Array | None,
    meta: dict[str, Any],
    *,
    classes: Sequence[int],
    seed: int = 0,
) -> None:
    """Write one case as a whole: readers see the old folder or the new one, never a part.

    Args:
        root: Folder of the cache.
        case: Case identifier, the name of the folder.
        image: (C, i, j, k), integers, float16 or float32.
        label: (i, j, k), uint8 or uint16; None where the case is not labelled.
        meta: Anything that JSON can hold.
        classes: Labels of which voxel locations are kept.
        seed: Seed of the sample of locations.

    Raises:
        FseftError: The arrays do not fit each other, or the folder cannot be written.
    """
    _check(case, image, label)
    with atomic_write(root / case) as folder:
        shutil.rmtree(folder, ignore_errors=True)  # of a killed process that had the same number
        folder.mkdir()
        (folder / IMAGE).write_bytes(_packed(image))
        places = {}
        if label is not None:
            (folder / LABEL).write_bytes(_packed(label))
            places = _locations(label, classes, seed)
        np.savez_compressed(folder / PLACES, **places)  # type: ignore[arg-type]  # the stub forgets names
        (folder / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def has_case(root: Path, case: str) -> bool:
    """Whether the case was written; it then is complete."""
    return (root / case / META).is_file()


def open_case(root: Path, case: str) -> CachedCase:
    """Open a case without reading it.

    Raises:
        FseftError: The cache does not have the case.
    """
    if not has_case(root, case):
        raise FseftError("is not in the cache", hint="Preprocess it first.", case=case, file=root)
    return CachedCase(root, case)


@dataclass(frozen=True)
class CachedCase:
    """A case in the cache. Files are opened when first needed, so it may cross process borders.

    Every member raises `FseftError` where its file is damaged.
    """

    root: Path
    case: str

    def __reduce__(self) -> tuple[object, ...]:
        """Open files stay behind."""
        return CachedCase, (self.root, self.case)

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return int(self._image.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (i, j, k)."""
        i, j, k = self._image.shape[1:]
        return int(i), int(j), int(k)

    @property
    def labelled(self) -> bool:
        """Whether the case has a label array."""
        return (self._folder / LABEL).is_file()

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What the writer wanted to remember."""
        with self._reading(META) as path:
            return dict(json.loads(path.read_bytes()))

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The classes that occur, of those that the writer asked for, ascending."""
        with self._places() as places:
            return tuple(sorted(int(name) for name in places.files))

    def locations(self, label: int) -> Array:
        """Voxels (n, 3) of a class as (i, j, k), at most 10 000 drawn at random; none where it is absent."""
        if label not in self.classes:
            return np.empty((0, 3), np.int16)
        with self._places() as places:
            return np.asarray(places[str(label)])

    def read_image(self, start: Sequence[int], size: Sequence[int], *, pad: float = 0) -> Array:
        """Read a box of the image; what lies outside the array is `pad`.

        Args:
            start: First voxel (i, j, k), may be negative.
            size: Voxels along each axis, may reach beyond the end.
            pad: Value outside the array.

        Returns:
            A fresh array (C, *size) of the cached dtype.
        """
        return self._read(IMAGE, start, size, pad)

    def read_label(self, start: Sequence[int], size: Sequence[int]) -> Array:
        """Read a box (*size) of the label as `read_image` does; outside the array is background, 0."""
        return self._read(LABEL, start, size, 0)

    def read_all(self) -> tuple[Array, Array | None]:
        """The entire image and label, or None for the label where there is none."""
        origin = (0, 0, 0)
        label = self.read_label(origin, self.shape) if self.labelled else None
        return self.read_image(origin, self.shape), label

    @property
    def _folder(self) -> Path:
        return self.root / self.case

    @cached_property
    def _image(self) -> Any:
        return self._open(IMAGE)

    @cached_property
    def _label(self) -> Any:
        if not self.labelled:
            raise FseftError("has no label", hint="Give it one, or leave it out.", case=self.case)
        return self._open(LABEL)

    def _open(self, name: str) -> Any:
        import blosc2

        # One thread: workers read side by side, and a pool of threads does not survive a fork.
        mapped = None if sys.platform == "win32" else "r"
        with self._reading(name) as path:
            return blosc2.open(str(path), mode="r", mmap_mode=mapped, dparams={"nthreads": 1})

    def _read(self, name: str, start: Sequence[int], size: Sequence[int], pad: float) -> Array:
        """A box of the last three axes, padded where it leaves the array."""
        array = self._image if name == IMAGE else self._label
        wanted = [slice(int(s), int(s) + int(n)) for s, n in zip(start, size, strict=True)]
        inner = [
            slice(max(w.start, 0), min(w.stop, n))
            for w, n in zip(wanted, array.shape[-3:], strict=True)
        ]
        if inner == wanted:
            return self._unpack(name, array, inner)
        result = np.full((*array.shape[:-3], *size), pad, array.dtype)
        if all(part.start < part.stop for part in inner):
            target: tuple[Any, ...] = tuple(
                slice(i.start - w.start, i.stop - w.start)
                for i, w in zip(inner, wanted, strict=True)
            )
            result[(..., *target)] = self._unpack(name, array, inner)
        return result

    def _unpack(self, name: str, array: Any, box: list[slice]) -> Array:
        with self._reading(name):
            return np.asarray(array[(..., *box)])

    @contextmanager
    def _places(self) -> Iterator[NpzFile]:
        with self._reading(PLACES) as path, path.open("rb") as file, np.load(file) as places:
            yield places

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """Tell which file of which case is damaged."""
        path = self._folder / name
        try:
            yield path
        except (OSError, RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise FseftError(
                f"the cache is damaged ({error})",
                hint=f"Delete {self._folder} and preprocess again.",
                case=self.case,
                file=path,
            ) from error


def _check(case: str, image: Array, label: Array | None) -> None:
    cause = ""
    if image.ndim != 4 or not image.size:
        cause = f"an image is (channel, i, j, k), not of shape {image.shape}"
    elif image.dtype.kind not in "iu" and image.dtype not in (np.float16, np.float32):
        cause = f"an image is cached as integers, float16 or float32, not {image.dtype}"
    elif label is not None and label.dtype not in (np.uint8, np.uint16):
        cause = f"a label is cached as uint8 or uint16, not {label.dtype}"
    elif label is not None and label.shape != image.shape[1:]:
        cause = f"the label has shape {label.shape}, its image {image.shape[1:]}"
    if cause:
        raise FseftError(cause, case=case)


def _packed(array: Array) -> bytes:
    """A compressed array as the bytes of its file: Python's own write then tells a full disk apart."""
    import blosc2

    chunks = tuple(min(CHUNK, n) for n in array.shape[-3:])
    blocks = tuple(min(BLOCK, n) for n in chunks)
    lead = (1,) * (array.ndim - 3)
    cparams = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": 1,
        "filters": [blosc2.Filter.SHUFFLE],
        "nthreads": 1,
    }
    packed = blosc2.asarray(
        np.ascontiguousarray(array), chunks=lead + chunks, blocks=lead + blocks, cparams=cparams
    )
    return bytes(packed.to_cframe())


def _locations(label: Array, classes: Sequence[int], seed: int) -> dict[str, Array]:
    """At most `LOCATIONS` voxels of each class that occurs, without repetition, in array order."""
    from scipy.ndimage import find_objects

    boxes = dict(enumerate(find_objects(label), start=1))
    kept = {}
    for value in classes:
        if (box := boxes.get(value)) is None:
            continue
        inside = label[box] == value
        places = np.flatnonzero(inside)
        if len(places) > LOCATIONS:
            generator = np.random.default_rng([seed, value])
            places = np.sort(generator.choice(places, LOCATIONS, replace=False, shuffle=False))
        corner = [part.start for part in box]
        voxels = np.stack(np.unravel_index(places, inside.shape), axis=1) + corner
        kept[str(value)] = voxels.astype(np.int16 if max(label.shape) <= 1 << 15 else np.int32)
    return kept
