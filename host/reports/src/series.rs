//! The values that results were reported with, bounded: when a job has too many series, those of its oldest executions go, and
//! what is older than all that is left does not come in. What goes is counted. Beside them stands how executions ended.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cluster::{JobView, MetricsSpec};
use crate::manifest::Manifest;
use crate::result::Sample;
use crate::slot::{ExecutionId, JobKey};

/// The values of all jobs.
#[derive(Debug, Default)]
pub struct Series {
    jobs: Mutex<HashMap<JobKey, JobSeries>>,
}

/// Those of one.
#[derive(Clone, Debug, Default)]
pub struct JobSeries {
    uid: String,
    spec: Option<MetricsSpec>,
    /// Whether what is in the store has been read back.
    complete: bool,
    /// By execution and node. A node is there once it has reported, even if none of its values are.
    pub runs: BTreeMap<ExecutionId, BTreeMap<String, Vec<Sample>>>,
    /// Executions that are over, as it is written in the store.
    pub over: BTreeMap<ExecutionId, Arc<Manifest>>,
    /// Executions that the cluster may still tell of, and whose reports are not kept any more.
    pub pruned: BTreeSet<ExecutionId>,
    held: usize,
    /// Series of values left out so far.
    dropped: u64,
    /// The most series of nodes' states that were left out at a time.
    most_hidden: Cell<u64>,
}

impl Series {
    fn jobs(&self) -> MutexGuard<'_, HashMap<JobKey, JobSeries>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a job's results must be read from the store.
    pub fn wants(&self, job: &JobView) -> bool {
        self.jobs().get(&job.key).is_none_or(|known| !known.fits(job) || !known.complete)
    }

    /// Begins a job anew. What is reported from now on is taken, while older results are read.
    pub fn begin(&self, job: &JobView) {
        let mut jobs = self.jobs();
        let known = jobs.entry(job.key.clone()).or_default();
        if !known.fits(job) {
            *known = JobSeries::of(job, known.left_out(0));
        }
    }

    /// All results of a job have been read.
    pub fn done(&self, job: &JobView) {
        if let Some(known) = self.jobs().get_mut(&job.key).filter(|known| known.fits(job)) {
            known.complete = true;
        }
    }

    /// Takes what a node has just reported, in place of what it reported before in that execution.
    pub fn record(&self, job: &JobView, id: &ExecutionId, node: &str, samples: (Vec<Sample>, u64)) {
        let mut jobs = self.jobs();
        let known = jobs.entry(job.key.clone()).or_insert_with(|| JobSeries::of(job, 0));
        // One that was made for other metrics is read again as a whole.
        if known.fits(job) {
            known.insert(id, node, samples);
        }
    }

    /// Takes what was read from the store, unless the node has reported again since.
    pub fn restore(&self, job: &JobView, id: &ExecutionId, node: &str, samples: (Vec<Sample>, u64)) {
        let mut jobs = self.jobs();
        let Some(known) = jobs.get_mut(&job.key).filter(|known| known.fits(job)) else { return };
        if known.runs.get(id).is_none_or(|run| !run.contains_key(node)) {
            known.insert(id, node, samples);
        }
    }

    /// Takes how an execution ended, if it has.
    pub fn conclude(&self, job: &JobView, id: &ExecutionId, manifest: Manifest) {
        let mut jobs = self.jobs();
        let known = jobs.get_mut(&job.key).filter(|known| known.fits(job) && manifest.ended.is_some());
        if let Some(known) = known {
            known.over.insert(id.clone(), Arc::new(manifest));
        }
    }

    /// Forgets an execution, whatever the cluster goes on to tell of it.
    pub fn prune(&self, job: &JobKey, id: &ExecutionId) {
        if let Some(known) = self.jobs().get_mut(job) {
            known.pruned.insert(id.clone());
            let gone = known.runs.remove(id).map_or(0, |run| run.values().map(Vec::len).sum());
            known.held -= gone;
            known.over.remove(id);
        }
    }

    /// Forgets jobs that are not among these, and what these have forgotten.
    pub fn keep_jobs(&self, jobs: &[Arc<JobView>]) {
        self.jobs().retain(|key, known| {
            let job = jobs.iter().find(|job| job.key == *key);
            known.pruned.retain(|id| job.is_some_and(|job| job.executions.contains_key(id)));
            job.is_some()
        });
    }

    /// What a job's series are, once they are complete.
    pub fn with<T>(&self, job: &JobView, look: impl FnOnce(&JobSeries) -> T) -> Option<T> {
        self.jobs().get(&job.key).filter(|known| known.fits(job) && known.complete).map(look)
    }
}

impl JobSeries {
    /// Series left out so far, given how many of nodes' states are left out now. It never falls, as a counter must not.
    pub fn left_out(&self, hidden: u64) -> u64 {
        self.most_hidden.set(self.most_hidden.get().max(hidden));
        self.dropped + self.most_hidden.get()
    }

    fn of(job: &JobView, dropped: u64) -> Self {
        Self { uid: job.uid.clone(), spec: job.metrics.clone(), dropped, ..Self::default() }
    }

