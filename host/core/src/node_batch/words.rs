//! What a NodeBatchJob's conditions and Events say.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use stoker_api::{Execution, ExecutionState, NodeBatchJobState, NodeBatchJobStatus, Overlap, keys};

use super::plan::{Look, Plan, Told};
use crate::conditions::Conditions;

/// What is news since the written status, beside what has begun.
pub(super) fn news(written: &NodeBatchJobStatus, plan: &mut Plan) {
    for execution in &plan.status.executions {
        let was = written.executions.iter().find(|known| known.id == execution.id);
        let known = was.map_or(&[][..], |was| &was.failed_nodes);
        if let Some(node) = execution.failed_nodes.iter().find(|node| !known.contains(node)) {
            let count = execution.nodes.failed.saturating_sub(was.map_or(0, |was| was.nodes.failed));
            let words = format!(
                "execution {}: {count} more nodes have failed, {} after {} attempts: {}",
                execution.id, node.node, node.attempts, node.reason
            );
            plan.told.push(Told::new(true, "NodesFailed", words));
        }
        let ended =
            execution.completion_time.is_some() && was.is_none_or(|was| was.completion_time.is_none());
        if ended {
            plan.told.push(over(execution));
        }
    }
}

fn over(execution: &Execution) -> Told {
    let (id, nodes) = (&execution.id, &execution.nodes);
    let left = if nodes.gone > 0 { format!(", {} left", nodes.gone) } else { String::new() };
    match execution.state {
        ExecutionState::Failed if nodes.desired == 0 => Told::new(
            true,
            "NoNodes",
            format!(
                "execution {id}: no node was chosen; look at spec.nodes, at the template's nodeSelector, affinity and tolerations, and whether nodes are Ready"
            ),
        ),
        ExecutionState::Failed => Told::new(
            true,
            "ExecutionFailed",
            format!("execution {id}: {} of {} nodes have failed{left}", nodes.failed, nodes.desired),
        ),
        ExecutionState::Replaced => Told::new(
            false,
            "ExecutionReplaced",
            format!("execution {id} has ended: a later one took its place"),
        ),
        ExecutionState::Succeeded | ExecutionState::Running => Told::new(
            false,
            "ExecutionSucceeded",
            format!("execution {id}: all {} nodes have succeeded{left}", nodes.succeeded),
        ),
    }
}

/// The conditions.
pub(super) fn conditions(
    look: &Look<'_>,
    written: &NodeBatchJobStatus,
    status: &NodeBatchJobStatus,
    bad: Option<&str>,
    conflicts: &[String],
    now: Timestamp,
) -> Vec<Condition> {
    let mut c = Conditions::new(&written.conditions, look.object.metadata.generation, now);
    let held = bad.or(look.refused);
    match (bad, look.refused) {
        (Some(words), _) => c.set("Ready", false, "SpecInvalid", words),
        (None, Some(words)) => {
            c.set("Ready", false, "TemplateRefused", format!("no pod can be made: {words}"))
        }
        (None, None) => {
            let (reason, words) = ready(look, status);
            c.set("Ready", true, reason, words);
        }
    }
    // It never ends: what it is asked for it does from the first look on.
    c.set("Reconciling", false, "Scheduled", "nothing of the spec is left to take up");
    match held {
        Some(words) => {
            c.set("Stalled", true, if bad.is_some() { "SpecInvalid" } else { "TemplateRefused" }, words)
        }
        None => c.set("Stalled", false, "GoesOn", "nothing stands in its way"),
    }
    match look.refused {
        Some(words) => c.set("TemplateValid", false, "Refused", words),
        None => c.set("TemplateValid", true, "NotRefused", "nothing is known against the template"),
    }
    match conflicts.first() {
        Some(name) => {
            let more = conflicts.len() - 1;
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            let words = format!(
                "pod {name}{more} belongs to another, which is left alone: rename this object or that pod; other nodes go on"
            );
            c.set("Conflict", true, "NameTaken", words);
        }
        None => c.set("Conflict", false, "NoConflict", "no name is taken"),
    }
    c.finish()
}

/// Why all is well, in words.
fn ready(look: &Look<'_>, status: &NodeBatchJobStatus) -> (&'static str, String) {
    let spec = &look.object.spec;
    let deaf =
        if look.callbacks { "" } else { "; no report service is configured, so pods are told of none" };
    let asked = look.object.metadata.annotations.as_ref().and_then(|all| all.get(keys::RUN_NOW));
    let waits = asked.is_some_and(|text| !text.is_empty() && Some(text) != status.run_now.as_ref());
    let waits = if waits && spec.concurrency_policy != Overlap::Replace {
        "; the one that was asked for by hand begins after it"
    } else {
        ""
    };
    let (reason, words) = match status.state {
        Some(NodeBatchJobState::Running) => {
            let running = status.executions.iter().filter(|e| e.completion_time.is_none());
            let running: Vec<String> = running.map(|e| format!("{} ({})", e.id, e.progress)).collect();
            ("Running", format!("under way: {}{waits}", running.join(", ")))
        }
        Some(NodeBatchJobState::Suspended) => {
            ("Suspended", "suspend is set: executions begin by hand only".to_owned())
        }
        _ if spec.schedule.is_some() => ("Scheduled", "the next execution begins at its instant".to_owned()),
        _ => ("Waiting", "there is no schedule: executions begin by hand".to_owned()),
    };
    (reason, words + deaf)
}
