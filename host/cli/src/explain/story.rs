//! What is told of an object.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde_json::Value;

use crate::decisions::Line;

/// Decisions that are told, the newest.
const DECISIONS: usize = 12;

/// Events that are told, the newest.
const EVENTS: usize = 10;

/// Conditions that are well when they are True. Others are well when they are False, or tell how far things are.
const GOOD: [&str; 8] = [
    "Ready",
    "StandbyAvailable",
    "PolicyHealthy",
    "ProbesHealthy",
    "TemplateValid",
    "GraphValid",
    "ScheduleValid",
    "SignalsHealthy",
];
const BAD: [&str; 4] = ["Stalled", "Conflict", "SizeNearLimit", "Outdated"];

/// Whether a condition says that something is wrong, rather than how far things are or how much stands by.
pub fn is_ill(name: &str, is: &str) -> bool {
    let well = !["Ready", "StandbyAvailable"].contains(&name) && GOOD.contains(&name);
    well && is == "False" || BAD.contains(&name) && is == "True"
}

/// An object's story, in lines.
pub fn story(
    kind: &str,
    object: &DynamicObject,
    decisions: &[Line],
    events: &[Event],
    now: Timestamp,
) -> String {
    let (status, spec) = (&object.data["status"], &object.data["spec"]);
    let mut out = format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let mut lines = Vec::new();
    if status.is_null() || status["observedGeneration"] == stoker_api::NOT_LOOKED_AT {
        out += ": no operator has looked at it yet; is one running that watches this namespace?\n";
        return out;
    }
    match kind {
        "HotStandbyDeployment" | "HotStandbyJob" => {
            out += &pool_head(kind, status);
            size(status, spec, now, &mut lines);
            policy(status, &mut lines);
        }
        _ => {
            out += &work_head(status);
            work(status, now, &mut lines);
        }
    }
    if object.metadata.deletion_timestamp.is_some() {
        lines.push("It is being deleted.".to_owned());
    }
    let seen = status["observedGeneration"].as_i64();
    if seen.is_some() && seen < object.metadata.generation {
        lines.push("Its spec has changed since: what follows is about the earlier one.".to_owned());
    }
    conditions(status, now, &mut lines);
    out.push('\n');
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
    tell_decisions(decisions, now, &mut out);
    tell_events(events, now, &mut out);
    out
}

/// Decisions of late, the newest last.
fn tell_decisions(decisions: &[Line], now: Timestamp, out: &mut String) {
    if decisions.is_empty() {
        return;
    }
    out.push_str("\nDecisions, the newest last:\n");
    for line in decisions.iter().skip(decisions.len().saturating_sub(DECISIONS)) {
        let kept = match line.limited_by.as_str() {
            _ if line.raw != line.applied => {
                format!("{} ({} of {})", line.applied, line.limited_by, line.raw)
            }
            "delay" | "paused" => format!("{} ({})", line.applied, line.limited_by),
            _ => line.applied.to_string(),
        };
        let shadow = line.shadow.as_ref().map(|words| format!("; on trial: {words}")).unwrap_or_default();
        let _ = writeln!(out, "  {:>12}  {kept} by {}: {}{shadow}", ago(&line.at, now), line.by, line.reason);
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// How long ago, in the two largest units at most.
fn ago(time: &str, now: Timestamp) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return String::new() };
    let span = now.duration_since(time);
    if span.is_negative() { format!("in {}", rough(-span)) } else { format!("{} ago", rough(span)) }
}

