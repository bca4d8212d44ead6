//! What can go wrong in a story of a PreScaledCronJob, and what must hold once nothing does any more.
#![allow(clippy::unwrap_used)]

use std::fmt;

use crate::seeds::tell;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stoker_api::{ConcurrencyPolicy, Gate, RunOutcome, keys};
use stoker_core::pool::JobView;
use stoker_core::pool::jobs::History;
use stoker_core::pre_scaled::{Lead, Rules};
use stoker_sim::crons::RunTruth;
use stoker_sim::{CronCluster, CronSpec, Warm};

/// When stories begin: on some day, before clocks are changed, and before a leap day.
const STARTS: [&str; 5] = [
    "2026-06-01T10:00:07Z",
    "2026-03-29T00:31:00Z",
    "2026-10-25T00:12:30Z",
    "2026-11-01T05:20:00Z",
    "2028-02-29T23:48:59Z",
];

const SCHEDULES: [&str; 7] =
    ["* * * * *", "*/2 * * * *", "*/5 * * * *", "7,8,30 * * * *", "0 * * * *", "30 1,2 * * *", "0 0 1 * *"];

const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];

/// One thing that happens. Operators, Jobs and pods are chosen by a number, modulo how many there are.
#[derive(Clone, Debug)]
pub enum Happens {
    /// Milliseconds pass.
    Passes(i64),
    /// Time passes until some milliseconds before or after the next instant.
    Near(i64),
    Rescheduled(usize),
    Rewarmed(Warm),
    Retemplated(u8),
    Policy(ConcurrencyPolicy),
    Deadline(Option<i64>),
    Suspended(bool),
    Paused(bool),
    Deleted,
    JobDeleted(usize, bool),
    JobEdited(usize),
    PodDeleted(usize),
    /// The API server answers nobody for some milliseconds.
    Down(i64),
    /// An operator dies, and is back after some milliseconds.
    Crashes(usize, i64),
    /// A watch of an operator is late by some milliseconds.
    Late(usize, usize, i64),
    ClockSet(usize, i64),
    /// Of a hundred things so many go wrong.
    Trouble(u32),
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    GoesOn,
    Suspended,
    Paused,
    Deleted,
}

/// How it begins, and what happens then.
#[derive(Clone)]
pub struct Story {
    pub start: usize,
    pub spec: CronSpec,
    /// By how many milliseconds the API server's clock and the nodes' are wrong.
    pub clocks: [i64; 2],
    pub seed: u64,
    pub history: Vec<Happens>,
}

/// A line for each thing that happens.
impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {:?}\nclocks {:?}, chance {}",
            STARTS[self.start], self.spec, self.clocks, self.seed
        )?;
        self.history.iter().try_for_each(|what| writeln!(f, "  {what:?}"))
    }
}

impl Story {
    /// The cluster in which it happens.
    pub fn begin(&self, operators: usize) -> CronCluster {
        let start = STARTS[self.start].parse().unwrap();
        let mut cluster = CronCluster::new(start, self.spec, operators, self.clocks, self.seed);
        tell(|| {
            cluster.world.told = Some(Vec::new());
            format!("{start}")
        });
        cluster
    }
}

fn warm() -> impl Strategy<Value = Warm> {
    prop_oneof![
        2 => Just(Warm::Seconds(0)),
        3 => Just(Warm::Seconds(20)),
        3 => (1..300i64).prop_map(Warm::Seconds),
        1 => Just(Warm::Seconds(3_600)),
        1 => Just(Warm::Primer("*/3 * * * *")),
    ]
}

fn policy() -> impl Strategy<Value = ConcurrencyPolicy> {
    prop_oneof![
        Just(ConcurrencyPolicy::Allow),
        Just(ConcurrencyPolicy::Forbid),
        Just(ConcurrencyPolicy::Replace)
    ]
}

fn deadline() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(5)), 1 => Just(Some(200))]
}

