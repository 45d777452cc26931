"""Secret files as a user would write them."""

from __future__ import annotations

from pathlib import Path


def secret(path: Path, content: str, mode: int = 0o600) -> Path:
    """Write a secret file and return its path."""
    path.write_text(content, "latin-1")
    path.chmod(mode)
    return path
