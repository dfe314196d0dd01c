"""Rendered manifests against Kubernetes' schemas, against Pod Security
*restricted*, and against each other: settings that exist, Secrets that
deploy/README.md lists, files that are mounted, addresses that are served, time to stop in.

    manifests.py RENDERED.yaml...

The first is the base alone, which is held against the schemas only.
"""

import math
import re
import sys
from pathlib import Path

import kubernetes_validate.utils
import operating
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Of other projects, without a schema here; those of Prometheus are read by promtool.
CUSTOM = {"Issuer", "Certificate", "ServiceMonitor", "PrometheusRule"}
SERVICES = ("sluice-ingest", "sluice-results")
# After the deadline: what was accepted is flushed (deploy/SETTINGS.md says how long), the last
# spans go, the runtime ends.
FLUSHED = r"^\| `shutdown_deadline_seconds` \|.* flushed, for up to (\d+) seconds \|$"
AFTER_DEADLINE_SECONDS = int(re.search(FLUSHED, (ROOT / "deploy/SETTINGS.md").read_text(), re.M)[1]) + 2 + 1

MIB = 1024 * 1024
# What a process takes that nobody asks anything of, its definitions and sessions included.
BASE_BYTES = 64 * MIB


def constant(file, name):
    """A constant of the sources, a product of numbers."""
    [product] = re.findall(rf"^(?:pub\(super\) )?const {name}: \w+ = ([\d *]+);$", (ROOT / file).read_text(), re.M)
    return math.prod(map(int, product.split(" * ")))


# What a request's stream holds that nobody has read yet.
WINDOW_BYTES = constant("crates/service/src/serve.rs", "STREAM_WINDOW_BYTES")
# What waits for the database. Of callers who have gone, nothing else counts it.
WAITING_BYTES = {
    "sluice-ingest": constant("crates/ingest/src/committer/entry.rs", "WAITING_BYTES_MAX"),
    "sluice-results": constant("crates/results/src/recorder/mod.rs", "QUEUE_KIBIBYTES_MAX") * 1024,
}


def memory_bytes(quantity):
    """Bytes of a limit such as 512Mi or 1Gi, or 512m for a container engine."""
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi|m)", quantity).groups()
    return int(number) * {"Mi": 1, "m": 1, "Gi": 1024}[unit] * MIB


def settings():
    """Names of all settings by service, from the table in deploy/SETTINGS.md, which a
    test holds against the code."""
    rows = re.findall(r"^\| `(\w+)` \| (ingest|results|both) \|", (ROOT / "deploy/SETTINGS.md").read_text(), re.M)
    found = {"sluice-ingest": set(), "sluice-results": set()}
    for name, of in rows:
        for service in SERVICES:
            if of in ("both", service.removeprefix("sluice-")):
                found[service].add("SLUICE_" + name.upper())
    assert "SLUICE_LISTEN" in found["sluice-ingest"], "deploy/SETTINGS.md has no table of settings any more"
    return found


