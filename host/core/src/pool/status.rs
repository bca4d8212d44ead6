//! What a pool's status says, from what was seen and decided. It is the same for both kinds of pool; each kind's own
//! fields are filled from it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use stoker_api::{DecisionSummary, HotStandbyDeploymentStatus, HotStandbyJobStatus, PolicyStatus};

use super::{Counts, Decision, JobCounts, Plan};
use crate::conditions::{Conditions, is_true};

/// What is told of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolStatus {
    /// The generation of the spec that this is about.
    pub observed_generation: Option<i64>,
    /// Busy members.
    pub busy: u32,
    /// Standby.
    pub idle: u32,
    /// Members that are not Ready yet.
    pub starting: u32,
    /// Members that were claimed, and are not busy.
    pub claimed: u32,
    /// Members of which nothing is known.
    pub unknown: u32,
    /// Members that are being deleted.
    pub terminating: u32,
    /// Members that are alive.
    pub total: u32,
    /// Members that there should be.
    pub desired: u32,
    /// Members that are being replaced.
    pub replacing: u32,
    /// Where members are Jobs: what became of them.
    pub jobs: Option<JobCounts>,
    /// The selector as a string.
    pub selector: Option<String>,
    /// Why the pool has its size.
    pub last_decision: Option<DecisionSummary>,
    /// The policy.
    pub policy: Option<PolicyStatus>,
    /// The conditions.
    pub conditions: Vec<Condition>,
}

impl From<HotStandbyDeploymentStatus> for PoolStatus {
    fn from(s: HotStandbyDeploymentStatus) -> Self {
        Self {
            observed_generation: s.observed_generation,
            busy: s.busy_count,
            idle: s.idle_count,
            starting: s.starting_count,
            claimed: s.claimed_count,
            unknown: s.unknown_count,
            terminating: s.terminating_count,
            total: s.total_count,
            desired: s.desired_replicas,
            replacing: s.replacing_count,
            jobs: None,
            selector: s.selector,
            last_decision: s.last_decision,
            policy: s.policy,
            conditions: s.conditions,
        }
    }
}

impl From<PoolStatus> for HotStandbyDeploymentStatus {
    fn from(s: PoolStatus) -> Self {
        Self {
            observed_generation: s.observed_generation,
            busy_count: s.busy,
            idle_count: s.idle,
            starting_count: s.starting,
            claimed_count: s.claimed,
            unknown_count: s.unknown,
            terminating_count: s.terminating,
            total_count: s.total,
            desired_replicas: s.desired,
            replacing_count: s.replacing,
            selector: s.selector,
            last_decision: s.last_decision,
            policy: s.policy,
            conditions: s.conditions,
        }
    }
}

impl From<HotStandbyJobStatus> for PoolStatus {
    fn from(s: HotStandbyJobStatus) -> Self {
        Self {
            observed_generation: s.observed_generation,
            busy: s.busy_count,
            idle: s.idle_count,
            starting: s.starting_count,
            claimed: s.claimed_count,
            unknown: s.unknown_count,
            terminating: s.terminating_count,
            total: s.active_jobs,
            desired: s.desired_active,
            replacing: s.replacing_count,
            jobs: Some(JobCounts {
                pods: s.active_count,
                jobs: s.child_jobs,
                active: s.active_jobs,
                completed: s.completed_jobs,
                failed: s.failed_jobs,
            }),
            selector: s.selector,
            last_decision: s.last_decision,
            policy: s.policy,
            conditions: s.conditions,
        }
    }
}

impl PoolStatus {
    /// The status of a HotStandbyJob, written now.
    pub fn of_jobs(self, now: Timestamp) -> HotStandbyJobStatus {
        let jobs = self.jobs.unwrap_or_default();
        HotStandbyJobStatus {
            observed_generation: self.observed_generation,
            busy_count: self.busy,
            idle_count: self.idle,
            starting_count: self.starting,
            claimed_count: self.claimed,
            unknown_count: self.unknown,
            terminating_count: self.terminating,
            replacing_count: self.replacing,
            active_count: jobs.pods,
            desired_active: self.desired,
            child_jobs: jobs.jobs,
            active_jobs: self.total,
            completed_jobs: jobs.completed,
            failed_jobs: jobs.failed,
            last_sync_time: Some(now),
            selector: self.selector,
            last_decision: self.last_decision,
            policy: self.policy,
            conditions: self.conditions,
        }
    }
}

