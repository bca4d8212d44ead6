//! What a HotStandbyDeployment's status says, from what was seen and decided.

use jiff::Timestamp;
use stoker_api::{DecisionSummary, HotStandbyDeployment, HotStandbyDeploymentStatus, PolicyStatus};

use super::{Counts, Decision, Plan};
use crate::conditions::{Conditions, is_true};

/// What the shell knows beside the plan.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Who decided: `formula`, `builtin/NAME` or `configMap/NAME/KEY`.
    pub by: String,
    /// Digest of the component that decided.
    pub digest: Option<String>,
    /// State of the policy, if the spec names one.
    pub policy: Option<PolicyStatus>,
    /// Why the policy is not the desired one or does not answer; None = healthy.
    pub policy_trouble: Option<(String, String)>,
    /// What the API server answered to a dry run of the template, if it refused.
    pub template_error: Option<String>,
    /// A dry run of the template was answered.
    pub template_tried: bool,
    /// Names that somebody else's pods have.
    pub conflicts: Vec<String>,
    /// The last refusal of a pod's creation.
    pub creation_error: Option<String>,
    /// Pods that are not Ready after the start-up timeout: how many, and why the first is not.
    pub not_starting: Option<(u32, String)>,
}

/// Builds the status. It takes over from the previous one what must not flip: transition times, and that the
/// pool of this generation was once filled.
#[allow(clippy::too_many_arguments)]
pub fn status(
    object: &HotStandbyDeployment,
    previous: &HotStandbyDeploymentStatus,
    counts: &Counts,
    decision: &Decision,
    plan: &Plan,
    keeps_failing: bool,
    facts: &Facts,
    now: Timestamp,
) -> HotStandbyDeploymentStatus {
    let spec = &object.spec;
    let generation = object.metadata.generation;
    let mut c = Conditions::new(&previous.conditions, generation, now);

    let was_ready = previous.observed_generation == generation && is_true(&previous.conditions, "Ready");
    let filled = counts.current >= decision.applied && counts.starting == 0;
    let stalled = stalled(plan, keeps_failing, facts);
    let ready = was_ready || (filled && facts.template_error.is_none());
    if spec.paused {
        c.set("Ready", ready, "Paused", "spec.paused is true: no pod is created or removed");
    } else if object.metadata.deletion_timestamp.is_some() {
        let words = format!("the object is being deleted; {} pods are still at work", counts.current);
        c.set("Ready", false, "Draining", words);
    } else if ready {
        c.set("Ready", true, "Filled", "the pool of this generation was filled");
    } else if let Some((reason, words)) = &stalled {
        c.set("Ready", false, reason, words.clone());
    } else {
        let words = format!("{} of {} pods are Ready", counts.ready, decision.applied);
        c.set("Ready", false, "Filling", words);
    }
    if counts.idle > 0 {
        c.set("StandbyAvailable", true, "Idle", "at least one pod is idle and Ready");
    } else {
        c.set("StandbyAvailable", false, "NoneIdle", "no pod is idle and Ready");
    }
    if !ready && stalled.is_none() && !spec.paused {
        c.set("Reconciling", true, "Filling", "pods of this generation are starting");
    }
    if let Some((reason, words)) = &stalled {
        c.set("Stalled", true, reason, words.clone());
    }
    if facts.policy.is_some() {
        match &facts.policy_trouble {
            None => c.set("PolicyHealthy", true, "Deciding", "the policy that the spec names decides"),
            Some((reason, words)) => c.set("PolicyHealthy", false, reason, words.clone()),
        }
    }
    match &facts.template_error {
        Some(error) => c.set("TemplateValid", false, "Refused", error.clone()),
        None if facts.template_tried => {
            c.set("TemplateValid", true, "Accepted", "the API server accepts pods made from the template");
        }
        None => {}
    }
    if !facts.conflicts.is_empty() {
        let words = format!(
            "pods that this object does not own have names that it needs: {}; remove or rename them",
            facts.conflicts.join(", ")
        );
        c.set("Conflict", true, "NameTaken", words);
    }

    HotStandbyDeploymentStatus {
        observed_generation: generation,
        busy_count: counts.busy,
        idle_count: counts.idle,
        starting_count: counts.starting,
        unknown_count: counts.unknown,
        terminating_count: counts.terminating,
        total_count: counts.current,
        desired_replicas: decision.applied,
        replacing_count: plan.replacing,
        selector: Some(
            spec.selector.match_labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
        ),
        last_decision: Some(DecisionSummary {
            time: Some(now),
            by: facts.by.clone(),
            digest: facts.digest.clone(),
            inputs: format!(
                "busy {}, idle {}, starting {}, unknown {}",
                counts.busy, counts.idle, counts.starting, counts.unknown
            ),
            raw: decision.raw,
            applied: decision.applied,
            limited_by: if spec.paused {
                "paused".to_owned()
            } else if decision.limited_by == super::LimitedBy::None && plan.surplus > 0 {
                "delay".to_owned()
            } else {
                decision.limited_by.as_str().to_owned()
            },
            reason: decision.reason.clone(),
        }),
        policy: facts.policy.clone(),
        conditions: c.finish(),
    }
}

fn stalled(plan: &Plan, keeps_failing: bool, facts: &Facts) -> Option<(String, String)> {
    if let Some(error) = &facts.template_error {
        return Some(("TemplateRefused".to_owned(), error.clone()));
    }
    if let Some(error) = &facts.creation_error {
        return Some(("CreationRefused".to_owned(), error.clone()));
    }
    if let Some((count, why)) = &facts.not_starting {
        let old = if plan.replacing > 0 { "; the pods that they should replace stay" } else { "" };
        let words = format!("{count} pods are not Ready after startupTimeoutSeconds: {why}{old}");
        return Some(("PodsNotStarting".to_owned(), words));
    }
    if keeps_failing {
        let words = plan.held_back.clone().unwrap_or_else(|| "pods keep failing".to_owned());
        return Some(("PodsKeepFailing".to_owned(), words));
    }
    None
}

/// Whether two statuses differ in more than the last decision's time and inputs, which alone are not worth a
/// write (I10). Of failures in a row only each doubling is.
pub fn differs(a: &HotStandbyDeploymentStatus, b: &HotStandbyDeploymentStatus) -> bool {
    let strip = |s: &HotStandbyDeploymentStatus| {
        let mut s = s.clone();
        if let Some(d) = &mut s.last_decision {
            d.time = None;
            d.inputs.clear();
        }
        if let Some(policy) = &mut s.policy {
            policy.failures_in_a_row = policy.failures_in_a_row.checked_ilog2().map_or(0, |log| log + 1);
        }
        s
    };
    strip(a) != strip(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i10_failures_in_a_row_are_written_when_they_double() {
        let failed = |failures_in_a_row| HotStandbyDeploymentStatus {
            policy: Some(PolicyStatus { failures_in_a_row, ..PolicyStatus::default() }),
            ..HotStandbyDeploymentStatus::default()
        };
        let written: Vec<u32> =
            (1..20).filter(|count| differs(&failed(count - 1), &failed(*count))).collect();
        assert_eq!(written, [1, 2, 4, 8, 16]);
        assert!(differs(&failed(5), &failed(0)));
    }
}
