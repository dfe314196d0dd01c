"""Packs a folder as an image of one layer: an OCI archive that `docker load` reads
too. The same folder gives the same bytes.

    pack.py NAME ROOT PROGRAM USER ARCHIVE
"""

import gzip
import hashlib
import io
import json
import platform
import sys
import tarfile
import tomllib
from pathlib import Path

VERSION = tomllib.loads((Path(__file__).resolve().parents[2] / "Cargo.toml").read_text())["workspace"]["package"]["version"]
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def layer(root):
    """The folder as a tar, owned by root, without times."""

    def clean(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(root, arcname=".", filter=clean)
    return packed.getvalue()


def main():
    name, root, program, user, archive = sys.argv[1:6]
    tar = layer(root)
    blobs = {}

    def blob(content, media_type):
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "User": user,
            "Entrypoint": [program],
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": name, "org.opencontainers.image.version": VERSION},
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(gzip.compress(tar, 6, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    described = blob(json.dumps(manifest).encode(), manifest["mediaType"])
    described["annotations"] = {
        "io.containerd.image.name": f"docker.io/library/{name}:{VERSION}",
        "org.opencontainers.image.ref.name": VERSION,
    }
    path = lambda part: "blobs/sha256/" + part["digest"].removeprefix("sha256:")
    files = {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [described]}).encode(),
        # For engines that read only Docker's own archives.
        "manifest.json": json.dumps(
            [{"Config": path(manifest["config"]), "RepoTags": [f"{name}:{VERSION}"], "Layers": [path(l) for l in manifest["layers"]]}]
        ).encode(),
    } | {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
    with tarfile.open(archive, "w") as out:
        for file, content in files.items():
            info = tarfile.TarInfo(file)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main()
