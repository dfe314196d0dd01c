"""The compose file, the container file and the collector's configuration, as far as
they can be checked without an engine: references that lead somewhere, settings that
exist, versions that are the same everywhere.

    others.py compose.yaml collector.yaml
"""

import re
import sys
import tomllib
from pathlib import Path

import yaml
from manifests import MIB, ROOT, memory_bytes, needed_bytes, settings


def compose(path, known):
    faults = []
    given = yaml.safe_load(path.read_text())
    for name, service in given["services"].items():
        where = f"{path}: {name}"
        for other, wanted in service.get("depends_on", {}).items():
            if other not in given["services"]:
                faults.append(f"{where}: depends on {other}, which isn't there")
            elif wanted["condition"] == "service_healthy" and "healthcheck" not in given["services"][other]:
                faults.append(f"{where}: waits for the health of {other}, which has none")
        if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", []):
            faults.append(f"{where}: keeps privileges")
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                faults.append(f"{where}: {port} listens beyond loopback")
        build = service.get("build")
        if build and f"AS {build['target']}\n" not in (path.parent.parent / build["dockerfile"]).read_text():
            faults.append(f"{where}: the Dockerfile has no target {build['target']}")
        if build and (service["user"] != "65532:65532" or service.get("read_only") is not True):
            faults.append(f"{where}: must run as the image's user, on a read-only root")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            named, made = "/" not in source, source.startswith("../target/compose/")
            if (named and source not in given["volumes"]) or (not named and not made and not (path.parent / source).exists()):
                faults.append(f"{where}: there is no {source}")
        for variable in service.get("environment", {}):
            if variable not in known[f"sluice-{name}"]:
                faults.append(f"{where}: {variable}: no such setting")
        if f"sluice-{name}" in known:
            needed, limit = needed_bytes(f"sluice-{name}", service["environment"]), memory_bytes(service["mem_limit"])
            if needed > limit:
                faults.append(f"{where}: its settings let callers take {needed // MIB} MiB of {limit // MIB}")
    return faults


def images():
    """The container file, and the versions that name images."""
    faults = []
    path = ROOT / "deploy/images/Dockerfile"
    text, workspace = path.read_text(), tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    version, compiler = workspace["package"]["version"], workspace["package"]["rust-version"]
    if not re.search(rf"^FROM docker.io/library/rust:{re.escape(compiler)}\.\d+-bookworm AS build$", text, re.M):
        faults.append(f"{path}: is not built by Rust {compiler}, the version of Cargo.toml")
    if re.search(r"^# *syntax *=", text, re.M):
        faults.append(f"{path}: pulls its syntax, with which nothing is built without a registry")
    if "cargo build --release --locked " not in text:
        faults.append(f"{path}: may build other versions than those of Cargo.lock")
    built = re.search(r"cargo build (.*?);", text)[1]
    if set(re.findall(r"--package (\S+)", built)) != {"sluice-ingest", "sluice-results", "sluice"}:
        faults.append(f"{path}: cargo finds programs in its default member only, unless their packages are named")
    if "assemble --root-only " not in text:
        faults.append(f"{path}: needs Python, which the image of the compiler doesn't have")
    if "-${TARGETARCH},target=/src/target,sharing=locked" not in text:
        faults.append(f"{path}: a build for one kind of processor may take the programs of another")
    for named in re.findall(r"\bVERSION=(\S+)", text):
        if named != version:
            faults.append(f"{path}: is of version {named}, Cargo.toml of {version}")
    for stage in ("ingest", "results", "sluice"):
        body = text.split(f"FROM scratch AS {stage}\n")[1].split("\nFROM ")[0]
        for wanted in ("USER 65532:65532", "ENTRYPOINT [", "org.opencontainers.image.title=", "org.opencontainers.image.version="):
            if wanted not in body:
                faults.append(f"{path}: {stage} lacks {wanted}")
    # Everything is kept out but what is named.
    ignored = path.with_name("Dockerfile.dockerignore")
    rules = [line for line in ignored.read_text().splitlines() if line and not line.startswith("#")]
    let_in = {rule.removeprefix("!") for rule in rules[1:] if rule.startswith("!")}
    needed = {"Cargo.toml", "Cargo.lock", "proto", "deploy/images/assemble"} | {m.split("/")[0] for m in workspace["members"]}
    if rules[0] != "*" or let_in != needed:
        faults.append(f"{ignored}: lets in {sorted(let_in)} and not {sorted(needed)}")
    # A file elsewhere that the programs include would be missing there.
    for source in (ROOT / "crates").rglob("*.rs"):
        for included in re.findall(r'include_(?:str|bytes)!\(\s*"((?:\.\./)+[^"]+)"', source.read_text()):
            file = (source.parent / included).resolve()
            if not any(file.is_relative_to(ROOT / place) for place in needed):
                faults.append(f"{ignored}: {source} includes {included}")
    for file in (f for f in (ROOT / "deploy").rglob("*") if f.is_file() and f.suffix != ".pyc"):
        for named in re.findall(r"\bsluice(?:-ingest|-results)?:(\d+\.\d+\.\d+)", file.read_text()):
            if named != version:
                faults.append(f"{file}: names an image of version {named}, Cargo.toml says {version}")
    return faults


def postgres(compose_path):
    """A laptop has the same PostgreSQL, with an engine and with a cluster."""
    composed = yaml.safe_load(compose_path.read_text())["services"]["postgres"]["image"]
    overlay = (ROOT / "deploy/kubernetes/overlays/development/postgres.yaml").read_text()
    [clustered] = re.findall(r"image: (\S+)", overlay)
    return [] if composed == clustered else [f"compose has {composed}, the development overlay {clustered}"]


def collector(path):
    faults = []
    given = yaml.safe_load(path.read_text())
    used = {"extensions": set(given["service"]["extensions"])}
    for pipeline in given["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            used.setdefault(kind, set()).update(pipeline[kind])
    for kind, names in used.items():
        if names != set(given[kind]):
            faults.append(f"{path}: {kind}: used are {names}, set up {set(given[kind])}")
    for pipeline in given["service"]["pipelines"].values():
        if pipeline["processors"][0] != "memory_limiter" or pipeline["processors"][-1] != "batch":
            faults.append(f"{path}: memory is limited first, and batches are made last")
    if not given["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].endswith(":4317"):
        faults.append(f"{path}: the services send to port 4317")
    return faults


def main():
    composed = Path(sys.argv[1]).resolve()
    faults = compose(composed, settings()) + postgres(composed) + images() + collector(Path(sys.argv[2]))
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
