//! What is done about the runs of a PreScaledCronJob, look by look: a table of objects, runs and times.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use stoker_api::{ConcurrencyPolicy, EndedRun, Gate, PreScaledCronJobStatus, RunOutcome, keys};
use stoker_core::kept::Upkeep;
use stoker_core::pod::PodCondition;
use stoker_core::pool::jobs::{Finished, History};
use stoker_core::pool::{JobPods, JobView};
use stoker_core::pre_scaled::{Action, Lead, Plan, Rules, Run, Stopped, Told, farewell, plan};
use stoker_core::{Phase, PodView};
use stoker_cron::Schedule;
use stoker_sim::pods;

/// A time of 1 June 2026, which is a Monday, or a whole timestamp.
fn t(text: &str) -> Timestamp {
    if text.len() > 12 { text.parse().unwrap() } else { format!("2026-06-01T{text}Z").parse().unwrap() }
}

/// As [`t`] reads it.
fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    match text.strip_prefix("2026-06-01T").and_then(|rest| rest.strip_suffix('Z')) {
        Some(time) => time.to_owned(),
        None => text,
    }
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// An object, its runs, and what is written of it.
#[derive(Clone)]
struct World {
    rules: Rules,
    lead: Lead,
    gate: Gate,
    status: PreScaledCronJobStatus,
    born: Timestamp,
    runs: Vec<(JobView, Vec<PodView>)>,
}

/// An object of a schedule, with a lead in seconds, all of whose instants up to 10:00 are decided.
fn world(schedule: &str, lead: i64) -> World {
    let rules = Rules {
        schedule: Schedule::parse(schedule).unwrap(),
        zone: TimeZone::UTC,
        timetable: schedule.to_owned(),
        stopped: None,
        concurrency: ConcurrencyPolicy::Allow,
        deadline: None,
        keep: History { completed: Some(3), failed: Some(1) },
        hash: "a".to_owned(),
    };
    let status = PreScaledCronJobStatus {
        timetable: Some(schedule.to_owned()),
        decided_until: Some(t("10:00:00")),
        ..PreScaledCronJobStatus::default()
    };
    let lead = Lead::Before(seconds(lead));
    World { rules, lead, gate: Gate::InitContainer, status, born: t("09:00:00"), runs: Vec::new() }
}

/// At five past each hour, with a lead of 90 s.
fn hourly() -> World {
    world("5 * * * *", 90)
}

/// The Job of an instant, made a minute before it.
fn job(instant: &str) -> JobView {
    JobView {
        name: format!("run-{instant}"),
        uid: format!("uid-{instant}"),
        resource_version: "7".to_owned(),
        slot: None,
        created: t(instant) - seconds(60),
        terminating: false,
        deleted_at: None,
        finalizers: vec![keys::OUTCOME.to_owned()],
        edited: false,
        finished: None,
        parallelism: 1,
        completions: None,
        active: 1,
        succeeded: 0,
        failed: 0,
        template_hash: Some("a".to_owned()),
        annotations: BTreeMap::from([(keys::INSTANT.to_owned(), t(instant).to_string())]),
    }
}

fn finished(mut job: JobView, well: bool, at: &str) -> JobView {
    job.finished = Some(Finished { well, at: Some(t(at)), why: None });
    job.active = 0;
    job
}

fn deleted(mut job: JobView, at: &str) -> JobView {
    (job.terminating, job.deleted_at) = (true, Some(t(at)));
    job.finalizers.push("foregroundDeletion".to_owned());
    job
}

/// Nothing of it runs any more.
fn quiet(mut job: JobView) -> JobView {
    job.active = 0;
    job
}

fn let_go(mut job: JobView) -> JobView {
    job.finalizers.retain(|finalizer| finalizer != keys::OUTCOME);
    job
}

/// What the status says of a run that has ended.
fn ended(instant: &str, outcome: RunOutcome) -> EndedRun {
    EndedRun {
        instant: t(instant),
        job: format!("run-{instant}"),
        outcome,
        schedule_milliseconds: None,
        pull_milliseconds: None,
        held_milliseconds: None,
        start_milliseconds: None,
        node: None,
    }
}

impl World {
    fn with(mut self, job: JobView) -> Self {
        self.runs.push((job, Vec::new()));
        self
    }

    fn with_pods(mut self, job: JobView, pods: Vec<PodView>) -> Self {
        self.runs.push((job, pods));
        self
    }

    fn rules(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(&mut self.rules);
        self
    }

    fn concurrency(self, concurrency: ConcurrencyPolicy) -> Self {
        self.rules(|rules| rules.concurrency = concurrency)
    }

    fn deadline(self, deadline: i64) -> Self {
        self.rules(|rules| rules.deadline = Some(seconds(deadline)))
    }

    fn stopped(self, stopped: Stopped) -> Self {
        self.rules(|rules| rules.stopped = Some(stopped))
    }

