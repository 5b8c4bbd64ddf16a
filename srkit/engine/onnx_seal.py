"""The checksum that an ONNX file of srkit ends with, because one flipped bit of a weight is otherwise another network."""

from __future__ import annotations

import hashlib
from pathlib import Path

from srkit.errors import WeightsError

KEY = "srkit_sha256"
"""Name of the checksum among a file's metadata."""

# One more entry of ModelProto.metadata_props (field 14): protocol buffers may be put together end to end, so what stands
# before it stays as it was written, and readers of ONNX see an entry like any other.
_DIGITS = 64
_ENTRY = b"\x0a" + bytes([len(KEY)]) + KEY.encode() + b"\x12" + bytes([_DIGITS])
_START = b"\x72" + bytes([len(_ENTRY) + _DIGITS]) + _ENTRY
_LENGTH = len(_START) + _DIGITS
_CHUNK = 1 << 20


def sealed(content: bytes) -> bytes:
    """An ONNX file with the SHA-256 of all of it behind it."""
    return content + _START + hashlib.sha256(content).hexdigest().encode()


def require_unchanged(path: Path) -> None:
    """Raises: WeightsError for a file that ends with a checksum and is not what that was made of, or cannot be read. Files
    without one, of others and of older versions, pass.
    """
    try:
        with path.open("rb") as file:
            left = file.seek(0, 2) - _LENGTH
            file.seek(max(0, left))
            end = file.read()
            if not end.startswith(_START):
                return
            file.seek(0)
            found = hashlib.sha256()
            while left > 0:
                chunk = file.read(min(left, _CHUNK))
                found.update(chunk)
                left -= len(chunk) or left
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    if found.hexdigest().encode() != end[len(_START) :]:
        raise WeightsError(
            f"{path}: is not what srkit wrote: its SHA-256 differs from the one it ends with; damaged, or changed by another "
            f"program. Export it again; to use a changed one, remove '{KEY}' from its metadata"
        )
