#!/usr/bin/env python3
"""Claims a pod, works with it, and releases it. Python's standard library is all it needs.

STOKER_CLAIMS_URL    the claim server, such as https://stoker.example:8443
STOKER_CLAIMS_CA     who signed its certificate, a PEM file; if unset, those whom the system trusts
STOKER_CLAIMS_TOKEN  the bearer token; if unset, that of the pod's service account
STOKER_NAMESPACE     the pool's namespace; if unset, the pod's own
STOKER_POOL          the pool
WORK_PORT            the name of a port to which a request is sent; if unset, the work is to sleep
WORK_SECONDS         for so long (1)
"""

import json
import os
import signal
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
WAIT = 30  # seconds to wait for a pod
TTL = 60  # seconds after which the claim ends unless it is renewed: also if this program is killed
ATTEMPTS = 5


class Refused(Exception):
    """The server's answer, in its own words."""

    def __init__(self, status, reason, message):
        super().__init__(f"{message} ({status} {reason})")
        self.reason = reason


def of_account(file):
    with open(f"{ACCOUNT}/{file}", encoding="utf-8") as text:
        return text.read().strip()


def claims_url():
    namespace = os.environ.get("STOKER_NAMESPACE") or of_account("namespace")
    parts = [urllib.parse.quote(part, safe="") for part in (namespace, os.environ["STOKER_POOL"])]
    return f"{os.environ['STOKER_CLAIMS_URL'].rstrip('/')}/v1/namespaces/{parts[0]}/pools/{parts[1]}/claims"


def ask(method, path="", body=None):
    """Sends a request. It is sent again when no answer came, or one that says when to come back: with a token a repeated
    claim gets the same pod, and to renew or release twice does no harm."""
    context = ssl.create_default_context(cafile=os.environ.get("STOKER_CLAIMS_CA"))
    for attempt in range(1, ATTEMPTS + 1):
        # Read each time: the token of a service account is renewed.
        token = os.environ.get("STOKER_CLAIMS_TOKEN") or of_account("token")
        request = urllib.request.Request(
            claims_url() + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        after = "1"
        try:
            with urllib.request.urlopen(request, timeout=WAIT + 60, context=context) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                problem = json.loads(text)
                refused = Refused(error.code, problem["reason"], problem["message"])
            except (ValueError, KeyError, TypeError):
                refused = Refused(error.code, "NoClaimServer", text[:200])
            after = error.headers.get("Retry-After")
            # A wait for a pod that came to nothing is an answer.
            if after is None or refused.reason == "NoStandby" or attempt == ATTEMPTS:
                raise refused from None
        except OSError:
            if attempt == ATTEMPTS:
                raise
        time.sleep(int(after))


def work(pod):
    port = os.environ.get("WORK_PORT")
    if port is None:
        time.sleep(float(os.environ.get("WORK_SECONDS", "1")))
        return
    host = f"[{pod['ip']}]" if ":" in pod["ip"] else pod["ip"]
    with urllib.request.urlopen(f"http://{host}:{pod['ports'][port]}/", timeout=10) as answer:
        print("answered", answer.status, flush=True)


def main():
    # SystemExit runs what stands under `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # One token for one piece of work: kept with it, it finds the same pod after a crash, too.
    token = str(uuid.uuid4())
    claim = ask("POST", body={"token": token, "waitSeconds": WAIT, "ttlSeconds": TTL, "metadata": {"match": token}})
    try:
        print("claimed", claim["pod"]["name"], claim["pod"].get("ip", "-"), flush=True)
        work(claim["pod"])
        # Longer work renews at half of its time.
        claim = ask("POST", f"/{claim['id']}/renew", {"ttlSeconds": TTL})
        print("renewed until", claim["expiresAt"], flush=True)
    finally:
        try:
            ask("DELETE", f"/{claim['id']}")
            print("released", claim["pod"]["name"], flush=True)
        except Refused as refused:
            # It may have ended with the pod's work.
            if refused.reason != "NoSuchClaim":
                raise


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError) as error:
        sys.exit(f"client.py: {error}")
