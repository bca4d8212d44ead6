//! Conditions with kstatus meaning: one small builder that keeps transition times, and what the kinds share that run to an
//! end.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message that the API's own validation accepts.
const MAX_MESSAGE: usize = 32 * 1024;

/// Where something stands that runs to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Something of it runs, or will without the user.
    Going,
    /// Nothing of it starts until the user says so.
    Held,
    /// It has ended well.
    Succeeded,
    /// It has failed, and nothing more comes of it without the user.
    Failed,
}

/// How it stands with something that runs to an end.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Where it stands.
    pub course: Course,
    /// What of the spec cannot run as things are: a reason, and in words.
    pub trouble: Option<(&'a str, &'a str)>,
    /// What there is to tell in any case: a reason, and in words.
    pub story: (&'a str, &'a str),
}

/// Collects the conditions of one status.
#[derive(Debug)]
pub struct Conditions<'a> {
    previous: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    built: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Starts from the conditions that the object has now.
    pub fn new(previous: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { previous, generation, now, built: Vec::new() }
    }

    /// Sets a condition; its transition time stays while its status does.
    pub fn set(&mut self, type_: &str, status: bool, reason: &str, message: impl Into<String>) {
        let status = if status { "True" } else { "False" };
        let since = self
            .previous
            .iter()
            .find(|c| c.type_ == type_ && c.status == status)
            .map_or_else(|| Time(self.now), |c| c.last_transition_time.clone());
        let mut message: String = message.into();
        if message.len() > MAX_MESSAGE {
            message = message.chars().take(MAX_MESSAGE / 4).collect();
        }
        self.built.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: self.generation,
            last_transition_time: since,
        });
    }

    /// Sets the conditions that all kinds have that run to an end. kstatus takes Stalled for Failed, then Reconciling and
    /// a false Ready for InProgress, and all else for Current:
    ///
    /// | | Ready | Reconciling | Stalled | Complete | kstatus |
    /// |---|---|---|---|---|---|
    /// | it goes on | True | True | False | False | InProgress |
    /// | it goes on, and something of the spec cannot run | False | True | False | False | InProgress |
    /// | the user has it wait | True | False | False | False | Current |
    /// | it has succeeded | True | False | False | True | Current |
    /// | it has failed | False | False | True | False | Failed |
    /// | nothing goes on, and something of the spec cannot run | False | False | True | False | Failed |
    pub fn stand(&mut self, standing: &Standing<'_>) {
        let Standing { course, trouble, story: (reason, words) } = *standing;
        let (goes_on, failed) = (course == Course::Going, course == Course::Failed);
        let wrong = trouble.or(failed.then_some((reason, words)));
        let (why, what) = wrong.unwrap_or((reason, words));
        self.set("Ready", wrong.is_none(), why, what);
        match (goes_on, trouble) {
            (true, None) => self.set("Reconciling", true, reason, "there is something to do yet"),
            // The message of Ready is about something else.
            (true, Some(_)) => self.set("Reconciling", true, reason, words),
            (false, _) => self.set("Reconciling", false, reason, "nothing is to do"),
        }
        match wrong.filter(|_| !goes_on) {
            Some((why, what)) => self.set("Stalled", true, why, what),
            None => self.set("Stalled", false, "GoesOn", "nothing is in the way"),
        }
        match course {
            Course::Succeeded if wrong.is_none() => {
                self.set("Complete", true, "Succeeded", "it has ended well");
            }
            Course::Failed => self.set("Complete", false, reason, "it has failed"),
            _ => self.set("Complete", false, "NotEnded", "it has not ended"),
        }
    }

    /// The conditions, in the order in which they were set.
    pub fn finish(self) -> Vec<Condition> {
        self.built
    }
}

/// Whether a condition of a list is True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kstatus, and with it Argo CD and Flux, makes of conditions.
    fn kstatus(conditions: &[Condition]) -> &'static str {
        let is =
            |type_: &str, status: &str| conditions.iter().any(|c| c.type_ == type_ && c.status == status);
        match () {
            () if is("Stalled", "True") => "Failed",
            () if is("Reconciling", "True") || is("Ready", "False") => "InProgress",
            () => "Current",
        }
    }

    #[test]
    fn what_runs_to_an_end_tells_kstatus_the_same_whatever_its_kind() {
        let trouble = Some(("Refused", "no such image"));
        let table = [
            (Course::Going, None, "TTFF", "InProgress"),
            (Course::Going, trouble, "FTFF", "InProgress"),
            (Course::Held, None, "TFFF", "Current"),
            (Course::Held, trouble, "FFTF", "Failed"),
            (Course::Succeeded, None, "TFFT", "Current"),
            (Course::Succeeded, trouble, "FFTF", "Failed"),
            (Course::Failed, None, "FFTF", "Failed"),
            (Course::Failed, trouble, "FFTF", "Failed"),
        ];
        for (course, trouble, statuses, word) in table {
            let mut c = Conditions::new(&[], Some(1), Timestamp::UNIX_EPOCH);
            c.stand(&Standing { course, trouble, story: ("Story", "as it is") });
            let conditions = c.finish();
            let types: Vec<&str> = conditions.iter().map(|c| c.type_.as_str()).collect();
            assert_eq!(types, ["Ready", "Reconciling", "Stalled", "Complete"]);
            let first: String = conditions.iter().filter_map(|c| c.status.chars().next()).collect();
            assert_eq!((first.as_str(), kstatus(&conditions)), (statuses, word), "{course:?} {trouble:?}");
            let told = if trouble.is_some() { "no such image" } else { "as it is" };
            assert_eq!(conditions[0].message, told, "{course:?}");
            assert!(conditions.iter().all(|c| !c.reason.is_empty() && !c.message.is_empty()));
        }
    }
}
