#!/usr/bin/env node
// Claims a pod, works with it, and releases it. Node 18 or newer is all it needs.
//
// STOKER_CLAIMS_URL    the claim server, such as https://stoker.example:8443
// NODE_EXTRA_CA_CERTS  who signed its certificate, a PEM file; Node reads it itself
// STOKER_CLAIMS_TOKEN  the bearer token; if unset, that of the pod's service account
// STOKER_NAMESPACE     the pool's namespace; if unset, the pod's own
// STOKER_POOL          the pool
// WORK_PORT            the name of a port to which a request is sent; if unset, the work is to sleep
// WORK_SECONDS         for so long (1)

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";
const WAIT = 30; // seconds to wait for a pod
const TTL = 60; // seconds after which the claim ends unless it is renewed: also if this program is killed
const ATTEMPTS = 5;

/** The server's answer, in its own words. */
class Refused extends Error {
  constructor(status, { reason, message }) {
    super(`${message} (${status} ${reason})`);
    this.reason = reason;
  }
}

const ofAccount = async (file) => (await readFile(`${ACCOUNT}/${file}`, "utf8")).trim();

async function claimsUrl() {
  const { STOKER_CLAIMS_URL: server, STOKER_POOL: pool, STOKER_NAMESPACE: given } = process.env;
  if (!server || !pool) throw new Error("set STOKER_CLAIMS_URL and STOKER_POOL");
  const [namespace, name] = [given || (await ofAccount("namespace")), pool].map(encodeURIComponent);
  return `${server.replace(/\/+$/, "")}/v1/namespaces/${namespace}/pools/${name}/claims`;
}

/**
 * Sends a request. It is sent again when no answer came, or one that says when to come back: with a token a repeated
 * claim gets the same pod, and to renew or release twice does no harm.
 */
async function ask(method, path = "", body = undefined) {
  const url = (await claimsUrl()) + path;
  for (let attempt = 1; ; attempt++) {
    // Read each time: the token of a service account is renewed.
    const token = process.env.STOKER_CLAIMS_TOKEN || (await ofAccount("token"));
    let after = 1;
    try {
      const answer = await fetch(url, {
        method,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
        redirect: "error",
        signal: AbortSignal.timeout((WAIT + 60) * 1000),
      });
      const text = await answer.text();
      if (answer.ok) return JSON.parse(text);
      let problem = { reason: "NoClaimServer", message: text.slice(0, 200) };
      try {
        problem = JSON.parse(text);
      } catch {
        // It is shown as it is.
      }
      const refused = new Refused(answer.status, problem);
      after = answer.headers.get("retry-after");
      // A wait for a pod that came to nothing is an answer.
      if (after === null || refused.reason === "NoStandby" || attempt === ATTEMPTS) throw refused;
    } catch (error) {
      if (error instanceof Refused || attempt === ATTEMPTS) throw error;
    }
    await sleep(Number(after) * 1000);
  }
}

async function work(pod, signal) {
  const { WORK_PORT: port, WORK_SECONDS: seconds = "1" } = process.env;
  if (port === undefined) {
    await sleep(Number(seconds) * 1000, undefined, { signal });
    return;
  }
  const host = pod.ip.includes(":") ? `[${pod.ip}]` : pod.ip;
  const answer = await fetch(`http://${host}:${pod.ports[port]}/`, { signal });
  console.log("answered", answer.status);
}

async function main() {
  // So that what stands under `finally` runs.
  const stop = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"]) process.once(name, () => stop.abort(new Error(`${name} came`)));
  // One token for one piece of work: kept with it, it finds the same pod after a crash, too.
  const token = randomUUID();
  let claim = await ask("POST", "", { token, waitSeconds: WAIT, ttlSeconds: TTL, metadata: { match: token } });
  try {
    console.log("claimed", claim.pod.name, claim.pod.ip ?? "-");
    await work(claim.pod, stop.signal);
    // Longer work renews at half of its time.
    claim = await ask("POST", `/${claim.id}/renew`, { ttlSeconds: TTL });
    console.log("renewed until", claim.expiresAt);
  } finally {
    try {
      await ask("DELETE", `/${claim.id}`);
      console.log("released", claim.pod.name);
    } catch (error) {
      // It may have ended with the pod's work.
      if (error.reason !== "NoSuchClaim") throw error;
    }
  }
}

main().catch((error) => {
  console.error(`client.mjs: ${error.cause?.message ?? error.message}`);
  process.exitCode = 1;
});
