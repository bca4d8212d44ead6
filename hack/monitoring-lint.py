#!/usr/bin/env python3
"""Checks what is made of metrics: that the dashboard and the alerts use none that the sources do not register, that
docs/runbooks.md and deploy/tests/alerts.yaml know each alert, and writes the dashboard's expressions as rules for promtool.

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


def registered():
    """Names in the sources, without the units and suffixes that the registry adds."""
    names = set()
    for source in (root / "host/operator/src").glob("*metrics*.rs"):
        names |= {f"stoker_{name}" for name in re.findall(r'"([a-z_]+)"', source.read_text())}
    reports = (root / "host/reports/src/metrics.rs").read_text()
    return names | {f"stoker_reports_{name}" for name in re.findall(r'"\{OWN\}([a-z_]+)"', reports)}


known = registered()
for where, text in [("the dashboard", dashboard), ("alerts.yaml", alerts)]:
    for metric in sorted(set(re.findall(r"\bstoker_[a-z_]+", text))):
        bare = re.sub(r"_(bucket|count|sum|total)$", "", metric)
        if not {bare, re.sub(r"_(seconds|bytes)$", "", bare)} & known:
            errors.append(f"{where} has {metric}, which nothing registers")

names = set(re.findall(r"alert: (\w+)", alerts))
runbooks = set(re.findall(r"^## (Stoker\w+)$", (root / "docs/runbooks.md").read_text(), re.M))
tests = (root / "deploy/tests/alerts.yaml").read_text()
fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:", tests))
for what, there in [("docs/runbooks.md", runbooks), ("deploy/tests/alerts.yaml", fired)]:
    errors += [f"{what} has nothing of {name}" for name in sorted(names - there)]
    errors += [f"{what} has {name}, which is no alert" for name in sorted(there - names)]


def targets(panels):
    for panel in panels:
        yield from panel.get("targets", [])
        yield from targets(panel.get("panels", []))


rules = []
for number, target in enumerate(targets(json.loads(dashboard)["panels"])):
    expression = target["expr"].replace("$__rate_interval", "5m").replace("$namespace", ".*")
    rules.append({"record": f"panel:{number}", "expr": expression})
Path(sys.argv[1]).write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

for error in errors:
    print(f"monitoring-lint: {error}", file=sys.stderr)
sys.exit(bool(errors))