    fn runs(&self) -> Vec<Run<'_>> {
        self.runs.iter().filter_map(|(job, pods)| Run::of(&JobPods { job, pods })).collect()
    }

    fn look(&self, now: &str) -> Plan {
        plan(&self.rules, &self.lead, self.gate, &self.status, self.born, &self.runs(), t(now))
    }

    /// What a look does, in words.
    fn does(&self, now: &str) -> Vec<String> {
        self.look(now).actions.iter().map(words).collect()
    }

    /// A look whose status is written.
    fn goes_on(mut self, now: &str) -> Self {
        self.status = self.look(now).status;
        self
    }

    /// Instants missed and skipped so far.
    fn counts(&self) -> (u32, u32) {
        (self.status.missed_count, self.status.skipped_count)
    }

    fn decided(&self) -> String {
        clock(self.status.decided_until.unwrap())
    }
}

fn words(action: &Action) -> String {
    match action {
        Action::Create { instant } => format!("create {}", clock(*instant)),
        Action::Cancel { job, why, .. } => format!("cancel {job}: {why:?}"),
        Action::Replace { job, .. } => format!("replace {job}"),
        Action::Upkeep(Upkeep::Delete { name, .. }) => format!("delete {name}"),
        Action::Upkeep(Upkeep::EndPod { pod, .. }) => format!("end {pod}"),
        Action::Upkeep(Upkeep::LetGo { name, .. }) => format!("let go {name}"),
        Action::Forget { job, .. } => format!("forget {job}"),
    }
}

const NOTHING: [&str; 0] = [];

// Ahead of its instant.

#[test]
fn a_run_is_created_at_its_warm_up_and_not_before() {
    let world = hourly();
    assert_eq!(world.does("10:03:29.999"), NOTHING);
    assert_eq!(world.look("10:00:01").wake_at, Some(t("10:03:30")));
    assert_eq!(world.does("10:03:30"), ["create 10:05:00"]);
    let status = world.look("10:01:00").status;
    assert_eq!((status.next_instant, status.next_warm_up), (Some(t("10:05:00")), Some(t("10:03:30"))));
    let made = world.with(job("10:05:00"));
    assert_eq!(made.does("10:03:31"), NOTHING);
    assert_eq!(made.look("10:03:31").wake_at, Some(t("10:05:00")));
    let status = made.look("10:03:31").status;
    assert!(status.active_count == 1 && status.active[0].held);
}

#[test]
fn without_a_warm_up_a_run_is_created_at_its_instant() {
    let world = world("5 * * * *", 0);
    assert_eq!(world.does("10:04:59.999"), NOTHING);
    assert_eq!(world.look("10:04:59").wake_at, Some(t("10:05:00")));
    assert_eq!(world.does("10:05:00"), ["create 10:05:00"]);
}

#[test]
fn warm_ups_longer_than_the_period_overlap() {
    let world = world("* * * * *", 150);
    assert_eq!(world.does("10:00:20"), ["create 10:01:00", "create 10:02:00"]);
    assert_eq!(world.clone().with(job("10:01:00")).does("10:00:20"), ["create 10:02:00"]);
    assert_eq!(
        world.with(job("10:01:00")).with(job("10:02:00")).does("10:00:30"),
        ["create 10:03:00"],
        "each at its own warm-up"
    );
}

#[test]
fn no_more_than_sixteen_runs_are_held_at_a_time() {
    let created = world("* * * * *", 86_400).does("10:00:30");
    assert_eq!(created.len(), 16);
    assert_eq!(created.last().unwrap(), "create 10:16:00");
}

#[test]
fn a_lead_that_grows_and_one_that_shrinks_leave_a_held_run_alone() {
    for lead in [0, 60, 7_200] {
        let world = world("5 * * * *", lead).with(job("10:05:00"));
        assert!(world.does("10:04:30").iter().all(|done| done.starts_with("create 11")), "{lead}");
    }
}

#[test]
fn i5_what_is_decided_is_not_created_even_if_the_clock_was_set_back_since() {
    let mut world = world("* * * * *", 60);
    world.status.decided_until = Some(t("10:05:00"));
    assert_eq!(world.does("10:01:30"), NOTHING);
    assert_eq!(world.does("10:04:59"), NOTHING);
    assert_eq!(world.does("10:05:10"), ["create 10:06:00"]);
    assert_eq!(world.goes_on("10:01:30").decided(), "10:05:00");
}

#[test]
fn a_clock_set_forward_passes_instants_as_a_downtime_does() {
    let world = world("* * * * *", 30).with(job("10:01:00"));
    assert_eq!(world.does("10:05:10"), ["create 10:05:00"]);
    assert_eq!(world.goes_on("10:05:10").counts(), (3, 0));
}

// Instants that have passed.

