"""Each check of manifests.py can fail: rendered manifests are spoiled, one thing at a
time, and it must be told.

    spoiled_test.py FOLDER OF RENDERED MANIFESTS
"""

import re
import sys
from pathlib import Path

from manifests import Rendered, examine, secrets_documented, settings, versions

# Overlay, what is replaced everywhere (a regular expression), by what, what is told.
SPOILED = [
    # Too new for the oldest version, unknown to any, of the wrong type.
    ("production", r"( +)preStop:\n", r"\1stopSignal: SIGTERM\n\1preStop:\n", "Kubernetes 1.31.0: "),
    ("production", r"minReadySeconds: 5", "minReadySecond: 5", "Additional properties are not allowed"),
    ("production", r"minReadySeconds: 5", "minReadySeconds: five", "'five' is not of type"),
    ("development", r"kind: PodDisruptionBudget", "kind: DisruptionBudget", "Couldn't find schema for kind DisruptionBudget"),
    ("production", r"argocd.argoproj.io/hook: Sync", "argocd.argoproj.io/hook: PreSync", "is a hook of Argo CD: PreSync"),
    ("production", r"BeforeHookCreation", "HookSucceeded", "can't be run a second time by Argo CD"),
    ("production", r'sync-wave: "3"', 'sync-wave: "2"', "Deployment/sluice-ingest: is in Argo CD's wave 2 and not 3"),
    ("production", r'sync-wave: "-1"', 'sync-wave: "0"', "Issuer/sluice-ca: is in Argo CD's wave 0"),
    ("production", r'sync-wave: "-3"', 'sync-wave: "0"', "Namespace/sluice: is in Argo CD's wave 0"),
    ("production", r"Prune=false", "PruneLast=true", "is taken away"),
    ("production", r" +nodeTaintsPolicy: Honor\n", "", "counts nodes that no pod may go to"),
    ("production", r" +minDomains: 2\n", "", "minDomains must be 2"),
    ("development", r"whenUnsatisfiable: ScheduleAnyway", "whenUnsatisfiable: DoNotSchedule", "minDomains must be 2"),
    ("production", r" +matchLabelKeys:\n +- pod-template-hash\n", "", "counts the pods that a rollout replaces"),
    ("production", r"rotationPolicy: Never", "rotationPolicy: Always", "a CA keeps its key"),
    ("production", r"rotationPolicy: Always", "rotationPolicy: Never", "all others change theirs"),
    ("production", r"renewBefore: 720h", "renewBefore: 24h", "is renewed too late"),
    ("production", r"renewBefore: 8760h", "renewBefore: 2000h", "may end before a certificate that it signs"),
    ("production", r" +- sluice-ingest-headless\S*\n", "", "Certificate/sluice-ingest: names ['sluice-ingest']"),
    ("production", r"- sluice-results(-headless)?\.sluice", r"- sluice-results\1.other", "names another namespace than sluice"),
    ("production", r"secretName: sluice-keys", "secretName: sluice-ca", "mounts the key of the CA"),
    ("trust", r"SLUICE_RESULTS_CA_FILE: /etc/sluice/trust", "SLUICE_RESULTS_CA_FILE: /etc/sluice/tls", "trust different CAs"),
    ("production", r" +- 192.0.0.0/24\n", "", "lets 192.0.0.192 be reached"),
    ("production", r" +- fc00::/7\n", "", "lets fd00:ec2::254 be reached"),
    ("production", r" +- 64:ff9b::a9fe:0/112\n", "", "169.254.0.0/16 is reached through NAT64"),
    ("production", r"- ff00::/8", "- 10.1.0.0/16", "10.1.0.0/16 is not a part of ::/0"),
    ("production", r"- ff00::/8", '- "::ffff:0:0/96"', "::ffff:0:0/96 is not a part of ::/0"),
    ("production", r" +- port: 53\n +protocol: TCP\n", "", "come by TCP"),
    ("production", r"169.254.20.10/32", "169.254.20.11/32", "NodeLocal DNSCache"),
    ("production", r"cidr: 10.20.0.0/24", "cidr: 169.254.0.0/16", "lets 169.254.169.254 be reached"),
    ("development", r"defaultMode: 365", "defaultMode: 420", "its script is not run"),
    ("development", r"mountPath: /dev/shm", "mountPath: /shm", "has little shared memory"),
    ("development", r"test \$\? -lt 2", "test $? -lt 1", "is killed while it recovers"),
    ("development", r"max_connections=200", "fsync=off", "is not durable"),
    # What was checked before.
    ("production", r"pod-security.kubernetes.io/enforce: restricted", "pod-security.kubernetes.io/enforce: baseline", "must enforce restricted"),
    ("production", r"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRootFilesystem must be true"),
    ("production", r"runAsUser: 65532", "runAsUser: 0", "runAsUser must be a number above 0"),
    ("production", r"- ALL\n", "- NET_RAW\n", "capabilities must drop ALL"),
    ("production", r"SLUICE_LOG_FORMAT: json", "SLUICE_LOG_FORM: json", "SLUICE_LOG_FORM: no such setting"),
    ("production", r"secretName: sluice-keys", "secretName: sluice-other", "doesn't list the Secret sluice-other"),
    ("production", r"terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 30", "must be at least"),
    ("production", r'SLUICE_REQUESTS_IN_FLIGHT_MAX: "1024"', 'SLUICE_REQUESTS_IN_FLIGHT_MAX: "4096"', "let callers take 912 MiB of 640"),
    ("production", r"memory: 640Mi", "memory: 576Mi", "let callers take 640 MiB of 576"),
    ("production", r"maxUnavailable: 0", "maxUnavailable: 1", "a rolling update must never have fewer replicas"),
    ("production", r"sluice/step: serve", "sluice/step: migrate", "has the wrong label sluice/step"),
    ("production", r"port: 4317", "port: 4318", "sluice-ingest, egress"),
    ("production", r"name: admin\n( +)port:", r"name: metrics\n\1port:", "has no port"),
    ("production", r"name: default-deny", "name: deny", "there is no default-deny"),
    ("development", r"sluice-results-headless:7402", "sluice-results:7402", "must name a headless Service"),
]


def main():
    folder = Path(sys.argv[1])
    known, documented, (both, _) = settings(), secrets_documented(), versions()
    texts = {name: (folder / f"{name}.yaml").read_text() for name in ("development", "production", "trust")}
    seen = set()
    for name, text in texts.items():
        Rendered(name, text).schemas(both, seen)
    silent = []
    for name, pattern, by, told in SPOILED:
        text, changes = re.subn(pattern, by, texts[name])
        rendered = Rendered(name, text)
        rendered.schemas(both, seen)
        try:
            examine(rendered, known, documented)
        except (KeyError, TypeError, ValueError):
            # It broke on what a schema refuses.
            if not rendered.faults:
                raise
        if not changes or not any(told in fault for fault in rendered.faults):
            silent.append(f"{name}, {pattern}: {changes} changes, and nobody says {told!r} but {rendered.faults[:3]}")
    print(*silent, sep="\n")
    sys.exit(bool(silent))


if __name__ == "__main__":
    main()
