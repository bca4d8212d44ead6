//! What a DaemonJob's status and Events say in words.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use stoker_api::{DaemonJobState, DaemonJobStatus, FailurePolicy};

use super::plan::{Look, Told};
use crate::conditions::{Conditions, Course, Standing};
use crate::fan_out::Spread;

/// What there is to say something about.
pub(super) struct Saying<'a> {
    pub look: &'a Look<'a>,
    pub written: &'a DaemonJobStatus,
    pub spread: &'a Spread,
    /// What is wrong with the spec or its template.
    pub bad: Option<&'a str>,
    /// Names of Jobs that others have.
    pub conflicts: &'a [String],
    pub timed_out: bool,
    /// Nodes start now, or at the next look.
    pub starts: bool,
}

impl Saying<'_> {
    /// Nodes that are not chosen, by why.
    fn passed_over(&self) -> String {
        let parts: Vec<String> =
            self.spread.passed_over.iter().map(|(why, count)| format!("{count} {why}")).collect();
        if parts.is_empty() { String::new() } else { format!("; not chosen: {}", parts.join(", ")) }
    }

    /// Where the run is, and why.
    fn why(&self, status: &DaemonJobStatus) -> (&'static str, String) {
        let (nodes, spec) = (&status.nodes, &self.look.object.spec);
        let failed = status
            .failed_nodes
            .first()
            .map(|node| format!("{} failed: {}", node.node, node.reason))
            .unwrap_or_default();
        let over = self.passed_over();
        match status.state {
            _ if self.timed_out && status.state == Some(DaemonJobState::Failed) => {
                let seconds = spec.timeout_seconds.unwrap_or_default();
                let words = format!(
                    "{} nodes have succeeded within timeoutSeconds ({seconds}); edit the spec to go on with the others",
                    status.progress
                );
                ("DeadlineExceeded", words)
            }
            Some(DaemonJobState::Failed) => {
                let words = format!(
                    "{} of {} nodes have failed ({failed}); edit the spec, or set another text in the annotation stoker.dev/resume, to try them again",
                    nodes.failed, nodes.desired
                );
                ("NodesFailed", words)
            }
            Some(DaemonJobState::Succeed) => {
                ("Succeeded", format!("{} nodes have succeeded{over}", status.progress))
            }
            Some(DaemonJobState::Paused) if spec.paused => {
                ("Paused", format!("paused: true; nothing more starts, {} run", nodes.running))
            }
            Some(DaemonJobState::Paused) => {
                let words = format!(
                    "{failed}; failurePolicy is Pause, and nothing more starts until the annotation stoker.dev/resume gets another text or the spec is edited"
                );
                ("NodesFailed", words)
            }
            Some(DaemonJobState::Pending) | None if nodes.desired == 0 => {
                let words = format!("no node is chosen of {}{over}; waiting for one", self.look.nodes.len());
                ("NoNodes", words)
            }
            _ => {
                let again = " (the annotation stoker.dev/resume tries them again)";
                let again = if nodes.failed > 0 { again } else { "" };
                let words = format!(
                    "{} nodes have succeeded, {} run, {} are to come, {} have failed{again}{over}",
                    status.progress, nodes.running, nodes.pending, nodes.failed
                );
                ("Running", words)
            }
        }
    }

    /// That a name is taken, in words.
    fn conflict(&self) -> Option<String> {
        let (name, more) = (self.conflicts.first()?, self.conflicts.len() - 1);
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        Some(format!(
            "Job {name}{more} belongs to another, which is left alone: rename this object or that Job; other nodes go on"
        ))
    }

    /// Where the run stands. `stuck`: what could start is kept from it.
    fn course(&self, status: &DaemonJobStatus, stuck: bool) -> Course {
        let runs = self.spread.in_flight + self.spread.undecided > 0;
        match status.state {
            Some(DaemonJobState::Succeed) => Course::Succeeded,
            Some(DaemonJobState::Paused) if self.look.object.spec.paused => Course::Held,
            // Until what runs has ended.
            Some(DaemonJobState::Failed | DaemonJobState::Paused) if !runs => Course::Failed,
            _ if stuck && !runs => Course::Held,
            _ => Course::Going,
        }
    }

    /// The conditions.
    pub fn conditions(&self, status: &DaemonJobStatus, now: Timestamp) -> Vec<Condition> {
        let mut c = Conditions::new(&self.written.conditions, self.look.object.metadata.generation, now);
        let refused = self.look.refused.map(|words| ("Refused", words));
        let missing = || if self.look.template.is_err() { "TemplateMissing" } else { "Invalid" };
        let bad = self.bad.map(|words| (missing(), words)).or(refused);
        let conflict = self.conflict();
        let taken = conflict.as_deref().map(|words| ("NameTaken", words));
        let (reason, why) = self.why(status);
        let none = (reason == "NoNodes").then_some((reason, why.as_str()));
        let others_start = self.starts || !self.spread.waiting.is_empty();
        let stuck = bad.is_some() || taken.is_some() && !others_start;
        let course = self.course(status, stuck);
        c.stand(&Standing { course, trouble: bad.or(taken).or(none), story: (reason, &why) });
        match bad {
            Some((reason, words)) => c.set("TemplateValid", false, reason, words),
            None => c.set("TemplateValid", true, "Valid", "nothing is known against the template"),
        }
        match conflict {
            Some(words) => c.set("Conflict", true, "NameTaken", words),
            None => c.set("Conflict", false, "NoConflict", "no name is taken"),
        }
        c.finish()
    }

    /// What is news since the written status.
    pub fn news(&self, status: &DaemonJobStatus) -> Vec<Told> {
        let mut told = Vec::new();
        let mut tell = |warning, reason, words| told.push(Told { warning, reason, words });
        let (was, written) = (self.written.state, self.written);
        if status.run != written.run && status.run > 0 {
            tell(false, "RunBegan", format!("run {} has begun", status.run));
        } else if status.resume_time != written.resume_time {
            tell(false, "RunResumed", "nodes that had failed are tried again".to_owned());
        }
        let failures = &self.spread.failures;
        if let Some(node) = status.failed_nodes.iter().find(|node| !written.failed_nodes.contains(node)) {
            let count = failures.iter().filter(|failure| failure.for_good).count();
            let after = match self.look.object.spec.failure_policy {
                FailurePolicy::Continue => "the others go on",
                FailurePolicy::FailFast => "nothing more starts, and what runs is deleted",
                FailurePolicy::Pause => "nothing more starts",
            };
            let words = format!(
                "{count} more nodes have failed, {} after {} attempts: {}; {after}",
                node.node, node.attempts, node.reason
            );
            tell(true, "NodesFailed", words);
        }
        if status.nodes.gone > written.nodes.gone && status.run == written.run {
            let count = status.nodes.gone - written.nodes.gone;
            tell(false, "NodesGone", format!("{count} nodes left before their Job had ended"));
        }
        if status.state != was {
            let (reason, words) = self.why(status);
            match status.state {
                Some(DaemonJobState::Succeed) => tell(false, reason, words),
                Some(DaemonJobState::Failed) => tell(true, "RunFailed", words),
                Some(DaemonJobState::Paused) => tell(false, "RunPaused", words),
                Some(DaemonJobState::Pending) if reason == "NoNodes" => tell(true, reason, words),
                _ => {}
            }
        }
        told
    }
}