#[test]
fn i5_after_a_downtime_the_latest_instant_runs_and_the_others_are_counted() {
    let world = world("* * * * *", 0);
    assert_eq!(world.does("10:07:30"), ["create 10:07:00"]);
    let plan = world.look("10:07:30");
    assert_eq!(plan.told, [Told::Missed { count: 6, last: t("10:06:00") }]);
    let world = world.goes_on("10:07:30");
    assert_eq!((world.counts(), world.decided()), ((6, 0), "10:06:00".to_owned()));
    // They are not counted again, and the latest is decided once its run is seen.
    let world = world.goes_on("10:07:31").with(job("10:07:00")).goes_on("10:07:32");
    assert_eq!((world.counts(), world.decided()), ((6, 0), "10:07:00".to_owned()));
    assert_eq!(world.status.last_schedule_time, Some(t("10:07:00")));
}

#[test]
fn i5_what_was_passed_over_before_a_run_is_counted() {
    let world = world("* * * * *", 0).with(job("10:02:00")).with(job("10:05:00")).goes_on("10:05:30");
    assert_eq!((world.counts(), world.decided()), ((3, 0), "10:05:00".to_owned()));
}

#[test]
fn the_first_look_at_a_new_object_counts_from_its_creation() {
    let mut world = world("* * * * *", 0);
    (world.status, world.born) = (PreScaledCronJobStatus::default(), t("10:02:30"));
    assert_eq!(world.does("10:02:40"), NOTHING);
    assert_eq!(world.does("10:04:10"), ["create 10:04:00"]);
    assert_eq!(world.goes_on("10:04:10").counts(), (1, 0));
}

#[test]
fn a_deadline_ends_after_its_last_moment() {
    for (deadline, last, late) in [
        (0, "10:05:00", "10:05:00.001"),
        (5, "10:05:05", "10:05:05.001"),
        (9, "10:05:09", "10:05:09.001"),
        (200, "10:08:20", "10:08:20.001"),
    ] {
        let world = world("5 * * * *", 0).deadline(deadline);
        assert_eq!(world.does(last), ["create 10:05:00"], "{deadline}");
        assert_eq!(world.look(last).wake_at, Some(t("10:05:00") + seconds(deadline)), "{deadline}");
        assert_eq!(world.does(late), NOTHING, "{deadline}");
        let world = world.goes_on(late);
        assert_eq!((world.counts(), world.decided()), ((1, 0), "10:05:00".to_owned()), "{deadline}");
    }
}

#[test]
fn i5_a_deadline_is_met_by_what_was_created_before_the_instant() {
    let world = world("5 * * * *", 60).deadline(0).with(job("10:05:00"));
    let world = world.goes_on("10:05:30");
    assert_eq!((world.counts(), world.decided()), ((0, 0), "10:05:00".to_owned()));
}

#[test]
fn i5_within_the_deadline_only_the_latest_is_made_up_for() {
    let world = world("* * * * *", 0).deadline(200);
    assert_eq!(world.does("10:04:30"), ["create 10:04:00"]);
    assert_eq!(world.goes_on("10:04:30").counts(), (3, 0));
}

#[test]
fn a_week_without_an_operator_is_counted_without_end_of_patience() {
    let mut world = world("* * * * *", 0);
    world.status.decided_until = Some(t("2020-01-01T00:00:00Z"));
    assert_eq!(world.does("10:07:30"), ["create 10:07:00"]);
    let world = world.goes_on("10:07:30");
    assert_eq!((world.status.missed_count, world.decided()), (9_999, "10:06:00".to_owned()));
}

// Concurrency policies.

#[test]
fn allow_lets_both_work() {
    let world = hourly().with(job("09:05:00"));
    assert_eq!(world.does("10:04:00"), ["create 10:05:00"]);
    assert_eq!(world.with(job("10:05:00")).does("10:05:30"), NOTHING);
}

#[test]
fn forbid_waits_while_an_earlier_run_is_at_work_and_skips_the_instant_if_it_still_is() {
    let world = hourly().concurrency(ConcurrencyPolicy::Forbid).with(job("09:05:00"));
    assert_eq!(world.does("10:04:00"), NOTHING);
    let plan = world.look("10:05:00");
    assert_eq!(plan.actions, []);
    assert_eq!(plan.told, [Told::Skipped { instant: t("10:05:00") }]);
    let world = world.goes_on("10:05:00");
    assert_eq!((world.counts(), world.decided()), ((0, 1), "10:05:00".to_owned()));
    // Its end does not bring the skipped one back.
    let mut world = world;
    world.runs[0].0 = finished(job("09:05:00"), true, "10:06:00");
    assert_eq!(world.does("10:06:01"), NOTHING);
}

#[test]
fn forbid_creates_as_soon_as_the_earlier_run_has_ended() {
    let world = hourly().concurrency(ConcurrencyPolicy::Forbid);
    let before = world.clone().with(finished(job("09:05:00"), true, "09:50:00"));
    assert_eq!(before.does("10:03:29"), NOTHING);
    assert_eq!(before.does("10:03:30"), ["create 10:05:00"]);
    let within = world.clone().with(finished(job("09:05:00"), false, "10:04:10"));
    assert_eq!(within.does("10:04:11"), ["create 10:05:00"]);
    let at = world.with(finished(job("09:05:00"), true, "10:05:00"));
    assert_eq!(at.does("10:05:00.2"), ["create 10:05:00"], "ended before anybody looked");
}

