"""What an operator would find only in a cluster, seen in rendered manifests: the order
in which Argo CD applies them, how pods spread, a CA that outlives its renewal,
networks that can't be written so, and how PostgreSQL starts. manifests.py calls it.
"""

import ipaddress
import re

SERVICES = ("sluice-ingest", "sluice-results")
WAVE = "argocd.argoproj.io/sync-wave"
# Where clouds tell a machine its credentials: AWS, Google and Azure; Alibaba; Oracle;
# AWS and Google by IPv6; the first by NAT64.
METADATA = ("169.254.169.254", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254", "64:ff9b::a9fe:a9fe")
NODE_LOCAL_DNS = "169.254.20.10/32"


def check(rendered):
    for part in (waves, spread, issued, trusted, blocks, name_service, first_start):
        part(rendered)


def wave(o):
    return int(o["metadata"].get("annotations", {}).get(WAVE, "0"))


def waves(rendered):
    """Argo CD applies a wave when the one before is healthy; hooks of the sync are in
    their waves like everything else, those of PreSync before anything is there."""
    wanted = {"Namespace": -3, "Job": 1, "HorizontalPodAutoscaler": 4, "PodDisruptionBudget": 4}
    named = {("Deployment", "sluice-results"): 2, ("Deployment", "sluice-ingest"): 3}
    # Each of these is not healthy before what it stands on is there.
    named |= {("Issuer", "sluice-self-signed"): -3, ("Certificate", "sluice-ca"): -2, ("Issuer", "sluice-ca"): -1}
    for o in rendered.objects:
        kind, name, notes = o["kind"], o["metadata"]["name"], o["metadata"].get("annotations", {})
        expected = named.get((kind, name), wanted.get(kind, 0))
        if wave(o) != expected:
            rendered.fault(f"{kind}/{name}", f"is in Argo CD's wave {wave(o)} and not {expected}")
        hook = notes.get("argocd.argoproj.io/hook")
        if hook != ("Sync" if kind == "Job" else None):
            rendered.fault(f"{kind}/{name}", f"is a hook of Argo CD: {hook}")
        if kind == "Job" and notes.get("argocd.argoproj.io/hook-delete-policy") != "BeforeHookCreation":
            rendered.fault(f"{kind}/{name}", "can't be run a second time by Argo CD")
        config = kind == "ConfigMap" and name.startswith(SERVICES)
        kept = {"argocd.argoproj.io/sync-options": "Prune=false", "argocd.argoproj.io/compare-options": "IgnoreExtraneous"}
        if config and not kept.items() <= notes.items():
            rendered.fault(f"{kind}/{name}", "is taken away, and a pod of before can't start any more")


def spread(rendered):
    for name in SERVICES:
        pod = rendered.of("Deployment")[name]["spec"]["template"]["spec"]
        for constraint in pod["topologySpreadConstraints"]:
            where = f"{name}, {constraint['topologyKey']}"
            if (constraint.get("nodeTaintsPolicy"), constraint.get("nodeAffinityPolicy")) != ("Honor", "Honor"):
                rendered.fault(where, "counts nodes that no pod may go to")
            strict = constraint["whenUnsatisfiable"] == "DoNotSchedule"
            # The API server takes minDomains only with DoNotSchedule.
            if constraint.get("minDomains") != (2 if strict else None):
                rendered.fault(where, "minDomains must be 2 where the spread is strict, and nowhere else")
            if constraint.get("matchLabelKeys") != ["pod-template-hash"]:
                rendered.fault(where, "counts the pods that a rollout replaces")


def issued(rendered):
    certificates, services = rendered.of("Certificate"), set(rendered.of("Service"))
    for name, certificate in certificates.items():
        spec, key = certificate["spec"], certificate["spec"]["privateKey"]
        hours = lambda field: int(re.fullmatch(r"(\d+)h", spec[field])[1])
        if key.get("rotationPolicy") != ("Never" if spec.get("isCA") else "Always"):
            rendered.fault(f"Certificate/{name}", "a CA keeps its key when it is renewed, all others change theirs")
        if hours("renewBefore") * 5 < hours("duration"):
            rendered.fault(f"Certificate/{name}", "is renewed too late for somebody to mend a fault")
        for leaf in certificates.values():
            ours = spec.get("isCA") and leaf["spec"]["issuerRef"]["name"] == name
            if ours and hours("renewBefore") < int(leaf["spec"]["duration"].removesuffix("h")):
                rendered.fault(f"Certificate/{name}", "may end before a certificate that it signs")
        if not spec.get("isCA"):
            hosts = {host.split(".")[0] for host in spec["dnsNames"]}
            if hosts != {s for s in services if s.removesuffix("-headless") == name}:
                rendered.fault(f"Certificate/{name}", f"names {sorted(hosts)}")
            space = rendered.of("Deployment")[name]["metadata"]["namespace"]
            if any(host.split(".")[1:2] not in ([], [space]) for host in spec["dnsNames"]):
                rendered.fault(f"Certificate/{name}", f"names another namespace than {space}")


def trusted(rendered):
    certificates = rendered.of("Certificate")
    cas = {c["spec"]["secretName"] for c in certificates.values() if c["spec"].get("isCA")}
    for where, template in rendered.templates():
        if cas & {v.get("secret", {}).get("secretName") for v in template["spec"].get("volumes", [])}:
            rendered.fault(where, "mounts the key of the CA")
    # Each service trusts what the other trusts: a CA that only one knows cuts them off.
    files = set()
    for name in SERVICES:
        [container] = rendered.of("Deployment")[name]["spec"]["template"]["spec"]["containers"]
        given = rendered.environment(container)
        files |= {given.get(v) for v in ("SLUICE_TLS_CLIENT_CA_FILE", "SLUICE_RESULTS_CA_FILE")} - {None}
    if certificates and len(files) != 1:
        rendered.fault("Certificate", f"the services trust different CAs: {sorted(files)}")


def blocks(rendered):
    for name, policy in rendered.of("NetworkPolicy").items():
        rules = policy["spec"].get("egress", []) + policy["spec"].get("ingress", [])
        peers = [peer for rule in rules for peer in rule.get("to", []) + rule.get("from", [])]
        for block in (peer["ipBlock"] for peer in peers if "ipBlock" in peer):
            whole = ipaddress.ip_network(block["cidr"])
            except_ = [ipaddress.ip_network(net) for net in block.get("except", [])]
            # As the API server has it.
            for net in except_:
                mapped = net.version == 6 and net.network_address.ipv4_mapped
                if net.version != whole.version or mapped or net == whole or not net.subnet_of(whole):
                    rendered.fault(f"NetworkPolicy/{name}", f"{net} is not a part of {whole}")
            for address in map(ipaddress.ip_address, METADATA):
                if address in whole and not any(address in net for net in except_):
                    rendered.fault(f"NetworkPolicy/{name}", f"lets {address} be reached, where clouds tell credentials")
            for net in except_ if whole.prefixlen == 0 and whole.version == 4 else []:
                through = ipaddress.ip_network((int(ipaddress.ip_address("64:ff9b::")) + int(net.network_address), 96 + net.prefixlen))
                if through not in translated(policy):
                    rendered.fault(f"NetworkPolicy/{name}", f"{net} is reached through NAT64: {through}")


def translated(policy):
    """The parts that the policy's IPv6 blocks leave out."""
    peers = [peer for rule in policy["spec"]["egress"] for peer in rule["to"] if "ipBlock" in peer]
    return {ipaddress.ip_network(net) for peer in peers for net in peer["ipBlock"].get("except", [])}


def name_service(rendered):
    rules = rendered.of("NetworkPolicy")["dns"]["spec"]["egress"]
    ports = {(p["protocol"], p["port"]) for rule in rules for p in rule["ports"]}
    if ports != {("UDP", 53), ("TCP", 53)}:
        rendered.fault("NetworkPolicy/dns", "answers that don't fit into a datagram come by TCP")
    if not any(peer.get("ipBlock", {}).get("cidr") == NODE_LOCAL_DNS for rule in rules for peer in rule["to"]):
        rendered.fault("NetworkPolicy/dns", f"NodeLocal DNSCache ({NODE_LOCAL_DNS}) can't be reached")


def first_start(rendered):
    """The development overlay's PostgreSQL."""
    for name, owner in rendered.of("StatefulSet").items():
        pod = owner["spec"]["template"]["spec"]
        [container] = pod["containers"]
        volumes = {v["name"]: v for v in pod["volumes"]}
        mounts = {m["mountPath"]: volumes.get(m["name"], {}) for m in container["volumeMounts"]}
        script = mounts.get("/docker-entrypoint-initdb.d", {}).get("configMap", {})
        if script.get("defaultMode") != 0o555:
            rendered.fault(f"StatefulSet/{name}", "its script is not run, but read into the image's own")
        if "/dev/shm" not in mounts:
            rendered.fault(f"StatefulSet/{name}", "has little shared memory")
        if "test $? -lt 2" not in container["livenessProbe"]["exec"]["command"][-1]:
            rendered.fault(f"StatefulSet/{name}", "is killed while it recovers")
        if any(off in arg for arg in container["args"] for off in ("fsync=", "synchronous_commit=", "full_page_writes=")):
            rendered.fault(f"StatefulSet/{name}", "is not durable, and the services refuse that")
