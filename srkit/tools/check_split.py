"""`srkit check-split`: what stands in two parts of a split: groups, equal files, near copies. Exits 9 on findings."""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from srkit.data.archives import archives_of
from srkit.data.checks import Findings
from srkit.data.folders import Folders
from srkit.data.pairing import meta_info_names
from srkit.data.sources import StoredSource, in_threads
from srkit.errors import DataError, ExitCode, RefusedError
from srkit.imaging.colour import luma_full
from srkit.imaging.files import decode_image
from srkit.imaging.volumes import find_volumes, is_nifti, read_volume
from srkit.tools.groups import add_key_arguments, keys_of

THUMBNAIL = 32
ALIKE = 0.98
_BLOCK = 512  # rows of a correlation matrix at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parts", nargs="+", type=Path, help="two or more: folders of pictures, or lists of names")
    parser.add_argument("--root", help="folder that the lists' names are relative to")
    add_key_arguments(parser, required=False)
    parser.add_argument("--recursive", action="store_true", help="also the folders below")


def run(flags: argparse.Namespace) -> ExitCode:
    if len(flags.parts) < 2 or len({str(part) for part in flags.parts}) < len(flags.parts):
        raise RefusedError("check-split compares two or more different parts")
    parts = [open_part(path, flags.root, flags.recursive) for path in flags.parts]
    found = []
    if flags.key is not None or flags.table is not None:
        found += shared_groups(parts, flags.key, flags.table)
    looked = [list(tqdm(in_threads(part.look, range(len(part.names))), part.title, disable=None)) for part in parts]
    findings = Findings("check-split", [])
    findings.add("files are unreadable", [look for looks in looked for look in looks if isinstance(look, str)])
    findings.refuse()
    seen = [Looks.of([look for look in looks if not isinstance(look, str)]) for looks in looked]
    found += equal_files(parts, seen)
    for (a, first), (b, second) in itertools.combinations(zip(parts, seen), 2):
        found += near_copies(a, first, b, second)
    for line in found:
        print(line)
    counts = ", ".join(f"{part.title} {len(part.names)}" for part in parts)
    print(f"{counts}: " + (f"{len(found)} findings" if found else "no picture, near copy or given group on two sides"))
    return ExitCode.INCOMPLETE if found else ExitCode.OK


@dataclass(frozen=True)
class Look:
    """SHA-256 of a file, and its thumbnail (THUMBNAIL**2,) with mean 0 and length 1, all 0 for a flat picture."""

    digest: bytes
    thumbnail: np.ndarray


@dataclass(frozen=True)
class Looks:
    """Of a whole part: digests, and thumbnails (N, THUMBNAIL**2)."""

    digests: list[bytes]
    thumbnails: np.ndarray

    @classmethod
    def of(cls, looks: Sequence[Look]) -> Looks:
        return cls([look.digest for look in looks], np.stack([look.thumbnail for look in looks]))


@dataclass(frozen=True)
class Volumes:
    """NIfTI files below a folder."""

    root: Path
    names: list[str]

    def label(self, k: int) -> str:
        return str(self.root / self.names[k])


@dataclass(frozen=True)
class Part:
    """One side of a split."""

    title: str
    source: StoredSource | Volumes
    names: list[str]

    def look(self, k: int) -> Look | str:
        try:
            if isinstance(self.source, Volumes):
                # Brains on one template look alike, so only equal voxels count, whatever packed them.
                voxels, _ = read_volume(self.source.label(k))
                return Look(hashlib.sha256(voxels.tobytes()).digest(), np.zeros(THUMBNAIL**2, np.float32))
            data = self.source.encoded(k)
            return Look(hashlib.sha256(data).digest(), thumbnail(decode_image(data, self.source.label(k))))
        except (DataError, OSError) as error:
            return str(error)


def open_part(path: Path, root: str | None, recursive: bool) -> Part:
    """A folder or archive, or the pictures or volumes a list names. Raises DataError."""
    if path.is_dir() and (volumes := find_volumes(path, recursive)):
        names = [volume.relative_to(path).as_posix() for volume in volumes]
        return Part(str(path), Volumes(path, names), names)
    is_archive = archives_of("part", str(path), "disk") is not None
    if path.is_file() and root is not None and not is_archive:
        names = meta_info_names(str(path))
        if all(is_nifti(name) for name in names):
            missing = [name for name in names if not (Path(root) / name).is_file()]
            findings = Findings(f"check-split {path}", [])
            findings.add(f"volumes are not in {root}", missing)
            findings.refuse()
            return Part(str(path), Volumes(Path(root), names), names)
    if path.is_dir() or is_archive:
        source, problems = Folders(recursive=recursive).open("part", str(path))
    elif root is None:
        raise RefusedError(f"{path} is a list of names: --root says in which folder they are")
    else:
        source, problems = Folders(meta_info_file=str(path)).open("--root", root)
    Findings(f"check-split {path}", problems).refuse()
    return Part(str(path), source, list(source.names))


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(THUMBNAIL**2,) float32 of mean 0 and length 1, whose product with another is their correlation; flat: zeros."""
    grey = luma_full(image)[..., 0].astype(np.float32)
    small = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return small / length if length > 1 else np.zeros_like(small)


def shared_groups(parts: Sequence[Part], pattern: str | None, table: Path | None) -> list[str]:
    holders: dict[str, list[str]] = defaultdict(list)
    for part in parts:
        for key in sorted(set(keys_of(part.names, pattern, table).values())):
            holders[key].append(part.title)
    return [f"group {key} stands in {' and '.join(where)}" for key, where in sorted(holders.items()) if len(where) > 1]


def equal_files(parts: Sequence[Part], seen: Sequence[Looks]) -> list[str]:
    """Files of equal bytes, also those in one part, where they count twice."""
    holders: dict[bytes, list[str]] = defaultdict(list)
    for part, looks in zip(parts, seen):
        for k, digest in enumerate(looks.digests):
            holders[digest].append(part.source.label(k))
    return [f"equal files: {' = '.join(where)}" for where in holders.values() if len(where) > 1]


def near_copies(a: Part, first: Looks, b: Part, second: Looks) -> list[str]:
    """Pictures of two parts whose thumbnails correlate above ALIKE and whose files differ."""
    lines = []
    for start in range(0, len(first.thumbnails), _BLOCK):
        alike = first.thumbnails[start : start + _BLOCK] @ second.thumbnails.T
        for row, k in np.argwhere(alike > ALIKE).tolist():
            if first.digests[start + row] != second.digests[k]:
                names = f"{a.source.label(start + row)} and {b.source.label(k)}"
                lines.append(f"near copies: {names} (correlation {alike[row, k]:.3f})")
    return lines
