//! A JobFlow as steps and edges: what the spec says waits for what, and what the status says has become of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use stoker_api::{
    FlowState, JobFlow, JobFlowStatus, StepCondition, StepState, StepStatus, WaitFor, job_flow,
};
use stoker_picture::{Edge, Graph, State, Step};

/// How the status names the two steps that run when all others have ended.
const ON_FAILURE: &str = "onFailure";
const ON_EXIT: &str = "onExit";

/// What is drawn of a flow at an instant.
pub fn graph(flow: &JobFlow, now: Timestamp) -> Graph {
    let none = JobFlowStatus::default();
    let status = flow.status.as_ref().unwrap_or(&none);
    let told: BTreeMap<&str, &StepStatus> =
        status.job_status_list.values().map(|told| (told.step.as_str(), told)).collect();
    let mut graph = Graph { title: title(flow, status, now), notes: notes(status), ..Graph::default() };
    for step in &flow.spec.flows {
        graph.steps.push(drawn(&step.name, told.get(step.name.as_str()).copied(), now));
    }
    edges(flow, &mut graph);
    for (name, handler) in [(ON_FAILURE, &flow.spec.on_failure), (ON_EXIT, &flow.spec.on_exit)] {
        if handler.is_none() {
            continue;
        }
        let mut step = Step { closing: true, ..drawn(name, told.get(name).copied(), now) };
        if name == ON_FAILURE && step.state == State::Waiting && status.state == Some(FlowState::Succeed) {
            step = Step { state: State::Skipped, detail: "nothing failed".to_owned(), ..step };
        }
        graph.steps.push(step);
    }
    graph
}

fn title(flow: &JobFlow, status: &JobFlowStatus, now: Timestamp) -> String {
    let name = flow.metadata.name.as_deref().unwrap_or_default();
    let namespace = flow.metadata.namespace.as_deref().unwrap_or_default();
    let mut title = format!("JobFlow {namespace}/{name}: {:?}", status.state.unwrap_or_default());
    if status.run > 1 {
        title.push_str(&format!(", run {}", status.run));
    }
    if let Some(start) = status.start_time {
        title.push_str(&format!(", {}", duration(start, status.completion_time.unwrap_or(now))));
    }
    if status.timed_out {
        title.push_str(", timed out");
    }
    if flow.spec.suspend && status.completion_time.is_none() {
        title.push_str(", suspended");
    }
    title
}

/// What conditions tell that boxes do not: what keeps the flow from going on.
fn notes(status: &JobFlowStatus) -> Vec<String> {
    let wrong = |type_: &str, status: &str| match type_ {
        "GraphValid" | "TemplateValid" => status == "False",
        // What Stalled tells the boxes or one of the others tell, too.
        "Conflict" | "Outdated" | "SizeNearLimit" => status == "True",
        _ => false,
    };
    let mut notes: Vec<String> = Vec::new();
    for condition in status.conditions.iter().filter(|c| wrong(&c.type_, &c.status)) {
        if !notes.contains(&condition.message) {
            notes.push(condition.message.clone());
        }
    }
    notes
}

fn drawn(name: &str, told: Option<&StepStatus>, now: Timestamp) -> Step {
    let (state, detail) = told.map_or((State::Waiting, String::new()), |told| so_far(told, now));
    Step { name: name.to_owned(), state, detail, closing: false }
}

/// A step's state, and a few words about it.
fn so_far(told: &StepStatus, now: Timestamp) -> (State, String) {
    let attempt = (told.attempts() > 1).then(|| format!("attempt {}", told.attempts()));
    let took = told.start_time.map(|start| duration(start, told.completion_time.unwrap_or(now)));
    let words = |words: [Option<String>; 2]| words.into_iter().flatten().collect::<Vec<_>>().join(", ");
    match told.state {
        StepState::Running => (State::Running, words([took, attempt])),
        StepState::Succeeded => (State::Succeeded, words([took, attempt])),
        StepState::Failed => (State::Failed, words([attempt, told.reason.clone().or(took)])),
        StepState::Deleted => (State::Failed, words([attempt, Some("its Job was deleted".to_owned())])),
        StepState::Retrying => {
            (State::Waiting, words([Some("to start again".to_owned()), told.reason.clone()]))
        }
        StepState::Skipped => (State::Skipped, told.reason.clone().unwrap_or_default()),
    }
}

fn edges(flow: &JobFlow, graph: &mut Graph) {
    let places: BTreeMap<&str, usize> =
        flow.spec.flows.iter().enumerate().map(|(place, step)| (step.name.as_str(), place)).collect();
    let mut unknown = Vec::new();
    for (to, step) in flow.spec.flows.iter().enumerate() {
        for (name, label) in awaited(step) {
            match places.get(name) {
                Some(&from) => graph.edges.push(Edge { from, to, label }),
                None => {
                    unknown.push(format!("{} waits for {name}, which is no step of this flow", step.name))
                }
            }
        }
    }
    // The condition tells the same, in other words and once for all; it comes later than the spec.
    if graph.notes.is_empty() {
        graph.notes = unknown;
    }
}

/// The steps that one waits for, each with what it waits for if that is not its success.
fn awaited(step: &job_flow::Step) -> impl Iterator<Item = (&str, Option<String>)> {
    let plain = step.dependencies.iter().map(|name| (name.as_str(), None));
    plain.chain(step.wait_for.iter().map(|wait| (wait.name.as_str(), label(wait))))
}

