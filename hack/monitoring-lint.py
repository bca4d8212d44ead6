#!/usr/bin/env python3
"""Checks what is made of metrics: that the dashboard and the alerts use no metric, label or value of one that the sources do not
have, that legends name what queries keep, that docs/runbooks.md and deploy/tests/alerts.yaml know each alert; and writes the
dashboard's expressions as rules for promtool. tests/e2e/tests/dashboard.rs asks the same of a Prometheus.

    hack/monitoring-lint.py RULES
"""

import json
import re
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
files = root / "deploy/helm/stoker/files"
alerts = (files / "alerts.yaml").read_text()
dashboard = (files / "dashboard.json").read_text()
errors = []


operator = [path.read_text() for path in (root / "host/operator/src").rglob("*.rs")]
metrics = [text for text in operator if "prometheus_client" in text]
reports = (root / "host/reports/src/metrics.rs").read_text()
sources = "\n".join([*operator, reports])


def registered():
    """Names in the sources, without the units and suffixes that the registry adds."""
    names = {f"stoker_{name}" for text in metrics for name in re.findall(r'"([a-z_]+)"', text)}
    return names | {f"stoker_reports_{name}" for name in re.findall(r'"\{OWN\}([a-z_]+)"', reports)}


def labels():
    """Labels in the sources, and those that whoever scrapes adds."""
    names = {"namespace", "job", "pod", "instance", "le"} | set(re.findall(r'^const [A-Z]+: &str = "(\w+)";', reports, re.M))
    for text in [*metrics, reports]:
        for fields in re.findall(r"EncodeLabelSet\)\]\s*(?:pub )?struct \w+ \{(.*?)\n\}", text, re.S):
            names |= set(re.findall(r"^\s*(?:pub )?(\w+):", fields, re.M))
    return names


def targets(panels):
    for panel in panels:
        yield from panel.get("targets", [])
        yield from targets(panel.get("panels", []))


def kept(expression):
    """Labels by which it tells series apart."""
    return {label for some in re.findall(r"\bby \(([^)]*)\)", expression) for label in re.split(r"[,\s]+", some) if label}


known, known_labels = registered(), labels()
shown = list(targets(json.loads(dashboard)["panels"]))
for where, text in [("the dashboard", "\n".join(target["expr"] for target in shown)), ("alerts.yaml", alerts)]:
    for metric in sorted(set(re.findall(r"\bstoker_[a-z_]+", text))):
        bare = re.sub(r"_(bucket|count|sum|total)$", "", metric)
        if not {bare, re.sub(r"_(seconds|bytes)$", "", bare)} & known:
            errors.append(f"{where} has {metric}, which nothing registers")
    asked = kept(text)
    for selector in re.findall(r"\b(?:stoker_[a-z_]+|up)\{([^}]*)\}", text):
        for label, value in re.findall(r'(\w+)\s*(?:!=|=~|!~|=)\s*"([^"]*)"', selector):
            asked.add(label)
            words = [] if label in {"namespace", "job"} else re.findall(r"[a-z][a-z-]+", value)
            errors += [f'{where} has {label}="{word}", which no source says' for word in words if f'"{word}"' not in sources]
    errors += [f"{where} has the label {label}, which no source has" for label in sorted(asked - known_labels)]
for target in shown:
    for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"]):
        if label not in kept(target["expr"]):
            errors.append(f"the dashboard has the legend {target['legendFormat']} where {label} is not kept: {target['expr']}")

names = set(re.findall(r"alert: (\w+)", alerts))
runbooks = set(re.findall(r"^## (Stoker\w+)$", (root / "docs/runbooks.md").read_text(), re.M))
tests = (root / "deploy/tests/alerts.yaml").read_text()
fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:", tests))
for what, there in [("docs/runbooks.md", runbooks), ("deploy/tests/alerts.yaml", fired)]:
    errors += [f"{what} has nothing of {name}" for name in sorted(names - there)]
    errors += [f"{what} has {name}, which is no alert" for name in sorted(there - names)]


rules = []
for number, target in enumerate(shown):
    expression = target["expr"].replace("$__rate_interval", "5m").replace("$namespace", ".*")
    rules.append({"record": f"panel:{number}", "expr": expression})
Path(sys.argv[1]).write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

for error in errors:
    print(f"monitoring-lint: {error}", file=sys.stderr)
sys.exit(bool(errors))
