"""Manifests of Kubernetes, and the little of kustomize that ours use: files, components, and JSON patches."""

from pathlib import Path
from typing import Any

import yaml
from core.support.processes import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "kubernetes"
BASE = FOLDER / "base"

Manifest = dict[str, Any]


def kustomization(folder: Path) -> Manifest:
    """Return what a folder's kustomization.yaml says."""
    loaded: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return loaded


def resources(folder: Path) -> list[Manifest]:
    """Return every manifest that a folder's kustomization names."""
    names = kustomization(folder)["resources"]
    return [manifest for name in names for manifest in yaml.safe_load_all((folder / name).read_text())]


def rendered(*components: Path) -> list[Manifest]:
    """Return the base's manifests and the components', patched. Names are not made unique: nothing here looks."""
    manifests = resources(BASE)
    for component in components:
        manifests += resources(component)
        for patch in kustomization(component).get("patches", []):
            target = find(manifests, patch["target"]["kind"], patch["target"]["name"])
            for operation in yaml.safe_load(patch["patch"]):
                _apply(target, operation)
    return manifests


def find(manifests: list[Manifest], kind: str, name: str = "gaiod") -> Manifest:
    """Return the one manifest of a kind and a name."""
    (found,) = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def _apply(manifest: Any, operation: Manifest) -> None:
    """Do one operation of RFC 6902, add or replace, whose path must exist."""
    *keys, last = operation["path"].strip("/").split("/")
    for each in keys:
        manifest = manifest[int(each) if isinstance(manifest, list) else each]
    if operation["op"] == "add" and last == "-":
        manifest.append(operation["value"])
        return
    key: int | str = int(last) if isinstance(manifest, list) else last
    assert operation["op"] == "replace"
    assert manifest[key] is not None, operation["path"]
    manifest[key] = operation["value"]
