"""The trained models that come with srkit: small files beside their cards, named by their stems."""

from __future__ import annotations

from pathlib import Path

from srkit.errors import WeightsError

FOLDER = Path(__file__).parent


def shipped() -> dict[str, Path]:
    """Name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}


def found(path: Path) -> Path:
    """The file of a model: `path` itself, or the one that comes with srkit when only its name is given.

    A file of the user's under the same name comes first.

    Raises: WeightsError for a bare word that is neither.
    """
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    own = shipped()
    if path.name not in own:
        raise WeightsError(f"{path}: no such file, nor a model that comes with srkit ({', '.join(own)})")
    return own[path.name]
