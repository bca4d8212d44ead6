//! The conditions of a flow: what is right, what is not, and what to do about it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use stoker_api::{FlowState, StepState, StepStatus};

use super::plan::Plan;
use super::prepared::Flow;
use crate::conditions::{Conditions, Course, Standing};

/// Names that a message holds.
const NAMED: usize = 16;

/// What only whoever applies a plan can know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// The API server, or [`super::body`], refused a step's Job: its words, with the step's name.
    pub refused: Option<String>,
    /// The name of a Job that is another's.
    pub conflict: Option<String>,
}

/// The conditions of a flow after a plan.
pub fn conditions(
    flow: &Flow,
    plan: &Plan,
    troubles: &Troubles,
    previous: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let mut c = Conditions::new(previous, plan.status.observed_generation, now);
    let missing: Vec<&str> = plan.missing.iter().map(String::as_str).collect();
    let missing = (!missing.is_empty()).then(|| {
        format!(
            "there is no JobTemplate {} in this namespace: the steps that refer to it wait for it",
            several(&missing)
        )
    });
    let conflict = troubles.conflict.as_ref().map(|name| {
        format!("Job {name} belongs to another, which is left alone: rename this object or that Job")
    });
    let graph = flow.order.as_ref().err().cloned();
    let bad = graph.as_deref().map(|words| ("GraphInvalid", words));
    let bad = bad.or(troubles.refused.as_deref().map(|words| ("Refused", words)));
    let bad = bad.or(conflict.as_deref().map(|words| ("NameTaken", words)));
    // A handler that was not needed needs no JobTemplate.
    let open = plan.status.completion_time.is_none();
    let bad = bad.or(missing.as_deref().filter(|_| open).map(|words| ("TemplateMissing", words)));
    let (reason, words) = story(flow, plan, missing.as_deref());
    let course = course(flow, plan, bad.is_some());
    c.stand(&Standing { course, trouble: bad, story: (reason, &words) });
    match graph {
        Some(words) => c.set("GraphValid", false, "GraphInvalid", words),
        None => c.set("GraphValid", true, "Valid", "the steps have an order"),
    }
    match (&troubles.refused, missing) {
        (Some(words), _) => c.set("TemplateValid", false, "Refused", words.clone()),
        (None, Some(words)) => c.set("TemplateValid", false, "TemplateMissing", words),
        (None, None) => c.set("TemplateValid", true, "Valid", "nothing is wrong with the templates"),
    }
    match conflict {
        Some(words) => c.set("Conflict", true, "NameTaken", words),
        None => c.set("Conflict", false, "NoConflict", "no name is taken"),
    }
    outdated(&mut c, plan);
    if let Some(words) = flow.size.near_limit() {
        c.set("SizeNearLimit", true, "Estimated", words);
    }
    c.finish()
}

/// Where the flow stands. `stuck`: what could start is kept from it, as far as it does not start now.
fn course(flow: &Flow, plan: &Plan, stuck: bool) -> Course {
    let runs = || plan.status.job_status_list.values().any(|entry| entry.state == StepState::Running);
    let goes_on = || !plan.create.is_empty() || plan.backs_off || runs();
    match (plan.status.completion_time, plan.status.state) {
        (Some(_), Some(FlowState::Failed)) => Course::Failed,
        (Some(_), _) => Course::Succeeded,
        _ if flow.spec.suspend => Course::Held,
        _ if stuck && !goes_on() => Course::Held,
        _ => Course::Going,
    }
}

fn outdated(c: &mut Conditions<'_>, plan: &Plan) {
    let names = |list: &[String]| several(&list.iter().map(String::as_str).collect::<Vec<_>>());
    let mut words = Vec::new();
    if !plan.outdated.is_empty() {
        words.push(format!(
            "the spec has changed since {} started: annotate the flow with stoker.dev/rerun to run everything anew",
            names(&plan.outdated)
        ));
    }
    if !plan.removed.is_empty() {
        words.push(format!("the spec no longer has {}, and the Jobs go on", names(&plan.removed)));
    }
    if words.is_empty() {
        c.set("Outdated", false, "Current", "all steps ran as the spec has them");
    } else {
        c.set("Outdated", true, "SpecChanged", words.join("; "));
    }
}

/// Where the flow stands, in a line.
fn story(flow: &Flow, plan: &Plan, missing: Option<&str>) -> (&'static str, String) {
    let (reason, mut words) = so_far(plan, missing);
    if plan.rerun_waits {
        words.push_str("; a new run is asked for, and begins when this one has ended");
    }
    if flow.spec.suspend && plan.status.completion_time.is_none() {
        words.push_str("; suspend: true, nothing starts");
        return ("Suspended", words);
    }
    (reason, words)
}

fn so_far(plan: &Plan, missing: Option<&str>) -> (&'static str, String) {
    let entries = || plan.status.job_status_list.values();
    let in_state = |wanted: fn(&StepStatus) -> bool| -> Vec<&str> {
        entries().filter(|entry| wanted(entry)).map(|entry| entry.step.as_str()).collect()
    };
    let failed: Vec<&StepStatus> = entries().filter(|entry| entry.failed_for_good()).collect();
    let progress = plan.status.progress.as_deref().unwrap_or_default();
    if let Some(first) = failed.iter().min_by_key(|entry| (entry.completion_time, &entry.step)) {
        let more = if failed.len() > 1 { format!(", and {} more", failed.len() - 1) } else { String::new() };
        let why = first.reason.as_deref().unwrap_or_default();
        return ("StepFailed", format!("{progress}; step {} failed{more}: {why}", first.step));
    }
    if plan.status.timed_out {
        return ("TimedOut", format!("{progress}; {}", super::plan::TIMED_OUT));
    }
    let running = in_state(|entry| entry.state == StepState::Running);
    match plan.status.state.unwrap_or_default() {
        FlowState::Succeed => ("Succeeded", format!("{progress} steps succeeded")),
        _ if !running.is_empty() => ("Running", format!("{progress}; at work: {}", several(&running))),
        FlowState::Pending | FlowState::Running => {
            ("Waiting", missing.map_or_else(|| format!("{progress}; nothing is at work"), str::to_owned))
        }
        other => ("Waiting", format!("{progress}; {other:?}")),
    }
}

/// A few names, and how many more there are.
fn several(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let few = names[..names.len() - more].join(", ");
    if more > 0 { format!("{few} and {more} more") } else { few }
}