    fn fits(&self, job: &JobView) -> bool {
        self.uid == job.uid && self.spec == job.metrics
    }

    /// Most samples, each of which is one series or, with the label for the latest, two.
    fn most(&self) -> usize {
        self.spec.as_ref().map_or(0, |spec| spec.max_series / if spec.latest_label { 2 } else { 1 })
    }

    fn insert(&mut self, id: &ExecutionId, node: &str, (mut samples, left): (Vec<Sample>, u64)) {
        self.dropped += left;
        let run = self.runs.entry(id.clone()).or_default();
        self.held -= run.insert(node.to_owned(), Vec::new()).map_or(0, |old| old.len());
        self.make_room(id, samples.len());
        let room = self.most().saturating_sub(self.held);
        self.dropped += samples.len().saturating_sub(room) as u64;
        samples.truncate(room);
        self.held += samples.len();
        if let Some(slot) = self.runs.get_mut(id).and_then(|run| run.get_mut(node)) {
            *slot = samples;
        }
    }

    /// Takes the values of older executions, the oldest first, until so many more fit.
    fn make_room(&mut self, id: &ExecutionId, more: usize) {
        let most = self.most();
        for (_, run) in self.runs.range_mut(..id) {
            for samples in run.values_mut() {
                if self.held + more <= most {
                    return;
                }
                self.held -= samples.len();
                self.dropped += samples.len() as u64;
                *samples = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Gauge, ReportLimits, Retention};

    fn job(max_series: usize, latest_label: bool) -> JobView {
        let gauges = [("g".to_owned(), Gauge::default())].into();
        JobView {
            key: JobKey { namespace: "ns".into(), name: "job".into() },
            uid: "1".into(),
            limits: ReportLimits { bytes_per_upload: 0, bytes_per_execution: 0 },
            retention: Retention { history: 3, ttl: None },
            metrics: Some(MetricsSpec { prefix: "p".into(), gauges, latest_label, max_series }),
            executions: BTreeMap::new(),
        }
    }

    fn samples(count: usize) -> (Vec<Sample>, u64) {
        let sample =
            |n: usize| Sample { gauge: "g".into(), labels: [n.to_string().into()].into(), value: 0.0 };
        ((0..count).map(sample).collect(), 0)
    }

    fn id(text: &str) -> ExecutionId {
        text.parse().unwrap()
    }

    fn state(series: &Series, job: &JobView) -> (usize, u64) {
        series.done(job);
        series
            .with(job, |s| {
                let there = s.runs.values().flat_map(BTreeMap::values).map(Vec::len).sum();
                assert_eq!(there, s.held);
                (there, s.dropped)
            })
            .unwrap()
    }

    #[test]
    fn what_was_left_out_never_becomes_less() {
        let series = JobSeries { dropped: 3, ..JobSeries::default() };
        let told: Vec<u64> = [0, 5, 2, 7, 0].into_iter().map(|hidden| series.left_out(hidden)).collect();
        assert_eq!(told, [3, 8, 8, 10, 10]);
    }

    #[test]
    fn never_unbounded_series() {
        let (series, job) = (Series::default(), job(10, false));
        for run in 0..20 {
            for node in 0..7 {
                series.record(&job, &id(&format!("{run:04}")), &node.to_string(), samples(3));
                assert!(state(&series, &job).0 <= 10);
            }
        }
        let (there, dropped) = state(&series, &job);
        assert_eq!((there, dropped), (10, 20 * 7 * 3 - 10));
    }

    #[test]
    fn the_newest_execution_has_its_series_and_the_oldest_goes() {
        let (series, job) = (Series::default(), job(4, false));
        series.record(&job, &id("1"), "n", samples(4));
        series.record(&job, &id("2"), "n", samples(3));
        series.record(&job, &id("1"), "late", samples(2));
        series.done(&job);
        let lengths: Vec<_> = series
            .with(&job, |s| s.runs.values().map(|r| r.values().map(Vec::len).sum::<usize>()).collect())
            .unwrap();
        assert_eq!(lengths, [1, 3], "a late report does not push out a newer one");
    }

    #[test]
    fn the_label_for_the_latest_counts_twice_and_reports_again_count_once() {
        let (series, job) = (Series::default(), job(10, true));
        for _ in 0..3 {
            series.record(&job, &id("1"), "n", samples(4));
        }
        assert_eq!(state(&series, &job), (4, 0));
        series.record(&job, &id("1"), "m", samples(4));
        assert_eq!(state(&series, &job), (5, 3));
    }

    #[test]
    fn what_is_read_back_does_not_replace_what_was_reported_since() {
        let (series, job) = (Series::default(), job(10, false));
        series.begin(&job);
        series.record(&job, &id("1"), "n", samples(2));
        series.restore(&job, &id("1"), "n", samples(5));
        assert_eq!(state(&series, &job).0, 2);
        series.prune(&job.key, &id("1"));
        assert_eq!(state(&series, &job).0, 0);
    }
}