/// What the object itself says.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Its generation.
    pub generation: Option<i64>,
    /// spec.paused
    pub paused: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// Its selector as a string.
    pub selector: Option<String>,
    /// jobTemplate.activeDeadlineSeconds, which counts the time as standby, too.
    pub deadline_seconds: Option<i64>,
    /// What members are called.
    pub members: &'static str,
}

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
    /// Pods are asked whether they are busy.
    pub asks: bool,
    /// Pods that give no clear answer: how many, and why the first does not.
    pub not_answering: Option<(u32, String)>,
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
    /// Jobs, where they are the members.
    pub jobs: Option<JobCounts>,
    /// Whether all signals have a number; None = there are none, or nothing is known yet. In words why the first has none.
    pub signals: Option<Option<String>>,
}

/// Builds the status. It takes over from the previous one what must not flip: transition times, and that the
/// pool of this generation was once filled.
#[allow(clippy::too_many_arguments)]
pub fn status(
    about: &About,
    previous: &PoolStatus,
    counts: &Counts,
    decision: &Decision,
    plan: &Plan,
    keeps_failing: bool,
    facts: &Facts,
    now: Timestamp,
) -> PoolStatus {
    let generation = about.generation;
    let members = about.members;
    let mut c = Conditions::new(&previous.conditions, generation, now);

    let was_ready = previous.observed_generation == generation && is_true(&previous.conditions, "Ready");
    let filled = counts.current >= decision.applied && counts.starting == 0;
    let stalled = stalled(members, plan, keeps_failing, facts);
    let held_back = plan.held_back.as_ref().filter(|_| stalled.is_none());
    let held_back = held_back.map(|why| format!(": {why}")).unwrap_or_default();
    let ready = was_ready || (filled && facts.template_error.is_none());
    if about.paused {
        c.set(
            "Ready",
            ready,
            "Paused",
            format!("spec.paused is true: none of the {members} are created or removed"),
        );
    } else if about.deleting {
        let words = format!("the object is being deleted; {} {members} are still at work", counts.current);
        c.set("Ready", false, "Draining", words);
    } else if ready {
        c.set("Ready", true, "Filled", "the pool of this generation was filled");
    } else if let Some((reason, words)) = &stalled {
        c.set("Ready", false, reason, words.clone());
    } else {
        let words = format!("{} of {} {members} are Ready{held_back}", counts.ready, decision.applied);
        c.set("Ready", false, "Filling", words);
    }
    if counts.idle > 0 {
        c.set("StandbyAvailable", true, "Idle", format!("at least one of the {members} is idle and Ready"));
    } else {
        let words = format!("none of the {members} is idle and Ready{held_back}");
        c.set("StandbyAvailable", false, "NoneIdle", words);
    }
    if !ready && stalled.is_none() && !about.paused {
        c.set("Reconciling", true, "Filling", format!("{members} of this generation are starting"));
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
    if facts.asks {
        match &facts.not_answering {
            None => c.set("ProbesHealthy", true, "Answering", "no pod fails to answer the busy probe"),
            Some((count, why)) => {
                let words =
                    format!("{count} pods give no clear answer to the busy probe and are not removed: {why}");
                c.set("ProbesHealthy", false, "NoAnswer", words);
            }
        }
    }
    match &facts.signals {
        None => {}
        Some(None) => {
            c.set("SignalsHealthy", true, "Fetched", "every signal has a number that is new enough")
        }
        Some(Some(words)) => c.set("SignalsHealthy", false, "NoValue", words.clone()),
    }
    match &facts.template_error {
        Some(error) => c.set("TemplateValid", false, "Refused", error.clone()),
        None if facts.template_tried => {
            c.set(
                "TemplateValid",
                true,
                "Accepted",
                format!("the API server accepts {members} made from the template"),
            );
        }
        None => {}
    }
    if !facts.conflicts.is_empty() {
        let words = format!(
            "{members} that this object does not own have names that it needs: {}; remove or rename them",
            facts.conflicts.join(", ")
        );
        c.set("Conflict", true, "NameTaken", words);
    }

    if let Some(seconds) = about.deadline_seconds {
        let words = format!(
            "jobTemplate.activeDeadlineSeconds is {seconds}: the time as standby counts, so that work is ended {seconds} s after its pod began to wait; bound the work itself instead, and idleness by maxIdleSeconds"
        );
        c.set("DeadlineEndsWork", true, "ActiveDeadlineSeconds", words);
    }

    PoolStatus {
        observed_generation: generation,
        busy: counts.busy,
        idle: counts.idle,
        starting: counts.starting,
        claimed: counts.claimed,
        unknown: counts.unknown,
        terminating: counts.terminating,
        total: counts.current,
        desired: decision.applied,
        replacing: plan.replacing,
        jobs: facts.jobs,
        selector: about.selector.clone(),
        last_decision: Some(DecisionSummary {
            time: Some(now),
            by: facts.by.clone(),
            digest: facts.digest.clone(),
            inputs: format!(
                "busy {}, claimed {}, waiting {}, idle {}, starting {}, unknown {}",
                counts.busy, counts.claimed, counts.waiting, counts.idle, counts.starting, counts.unknown
            ),
            raw: decision.raw,
            applied: decision.applied,
            limited_by: if about.paused {
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

fn stalled(members: &str, plan: &Plan, keeps_failing: bool, facts: &Facts) -> Option<(String, String)> {
    if let Some(error) = &facts.template_error {
        return Some(("TemplateRefused".to_owned(), error.clone()));
    }
    if let Some(error) = &facts.creation_error {
        return Some(("CreationRefused".to_owned(), error.clone()));
    }
    if let Some((count, why)) = &facts.not_starting {
        let old = if plan.replacing > 0 {
            format!("; the {members} that they should replace stay")
        } else {
            String::new()
        };
        let words = format!("{count} {members} are not Ready after startupTimeoutSeconds: {why}{old}");
        return Some(("PodsNotStarting".to_owned(), words));
    }
    if keeps_failing {
        let words = plan.held_back.clone().unwrap_or_else(|| format!("{members} keep failing"));
        return Some(("PodsKeepFailing".to_owned(), words));
    }
    None
}

/// How often a count has doubled.
fn doublings(count: u32) -> u32 {
    count.checked_ilog2().map_or(0, |log| log + 1)
}

/// Whether two statuses differ in more than the last decision's time and inputs, which alone are not worth a
/// write (I10). Of failures in a row only each doubling is, as of decisions that a policy on trial would make otherwise.
pub fn differs(a: &PoolStatus, b: &PoolStatus) -> bool {
    let strip = |s: &PoolStatus| {
        let mut s = s.clone();
        if let Some(d) = &mut s.last_decision {
            d.time = None;
            d.inputs.clear();
        }
        if let Some(policy) = &mut s.policy {
            policy.failures_in_a_row = doublings(policy.failures_in_a_row);
            if let Some(shadow) = &mut policy.shadow {
                shadow.differed = doublings(shadow.differed);
                shadow.compared = 0;
                shadow.reason = None;
                if shadow.differs.is_none() {
                    shadow.would_keep = shadow.would_keep.map(|_| 0);
                }
            }
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
        let failed = |failures_in_a_row| PoolStatus {
            policy: Some(PolicyStatus { failures_in_a_row, ..PolicyStatus::default() }),
            ..PoolStatus::default()
        };
        let written: Vec<u32> =
            (1..20).filter(|count| differs(&failed(count - 1), &failed(*count))).collect();
        assert_eq!(written, [1, 2, 4, 8, 16]);
        assert!(differs(&failed(5), &failed(0)));
    }
}
