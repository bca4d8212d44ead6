//! The Jobs and pods of an object as its operator knows them: as its watches show them, with what it did since and what is
//! not shown yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use stoker_api::keys;
use stoker_core::PodView;
use stoker_core::kept::NAME_HELD;
use stoker_core::pool::JobView;

use crate::jobs::job_of;
use crate::store::{Store, View};

/// What an operator knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    jobs: View<JobView>,
    pods: View<PodView>,
    /// What was made and is not shown yet: an operator that waits for long asks whether it is still there.
    made: Vec<JobView>,
    /// Jobs that it let go, by UID, and that the watch may not have shown so yet.
    let_go: BTreeSet<String>,
    /// Until when the names of Jobs are held that are to be let go, by UID.
    held: BTreeMap<String, Timestamp>,
}

impl Known {
    /// All is listed.
    pub fn relist(&mut self, jobs: &Store<JobView>, pods: &Store<PodView>) {
        self.jobs.relist(jobs);
        self.pods.relist(pods);
    }

    /// Since when the watches have something to tell: of Jobs, and of pods.
    pub fn late_since(&self, jobs: &Store<JobView>, pods: &Store<PodView>) -> [Option<Timestamp>; 2] {
        [self.jobs.late_since(jobs), self.pods.late_since(pods)]
    }

    /// The watches tell what happened up to some times. Returns whether there was anything.
    pub fn deliver(&mut self, jobs: &Store<JobView>, pods: &Store<PodView>, until: [Timestamp; 2]) -> bool {
        let of_jobs = self.jobs.deliver_until(jobs, until[0]);
        self.pods.deliver_until(pods, until[1]) || of_jobs
    }

    /// A Job was made.
    pub fn note_made(&mut self, job: &JobView) {
        self.made.push(job.clone());
    }

    /// A Job was let go.
    pub fn note_let_go(&mut self, uid: &str) {
        self.let_go.insert(uid.to_owned());
    }

    /// Until when the name of a Job is held that is to be let go.
    pub fn held_until(&mut self, uid: &str, now: Timestamp) -> Timestamp {
        *self.held.entry(uid.to_owned()).or_insert(now + NAME_HELD)
    }

    /// The Jobs, and the pods by their Jobs' UIDs.
    pub fn seen(&mut self) -> (Vec<JobView>, HashMap<String, Vec<PodView>>) {
        let mut jobs: Vec<JobView> = self.jobs.iter().map(|job| JobView::clone(job)).collect();
        let shown = &self.jobs;
        self.made.retain(|made| !shown.went(&made.uid) && jobs.iter().all(|job| job.uid != made.uid));
        jobs.extend(self.made.iter().cloned());
        self.let_go.retain(|uid| jobs.iter().any(|job| &job.uid == uid));
        self.held.retain(|uid, _| jobs.iter().any(|job| &job.uid == uid));
        for job in jobs.iter_mut().filter(|job| self.let_go.contains(&job.uid)) {
            job.finalizers.retain(|finalizer| finalizer != keys::OUTCOME);
        }
        let mut pods: HashMap<String, Vec<PodView>> = HashMap::new();
        for pod in self.pods.iter() {
            pods.entry(job_of(pod).to_owned()).or_default().push(PodView::clone(pod));
        }
        (jobs, pods)
    }
}