#[test]
fn forbid_holds_one_run_at_a_time() {
    let world = world("* * * * *", 150).concurrency(ConcurrencyPolicy::Forbid);
    assert_eq!(world.does("10:00:20"), ["create 10:01:00"]);
    assert_eq!(world.clone().with(job("10:01:00")).does("10:00:40"), NOTHING);
    assert_eq!(world.does("10:01:10"), ["create 10:01:00"], "one that is late goes first");
}

#[test]
fn forbid_counts_a_deleted_run_until_nothing_of_it_runs() {
    let world = hourly().concurrency(ConcurrencyPolicy::Forbid);
    let ending = world.clone().with(deleted(job("09:05:00"), "10:04:00"));
    assert_eq!(ending.does("10:04:10"), NOTHING);
    // Its Job is kept for its name's sake.
    let over = world.with(deleted(quiet(job("09:05:00")), "10:04:00"));
    assert_eq!(over.does("10:04:10"), ["create 10:05:00"]);
}

#[test]
fn a_run_that_is_deleted_without_its_pods_takes_them_along_while_it_is_kept() {
    let mut background = deleted(job("10:05:00"), "10:04:00");
    background.finalizers.retain(|finalizer| finalizer == keys::OUTCOME);
    let pod = pods::ready(0, t("10:04:00"));
    let end = format!("end {}", pod.name);
    let world = hourly().with_pods(background.clone(), vec![pod.clone()]);
    assert_eq!(world.does("10:04:01"), [end]);
    // Kubernetes sees to it itself,
    let foreground = deleted(job("10:05:00"), "10:04:00");
    assert_eq!(hourly().with_pods(foreground, vec![pod.clone()]).does("10:04:01"), NOTHING);
    // and what ends already ends.
    let ending = PodView { terminating: true, ..pod };
    assert_eq!(hourly().with_pods(background, vec![ending]).does("10:04:01"), NOTHING);
}

#[test]
fn pods_that_kubernetes_counts_and_nobody_sees_hold_a_deleted_run_for_half_a_minute() {
    let world = hourly().with(deleted(job("10:05:00"), "10:04:00"));
    assert_eq!(world.does("10:04:29"), NOTHING);
    assert_eq!(world.look("10:04:10").wake_at, Some(t("10:04:30")));
    assert_eq!(world.does("10:04:30"), ["let go run-10:05:00"]);
}

#[test]
fn forbid_cancels_a_held_run_when_an_earlier_one_turns_up() {
    let world = world("* * * * *", 90).concurrency(ConcurrencyPolicy::Forbid);
    let world = world.with(job("10:01:00")).with(job("10:02:00"));
    assert_eq!(world.does("10:01:30"), ["cancel run-10:02:00: Forbidden"]);
    assert_eq!(world.does("10:01:59.9"), ["cancel run-10:02:00: Forbidden"], "also at the last moment");
    assert_eq!(world.does("10:02:00"), NOTHING);
}

#[test]
fn replace_deletes_the_earlier_run_at_the_instant_and_not_before() {
    let world = hourly().concurrency(ConcurrencyPolicy::Replace);
    let world = world.with(job("09:05:00")).with(job("10:05:00"));
    assert_eq!(world.does("10:04:59.999"), NOTHING);
    assert_eq!(world.does("10:05:00"), ["replace run-09:05:00"]);
}

#[test]
fn replace_takes_nothing_away_while_there_is_nothing_to_take_its_place() {
    let world = world("5 * * * *", 0).concurrency(ConcurrencyPolicy::Replace).with(job("09:05:00"));
    assert_eq!(world.does("10:05:01"), ["create 10:05:00"]);
    // What was stopped just before its instant takes no place, either.
    let stopped = world.stopped(Stopped::Suspended).with(deleted(job("10:05:00"), "10:04:59"));
    assert_eq!(stopped.does("10:05:01"), NOTHING);
}

#[test]
fn replace_does_not_touch_what_goes_already_or_has_ended() {
    let world = hourly().concurrency(ConcurrencyPolicy::Replace).with(job("10:05:00"));
    assert_eq!(world.clone().with(deleted(job("09:05:00"), "10:05:00")).does("10:05:01"), NOTHING);
    assert_eq!(world.with(finished(job("09:05:00"), true, "09:30:00")).does("10:05:01"), NOTHING);
}

// Suspended, paused, edited, deleted.

#[test]
fn suspended_cancels_what_is_held_and_leaves_what_is_at_work() {
    let world = world("5 * * * *", 7_200).with(job("10:05:00")).with(job("11:05:00"));
    let world = world.stopped(Stopped::Suspended);
    assert_eq!(world.does("10:06:00"), ["cancel run-11:05:00: Stopped"]);
    // Also at the last moment.
    assert_eq!(world.does("11:04:59.9"), ["cancel run-11:05:00: Stopped"]);
}

