"""The compose file and the collector's configuration, as far as they can be checked
without an engine: references that lead somewhere, settings that exist, what
Kubernetes' overlay says too.

    others.py compose.yaml collector.yaml
"""

import sys
from pathlib import Path

import yaml
from manifests import settings


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
    return faults


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
    faults = compose(Path(sys.argv[1]).resolve(), settings()) + collector(Path(sys.argv[2]))
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
