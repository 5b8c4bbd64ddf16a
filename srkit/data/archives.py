"""Pictures straight out of zip and tar archives: where each lies is read once, then each is read from its place.

An archive stands for the folder that it would unpack to; a path may go on inside of it ("div2k.zip/DIV2K_train_HR").
Nothing is ever unpacked, so no name inside can lead anywhere.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from srkit.data.names import NameList, require_folder, unsafe
from srkit.data.pairing import first_names
from srkit.data.sources import Shape, described, in_threads
from srkit.errors import DataError
from srkit.imaging.files import IMAGE_SUFFIXES, MAX_PIXELS, decode_image
from srkit.imaging.headers import read_header

Kind = Literal["zip", "tar"]
_COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".tzst")
_COMPRESSED_STARTS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_BLOCK = 512  # of a tar; one of zeros ends it
_LOCAL_HEADER = 30  # bytes before the name, in a zip; the lengths of name and extra field are its last four
_log = logging.getLogger("srkit")
# What zipfile and tarfile raise on damaged files, and zipfile on archives in several parts.
_PARSE_ERRORS = (
    zipfile.BadZipFile, tarfile.TarError, NotImplementedError, ValueError, LookupError, struct.error, OverflowError, EOFError
)  # fmt: skip


class Place(NamedTuple):
    """Where a picture lies.

    Attributes:
        archive: Number of the archive.
        offset: First byte: of the data in a tar, of the header before them in a zip.
        stored, size: Bytes in the archive, and of the picture file.
        method: 0 stored, 8 deflated.
        crc: Checksum of the picture file; -1 in a tar, which has none.
    """

    archive: int
    offset: int
    stored: int
    size: int
    method: int = zipfile.ZIP_STORED
    crc: int = -1


@dataclass(frozen=True)
class Archive:
    """An archive file as it was when its index was read."""

    path: str
    kind: Kind
    state: tuple[int, int]  # size in bytes, time of change in ns


@dataclass(frozen=True)
class ArchiveListing:
    """Pictures of one root, by their names below it."""

    archives: list[Archive]
    places: dict[str, Place]


def archives_of(key: str, root: str, backend: str) -> tuple[list[Archive], str] | None:
    """The archives that a root names, and the folder inside of them ("" is their top); None when it names a folder.

    Args:
        key: Option that holds the root, for messages.
        backend: "zip" and "tar" take every archive of that kind when the root is a folder; "disk" takes one that is named.

    Raises: DataError for an archive that is missing, of another kind, or compressed as a whole.
    """
    path = Path(root)
    if backend not in ("zip", "tar") and path.is_dir():
        return None
    place = next(p for p in (path, *path.parents) if p.exists())
    inside = "" if place == path else path.relative_to(place).as_posix()
    if place.is_file():
        kind = _kind_of(key, place, backend)
        return None if kind is None else ([_state(str(place), kind)], inside)
    if backend not in ("zip", "tar"):
        return None
    found = sorted(str(p) for p in place.glob(f"*.{backend}") if p.is_file())
    if found:
        return [_state(p, "zip" if backend == "zip" else "tar") for p in found], inside
    require_folder(key, root)
    entries = sorted(e.name + ("/" if e.is_dir() else "") for e in path.iterdir())
    remedy = " (compressed tars cannot be read: unpack them to .tar)" if _any_compressed(entries) else ""
    raise DataError(
        f"{key}: no .{backend} file in '{root}', which io_backend {backend} reads; it holds "
        f"{first_names(entries) if entries else 'nothing'}{remedy}; plain picture files are io_backend disk"
    )


def _any_compressed(names: list[str]) -> bool:
    return any(name.lower().endswith(_COMPRESSED) for name in names)


def _kind_of(key: str, path: Path, backend: str) -> Kind | None:
    """Kind of archive by its name, or else by the option; None when neither says that it is one."""
    name = path.name.lower()
    if name.endswith(_COMPRESSED):
        raise DataError(f"{key}: {_compressed(path)}")
    kind: Kind | None = "zip" if name.endswith(".zip") else "tar" if name.endswith(".tar") else None
    if backend not in ("zip", "tar"):
        return kind
    if kind is not None and kind != backend:
        raise DataError(f"{key}: '{path}' is a {kind}, found with io_backend {backend}; write {{type: {kind}}}")
    return "zip" if backend == "zip" else "tar"


def _compressed(path: str | Path) -> str:
    return (
        f"'{path}' is compressed as a whole, so no picture in it can be read without all before it; "
        "unpack it to a .tar (gunzip, bunzip2, unxz or zstd -d), which pictures hardly make larger"
    )


def _state(path: str, kind: Kind) -> Archive:
    status = Path(path).stat()
    return Archive(path, kind, (status.st_size, status.st_mtime_ns))


def list_archives(key: str, root: str, archives: list[Archive], inside: str, *, below: bool) -> ArchiveListing:
    """The pictures of a root. Hidden files are none, and files of other kinds are passed over with one line.

    Args:
        inside: Folder in the archives that names are relative to; "" is their top.
        below: Also those in folders below it.

    Raises: DataError for an archive that cannot be read whole, holds a picture in a form that cannot be read from its
        place, holds a name twice or one that leads out of it, or holds no picture where the root says.
    """
    found: dict[str, Place] = {}
    twice: list[str] = []
    others: list[str] = []
    reader: dict[Kind, Callable[[str, int], Iterator[tuple[str, Place]]]] = {"zip": _read_zip, "tar": _read_tar}

    def read(number: int) -> list[tuple[str, Place]]:
        archive = archives[number]
        try:
            return list(reader[archive.kind](archive.path, number))
        except DataError as error:
            raise DataError(f"{key}: {error}") from None
        except OSError as error:
            raise DataError(f"{key}: '{archive.path}' cannot be read ({error.strerror or error})") from error
        except _PARSE_ERRORS as error:
            raise DataError(
                f"{key}: '{archive.path}' cannot be read as a {archive.kind} ({error}); it is cut short, damaged or of another "
                "kind: copy or pack it again"
            ) from error

    for pictures in in_threads(read, range(len(archives))):
        for name, place in pictures:
            if not name.lower().endswith(IMAGE_SUFFIXES):
                others.append(name)
            elif name in found:
                twice.append(name)
            else:
                found[name] = place
    held = "" if len(archives) == 1 else f" ({len(archives)} archives)"
    if twice:
        raise DataError(
            f"{key}: {len(twice)} names stand twice in '{root}'{held} (first: {first_names(twice)}); pack each picture once"
        )
    leading_out = [name for name in found if unsafe(name)]
    if leading_out:
        raise DataError(
            f"{key}: {len(leading_out)} names in '{root}'{held} are absolute or lead out by '..' (first: "
            f"{first_names(leading_out)}); pack the pictures by names relative to their folder"
        )
    if others:
        _log.info(
            "%s: %d files that are no pictures are passed over: %s", root, len(others), first_names(sorted(others))
        )
    start = f"{inside}/" if inside else ""
    names = sorted(name for name in found if name.startswith(start) and (below or "/" not in name[len(start) :]))
    if not names:
        raise DataError(_no_pictures(key, root, archives, found, inside))
    return ArchiveListing(archives, {name[len(start) :]: found[name] for name in names})


def _no_pictures(key: str, root: str, archives: list[Archive], found: dict[str, Place], inside: str) -> str:
    where = (
        f"'{archives[0].path}'" if len(archives) == 1 else f"the {len(archives)} archives from '{archives[0].path}' on"
    )
    if not found:
        return f"{key}: no pictures ({', '.join(IMAGE_SUFFIXES)}) in {where}"
    folder, count = Counter(name.rpartition("/")[0] for name in found).most_common(1)[0]
    base = root.rstrip("/").removesuffix(inside).rstrip("/")
    asked = f"in folder '{inside}'" if inside else "outside of folders"
    place = f"folder '{folder}': write {key}: {base}/{folder}" if folder else f"no folder: write {key}: {base}"
    return f"{key}: no pictures {asked} of {where}; {count} of {len(found)} lie in {place}"


def _is_visible(name: str) -> bool:
    return not any(part.startswith(".") and part != ".." for part in name.split("/"))


def _refuse(path: str, names: list[str], what: str) -> None:
    if names:
        raise DataError(f"'{path}': {len(names)} pictures {what} (first: {first_names(names)})")


def _read_zip(path: str, number: int) -> Iterator[tuple[str, Place]]:
    encrypted, packed = [], []
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
    for member in members:
        name = member.filename.replace("\\", "/").removeprefix("./")  # archivers on Windows write either slash
        if not _is_visible(name):
            continue
        if name.lower().endswith(IMAGE_SUFFIXES):
            if member.flag_bits & 1:
                encrypted.append(name)
            elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                packed.append(name)
        yield (
            name,
            Place(
                number, member.header_offset, member.compress_size, member.file_size, member.compress_type, member.CRC
            ),
        )
    _refuse(path, encrypted, "are encrypted; pack them again without a password")
    _refuse(path, packed, "are neither stored nor deflated; pack them again, best by zip -0")


def _read_tar(path: str, number: int) -> Iterator[tuple[str, Place]]:
    places: dict[str, Place] = {}
    links, sparse = [], []
    with open(path, "rb") as file:
        if file.read(6).startswith(_COMPRESSED_STARTS):
            raise DataError(_compressed(path))
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps each one for ever
                if not (member.isfile() or member.islnk() or member.issym()):
                    continue
                name = member.name.removeprefix("./")
                is_picture = _is_visible(name) and name.lower().endswith(IMAGE_SUFFIXES)
                place: Place | None = Place(number, member.offset_data, member.size, member.size)
                if not member.isfile():  # a hard link is a further name for the data of an earlier member
                    place = places.get(member.linkname) if member.islnk() else None
                if is_picture and place is None:
                    links.append(name)
                elif is_picture and member.sparse is not None:
                    sparse.append(name)
                elif place is not None:
                    places[member.name] = place
                    if _is_visible(name):
                        yield name, place
            _require_end(file, archive.offset)
    _refuse(path, links, "are links to other files; pack the files themselves, by tar --dereference")
    _refuse(path, sparse, "are stored in pieces; pack them without --sparse")


def _require_end(file: BinaryIO, offset: int) -> None:
    """tarfile takes the end of the file, or a damaged header, for the end of the archive, and reads nothing after it."""
    file.seek(offset)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise tarfile.ReadError(f"no member and no end mark at byte {offset}")
    while rest := file.read(2**20):
        if any(rest):
            raise tarfile.ReadError(f"there is more after its end mark at byte {offset}, as where archives were joined")


class ArchiveSource:
    """Pictures in archives. Each read opens its archive anew: no handle crosses a fork, and any number may be read from.

    Args:
        root: As in the option, for people.
        names: Pictures to use, out of `listing`.
        origin: What else picked the names (a list file), so that two lists over one root have caches of their own.
    """

    def __init__(
        self, root: str, names: list[str], listing: ArchiveListing, *, origin: str = "", max_pixels: int = MAX_PIXELS
    ) -> None:
        self.root, self.names, self.archives, self.max_pixels = root, NameList(names), listing.archives, max_pixels
        self._places = np.array([listing.places[name] for name in names], np.int64).reshape(-1, len(Place._fields))
        self.identity = f"archive {os.path.realpath(root)} {origin and os.path.realpath(origin)}"

    def label(self, index: int) -> str:
        archive = self.archives[self._places[index, 0]].path
        inside = self.names[index]
        return f"{archive}/{inside}" if len(self.archives) > 1 else f"{self.root}/{inside}"

    def stats(self) -> np.ndarray:
        """Sizes of the picture files; all of an archive share its time."""
        times = np.array([archive.state[1] for archive in self.archives], np.int64)
        places = self._places
        return np.stack([places[:, 3], times[places[:, 0]]], axis=1)

    def shape(self, index: int) -> Shape:
        header = read_header(io.BytesIO(self.encoded(index)), self.label(index))
        return header.height, header.width, header.channels

    def read(self, index: int) -> np.ndarray:
        return decode_image(self.encoded(index), self.label(index), max_pixels=self.max_pixels)

    def inspect(self, index: int) -> tuple[Shape, np.dtype]:
        return described(self.read(index))

    def encoded(self, index: int) -> bytes:
        place = Place(*self._places[index].tolist())
        archive = self.archives[place.archive]
        try:
            with open(archive.path, "rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_size, status.st_mtime_ns) != archive.state:
                    raise DataError(
                        f"{archive.path} has changed since it was opened; start again to read it as it is now"
                    )
                file.seek(place.offset)
                if archive.kind == "zip":
                    head = file.read(_LOCAL_HEADER)
                    if not head.startswith(b"PK\3\4"):
                        raise DataError(
                            f"{self.label(index)}: no header at byte {place.offset} of the zip; it is damaged"
                        )
                    file.seek(sum(struct.unpack("<HH", head[-4:])), os.SEEK_CUR)
                data = file.read(place.stored)
        except (OSError, struct.error) as error:
            raise DataError(f"{self.label(index)}: cannot be read ({error})") from error
        return data if place.crc < 0 else self._checked(index, place, data)

    def _checked(self, index: int, place: Place, data: bytes) -> bytes:
        """The file out of what a zip stores. DataError when it is not what was packed."""
        try:
            if place.method == zipfile.ZIP_DEFLATED:
                # The limit: a damaged file must not unfold to gigabytes.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, place.size + 1)
        except zlib.error as error:
            raise DataError(f"{self.label(index)}: damaged in the zip ({error})") from error
        if len(data) != place.size or zlib.crc32(data) != place.crc:
            raise DataError(f"{self.label(index)}: damaged in the zip (checksum); pack it again")
        return data