#[test]
fn i5_what_passed_while_suspended_is_made_up_for_within_its_deadline() {
    let stopped = world("* * * * *", 30).stopped(Stopped::Suspended).goes_on("10:03:20");
    assert_eq!((stopped.counts(), stopped.decided()), ((0, 0), "10:00:00".to_owned()));
    assert_eq!(stopped.does("10:03:20"), NOTHING);
    let resumed = stopped.rules(|rules| rules.stopped = None);
    assert_eq!(resumed.does("10:03:20"), ["create 10:03:00"]);
    assert_eq!(resumed.clone().goes_on("10:03:20").counts(), (2, 0));
    let late = resumed.deadline(5);
    assert_eq!(late.does("10:03:20"), NOTHING);
    assert_eq!(late.goes_on("10:03:20").counts(), (3, 0));
}

#[test]
fn what_ran_before_the_suspension_is_decided_during_it() {
    let world = world("* * * * *", 30).stopped(Stopped::Suspended).with(job("10:02:00")).goes_on("10:04:20");
    assert_eq!((world.counts(), world.decided()), ((1, 0), "10:02:00".to_owned()));
}

#[test]
fn what_passes_while_paused_is_left_out() {
    let paused = world("* * * * *", 30).stopped(Stopped::Paused).goes_on("10:03:20");
    assert_eq!((paused.counts(), paused.decided()), ((0, 3), "10:03:00".to_owned()));
    let resumed = paused.rules(|rules| rules.stopped = None);
    assert_eq!(resumed.does("10:03:20"), NOTHING);
    assert_eq!(resumed.does("10:03:30"), ["create 10:04:00"]);
    let held = world("* * * * *", 30).stopped(Stopped::Paused).with(job("10:01:00"));
    assert_eq!(held.does("10:00:40"), ["cancel run-10:01:00: Stopped"]);
}

#[test]
fn an_edited_schedule_cancels_what_it_names_no_more_and_makes_up_for_nothing() {
    let world = world("5 * * * *", 600).with(job("10:05:00"));
    let edited = world.rules(|rules| {
        rules.schedule = Schedule::parse("*/10 * * * *").unwrap();
        rules.timetable = "*/10 * * * *".to_owned();
    });
    assert_eq!(edited.does("10:04:00"), ["create 10:10:00", "cancel run-10:05:00: Unnamed"]);
    let edited = edited.goes_on("10:04:00");
    assert_eq!((edited.decided(), edited.counts()), ("10:04:00".to_owned(), (0, 0)));
    // It named 10:00 and earlier times, too: those are past.
    let mut late = edited.clone();
    (late.status, late.runs) = (hourly().status, Vec::new());
    assert_eq!(late.does("10:22:00"), ["create 10:30:00"]);
}

#[test]
fn a_run_that_was_stopped_too_late_and_is_named_no_more_is_let_go_all_the_same() {
    // Given a run that was deleted a moment before its instant, so that nobody knows whether it worked, and a schedule
    // that names no instant for a year,
    let mut world = world("0 0 1 1 *", 0);
    world.status.last_runs = vec![ended("10:05:00", RunOutcome::Deleted)];
    let world = world.with(deleted(quiet(job("10:05:00")), "10:04:59"));
    for world in [world.clone(), world.stopped(Stopped::Suspended)] {
        // when its instant has passed, then it is decided,
        let world = world.goes_on("10:05:01");
        assert_eq!((world.decided(), world.counts()), ("10:05:00".to_owned(), (0, 0)));
        // and it goes.
        assert_eq!(world.does("10:05:40"), ["let go run-10:05:00"]);
    }
}

#[test]
fn an_edited_template_replaces_a_held_run_unless_its_instant_is_near() {
    let world = hourly().with(job("10:05:00")).rules(|rules| rules.hash = "b".to_owned());
    assert_eq!(world.does("10:04:00"), ["cancel run-10:05:00: Outdated"]);
    assert_eq!(world.does("10:04:24.999"), ["cancel run-10:05:00: Outdated"]);
    assert_eq!(world.does("10:04:25"), NOTHING);
    assert_eq!(world.does("10:05:30"), NOTHING, "what is at work stays as it is");
}

#[test]
fn a_held_run_that_was_edited_by_hand_is_replaced_unless_its_instant_is_near() {
    let edited = JobView { edited: true, ..job("10:05:00") };
    let world = hourly().with(edited);
    assert_eq!(world.does("10:04:00"), ["cancel run-10:05:00: Edited"]);
    assert_eq!(world.does("10:04:30"), NOTHING);
    assert_eq!(world.does("10:05:30"), NOTHING);
}

