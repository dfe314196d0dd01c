"""The pod in which an operator runs `sluice` (runbook/console.json), against
Kubernetes' schemas, Pod Security restricted, the command's own variables, and the
services and certificates of a rendered overlay.

    console.py console.json RENDERED.yaml
"""

import re
import sys
from pathlib import Path

from manifests import ROOT, Rendered, versions


def check(console, overlay):
    pod = console.of("Pod")["sluice-console"]["spec"]
    [container] = pod["containers"]
    # `kubectl run` merges what it makes into the container of this name.
    if container["name"] != "sluice-console" or "command" in container or "args" in container:
        console.fault("Pod", "its container must have the pod's name, and no command of its own")
    given = {v["name"]: v.get("value", "") for v in container["env"]}
    known = set(re.findall(r'env = "(SLUICE_\w+)"', (ROOT / "crates/sluice/src/target.rs").read_text()))
    for name in given.keys() - known:
        console.fault("Pod", f"{name}: the command knows no such variable")
    mounts = [m["mountPath"] for m in container["volumeMounts"]]
    for name, value in given.items():
        if name.endswith("_FILE") and value.rpartition("/")[0] not in mounts:
            console.fault("Pod", f"{name}: nothing is mounted at {value}")
    for variable, service in (("SLUICE_INGEST", "sluice-ingest"), ("SLUICE_RESULTS", "sluice-results")):
        host, port = re.fullmatch(r"https://([\w.-]+):(\d+)", given[variable]).groups()
        if host not in overlay.of("Certificate")[service]["spec"]["dnsNames"]:
            console.fault("Pod", f"{variable}: the certificate of {service} doesn't name {host}")
        if int(port) not in {p["port"] for p in overlay.of("Service")[service]["spec"]["ports"]}:
            console.fault("Pod", f"{variable}: {service} has no port {port}")


def main():
    console, overlay = (Rendered(path.name, path.read_text()) for path in map(Path, sys.argv[1:3]))
    both, _ = versions()
    console.schemas(both, set())
    console.restricted()
    check(console, overlay)
    print(*console.faults, sep="\n")
    sys.exit(bool(console.faults))


if __name__ == "__main__":
    main()
