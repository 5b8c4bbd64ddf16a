"""Ranges that numbers among a dataset's options must lie in."""

from __future__ import annotations

from srkit.errors import RefusedError


def require_within(name: str, value: float, high: float = 1.0, note: str = "") -> None:
    """RefusedError unless `value` lies in 0 to `high`; `note` says what that is."""
    if not 0 <= value <= high:
        raise RefusedError(f"{name} must lie in 0 to {high:g}{note and f' ({note})'}, got {value}")


def require_not_negative(name: str, value: float) -> None:
    """RefusedError for a negative value."""
    if not value >= 0:
        raise RefusedError(f"{name} must not be negative, got {value}")