pub fn spec() -> impl Strategy<Value = CronSpec> {
    let limit = || prop::option::weighted(0.8, 0..3u32);
    let gate = prop_oneof![3 => Just(Gate::InitContainer), 1 => Just(Gate::Exec)];
    let times = (prop::sample::select(&SCHEDULES[..]), prop::sample::select(&ZONES[..]), warm(), gate);
    (times, policy(), deadline(), limit(), limit(), 0..3u32).prop_map(
        |((schedule, zone, warm, gate), concurrency, deadline, completed, failed, backoff_limit)| CronSpec {
            schedule,
            zone,
            warm,
            gate,
            concurrency,
            deadline,
            suspend: false,
            paused: false,
            template: 0,
            keep: History { completed, failed },
            backoff_limit,
        },
    )
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    let n = || 0..64usize;
    let short = || prop_oneof![3 => 0..3_000i64, 3 => 0..40_000i64, 1 => 0..240_000i64];
    let time = prop_oneof![
        6 => short().prop_map(Passes),
        1 => (0..7_200_000i64).prop_map(Passes),
        3 => (-6_000..6_000i64).prop_map(Near),
        3 => (-60_000..60_000i64).prop_map(Near),
    ];
    let users = prop_oneof![
        1 => (0..SCHEDULES.len()).prop_map(Rescheduled),
        1 => warm().prop_map(Rewarmed),
        3 => (0..3u8).prop_map(Retemplated),
        1 => policy().prop_map(Policy),
        1 => deadline().prop_map(Deadline),
        3 => any::<bool>().prop_map(Suspended),
        2 => any::<bool>().prop_map(Paused),
        3 => (n(), any::<bool>()).prop_map(|(j, foreground)| JobDeleted(j, foreground)),
        2 => n().prop_map(JobEdited),
        1 => n().prop_map(PodDeleted),
    ];
    let accidents = prop_oneof![
        3 => short().prop_map(Down),
        4 => (n(), short()).prop_map(|(o, time)| Crashes(o, time)),
        5 => (n(), 0..3usize, 0..20_000i64).prop_map(|(o, watch, late)| Late(o, watch, late)),
        1 => (n(), -2_000..2_000i64).prop_map(|(o, by)| ClockSet(o, by)),
        3 => prop_oneof![Just(0), 1..20u32, Just(60)].prop_map(Trouble),
    ];
    prop_oneof![20 => time, 8 => users, 8 => accidents]
}

/// Any story.
pub fn stories() -> impl Strategy<Value = Story> {
    let clocks = [-250..250i64, -250..250i64];
    let deleted = prop::option::weighted(0.1, 0..100usize);
    let history = prop::collection::vec(happens(), 0..80);
    (0..STARTS.len(), spec(), clocks, any::<u64>(), history, deleted).prop_map(
        |(start, spec, clocks, seed, mut history, deleted)| {
            if let Some(place) = deleted {
                history.insert(place.min(history.len()), Happens::Deleted);
            }
            Story { start, spec, clocks, seed, history }
        },
    )
}

pub fn ends() -> impl Strategy<Value = End> {
    prop_oneof![2 => Just(End::GoesOn), 1 => Just(End::Suspended), 1 => Just(End::Paused), 2 => Just(End::Deleted)]
}

/// Every promise was kept so far.
fn kept(cluster: &mut CronCluster) -> Result<(), TestCaseError> {
    if let Some(told) = &mut cluster.world.told {
        for line in std::mem::take(told) {
            tell(|| line);
        }
    }
    prop_assert!(cluster.world.broken.is_empty(), "{}", cluster.world.broken.join("\n"));
    Ok(())
}

