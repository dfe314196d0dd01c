"""Alerts and dashboard, prepared for promtool: `alerts.yaml` (the spec of the
PrometheusRule), `queries.yaml` (the dashboard's and the adapter's queries as rules)
and the alerts' tests go into a folder. Checks that every alert has a paragraph in
the runbook and a link to it, a test that it fires, and one that it doesn't, that its
metrics are on the dashboard, that what the runbook's commands name is there, and that
`sluice storage` names an organisation in them.

    alerts.py deploy/observability deploy/RUNBOOK.md TARGET
"""

import json
import re
import shutil
import sys
from pathlib import Path

import yaml


def expressions(node):
    """Every PromQL expression of a dashboard."""
    if isinstance(node, dict):
        if isinstance(node.get("expr"), str):
            yield node["expr"]
        for value in node.values():
            yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def main():
    folder, runbook, target = map(Path, sys.argv[1:4])
    faults = []
    groups = yaml.safe_load((folder / "alerts.yaml").read_text())["spec"]
    for rule in (rule for group in groups["groups"] for rule in group["rules"]):
        # Held against the alert's name here, and so left out of what the tests expect.
        url = rule["annotations"].pop("runbook_url", "none")
        if not url.startswith("https://") or not url.endswith(f"/deploy/RUNBOOK.md#{rule['alert'].lower()}"):
            faults.append(f"{rule['alert']}: its runbook_url is {url}")
    (target / "alerts.yaml").write_text(yaml.safe_dump(groups, sort_keys=False))
    written = list(folder.glob("*.test.yaml"))
    for file in written:
        shutil.copy(file, target)
    alerts = [rule["alert"] for group in groups["groups"] for rule in group["rules"]]
    faults += [f"{name} is there twice" for name in alerts if alerts.count(name) > 1]

    # The limit that SluiceMemoryHigh speaks of.
    production = yaml.safe_load_all((target / "production.yaml").read_text())
    pods = [o["spec"]["template"]["spec"] for o in production if o and o["kind"] == "Deployment"]
    limits = {c["resources"]["limits"]["memory"] for pod in pods for c in pod["containers"]}
    memory = next(rule for group in groups["groups"] for rule in group["rules"] if rule["alert"] == "SluiceMemoryHigh")
    warned, limit = (int(re.search(r, memory[f][k] if k else memory[f])[1]) for f, k, r in (("expr", None, r"> (\d+) \*"), ("annotations", "summary", r"(\d+) MiB")))
    if limits != {f"{limit}Mi"} or not 0.7 * limit <= warned <= 0.9 * limit:
        faults.append(f"SluiceMemoryHigh speaks of {limit} MiB and fires at {warned}; the pods' limits are {limits}")

    headings = set(re.findall(r"^### (\w+)\n\n\S", runbook.read_text(), re.M))
    faults += [f"{runbook}: no paragraph for {name}" for name in alerts if name not in headings]
    faults += [f"{runbook}: there is no alert {name}" for name in headings if name.startswith("Sluice") and name not in alerts]

    # What the commands of deploy/RUNBOOK.md and deploy/README.md name is in one of the overlays.
    objects = [o for name in ("development", "production") for o in yaml.safe_load_all((target / f"{name}.yaml").read_text()) if o]
    there = {f"{o['kind'].lower()}/{o['metadata']['name']}" for o in objects}
    for document in (runbook, runbook.with_name("README.md")):
        named = set(re.findall(r"\b(?:deployment|service|statefulset|certificate)/[a-z][\w-]*", document.read_text()))
        named |= {f"deployment/{name}" for name in re.findall(r"app\.kubernetes\.io/name=([\w-]+)", document.read_text())}
        faults += [f"{document}: there is no {name}" for name in sorted(named - there)]

    # The operator's token is for all organisations: such a command must name one.
    prose, *code = re.split(r"^ *```.*\n", runbook.read_text(), flags=re.M)
    spans = [span for text in (prose, *code[1::2]) for span in re.findall(r"`([^`]+)`", text)]
    commands = spans + [line for block in code[::2] for line in block.splitlines()]
    for command in (c for c in commands if re.search(r"\bsluice storage [a-z]", c) and "--organisation" not in c):
        faults.append(f"{runbook}: names no organisation: {command.strip()}")

    fires, silent = set(), set()
    for test in (test for file in written for test in yaml.safe_load(file.read_text())["tests"]):
        for case in test["alert_rule_test"]:
            (fires if case.get("exp_alerts") else silent).add(case["alertname"])
    faults += [f"{name}: no test that it fires" for name in alerts if name not in fires]
    faults += [f"{name}: no test that it stays silent" for name in alerts if name not in silent]

    dashboard = json.loads((folder / "dashboard.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    faults += ["two panels have the same id"] if len(ids) != len(set(ids)) else []
    shown = set(re.findall(r"\bsluice_\w+", " ".join(expressions(dashboard))))
    for rule in (rule for group in groups["groups"] for rule in group["rules"]):
        unseen = set(re.findall(r"\bsluice_\w+", rule["expr"])) - shown
        faults += [f"{rule['alert']}: {metric} is not on the dashboard" for metric in sorted(unseen)]
    queries = [q.replace("$__rate_interval", "5m").replace("$namespace", ".*") for q in expressions(dashboard)]
    adapter = yaml.safe_load((folder.parent / "kubernetes/components/autoscaling-backlog/adapter-rules.yaml").read_text())
    for rule in adapter["rules"]["custom"] + adapter["rules"]["external"]:
        queries.append(rule["seriesQuery"])
        queries.append(rule["metricsQuery"].replace(",<<.LabelMatchers>>", "").replace("<<.GroupBy>>", "namespace"))
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (target / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