fn label(wait: &WaitFor) -> Option<String> {
    if let Some(http) = &wait.http {
        return Some(format!("HTTP {}", http.port));
    }
    if let Some(tcp) = &wait.tcp {
        return Some(format!("TCP {}", tcp.port));
    }
    match wait.condition {
        None | Some(StepCondition::Succeeded) => None,
        Some(other) => Some(format!("{other:?}")),
    }
}

/// A length of time in its two greatest units.
fn duration(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flow(status: serde_json::Value) -> JobFlow {
        serde_json::from_value(json!({
            "apiVersion": "stoker.dev/v1alpha1",
            "kind": "JobFlow",
            "metadata": {"name": "nightly", "namespace": "batch"},
            "spec": {
                "flows": [
                    {"name": "extract", "jobTemplateRef": "etl"},
                    {"name": "load", "jobTemplateRef": "etl", "dependencies": ["extract"]},
                    {"name": "check", "jobTemplateRef": "etl", "waitFor": [
                        {"name": "load", "condition": "Succeeded"},
                        {"name": "extract", "http": {"port": 8080}},
                    ]},
                    {"name": "undo", "jobTemplateRef": "etl", "waitFor": [{"name": "load", "condition": "Failed"}]},
                ],
                "onFailure": {"jobTemplateRef": "mail"},
                "onExit": {"jobTemplateRef": "clean"},
            },
            "status": status,
        }))
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    #[test]
    fn steps_have_the_state_and_the_time_that_the_status_tells() {
        let graph = graph(
            &flow(json!({
                "state": "Running", "run": 2, "startTime": "2026-01-01T00:00:00Z",
                "jobStatusList": {
                    "nightly-extract/batch": {"step": "extract", "state": "Succeeded", "attempt": 2,
                        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:05Z"},
                    "nightly-load/batch": {"step": "load", "state": "Running",
                        "startTime": "2026-01-01T00:09:48Z"},
                    "nightly-undo/batch": {"step": "undo", "state": "Skipped",
                        "reason": "load has not failed"},
                },
            })),
            now(),
        );
        assert_eq!(graph.title, "JobFlow batch/nightly: Running, run 2, 10m00s");
        let told: Vec<_> =
            graph.steps.iter().map(|s| (s.name.as_str(), s.state, s.detail.as_str(), s.closing)).collect();
        assert_eq!(
            told,
            [
                ("extract", State::Succeeded, "1m05s, attempt 2", false),
                ("load", State::Running, "12s", false),
                ("check", State::Waiting, "", false),
                ("undo", State::Skipped, "load has not failed", false),
                ("onFailure", State::Waiting, "", true),
                ("onExit", State::Waiting, "", true),
            ]
        );
    }

    #[test]
    fn edges_tell_what_is_waited_for_unless_it_is_success() {
        let graph = graph(&flow(json!({})), now());
        let edges: Vec<_> = graph.edges.iter().map(|e| (e.from, e.to, e.label.as_deref())).collect();
        assert_eq!(edges, [(0, 1, None), (1, 2, None), (0, 2, Some("HTTP 8080")), (1, 3, Some("Failed"))]);
    }

    #[test]
    fn unknown_names_are_told_even_before_the_operator_has_seen_them() {
        let mut flow = flow(json!({}));
        flow.spec.flows[1].dependencies = vec!["stage".to_owned()];
        assert_eq!(graph(&flow, now()).notes, ["load waits for stage, which is no step of this flow"]);
        flow.status = serde_json::from_value(json!({"conditions": [{
            "type": "GraphValid", "status": "False", "reason": "UnknownStep", "message": "load: no step stage",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}))
        .unwrap();
        assert_eq!(graph(&flow, now()).notes, ["load: no step stage"]);
    }

    #[test]
    fn what_boxes_tell_is_not_told_again_in_a_note() {
        let told = |type_: &str, status: &str, message: &str| {
            json!({"type": type_, "status": status, "reason": "R", "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let failed = "1/4; step load failed: no disk";
        let conditions = [
            told("Ready", "False", failed),
            told("Stalled", "True", failed),
            told("Outdated", "True", "the spec has changed since load started"),
        ];
        let graph = graph(&flow(json!({"state": "Failed", "conditions": conditions})), now());
        assert_eq!(graph.notes, ["the spec has changed since load started"]);
    }

    #[test]
    fn on_failure_is_skipped_once_all_has_succeeded() {
        let graph = graph(&flow(json!({"state": "Succeed"})), now());
        let closing: Vec<_> = graph.steps.iter().filter(|s| s.closing).map(|s| s.state).collect();
        assert_eq!(closing, [State::Skipped, State::Waiting]);
    }

    #[test]
    fn times_have_two_units() {
        let from = |text: &str| duration(text.parse().unwrap(), now());
        assert_eq!(from("2026-01-01T00:09:59Z"), "1s");
        assert_eq!(from("2026-01-01T00:07:01Z"), "2m59s");
        assert_eq!(from("2025-12-31T21:05:00Z"), "3h05m");
        assert_eq!(from("2025-12-28T21:05:00Z"), "3d03h");
        assert_eq!(from("2026-01-01T00:11:00Z"), "0s");
    }
}