#[test]
fn i5_a_cancelled_run_is_let_go_when_nothing_of_it_runs_and_then_made_anew() {
    let world = hourly();
    let ending = world.clone().with(deleted(job("10:05:00"), "10:04:00"));
    assert_eq!(ending.does("10:04:01"), NOTHING, "its pod has not ended");
    let over = world.clone().with(deleted(quiet(job("10:05:00")), "10:04:00"));
    assert_eq!(over.does("10:04:01"), ["let go run-10:05:00"]);
    let gone = world.clone().with(let_go(deleted(quiet(job("10:05:00")), "10:04:00")));
    assert_eq!(gone.does("10:04:01"), NOTHING, "its name is taken until it is gone");
    assert_eq!(world.does("10:04:02"), ["create 10:05:00"]);
    assert!(gone.goes_on("10:04:01").status.last_runs.is_empty(), "it was none");
}

#[test]
fn i5_a_cancelled_run_whose_pods_count_as_failed_has_been_none() {
    // Kubernetes counts a Job's deleted pods as failed, and may call the Job failed while it is being deleted.
    let cancelled = finished(deleted(job("10:05:00"), "10:04:00"), false, "10:04:00");
    let world = hourly();
    let over = world.with(cancelled);
    assert_eq!(over.does("10:04:01"), ["let go run-10:05:00"]);
    assert!(over.clone().goes_on("10:04:01").status.last_runs.is_empty());
    let gone = hourly().with(let_go(over.runs[0].0.clone()));
    assert_eq!(gone.goes_on("10:05:01").decided(), "10:00:00", "the instant is to have another");
}

#[test]
fn i5_a_cancelled_run_that_nobody_saw_end_before_its_instant_counts_as_the_run_of_it() {
    // The API server or the node may have been away, and its work begun.
    for job in [deleted(job("10:05:00"), "10:04:00"), deleted(quiet(job("10:05:00")), "10:04:00")] {
        let kept = hourly().with(job);
        assert_eq!(kept.does("10:04:57.001"), NOTHING);
        let kept = kept.goes_on("10:05:00");
        assert_eq!((kept.decided(), kept.counts()), ("10:05:00".to_owned(), (0, 0)));
        let kept = kept.goes_on("10:05:30");
        assert_eq!(kept.status.last_runs[0].outcome, RunOutcome::Deleted);
        assert_eq!(kept.does("10:05:31"), ["let go run-10:05:00"]);
    }
}

#[test]
fn i5_a_run_that_failed_while_it_was_held_is_the_run_of_its_instant() {
    let failed = finished(job("10:05:00"), false, "10:04:20");
    let world = hourly().with(failed.clone());
    assert_eq!(world.does("10:04:30"), NOTHING);
    let world = world.goes_on("10:05:01");
    assert_eq!((world.decided(), world.counts()), ("10:05:00".to_owned(), (0, 0)));
    assert_eq!(world.status.last_runs[0].outcome, RunOutcome::Failed);
    // Also when it is deleted afterwards.
    let mut deleted_then = world.clone();
    deleted_then.runs[0].0 = deleted(failed, "10:04:40");
    assert_eq!(deleted_then.does("10:05:01"), ["let go run-10:05:00"]);
}

#[test]
fn i5_a_run_that_was_deleted_by_hand_before_its_instant_is_made_anew() {
    // Surely before it: its work cannot have begun.
    let early = hourly().with(let_go(deleted(quiet(job("10:05:00")), "10:04:57")));
    assert_eq!(early.does("10:05:01"), NOTHING, "its name is taken");
    let mut gone = early.goes_on("10:05:01");
    gone.runs.clear();
    assert_eq!(gone.does("10:05:02"), ["create 10:05:00"]);
    // Just before it, by clocks that differ: it counts as one that worked.
    let late = hourly().with(deleted(quiet(job("10:05:00")), "10:04:58"));
    assert_eq!(late.does("10:05:01"), NOTHING);
    assert_eq!(late.clone().goes_on("10:05:01").decided(), "10:05:00");
    assert_eq!(late.goes_on("10:05:01").status.last_runs[0].outcome, RunOutcome::Deleted);
}

#[test]
fn i5_a_run_that_was_deleted_by_hand_at_work_is_recorded_and_not_made_anew() {
    let going = hourly().with(deleted(job("10:05:00"), "10:05:20"));
    assert!(going.clone().goes_on("10:05:21").status.last_runs.is_empty(), "its pod has not ended");
    let over = hourly().with(deleted(quiet(job("10:05:00")), "10:05:20")).goes_on("10:05:25");
    assert_eq!(over.status.last_runs[0].outcome, RunOutcome::Deleted);
    assert_eq!(over.does("10:05:26"), ["let go run-10:05:00"]);
    let mut gone = over;
    gone.runs.clear();
    assert_eq!(gone.does("10:05:51"), NOTHING);
}

