"""What a rehearsal with processes must know of a rendered Deployment: how a pod is
probed, stopped and replaced. Kept in a file, so that the rehearsal, a test of the
workspace, needs no kubectl; this holds that file against the manifests.

    rollout.py RENDERED.yaml KEPT.json [--write]
"""

import json
import sys
from pathlib import Path

import yaml

PROBE = ("periodSeconds", "timeoutSeconds", "failureThreshold")


def of(objects, name):
    """One Deployment's."""
    pick = lambda kind: next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    deployment = pick("Deployment")["spec"]
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    config = container["envFrom"][0]["configMapRef"]["name"]
    environment = next(o for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == config)["data"]
    return {
        "replicas": deployment.get("replicas") or pick("HorizontalPodAutoscaler")["spec"]["minReplicas"],
        "max_surge": deployment["strategy"]["rollingUpdate"]["maxSurge"],
        "max_unavailable": deployment["strategy"]["rollingUpdate"]["maxUnavailable"],
        "min_ready_seconds": deployment["minReadySeconds"],
        "pre_stop_seconds": container["lifecycle"]["preStop"]["sleep"]["seconds"],
        "grace_seconds": pod["terminationGracePeriodSeconds"],
        "liveness": {"service": container["livenessProbe"]["grpc"].get("service", ""), **probe(container["livenessProbe"])},
        "readiness": {"service": container["readinessProbe"]["grpc"].get("service", ""), **probe(container["readinessProbe"])},
        "environment": {k: v for k, v in sorted(environment.items()) if k.startswith("SLUICE_SHUTDOWN_")},
    }


def probe(given):
    snake = {"periodSeconds": "period_seconds", "timeoutSeconds": "timeout_seconds", "failureThreshold": "failure_threshold"}
    return {snake[field]: given[field] for field in PROBE}


def main():
    rendered, kept = map(Path, sys.argv[1:3])
    objects = [o for o in yaml.safe_load_all(rendered.read_text()) if o]
    text = json.dumps({name: of(objects, f"sluice-{name}") for name in ("ingest", "results")}, indent=2) + "\n"
    if "--write" in sys.argv:
        kept.write_text(text)
    if not kept.exists() or kept.read_text() != text:
        sys.exit(f"{kept} is not what the manifests say: run deploy/check --write")


if __name__ == "__main__":
    main()
