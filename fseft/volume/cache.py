"""The array cache: one folder of compressed arrays per case, from which single patches are read.

`<root>/<case>-<content>/` contains `image.b2nd` (C, i, j, k), `label.b2nd` (i, j, k) for a
labelled case, `locations.npz` (voxels of each class), `case.json` (metadata), and `SHA256SUMS` of
these files. The name holds a key of the content, so that a folder never changes: arrays that are
opened later are those that were checked.
"""

from __future__ import annotations

import json
import logging
import sys
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fseft.errors import FseftError
from fseft.volume.label_values import label_boxes
from fseft.workspace import atomic_write, file_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.lib.npyio import NpzFile

logger = logging.getLogger(__name__)

Array: TypeAlias = NDArray[Any]

_CHUNK = 96  # voxels along an axis of a blosc2 chunk, which is about a patch
_BLOCK = 32  # voxels along an axis of the smallest part that is decompressed
MAX_LOCATIONS = 10_000  # voxels stored per class
IMAGE, LABEL, LOCATIONS, META = "image.b2nd", "label.b2nd", "locations.npz", "case.json"
CHECKSUMS = "SHA256SUMS"  # as written and read by the program sha256sum
_MAX_NAME_BYTES = 200  # of a case in the name of its folder, which may have 255
_REMEDY = "Run again: what is damaged or missing is made again."
_DAMAGE = (OSError, RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


def write_case(
    root: Path,
    case: str,
    image: Array,
    label: Array | None,
    meta: dict[str, Any],
    *,
    classes: Sequence[int],
    content: str = "",
    seed: int = 0,
) -> None:
    """Writes one case atomically: readers see the previous folder or the complete new one.

    Args:
        root: Folder of the cache.
        case: Case identifier, the start of the name of the folder.
        image: (C, i, j, k), integers, float16 or float32.
        label: (i, j, k), uint8, uint16 or uint32; None for an unlabelled case.
        meta: Metadata, serialisable as JSON.
        classes: Labels whose voxel locations are stored.
        content: Key of all that the arrays depend on, except for what `root` is the key of.
        seed: Seed of the sample of locations.

    Raises:
        FseftError: An array has a wrong shape or dtype, or the folder cannot be written.
    """
    _check_arrays(case, image, label)
    with atomic_write(_folder(root, case, content)) as folder:
        folder.mkdir()
        (folder / IMAGE).write_bytes(_compress(image))
        locations = {}
        if label is not None:
            (folder / LABEL).write_bytes(_compress(label))
            locations = _sample_locations(label, classes, seed)
        # The type stub lacks keyword arguments that name arrays.
        np.savez_compressed(folder / LOCATIONS, **locations)  # type: ignore[arg-type]
        (folder / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        (folder / CHECKSUMS).write_text(_checksums(folder), encoding="utf-8")


def has_case(root: Path, case: str, content: str = "") -> bool:
    """Returns whether the case is in the cache, complete and undamaged.

    All files are read; a damaged case is named in a warning.

    Args:
        root: Folder of the cache.
        case: Name of the case.
        content: Content key of the files of the case; empty where `root` determines the arrays.
    """
    folder = _folder(root, case, content)
    if not folder.is_dir():
        return False
    try:
        is_intact = (folder / CHECKSUMS).read_bytes() == _checksums(folder).encode()
    except OSError:
        is_intact = False
    if not is_intact:
        logger.warning("%s: the cache of case %s is damaged and made again", folder, case)
    return is_intact


def open_case(root: Path, case: str, content: str = "") -> CachedCase:
    """Opens a case; arrays are read on demand.

    Args:
        root: Folder of the cache.
        case: Name of the case.
        content: As for `has_case`.

    Raises:
        FseftError: The case is not in the cache.
    """
    if not (_folder(root, case, content) / META).is_file():
        raise FseftError("is not in the cache", hint=_REMEDY, case=case, file=root)
    return CachedCase(root, case, content)


def _folder(root: Path, case: str, content: str) -> Path:
    """Returns the folder of a case; without content key `root` determines the arrays."""
    name = case.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    if content:
        name = f"{name}-{content}"
    return root / name


def _checksums(folder: Path) -> str:
    """Returns a line with the sha256 of each file."""
    text = ""
    for file in sorted(folder.iterdir()):
        if file.name != CHECKSUMS:
            text += f"{file_digest(file)}  {file.name}\n"
    return text


@dataclass(frozen=True)
class CachedCase:
    """A case in the cache.

    Files are opened on demand, so that the object can be pickled. Every member raises `FseftError`
    if its file is damaged.

    Attributes:
        root: Folder of the cache.
        case: Name of the case.
        content: Content key of the files of the case; empty where `root` determines the arrays.
    """

    root: Path
    case: str
    content: str = ""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the paths, not the open files."""
        return CachedCase, (self.root, self.case, self.content)

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return int(self._image.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (i, j, k)."""
        i, j, k = map(int, self._image.shape[1:])
        return i, j, k

    @property
    def labelled(self) -> bool:
        """Whether the case has a label array."""
        return (self._folder / LABEL).is_file()

    @property
    def partly_annotated(self) -> bool:
        """Whether the label has voxels that are not annotated."""
        return bool(self.meta.get("partly_annotated"))

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Metadata of the case, from `case.json`.

        Raises:
            FseftError: The file is missing or damaged.
        """
        with self._reading(META) as path:
            return dict(json.loads(path.read_bytes()))

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """Labels with stored locations, ascending."""
        with self._open_locations() as file:
            return tuple(sorted(map(int, file.files)))

    def locations(self, label: int) -> Array:
        """Returns voxels of a class, at most 10 000 drawn at random.

        Args:
            label: Value in the label array.

        Returns:
            Indices (n, 3) along (i, j, k); n is 0 if the class is absent.
        """
        if label not in self.classes:
            return np.empty((0, 3), np.int16)
        with self._open_locations() as file:
            return np.asarray(file[str(label)])

    def read_image(self, start: Sequence[int], size: Sequence[int], *, pad: float = 0) -> Array:
        """Reads a box of the image, padded outside the array.

        Args:
            start: First voxel (i, j, k); may be negative.
            size: Voxels along each axis; may exceed the array.
            pad: Value outside the array.

        Returns:
            A new array (C, *size) of the cached dtype.
        """
        return self._read(IMAGE, start, size, pad)

    def read_label(self, start: Sequence[int], size: Sequence[int], *, pad: int = 0) -> Array:
        """Reads a box of the label.

        Args:
            start: First voxel (i, j, k); may be negative.
            size: Voxels along each axis; may exceed the array.
            pad: Value outside the array; by default background.

        Returns:
            A new array (*size) of the cached dtype.
        """
        return self._read(LABEL, start, size, pad)

    def read_all(self) -> tuple[Array, Array | None]:
        """Returns the entire image (C, i, j, k) and label (i, j, k), or None without a label."""
        origin = (0, 0, 0)
        image = self.read_image(origin, self.shape)
        label = self.read_label(origin, self.shape) if self.labelled else None
        return image, label

    @property
    def _folder(self) -> Path:
        return _folder(self.root, self.case, self.content)

    @cached_property
    def _image(self) -> Any:
        return self._open(IMAGE)

    @cached_property
    def _label(self) -> Any:
        if not self.labelled:
            raise FseftError("has no label", hint="Add a label, or exclude it.", case=self.case)
        return self._open(LABEL)

    def _open(self, name: str) -> Any:
        import blosc2

        # One thread: workers read in parallel, and a pool of threads does not survive a fork.
        options = {"mmap_mode": None if sys.platform == "win32" else "r"}
        with self._reading(name) as path:
            return blosc2.open(str(path), mode="r", dparams={"nthreads": 1}, **options)

    def _read(self, name: str, start: Sequence[int], size: Sequence[int], pad: float) -> Array:
        """Reads a box of the last three axes, padded outside the array."""
        array = self._image if name == IMAGE else self._label
        first = np.array(start, dtype=int)
        last = first + np.array(size, dtype=int)
        limits = array.shape[-3:]
        inside_first = np.maximum(first, 0)
        inside_last = np.minimum(last, limits)
        inside = _slices(inside_first, inside_last)
        if (first == inside_first).all() and (last == inside_last).all():
            return self._decompress(name, array, inside)
        result = np.full((*array.shape[:-3], *size), pad, array.dtype)
        if (inside_first < inside_last).all():
            target = _slices(inside_first - first, inside_last - first)
            result[target] = self._decompress(name, array, inside)
        return result

    def _decompress(self, name: str, array: Any, box: tuple[Any, ...]) -> Array:
        with self._reading(name):
            return np.asarray(array[box])

    @contextmanager
    def _open_locations(self) -> Iterator[NpzFile]:
        with self._reading(LOCATIONS) as path, path.open("rb") as file, np.load(file) as arrays:
            yield arrays

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """Names the file and the case of errors that are raised within."""
        path = self._folder / name
        try:
            yield path
        except _DAMAGE as error:
            raise FseftError(
                f"the cache is damaged ({error})",
                hint=_REMEDY,
                case=self.case,
                file=path,
            ) from error


def _slices(first: Array, last: Array) -> tuple[Any, ...]:
    """Returns the index of a box in the last three axes."""
    pairs = zip(first.tolist(), last.tolist(), strict=True)
    box = [slice(start, stop) for start, stop in pairs]
    return (..., *box)


def _check_arrays(case: str, image: Array, label: Array | None) -> None:
    """Refuses arrays of a wrong shape or dtype."""
    cause = ""
    if image.ndim != 4 or not image.size:
        cause = f"an image must be (channel, i, j, k), not of shape {image.shape}"
    elif image.dtype.kind not in "iu" and image.dtype not in (np.float16, np.float32):
        cause = f"an image must be integers, float16 or float32 to be cached, not {image.dtype}"
    elif label is not None and label.dtype not in (np.uint8, np.uint16, np.uint32):
        cause = f"a label must be uint8, uint16 or uint32 to be cached, not {label.dtype}"
    elif label is not None and label.shape != image.shape[1:]:
        cause = f"the label has shape {label.shape}, its image {image.shape[1:]}"
    if cause:
        raise FseftError(cause, case=case)


def _compress(array: Array) -> bytes:
    """Returns the bytes of a blosc2 file; Python writes them, because it reports a full disk."""
    import blosc2

    lead = (1,) * (array.ndim - 3)
    chunks = [min(_CHUNK, size) for size in array.shape[-3:]]
    blocks = [min(_BLOCK, size) for size in chunks]
    compressed = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=(*lead, *chunks),
        blocks=(*lead, *blocks),
        cparams={
            "codec": blosc2.Codec.ZSTD,
            "clevel": 1,
            "filters": [blosc2.Filter.SHUFFLE],
            "nthreads": 1,
        },
    )
    return bytes(compressed.to_cframe())


def _sample_locations(label: Array, classes: Sequence[int], seed: int) -> dict[str, Array]:
    """Draws at most `MAX_LOCATIONS` voxels of each class, without repetition, in array order."""
    dtype = np.int16 if max(label.shape) <= 1 << 15 else np.int32
    boxes = label_boxes(label)
    locations = {}
    for value in classes:
        box = boxes.get(value)
        if box is None:
            continue
        inside = label[box] == value
        indices = np.flatnonzero(inside)
        if len(indices) > MAX_LOCATIONS:
            generator = np.random.default_rng([seed, value])
            drawn = generator.choice(indices, MAX_LOCATIONS, replace=False, shuffle=False)
            indices = np.sort(drawn)
        corner = [part.start for part in box]
        voxels = np.stack(np.unravel_index(indices, inside.shape), axis=1)
        locations[str(value)] = (voxels + corner).astype(dtype)
    return locations