def defaults():
    """The settings' defaults by name, from the same table. The same name may stand in it
    for each service; those asked for here are the same in both."""
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| `([^`]*)` \|", (ROOT / "deploy/SETTINGS.md").read_text(), re.M)
    return {"SLUICE_" + name.upper(): value for name, value in rows}


def versions():
    """The oldest Kubernetes that deploy/README.md promises, and the newest whose schemas
    we have; the texts must name these two."""
    oldest = re.search(r"^Needed: Kubernetes ([\d.]+) or newer", (ROOT / "deploy/README.md").read_text(), re.M)[1]
    known = {kubernetes_validate.utils.major_minor(version): version for version in kubernetes_validate.utils.all_versions()}
    newest = kubernetes_validate.utils.major_minor(kubernetes_validate.utils.latest_version())
    faults = [] if oldest in known else [f"there are no schemas of Kubernetes {oldest}"]
    for file, sentence in (
        ("deploy/README.md", f"against Kubernetes' schemas of {oldest} and {newest}"),
        ("deploy/kubernetes/base/kustomization.yaml", f"# Kubernetes {oldest} or newer."),
    ):
        if sentence not in (ROOT / file).read_text():
            faults.append(f"{file} doesn't say: {sentence}")
    return [known[v] for v in (oldest, newest) if v in known], faults


def secrets_documented():
    """Names and keys of the Secrets in deploy/README.md's table."""
    rows = re.findall(r"^\| `([\w-]+)` \| ((?:`[\w.-]+`(?:, )?)+) \|", (ROOT / "deploy/README.md").read_text(), re.M)
    return {name: set(re.findall(r"`([\w.-]+)`", keys)) for name, keys in rows}


DEFAULTS = defaults()


def needed_bytes(service, given):
    """What the settings let callers take, all at once; it must fit into the limit."""
    of = lambda setting: int(given.get(setting, DEFAULTS[setting]))
    needed = BASE_BYTES + WAITING_BYTES[service] + of("SLUICE_REQUESTS_IN_FLIGHT_MAX") * WINDOW_BYTES
    needed += of("SLUICE_BODY_BYTES_IN_FLIGHT_MAX") + of("SLUICE_ANSWER_BYTES_IN_FLIGHT_MAX")
    if service == "sluice-results":
        return needed + of("SLUICE_FILE_BYTES_IN_FLIGHT_MAX") + of("SLUICE_RECENT_BYTES_MAX")
    # The last: what publishers' open streams keep.
    return needed + of("SLUICE_FILES_MAX") * of("SLUICE_OBSERVATION_BYTES_MAX") + of("SLUICE_BODY_BYTES_IN_FLIGHT_MAX")


class Rendered:
    """One rendered overlay, and the faults found in it."""

    def __init__(self, name, text):
        self.name = name
        self.objects = [o for o in yaml.load_all(text, yaml.CSafeLoader) if o]
        self.faults = []

    def fault(self, where, what):
        self.faults.append(f"{self.name}: {where}: {what}")

    def of(self, kind):
        return {o["metadata"]["name"]: o for o in self.objects if o["kind"] == kind}

    def templates(self):
        """Every pod there will be: its owner's name and its template."""
        for kind in ("Deployment", "StatefulSet", "Job"):
            for name, owner in self.of(kind).items():
                yield f"{kind}/{name}", owner["spec"]["template"]
        for name, pod in self.of("Pod").items():
            yield f"Pod/{name}", pod

    def schemas(self, versions, seen):
        """Against the schemas of each version. What is in `seen` was found good."""
        for o in (o for o in self.objects if o["kind"] not in CUSTOM):
            for version in versions:
                key = (version, repr(o))
                if key in seen:
                    continue
                try:
                    kubernetes_validate.validate(o, version, strict=True)
                    seen.add(key)
                except kubernetes_validate.SchemaNotFoundError as error:
                    self.fault(f"{o['kind']}/{o['metadata']['name']}", error.message)
                except kubernetes_validate.ValidationError as error:
                    self.fault(f"{o['kind']}/{o['metadata']['name']}", f"Kubernetes {version}: {error.message}")

    def restricted(self):
        """Pod Security Standards, restricted, v1.37, control by control."""
        allowed_volumes = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
        for where, template in self.templates():
            spec = template["spec"]
            context = spec.get("securityContext", {})
            for field in ("hostNetwork", "hostPID", "hostIPC"):
                if spec.get(field):
                    self.fault(where, f"{field} is on")
            for volume in spec.get("volumes", []):
                kinds = set(volume) - {"name"}
                if not kinds <= allowed_volumes:
                    self.fault(where, f"volume {volume['name']} is {kinds}")
            if context.get("sysctls"):
                self.fault(where, "sets sysctls")
            for c in spec["containers"] + spec.get("initContainers", []):
                own = c.get("securityContext", {})
                both = {**context, **own}
                checks = {
                    "allowPrivilegeEscalation must be false": own.get("allowPrivilegeEscalation") is False,
                    "runAsNonRoot must be true": both.get("runAsNonRoot") is True,
                    "runAsUser must be a number above 0": isinstance(both.get("runAsUser"), int) and both["runAsUser"] > 0,
                    "seccompProfile must be RuntimeDefault": both.get("seccompProfile", {}).get("type") == "RuntimeDefault",
                    "capabilities must drop ALL": own.get("capabilities") == {"drop": ["ALL"]},
                    "privileged": not own.get("privileged"),
                    "has host ports": not any(p.get("hostPort") for p in c.get("ports", [])),
                    # Beyond restricted:
                    "readOnlyRootFilesystem must be true": own.get("readOnlyRootFilesystem") is True,
                    "requests and limits must be set": all(
                        c.get("resources", {}).get(k, {}).keys() >= {"cpu", "memory"} for k in ("requests", "limits")
                    ),
                    "image must have a version": re.search(r":(?!latest$)[\w.-]+$", c["image"]) is not None,
                }
                for what, holds in checks.items():
                    if not holds:
                        self.fault(f"{where}/{c['name']}", what)
            if spec.get("automountServiceAccountToken") is not False:
                self.fault(where, "mounts a token for the Kubernetes API")
            if spec.get("enableServiceLinks") is not False:
                self.fault(where, "gets variables of Services, which begin with SLUICE_ too")

    def accounts(self):
        spaces = self.of("Namespace").values()
        levels = [s["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") for s in spaces]
        if levels != ["restricted"]:
            self.fault("Namespace", "must enforce restricted")
        for where, template in self.templates():
            account = self.of("ServiceAccount").get(template["spec"].get("serviceAccountName"))
            if account is None or account.get("automountServiceAccountToken") is not False:
                self.fault(where, "has no account of its own without a token")

    def environment(self, container):
        """Variables of a container, from its ConfigMaps and its own list."""
        found = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                config = self.of("ConfigMap").get(source["configMapRef"]["name"])
                if config is None:
                    self.fault(container["name"], f"there is no ConfigMap {source}")
                    continue
                found.update(config["data"])
        for variable in container.get("env", []):
            found[variable["name"]] = variable.get("value", "")
        return found

    def variables(self, known):
        for name in SERVICES:
            template = self.of("Deployment")[name]["spec"]["template"]["spec"]
            container = template["containers"][0]
            given = self.environment(container)
            for variable in given.keys() - known[name]:
                self.fault(name, f"{variable}: no such setting")
            mounts = [m["mountPath"] for m in container["volumeMounts"]]
            for variable, value in given.items():
                if variable.endswith("_FILE") and not any(value.startswith(m + "/") for m in mounts):
                    self.fault(name, f"{variable}: nothing is mounted at {value}")
            plain, tls = given.get("SLUICE_PLAINTEXT") == "true", "SLUICE_TLS_CERTIFICATE_FILE" in given
            if plain == tls:
                self.fault(name, "must serve either plain text or TLS")
            self.ports(name, container, given)
            self.stopping(name, template, container, given)
            self.memory(name, container, given)
            self.probes(name, container)
        for where, template in self.templates():
            if where.startswith("Job/"):
                owner = {v["name"] for v in template["spec"]["containers"][0]["env"]}
                if "SLUICE_DATABASE_OWNER_URL" not in owner:
                    self.fault(where, "doesn't know the owner of its database")

    def ports(self, name, container, given):
        listens = {given[f"SLUICE_{which}LISTEN"].rsplit(":", 1)[1] for which in ("", "HEALTH_", "ADMIN_")}
        named = {str(p["containerPort"]) for p in container["ports"]}
        if listens != named:
            self.fault(name, f"listens on {listens}, and its ports are {named}")
        if name == "sluice-ingest":
            url = re.fullmatch(r"(https?)://([\w-]+):(\d+)", given.get("SLUICE_RESULTS_URL", ""))
            service = self.of("Service").get(url[2]) if url else None
            if service is None or service["spec"].get("clusterIP") != "None":
                self.fault(name, "results_url must name a headless Service")
            elif int(url[3]) not in {p["port"] for p in service["spec"]["ports"]}:
                self.fault(name, "results_url has another port than its Service")
            certificates = self.of("Certificate")
            if url and (url[1] == "https") != bool(certificates):
                self.fault(name, "results_url has the wrong scheme")
            if certificates and url and url[2] not in certificates["sluice-results"]["spec"]["dnsNames"]:
                self.fault(name, f"the certificate of results doesn't name {url[2]}")

    def stopping(self, name, pod, container, given):
        sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        wait, deadline = int(given["SLUICE_SHUTDOWN_WAIT_SECONDS"]), int(given["SLUICE_SHUTDOWN_DEADLINE_SECONDS"])
        needed = sleep + deadline + AFTER_DEADLINE_SECONDS
        if pod["terminationGracePeriodSeconds"] < needed:
            self.fault(name, f"terminationGracePeriodSeconds must be at least {needed}")
        ready = container["readinessProbe"]
        if sleep + wait < ready["periodSeconds"] * ready["failureThreshold"]:
            self.fault(name, "stops before its readiness probe can have told anybody")

    def memory(self, name, container, given):
        needed, limit = needed_bytes(name, given), memory_bytes(container["resources"]["limits"]["memory"])
        if needed > limit:
            self.fault(name, f"its settings let callers take {needed // MIB} MiB of {limit // MIB}")

    def probes(self, name, container):
        for probe, service in (("startupProbe", "liveness"), ("livenessProbe", "liveness"), ("readinessProbe", None)):
            if container[probe]["grpc"] != {"port": 7410} | ({"service": service} if service else {}):
                self.fault(name, f"{probe} must ask grpc.health.v1 on the plaintext port")

    def secrets(self, documented):
        """Secrets are named, never contained; certificates' are cert-manager's."""
        for name in self.of("Secret"):
            self.fault(f"Secret/{name}", "must be made by the operator, not kept here")
        made = {c["spec"]["secretName"] for c in self.of("Certificate").values()}
        for where, template in self.templates():
            wanted = []
            for c in template["spec"]["containers"]:
                refs = [v["valueFrom"]["secretKeyRef"] for v in c.get("env", []) if "valueFrom" in v]
                wanted += [(r["name"], r["key"]) for r in refs]
                wanted += [(s["secretRef"]["name"], None) for s in c.get("envFrom", []) if "secretRef" in s]
                mounted = {m["mountPath"]: m["name"] for m in c.get("volumeMounts", [])}
                volumes = {v["name"]: v["secret"]["secretName"] for v in template["spec"].get("volumes", []) if "secret" in v}
                for variable, value in self.environment(c).items():
                    folder, _, file = value.rpartition("/")
                    if variable.endswith("_FILE") and mounted.get(folder) in volumes:
                        wanted.append((volumes[mounted[folder]], file))
            for secret, key in wanted:
                if secret in made:
                    continue
                if secret not in documented or (key and key not in documented[secret]):
                    self.fault(where, f"deploy/README.md doesn't list the Secret {secret} with {key}")

    def availability(self):
        for name in SERVICES:
            deployment = self.of("Deployment")[name]["spec"]
            scaler = self.of("HorizontalPodAutoscaler").get(name)
            if ("replicas" in deployment) == (scaler is not None):
                self.fault(name, "its number of replicas must have exactly one owner")
            least = deployment.get("replicas") or scaler["spec"]["minReplicas"]
            budget = self.of("PodDisruptionBudget")[name]["spec"]
            if least < 2 or budget.get("maxUnavailable") != 1:
                self.fault(name, "must have two replicas, of which one may be away")
            if deployment["strategy"]["rollingUpdate"] != {"maxSurge": 1, "maxUnavailable": 0}:
                self.fault(name, "a rolling update must never have fewer replicas")
            pod = deployment["template"]["spec"]
            keys = [t["topologyKey"] for t in pod["topologySpreadConstraints"]]
            if keys != ["topology.kubernetes.io/zone", "kubernetes.io/hostname"] or "podAntiAffinity" not in pod["affinity"]:
                self.fault(name, "must spread over zones and nodes")

    def selectors(self):
        pods = [t["metadata"]["labels"] for _, t in self.templates()]
        for kind, field in (("Service", None), ("PodDisruptionBudget", "matchLabels")):
            for name, o in self.of(kind).items():
                selector = o["spec"]["selector"]
                selector = selector[field] if field else selector
                if not any(selector.items() <= labels.items() for labels in pods):
                    self.fault(f"{kind}/{name}", "selects no pod")

    def steps(self):
        """The labels that `apply` goes by."""
        steps = {"Deployment": "serve", "Job": "migrate"}
        for o in self.objects:
            if o["metadata"].get("labels", {}).get("sluice/step") != steps.get(o["kind"]):
                self.fault(f"{o['kind']}/{o['metadata']['name']}", "has the wrong label sluice/step")

    def network(self):
        policies = self.of("NetworkPolicy")
        deny = policies.get("default-deny", {}).get("spec")
        if deny != {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}:
            self.fault("NetworkPolicy", "there is no default-deny")
        for name, policy in policies.items():
            for rule in policy["spec"].get("egress", []):
                if "to" not in rule or "ports" not in rule:
                    self.fault(f"NetworkPolicy/{name}", "lets everything out")
        needs = {
            ("sluice-ingest", "egress"): {7402, 5432, 53},
            ("sluice-results", "egress"): {5432, 443, 53},
            ("sluice-migrate", "egress"): {5432, 53},
            ("sluice-ingest", "ingress"): {7401},
            ("sluice-results", "ingress"): {7402},
            ("sluice-migrate", "ingress"): set(),
        }
        # What components add.
        for service in SERVICES:
            if "traces" in policies:
                needs[service, "egress"].add(4317)
            if "metrics" in policies:
                needs[service, "ingress"].add(7411)
        for (service, direction), wanted in needs.items():
            labels = {"app.kubernetes.io/name": service, "app.kubernetes.io/part-of": "sluice"}
            found = set()
            for policy in policies.values():
                if selects(policy["spec"]["podSelector"], labels):
                    found |= {p["port"] for rule in policy["spec"].get(direction, []) for p in rule["ports"]}
            if found != wanted:
                self.fault("NetworkPolicy", f"{service}, {direction}: {sorted(found)} instead of {sorted(wanted)}")

    def monitors(self):
        for name, monitor in self.of("ServiceMonitor").items():
            wanted = monitor["spec"]["selector"]["matchLabels"]
            chosen = [s for s in self.of("Service").values() if wanted.items() <= s["metadata"].get("labels", {}).items()]
            jobs = {s["metadata"]["labels"][monitor["spec"]["jobLabel"]] for s in chosen}
            if jobs != set(SERVICES):
                self.fault(f"ServiceMonitor/{name}", f"scrapes {jobs}")
            ports = {e["port"] for e in monitor["spec"]["endpoints"]}
            for s in chosen:
                if not ports <= {p["name"] for p in s["spec"]["ports"]}:
                    self.fault(f"ServiceMonitor/{name}", f"{s['metadata']['name']} has no port {ports}")


def selects(selector, labels):
    """Whether a label selector fits."""
    fits = all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())
    for e in selector.get("matchExpressions", []):
        assert e["operator"] == "In", e
        fits = fits and labels.get(e["key"]) in e["values"]
    return fits


def examine(rendered, known, documented):
    rendered.restricted()
    rendered.accounts()
    rendered.variables(known)
    rendered.secrets(documented)
    rendered.availability()
    rendered.selectors()
    rendered.steps()
    rendered.network()
    rendered.monitors()
    operating.check(rendered)


def main():
    known, documented = settings(), secrets_documented()
    base, *overlays = [Rendered(path.name, path.read_text()) for path in map(Path, sys.argv[1:])]
    both, faults = versions()
    seen = set()
    for rendered in [base, *overlays]:
        rendered.schemas(both, seen)
    for rendered in overlays:
        examine(rendered, known, documented)
    faults += [f for rendered in [base, *overlays] for f in rendered.faults]
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
