"""Rows of a page that say what a result was made with."""

from collections.abc import Mapping
from typing import Any


def provenance_rows(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return what a result was made with as rows {what: words}: each input with its hash, the seed, the versions."""
    rows = {
        f"{role} read": _words(record) for role, record in (provenance.get("inputs") or {}).items()
    }
    if provenance.get("seed") is not None:
        rows["seed"] = str(provenance["seed"])
    versions = provenance.get("versions") or {}
    if versions:
        rows["versions"] = ", ".join(f"{name} {value}" for name, value in versions.items())
    return rows


def _words(record: Mapping[str, Any]) -> str:
    parts = [str(record.get("name"))]
    if record.get("bytes") is not None:
        parts.append(f"{record['bytes']:,} bytes")
    if record.get("sha256"):
        how = {"sampled": " of samples", "tree": " of all its files"}.get(
            str(record.get("hashed")), ""
        )
        parts.append(f"SHA-256{how} {record['sha256']}")
    if record.get("voxels"):
        parts.append(f"voxels {record['voxels']}")
    return ", ".join(parts)