#[test]
fn a_run_that_was_deleted_at_work_is_no_failure() {
    let replaced = finished(deleted(job("10:05:00"), "10:06:00"), false, "10:06:03");
    let world = hourly().with(replaced).goes_on("10:06:04");
    assert_eq!(world.status.last_runs[0].outcome, RunOutcome::Deleted);
    let failed = finished(deleted(job("10:05:00"), "10:06:03"), false, "10:06:00");
    let world = hourly().with(failed).goes_on("10:06:04");
    assert_eq!(world.status.last_runs[0].outcome, RunOutcome::Failed);
    let completed = finished(deleted(job("10:05:00"), "10:06:00"), true, "10:06:03");
    let world = hourly().with(completed).goes_on("10:06:04");
    assert_eq!(world.status.last_runs[0].outcome, RunOutcome::Succeeded);
}

#[test]
fn a_deleted_object_cancels_what_is_held_and_lets_the_rest_go() {
    let world = world("5 * * * *", 7_200)
        .with(finished(job("09:05:00"), true, "09:06:00"))
        .with(let_go(finished(job("08:05:00"), true, "08:06:00")))
        .with(job("10:05:00"))
        .with(job("11:05:00"));
    let does =
        |world: &World| -> Vec<String> { farewell(&world.runs(), t("10:06:00")).iter().map(words).collect() };
    assert_eq!(does(&world), ["let go run-09:05:00", "let go run-10:05:00", "cancel run-11:05:00: Stopped"]);
    let mut then = world;
    for (job, _) in &mut then.runs[..3] {
        *job = let_go(job.clone());
    }
    then.runs[3].0 = deleted(job("11:05:00"), "10:06:00");
    assert_eq!(does(&then), ["let go run-11:05:00"]);
    then.runs[3].0 = let_go(then.runs[3].0.clone());
    assert_eq!(does(&then), NOTHING);
}

// What has ended.

#[test]
fn a_run_is_kept_until_its_outcome_is_written() {
    let world = hourly().with(finished(job("10:05:00"), true, "10:06:00"));
    // Not written yet: however late it is.
    assert_eq!(world.does("10:30:00"), NOTHING);
    let world = world.goes_on("10:06:01");
    assert_eq!(world.status.last_runs[0].outcome, RunOutcome::Succeeded);
    assert_eq!(world.status.last_successful_time, Some(t("10:06:00")));
    assert_eq!(world.does("10:06:02"), ["let go run-10:05:00"]);
    // Not while its instant is undecided, either.
    let mut undecided = world;
    undecided.status.decided_until = Some(t("10:00:00"));
    assert_eq!(undecided.does("10:06:02"), NOTHING);
}

#[test]
fn an_outcome_is_recorded_once_and_thirty_two_are_kept() {
    let mut world = world("* * * * *", 0).with(finished(job("10:05:00"), true, "10:06:00"));
    world.status.decided_until = Some(t("10:30:00"));
    for minute in 6..37 {
        world.status.last_runs.insert(0, ended(&format!("10:{minute:02}:00"), RunOutcome::Succeeded));
    }
    let world = world.goes_on("10:40:00");
    assert_eq!(world.status.last_runs.len(), 32);
    assert_eq!(world.status.last_runs[31].instant, t("10:05:00"), "the newest first");
    assert_eq!(world.clone().goes_on("10:40:01").status.last_runs, world.status.last_runs);
    // What is older than the oldest of a full record is let go without.
    let mut world = world;
    world.runs[0].0 = finished(job("10:01:00"), false, "10:02:00");
    assert!(world.does("10:40:00").contains(&"let go run-10:01:00".to_owned()));
}

#[test]
fn ended_runs_beyond_the_history_limits_go_once_they_are_let_go() {
    let done = |instant: &str, well| let_go(finished(job(instant), well, instant));
    let mut world = hourly()
        .with(done("05:05:00", true))
        .with(done("06:05:00", true))
        .with(done("07:05:00", true))
        .with(done("08:05:00", true))
        .with(done("06:35:00", false))
        .with(done("07:35:00", false));
    assert_eq!(world.does("10:00:01"), ["forget run-05:05:00", "forget run-06:35:00"]);
    world.rules.keep = History { completed: Some(0), failed: None };
    assert_eq!(world.does("10:00:01").len(), 4);
    // One that is kept for its outcome stays.
    world.runs = vec![(finished(job("05:05:00"), true, "05:06:00"), Vec::new())];
    assert_eq!(world.does("10:00:01"), NOTHING);
}

#[test]
fn an_outcome_tells_how_long_each_phase_took() {
    let mut pod = pods::pod(0, t("10:04:01"));
    pod.conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        reason: None,
        since: Some(t("10:04:03")),
    });
    pod.gate_started = Some(t("10:04:13"));
    pod.containers_started = Some(t("10:05:01"));
    pod.phase = Phase::Succeeded;
    let done = finished(job("10:05:00"), true, "10:06:00");
    let mut world = hourly().with_pods(done, vec![pod.clone()]);
    let phases = |world: &World| {
        let status = world.look("10:06:01").status;
        let run = status.last_runs[0].clone();
        (run.schedule_milliseconds, run.pull_milliseconds, run.held_milliseconds, run.start_milliseconds)
    };
    assert_eq!(phases(&world), (Some(3_000), Some(10_000), Some(47_000), Some(1_000)));
    assert_eq!(world.look("10:06:01").status.last_runs[0].node, pod.node);
    // Images that came late count to the pull, not to the start.
    world.runs[0].1[0].gate_started = Some(t("10:05:20"));
    world.runs[0].1[0].containers_started = Some(t("10:05:22"));
    assert_eq!(phases(&world), (Some(3_000), Some(77_000), Some(0), Some(2_000)));
    // Nobody sees from outside when a wrapped command begins.
    (world.gate, world.runs[0].1[0]) = (Gate::Exec, pod);
    assert_eq!(phases(&world), (Some(3_000), Some(58_000), Some(0), None));
    world.runs[0].1.clear();
    assert_eq!(phases(&world), (None, None, None, None));
}