/// Time passes, and every promise is kept meanwhile.
fn until(cluster: &mut CronCluster, time: Timestamp) -> Result<(), TestCaseError> {
    cluster.until(time);
    kept(cluster)
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// The spec, and what it says.
fn spec_of(cluster: &CronCluster) -> Option<(CronSpec, Rules, Lead)> {
    let spec = cluster.cron().filter(|cron| !cron.deleted)?.spec;
    let (rules, lead) = spec.rules()?;
    Some((spec, rules, lead))
}

/// Lets one thing happen, and checks the promises.
pub fn happen(cluster: &mut CronCluster, what: Happens) -> Result<(), TestCaseError> {
    tell(|| format!("  {what:?}"));
    let milliseconds = SignedDuration::from_millis;
    let operators = cluster.operators.len();
    let mut edit = |change: &dyn Fn(&mut CronSpec)| {
        if let Some((mut spec, ..)) = spec_of(cluster) {
            change(&mut spec);
            cluster.edit(spec);
        }
    };
    match what {
        Happens::Passes(time) => cluster.pass(milliseconds(time)),
        Happens::Near(by) => {
            let next = spec_of(cluster).and_then(|(_, rules, _)| rules.after(cluster.now()));
            // Not a month ahead.
            if let Some(next) = next.filter(|next| next.duration_since(cluster.now()) < seconds(30 * 3_600)) {
                cluster.until(next + milliseconds(by));
            }
        }
        Happens::Rescheduled(n) => edit(&|spec| spec.schedule = SCHEDULES[n]),
        Happens::Rewarmed(warm) => edit(&|spec| spec.warm = warm),
        Happens::Retemplated(template) => edit(&|spec| spec.template = template),
        Happens::Policy(policy) => edit(&|spec| spec.concurrency = policy),
        Happens::Deadline(deadline) => edit(&|spec| spec.deadline = deadline),
        Happens::Suspended(on) => edit(&|spec| spec.suspend = on),
        Happens::Paused(on) => edit(&|spec| spec.paused = on),
        Happens::Deleted => cluster.delete(),
        Happens::JobDeleted(j, foreground) => cluster.delete_job(j, foreground),
        Happens::JobEdited(j) => cluster.edit_job(j),
        Happens::PodDeleted(p) => cluster.delete_pod(p),
        Happens::Down(time) => cluster.world.goes_down(milliseconds(time)),
        Happens::Crashes(o, time) => cluster.crash(o % operators, milliseconds(time)),
        Happens::Late(o, watch, late) => cluster.delay(o % operators, watch, milliseconds(late)),
        Happens::ClockSet(o, by) => cluster.operators[o % operators].clock = milliseconds(by),
        Happens::Trouble(trouble) => cluster.world.trouble = trouble,
    }
    kept(cluster)
}

/// The runs of an instant that were not cancelled before it.
fn runs_of(cluster: &CronCluster, instant: Timestamp) -> usize {
    cluster.world.truth.values().filter(|job| job.what.instant == instant && !job.what.void).count()
}

/// Nothing goes wrong any more: what is open is decided, and the latest instant within its deadline has its run.
pub fn settles(cluster: &mut CronCluster) -> Result<(), TestCaseError> {
    cluster.heal();
    let healed = cluster.now();
    tell(|| format!("  healed at {healed}"));
    let open =
        spec_of(cluster).filter(|(_, rules, _)| rules.stopped.is_none()).and_then(|(spec, rules, _)| {
            let cron = cluster.cron()?;
            let last = rules.until(healed)?;
            let decided = cron.status.decided_until.unwrap_or(cron.created);
            let same = cron.status.timetable.as_ref().is_none_or(|timetable| *timetable == rules.timetable);
            let in_time = rules.deadline.is_none_or(|deadline| last + deadline > healed + seconds(20));
            let alone = rules.after(healed).is_none_or(|next| next > healed + seconds(60));
            let fresh = cluster.world.truth.values().all(|job| job.what.instant != last);
            let may = spec.concurrency != ConcurrencyPolicy::Forbid;
            (last > decided && same && in_time && alone && fresh && may).then_some(last)
        });
    until(cluster, healed + seconds(50))?;
    if let Some(open) = open {
        prop_assert!(runs_of(cluster, open) > 0, "I5: {open} was within its deadline, and has no run");
    }
    until(cluster, healed + seconds(100))?;
    let Some((_, rules, _)) = spec_of(cluster) else { return Ok(()) };
    let cron = cluster.cron().unwrap();
    let last = rules.until(cluster.now() - seconds(10)).filter(|last| *last > cron.created);
    let decided = cron.status.decided_until;
    let suspended = rules.stopped == Some(stoker_core::pre_scaled::Stopped::Suspended);
    prop_assert!(suspended || last <= decided, "I5: decided until {decided:?}, and {last:?} has passed");
    Ok(())
}

/// In calm times each instant has its run, at its warm-up, and everything ends as it should.
pub fn runs_on_time(cluster: &mut CronCluster) -> Result<(), TestCaseError> {
    for operator in &mut cluster.operators {
        operator.rarely = None;
    }
    let calm = cluster.now();
    let Some((spec, rules, lead)) = spec_of(cluster) else { return Ok(()) };
    let missed = cluster.cron().unwrap().status.missed_count;
    let mut instant = calm + seconds(60);
    for _ in 0..3 {
        let Some(next) = rules.after(instant).filter(|next| next.duration_since(calm) < seconds(30 * 3_600))
        else {
            return Ok(());
        };
        instant = next;
        let start = lead.start(instant, &rules.zone);
        until(cluster, instant - SignedDuration::from_millis(1))?;
        let unfinished = |job: &JobView| job.finished.is_none();
        let earlier = |job: &JobView| cluster.world.truth[&job.uid].what.instant < instant && unfinished(job);
        let beside = cluster.world.jobs.iter().any(|job| earlier(job));
        let at_work = cluster.world.at_work();
        until(cluster, instant + seconds(3))?;
        if rules.stopped.is_some() {
            prop_assert!(runs_of(cluster, instant) == 0, "stopped, and {instant} has a run");
            continue;
        }
        let of_instant =
            cluster.world.truth.values().find(|job| job.what.instant == instant && !job.what.void);
        if beside && spec.concurrency == ConcurrencyPolicy::Forbid {
            let skipped = cluster.cron().unwrap().status.decided_until >= Some(instant);
            prop_assert!(skipped, "I5: nothing is decided of {instant}");
            prop_assert!(of_instant.is_none() || at_work.is_empty(), "Forbid: {instant} runs beside another");
            continue;
        }
        if start == instant && rules.deadline == Some(SignedDuration::ZERO) {
            continue;
        }
        let Some(run) = of_instant else {
            return Err(TestCaseError::fail(format!("I5: {instant} has no run in calm times")));
        };
        let mut between = std::iter::successors(rules.after(start), |last| rules.after(*last));
        let few = between.by_ref().take(16).any(|at| at == instant);
        let begin = start.max(calm);
        if few && spec.concurrency != ConcurrencyPolicy::Forbid && run.deleted.is_none() {
            prop_assert!(run.made <= begin + seconds(3), "{instant}: made at {}, not at {start}", run.made);
        }
        // By another warm-up, if it was made before.
        let early = run.made >= calm && run.made < start - seconds(1);
        prop_assert!(!early, "{instant}: made at {}, before {start}", run.made);
        let as_it_is = (run.what.spec.template, run.what.spec.gate) == (spec.template, spec.gate);
        prop_assert!(as_it_is, "{instant}: made by another template: {:?}", run.what.spec);
        let edited = |job: &JobView| job.edited && cluster.world.truth[&job.uid].what.instant == instant;
        prop_assert!(!cluster.world.jobs.iter().any(|job| edited(job)), "{instant}: edited by hand");
        if spec.concurrency == ConcurrencyPolicy::Replace {
            for job in cluster.world.jobs.iter() {
                let left = cluster.world.truth[&job.uid].what.instant < instant
                    && unfinished(job)
                    && !job.terminating;
                prop_assert!(!left, "Replace: {} is left at {instant}", job.name);
            }
        }
    }
    for (uid, job) in &cluster.world.truth {
        let stray = job.begun && job.what.instant > calm && !rules.names(job.what.instant);
        prop_assert!(
            !stray,
            "{uid} has begun the work of {}, which the schedule does not name",
            job.what.instant
        );
    }
    let status = &cluster.cron().unwrap().status;
    for run in &status.last_runs {
        // One that was deleted may have been about to succeed.
        let done = |job: &RunTruth| {
            job.what.instant == run.instant
                && (run.outcome == RunOutcome::Deleted && job.deleted.is_some()
                    || (job.succeeded > 0) == (run.outcome == RunOutcome::Succeeded))
        };
        prop_assert!(cluster.world.truth.values().any(done), "{run:?} is not what became of it");
    }
    let late = rules.deadline.is_some_and(|deadline| deadline < seconds(5)) || rules.stopped.is_some();
    prop_assert!(late || status.missed_count == missed, "I5: an instant is missed in calm times");
    Ok(())
}

/// What was stopped does not begin, what has ended is let go, and then nothing is written any more.
pub fn ends_well(cluster: &mut CronCluster, end: End) -> Result<(), TestCaseError> {
    let stopped = cluster.now();
    tell(|| format!("  the end, {end:?} at {stopped}"));
    if let Some((spec, ..)) = spec_of(cluster) {
        match end {
            End::GoesOn => {}
            End::Suspended => cluster.edit(CronSpec { suspend: true, ..spec }),
            End::Paused => cluster.edit(CronSpec { paused: true, ..spec }),
            End::Deleted => cluster.delete(),
        }
    }
    // Work takes up to 200 s, three times; and a pod may have waited long for its node, its images and its end.
    until(cluster, stopped + seconds(1_800))?;
    if spec_of(cluster).is_none_or(|(_, rules, _)| rules.stopped.is_some()) {
        for (uid, job) in &cluster.world.truth {
            prop_assert!(
                !(job.begun && job.what.instant > stopped + seconds(3)),
                "{uid} has begun the work of {} although that was stopped",
                job.what.instant
            );
        }
    }
    let Some((_, rules, lead)) = spec_of(cluster) else {
        prop_assert!(cluster.cron().is_none(), "the object is left");
        let jobs: Vec<_> = cluster.world.jobs.iter().map(|job| &job.name).collect();
        prop_assert!(
            jobs.is_empty() && cluster.world.pods.is_empty(),
            "left: {jobs:?}, {}",
            cluster.world.pods.len()
        );
        return Ok(());
    };
    lost(cluster)?;
    // Between two instants, when no warm-up begins.
    let now = cluster.now();
    let next = rules.after(now);
    let quiet = match next {
        _ if rules.stopped.is_none() => next.map(|next| lead.start(next, &rules.zone)),
        Some(next) if next < now + seconds(1_800) => {
            until(cluster, next + seconds(5))?;
            rules.after(cluster.now())
        }
        next => next,
    };
    let quiet = quiet.map_or(now + seconds(7_200), |quiet| (quiet - seconds(1)).min(now + seconds(7_200)));
    // Runs that have begun since may be at work.
    let at_rest = rules.stopped.is_some() || rules.until(now).is_none_or(|last| last <= stopped);
    if quiet <= cluster.now() || !at_rest {
        return Ok(());
    }
    for job in cluster.world.jobs.iter() {
        prop_assert!(job.finished.is_some(), "{job:?} has not ended");
        prop_assert!(job.finalizers.is_empty() && !job.terminating, "{} is kept: {job:?}", job.name);
    }
    for (well, limit) in [(true, rules.keep.completed), (false, rules.keep.failed)] {
        let count =
            cluster.world.jobs.iter().filter(|j| j.finished.as_ref().is_some_and(|f| f.well == well)).count();
        prop_assert!(
            limit.is_none_or(|limit| count <= limit as usize),
            "{count} Jobs kept, {limit:?} may be"
        );
    }
    let (writes, looks): (usize, Vec<usize>) =
        (cluster.writes, cluster.operators.iter().map(|o| o.looks).collect());
    until(cluster, quiet)?;
    prop_assert!(cluster.writes == writes, "I10: {} writes at rest", cluster.writes - writes);
    for (operator, before) in cluster.operators.iter().zip(looks) {
        prop_assert!(operator.looks <= before + 3, "I10: {} looks at rest", operator.looks - before);
    }
    Ok(())
}

/// Each run has begun its work, unless somebody deleted it or it failed before.
fn lost(cluster: &CronCluster) -> Result<(), TestCaseError> {
    for (uid, job) in &cluster.world.truth {
        let begun = job.begun || job.deleted.is_some() || job.ended == Some(false);
        let due = job.what.instant + seconds(600) < cluster.now() && job.made + seconds(600) < cluster.now();
        prop_assert!(begun || !due, "I5: {uid} never began the work of {}", job.what.instant);
    }
    let kept =
        cluster.world.jobs.iter().filter(|job| job.finalizers.iter().any(|f| f == keys::OUTCOME)).count();
    prop_assert!(kept <= 64, "{kept} Jobs are kept");
    Ok(())
}