fn rough(span: SignedDuration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// What a pool holds.
fn pool_head(kind: &str, status: &Value) -> String {
    let children = if kind == "HotStandbyJob" { "Jobs" } else { "pods" };
    let mut parts = Vec::new();
    for (key, word) in [
        ("busyCount", "busy"),
        ("claimedCount", "claimed"),
        ("idleCount", "idle"),
        ("startingCount", "starting"),
        ("unknownCount", "unknown"),
        ("terminatingCount", "terminating"),
    ] {
        let count = number(status, key);
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    format!(" has {} {children}{parts}", number(status, "totalCount"))
}

/// Why a pool has its size.
fn size(status: &Value, spec: &Value, now: Timestamp, lines: &mut Vec<String>) {
    let decision = &status["lastDecision"];
    if decision.is_null() {
        return lines.push("Nothing has been decided yet.".to_owned());
    }
    let (raw, applied) = (number(decision, "raw"), number(decision, "applied"));
    let by = match text(decision, "by") {
        "formula" => "The formula (in use + idleTarget)".to_owned(),
        by => format!("Policy {by}"),
    };
    let when = ago(text(decision, "time"), now);
    lines.push(format!("{by} asked for {raw}, {when}: {}", text(decision, "reason")));
    lines.push(format!("It was asked with: {}", text(decision, "inputs")));
    let maximum = &spec["maxReplicas"];
    match text(decision, "limitedBy") {
        "maximum" => lines.push(format!("That is more than maxReplicas {maximum}: {applied} are kept.")),
        "minimum" => {
            lines
                .push(format!("That is fewer than minReplicas {}: {applied} are kept.", spec["minReplicas"]));
        }
        "hold" => lines.push(format!("The policy failed: the last good target holds, {applied} are kept.")),
        "paused" => lines.push("The pool is paused: nothing is created or removed.".to_owned()),
        "delay" => lines.push(format!("Fewer are wanted, and the delay is not over: {applied} are kept.")),
        _ => {}
    }
    let total = number(status, "totalCount");
    if total < applied {
        lines.push(format!("{} more are to be created.", applied - total));
    } else if total > applied {
        let more = total - applied;
        lines.push(format!("{more} more than wanted are there: only idle ones are removed, never busy, claimed or unknown ones."));
    }
    let replacing = number(status, "replacingCount");
    if replacing > 0 {
        lines.push(format!("{replacing} idle ones are being replaced: of an older template, used, stale or on a node to be lost."));
    }
}

fn policy(status: &Value, lines: &mut Vec<String>) {
    let policy = &status["policy"];
    if policy.is_null() {
        return;
    }
    let (active, desired) = (text(policy, "activeDigest"), text(policy, "desiredDigest"));
    let short = |digest: &str| digest.chars().take(19).collect::<String>();
    match (active.is_empty(), active == desired || desired.is_empty()) {
        (true, _) => lines.push(format!("No component of {} decides yet.", text(policy, "source"))),
        (false, true) => lines.push(format!("{} ({}) decides.", text(policy, "activeName"), short(active))),
        (false, false) => lines.push(format!(
            "{} ({}) still decides; {} holds {}, which is not in use.",
            text(policy, "activeName"),
            short(active),
            text(policy, "source"),
            short(desired)
        )),
    }
    let failures = number(policy, "failuresInARow");
    if failures > 0 {
        lines.push(format!("It failed {failures} times in a row: {}", text(policy, "lastError")));
    }
    shadow(&policy["shadow"], lines);
}

/// What the policy on trial would do.
fn shadow(shadow: &Value, lines: &mut Vec<String>) {
    if shadow.is_null() {
        return;
    }
    let name = match text(shadow, "activeName") {
        "" => text(shadow, "source").to_owned(),
        name => format!("{name} ({})", text(shadow, "source")),
    };
    let says = match (text(shadow, "error"), text(shadow, "differs")) {
        ("", "") if text(shadow, "activeDigest").is_empty() => "is being loaded".to_owned(),
        ("", "") => "would do the same".to_owned(),
        ("", differs) => match text(shadow, "reason") {
            "" => differs.to_owned(),
            reason => format!("{differs}: {reason}"),
        },
        (error, _) => format!("gives no answer: {error}"),
    };
    let (compared, differed) = (number(shadow, "compared"), number(shadow, "differed"));
    let counts =
        if compared > 0 { format!(" ({differed} of {compared} decisions differed)") } else { String::new() };
    lines.push(format!("On trial, {name} {says}{counts}."));
}

/// How far other objects are.
fn work_head(status: &Value) -> String {
    let (state, progress) = (text(status, "state"), text(status, "progress"));
    match (state.is_empty(), progress.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!(" is {state}"),
        (false, false) => format!(" is {state}, {progress}"),
    }
}

fn work(status: &Value, now: Timestamp, lines: &mut Vec<String>) {
    let time = |key: &str| status[key].as_str().map(|time| format!("{time} ({})", ago(time, now)));
    for (key, words) in [
        ("startTime", "It began at"),
        ("completionTime", "It ended at"),
        ("nextInstant", "The next instant is"),
        ("nextWarmUp", "The next warm-up begins at"),
        ("lastScheduleTime", "The last run was for"),
        ("lastSuccessfulTime", "The last success was at"),
    ] {
        if let Some(time) = time(key) {
            lines.push(format!("{words} {time}"));
        }
    }
    if let Some(reason) = status["leadReason"].as_str() {
        lines.push(format!("The lead: {reason}"));
    }
    for (key, words) in [("missedCount", "instants were missed"), ("skippedCount", "instants were skipped")] {
        let count = number(status, key);
        if count > 0 {
            lines.push(format!("{count} {words}."));
        }
    }
    for run in status["active"].as_array().into_iter().flatten() {
        let doing = if run["held"] == true { "is warm and held" } else { "is at work" };
        lines.push(format!("{} for {} {doing}.", text(run, "job"), text(run, "instant")));
    }
    for failed in status["failedNodes"].as_array().into_iter().flatten().take(5) {
        lines.push(format!("Node {} failed: {}", text(failed, "node"), text(failed, "reason")));
    }
    for execution in status["executions"].as_array().into_iter().flatten().take(1) {
        lines.push(format!("Execution {} is {}.", text(execution, "id"), text(execution, "state")));
        for failed in execution["failedNodes"].as_array().into_iter().flatten().take(5) {
            lines.push(format!("Node {} failed: {}", text(failed, "node"), text(failed, "reason")));
        }
    }
    let steps = status["jobStatusList"].as_object();
    let failed = steps.into_iter().flatten().filter(|(_, step)| step["state"] == "Failed").take(5);
    for (job, step) in failed {
        let name = step["step"].as_str().unwrap_or_else(|| job.split('/').next().unwrap_or_default());
        lines.push(format!("Step {name} failed: {}", text(step, "reason")));
    }
}

/// Conditions that are not well.
fn conditions(status: &Value, now: Timestamp, lines: &mut Vec<String>) {
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let (name, is) = (text(condition, "type"), text(condition, "status"));
        let ill = GOOD.contains(&name) && is == "False" || BAD.contains(&name) && is == "True";
        if ill {
            let since = text(condition, "lastTransitionTime").parse::<Timestamp>();
            let since =
                since.map_or_else(|_| String::new(), |at| format!(" for {}", rough(now.duration_since(at))));
            lines.push(format!(
                "! {name} is {is} ({}){since}: {}",
                text(condition, "reason"),
                text(condition, "message")
            ));
        }
    }
}

/// When an Event was last seen.
fn seen(event: &Event) -> Option<Timestamp> {
    let series =
        event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    series.or(last).or_else(|| event.event_time.as_ref().map(|time| time.0))
}

fn tell_events(events: &[Event], now: Timestamp, out: &mut String) {
    let mut events: Vec<&Event> = events.iter().collect();
    events.sort_by_key(|event| seen(event));
    let older = events.len().saturating_sub(EVENTS);
    if events.is_empty() {
        return;
    }
    out.push_str("\n  What happened, the newest last:\n");
    for event in &events[older..] {
        let when = seen(event).map(|at| ago(&at.to_string(), now)).unwrap_or_default();
        let count = event.series.as_ref().and_then(|series| series.count).or(event.count).unwrap_or(1);
        let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
        let (reason, message) = (event.reason.as_deref(), event.message.as_deref());
        let warning = if event.type_.as_deref() == Some("Warning") { "! " } else { "" };
        let _ = writeln!(
            out,
            "  {when:>14}  {warning}{}{times}: {}",
            reason.unwrap_or_default(),
            message.unwrap_or_default().trim()
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-06-01T10:00:00Z".parse().unwrap()
    }

    fn object(kind: &str, spec: Value, status: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "web", "namespace": "shop", "generation": 2}, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn told(kind: &str, spec: Value, status: Value) -> String {
        story(kind, &object(kind, spec, status), &[], &[], now())
    }

    #[test]
    fn a_pools_size_is_told_with_who_asked_for_it_and_what_kept_it_from_that() {
        let status = json!({
            "observedGeneration": 2, "busyCount": 3, "idleCount": 2, "totalCount": 5,
            "lastDecision": {
                "time": "2026-06-01T09:57:30Z", "by": "configMap/rush/policy.wasm", "inputs": "busy 3, idle 2",
                "raw": 14, "applied": 5, "limitedBy": "maximum", "reason": "3 in use + 11 idle in the rush hour",
            },
            "policy": {
                "source": "configMap/rush/policy.wasm", "activeDigest": "sha256:aaaaaaaaaaaabbbb",
                "desiredDigest": "sha256:cccccccccccc", "activeName": "rush-hour 0.1.0", "failuresInARow": 2,
                "lastError": "scale took longer than 100ms",
            },
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "Filled", "message": ""},
                {"type": "PolicyHealthy", "status": "False", "reason": "CallFailed", "message": "scale took longer",
                 "lastTransitionTime": "2026-06-01T09:00:00Z"},
                {"type": "Stalled", "status": "False", "reason": "NotStalled", "message": ""},
            ],
        });
        let expected = "\
HotStandbyDeployment shop/web has 5 pods: 3 busy, 2 idle
  Policy configMap/rush/policy.wasm asked for 14, 2 min 30 s ago: 3 in use + 11 idle in the rush hour
  It was asked with: busy 3, idle 2
  That is more than maxReplicas 5: 5 are kept.
  rush-hour 0.1.0 (sha256:aaaaaaaaaaaa) still decides; configMap/rush/policy.wasm holds sha256:cccccccccccc, which is not in use.
  It failed 2 times in a row: scale took longer than 100ms
  ! PolicyHealthy is False (CallFailed) for 1 h 0 min: scale took longer
";
        assert_eq!(told("HotStandbyDeployment", json!({"maxReplicas": 5}), status), expected);
    }

    #[test]
    fn more_or_fewer_than_wanted_are_explained() {
        let status = |total: u32, applied: u32| {
            json!({"totalCount": total, "lastDecision": {
                "by": "formula", "raw": applied, "applied": applied, "limitedBy": "none", "reason": "r", "inputs": "i",
            }})
        };
        let few = told("HotStandbyJob", json!({}), status(1, 3));
        assert!(few.contains("has 1 Jobs\n") && few.contains("2 more are to be created."), "{few}");
        let many = told("HotStandbyJob", json!({}), status(3, 1));
        assert!(many.contains("2 more than wanted are there: only idle ones are removed"), "{many}");
        assert!(many.contains("The formula (in use + idleTarget) asked for 1"), "{many}");
    }

    #[test]
    fn what_nobody_looked_at_and_what_is_old_says_so() {
        for status in [Value::Null, json!({"observedGeneration": -1, "busyCount": 0})] {
            assert!(told("JobFlow", json!({}), status).contains("no operator has looked at it yet"));
        }
        let old = told(
            "DaemonJob",
            json!({}),
            json!({"observedGeneration": 1, "state": "Running", "progress": "2/3"}),
        );
        assert!(old.starts_with("DaemonJob shop/web is Running, 2/3\n"), "{old}");
        assert!(old.contains("Its spec has changed since"), "{old}");
    }

    #[test]
    fn runs_steps_and_nodes_are_told() {
        let cron = told(
            "PreScaledCronJob",
            json!({}),
            json!({"nextInstant": "2026-06-01T10:05:00Z", "leadReason": "as the object asks", "missedCount": 2,
                "active": [{"job": "web-1", "instant": "2026-06-01T10:05:00Z", "held": true}]}),
        );
        for words in [
            "The next instant is 2026-06-01T10:05:00Z (in 5 min 0 s)",
            "The lead: as the object asks",
            "2 instants were missed.",
            "web-1 for 2026-06-01T10:05:00Z is warm and held.",
        ] {
            assert!(cron.contains(words), "{cron}");
        }
        let steps = json!({"state": "Failed", "jobStatusList": {
            "web-build/shop": {"state": "Failed", "step": "build", "reason": "exit code 1"},
            "web-test/shop": {"state": "Skipped", "step": "test"},
        }});
        let flow = told("JobFlow", json!({}), steps);
        assert!(flow.contains("Step build failed: exit code 1") && !flow.contains("test"), "{flow}");
    }

    #[test]
    fn the_newest_events_come_last() {
        let event = |at: &str, reason: &str, count: i32| -> Event {
            serde_json::from_value(json!({
                "metadata": {}, "involvedObject": {}, "reason": reason, "message": "m", "type": "Warning",
                "eventTime": at, "series": {"count": count, "lastObservedTime": at},
            }))
            .unwrap()
        };
        let mut events: Vec<Event> = (0..12)
            .map(|i| event(&format!("2026-06-01T09:{:02}:00.000000Z", 12 + i), &format!("E{i}"), 1))
            .collect();
        events.insert(0, event("2026-06-01T09:59:50.000000Z", "Last", 3));
        let told = story(
            "DaemonJob",
            &object("DaemonJob", json!({}), json!({"state": "Running"})),
            &[],
            &events,
            now(),
        );
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.last().unwrap().trim(), "10 s ago  ! Last (3 times): m");
        assert!(!told.contains("E2:") && told.contains("E3:"), "{told}");
    }

    #[test]
    fn decisions_and_the_policy_on_trial_are_told() {
        let line = |at: &str, raw: u32, applied: u32, limited_by: &str, shadow: Option<&str>| Line {
            at: at.to_owned(),
            by: "builtin/buffer".to_owned(),
            raw,
            applied,
            limited_by: limited_by.to_owned(),
            reason: "r".to_owned(),
            shadow: shadow.map(str::to_owned),
        };
        let lines = [
            line("2026-06-01T09:59:00Z", 7, 5, "maximum", None),
            line("2026-06-01T09:59:50Z", 3, 3, "delay", Some("would keep 4 instead of 3")),
        ];
        let status = json!({"totalCount": 3, "policy": {
            "source": "builtin/buffer", "activeDigest": "sha256:a", "desiredDigest": "sha256:a", "activeName": "buffer 1",
            "shadow": {"source": "builtin/predictive", "activeDigest": "sha256:b", "activeName": "predictive 1",
                "differs": "would keep 4 instead of 3", "reason": "as last week", "compared": 9, "differed": 2},
        }});
        let kind = "HotStandbyDeployment";
        let told = story(kind, &object(kind, json!({}), status), &lines, &[], now());
        for words in [
            "1 min 0 s ago  5 (maximum of 7) by builtin/buffer: r\n",
            "10 s ago  3 (delay) by builtin/buffer: r; on trial: would keep 4 instead of 3\n",
            "On trial, predictive 1 (builtin/predictive) would keep 4 instead of 3: as last week (2 of 9 decisions differed).",
        ] {
            assert!(told.contains(words), "{told}");
        }
        let of = |shadow: Value| told_policy(shadow);
        assert!(of(json!({"source": "s"})).contains("On trial, s is being loaded."));
        assert!(
            of(json!({"source": "s", "error": "no such"})).contains("On trial, s gives no answer: no such.")
        );
        assert!(of(json!({"source": "s", "activeDigest": "d"})).contains("On trial, s would do the same."));
    }

    fn told_policy(shadow: Value) -> String {
        told("HotStandbyJob", json!({}), json!({"policy": {"source": "builtin/buffer", "shadow": shadow}}))
    }

    #[test]
    fn times_are_rough() {
        let of = |seconds: i64| rough(SignedDuration::from_secs(seconds));
        assert_eq!([of(5), of(65), of(3_700), of(90_000)], ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }
}