#[test]
fn jobs_that_say_no_instant_are_left_alone() {
    let stranger = JobView { annotations: BTreeMap::new(), ..finished(job("10:05:00"), true, "10:06:00") };
    assert!(Run::of(&JobPods { job: &stranger, pods: &[] }).is_none());
}

#[test]
fn i10_a_look_that_changes_nothing_asks_for_none_before_something_is_due() {
    let world = hourly().with(job("10:05:00")).goes_on("10:04:00");
    let again = world.look("10:04:00.5");
    assert_eq!(again.status, world.status);
    assert_eq!(again.wake_at, Some(t("10:05:00")));
    let stopped = world.stopped(Stopped::Paused);
    assert_eq!(stopped.look("10:04:00.5").wake_at, Some(t("10:05:00")));
}

// The calendar.

/// The warm-ups and instants of the next runs after a time, as looks find them.
fn firsts(schedule: &str, zone: &str, lead: i64, after: &str, count: usize) -> Vec<(String, String)> {
    let mut world = world(schedule, lead);
    world.rules.zone = TimeZone::get(zone).unwrap();
    world.status = PreScaledCronJobStatus::default();
    (0..count)
        .scan(t(after), |now, _| {
            world.born = *now;
            let status = world.look(&now.to_string()).status;
            let (start, instant) = (status.next_warm_up.unwrap(), status.next_instant.unwrap());
            let create = world.does(&start.max(*now).to_string());
            assert!(create.contains(&format!("create {}", clock(instant))), "{create:?}");
            *now = instant;
            Some((start.to_string(), instant.to_string()))
        })
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(start, instant)| ((*start).to_owned(), (*instant).to_owned())).collect()
}

#[test]
fn a_time_that_the_clocks_skip_has_no_run_and_one_that_comes_twice_has_two() {
    assert_eq!(
        firsts("30 2 * * *", "Europe/Berlin", 600, "2026-03-28T00:00:00Z", 2),
        pairs(&[
            ("2026-03-28T01:20:00Z", "2026-03-28T01:30:00Z"),
            ("2026-03-30T00:20:00Z", "2026-03-30T00:30:00Z"),
        ])
    );
    assert_eq!(
        firsts("30 2 * * *", "Europe/Berlin", 600, "2026-10-24T12:00:00Z", 2),
        pairs(&[
            ("2026-10-25T00:20:00Z", "2026-10-25T00:30:00Z"),
            ("2026-10-25T01:20:00Z", "2026-10-25T01:30:00Z"),
        ])
    );
}

#[test]
fn a_warm_up_reaches_back_over_a_change_of_the_clocks_by_time_that_passes() {
    assert_eq!(
        firsts("10 3 * * *", "Europe/Berlin", 1_200, "2026-03-29T00:00:00Z", 1),
        pairs(&[("2026-03-29T00:50:00Z", "2026-03-29T01:10:00Z")])
    );
}

#[test]
fn a_warm_up_reaches_back_over_the_end_of_a_month_a_year_and_a_leap_day() {
    for (schedule, after, start, instant) in [
        ("0 0 1 1 *", "2026-06-01T00:00:00Z", "2026-12-31T23:50:00Z", "2027-01-01T00:00:00Z"),
        ("0 0 1 3 *", "2027-06-01T00:00:00Z", "2028-02-29T23:50:00Z", "2028-03-01T00:00:00Z"),
        ("0 0 1 3 *", "2026-06-01T00:00:00Z", "2027-02-28T23:50:00Z", "2027-03-01T00:00:00Z"),
        ("5 0 29 2 *", "2026-06-01T00:00:00Z", "2028-02-28T23:55:00Z", "2028-02-29T00:05:00Z"),
        ("0 0 31 * *", "2026-06-01T00:00:00Z", "2026-07-30T23:50:00Z", "2026-07-31T00:00:00Z"),
    ] {
        assert_eq!(firsts(schedule, "UTC", 600, after, 1), pairs(&[(start, instant)]), "{schedule}");
    }
}

#[test]
fn a_schedule_that_names_nothing_any_more_waits_for_nothing() {
    let plan = world("0 0 30 2 *", 600).look("10:01:00");
    assert_eq!((plan.wake_at, plan.status.next_instant, plan.actions.len()), (None, None, 0));
}
