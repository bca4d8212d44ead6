//! What a Job does follows from its pods, and what is left of Jobs from limits.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use stoker_api::BusyProbe;
use stoker_core::pool::jobs::{
    Finished, History, JobPods, JobView, RemovalStep, beyond_history, remember_jobs, removal,
};
use stoker_core::pool::successions::Successions;
use stoker_core::pool::{JobCounts, Memory, Settings, Snapshot};
use stoker_core::verdict::{Judgement, PodMemories, Verdict, judge, remember};
use stoker_core::{Phase, PodView};
use stoker_sim::pods::{self, at, busy, in_phase, pod, ready, schedule};
use stoker_sim::{Look, Says, Spec, decide_and_plan};

fn job(slot: u32, parallelism: u32) -> JobView {
    JobView {
        name: format!("work-{slot}"),
        uid: format!("job-{slot}"),
        resource_version: "7".to_owned(),
        slot: Some(slot),
        created: at(i64::from(slot)),
        terminating: false,
        deleted_at: None,
        finalizers: Vec::new(),
        edited: false,
        finished: None,
        parallelism,
        completions: Some(parallelism),
        active: 0,
        succeeded: 0,
        failed: 0,
        template_hash: Some("0".to_owned()),
        annotations: BTreeMap::new(),
    }
}

fn finished(slot: u32, well: bool, ended: i64) -> JobView {
    JobView { finished: Some(Finished { well, at: Some(at(ended)), why: None }), ..job(slot, 1) }
}

/// The verdict on a Job with these pods.
fn verdict(job: &JobView, pods: &[PodView]) -> Verdict {
    let probe = BusyProbe::default();
    let judged: Vec<Judgement> = pods.iter().map(|p| judge(p, &probe, None)).collect();
    let mut of_pods = PodMemories::new();
    remember(&mut of_pods, pods, &judged, &judged, at(100));
    let jobs = [JobPods { job, pods }];
    let members = [jobs[0].member()];
    let mut of_jobs = PodMemories::new();
    remember_jobs(&mut of_jobs, &jobs, &members, &of_pods, at(100));
    Snapshot { pods: &members, memories: &of_jobs }.verdict(&members[0])
}

#[test]
fn i1_a_job_does_what_the_busiest_of_its_pods_does() {
    let lost = || {
        let mut pod = ready(9, at(0));
        pods::set(&mut pod, "Ready", "Unknown", at(50));
        pod
    };
    let bound = || {
        let mut pod = pod(8, at(0));
        schedule(&mut pod, at(0));
        pod
    };
    let (idle, at_work) = (|slot| ready(slot, at(0)), busy(5, at(0)));
    let cases: &[(&str, u32, Vec<PodView>, Verdict)] = &[
        ("no pods yet", 1, vec![], Verdict::Starting),
        ("pending", 1, vec![bound()], Verdict::Starting),
        ("idle", 1, vec![idle(0)], Verdict::Idle),
        ("busy", 1, vec![at_work.clone()], Verdict::Busy),
        ("its node does not answer", 1, vec![lost()], Verdict::Unknown),
        ("all idle", 3, vec![idle(0), idle(1), idle(2)], Verdict::Idle),
        ("one is missing", 3, vec![idle(0), idle(1)], Verdict::Starting),
        ("one is pending", 2, vec![idle(0), bound()], Verdict::Starting),
        ("one is busy", 3, vec![idle(0), at_work.clone(), bound()], Verdict::Busy),
        ("one busy, one lost", 2, vec![lost(), at_work.clone()], Verdict::Busy),
        ("one lost, one idle", 2, vec![lost(), idle(0)], Verdict::Unknown),
        ("one is through", 2, vec![in_phase(idle(0), Phase::Succeeded), idle(1)], Verdict::Busy),
    ];
    for (what, parallelism, pods, expected) in cases {
        assert_eq!(verdict(&job(0, *parallelism), pods), *expected, "{what}");
    }
    // The last one of three is at it: no more are wanted.
    let begun = JobView { succeeded: 2, ..job(0, 3) };
    assert_eq!(verdict(&begun, &[idle(0)]), Verdict::Busy);
}

#[test]
fn a_job_between_two_pods_is_not_one_that_nobody_has_used() {
    let fresh = JobPods { job: &job(0, 1), pods: &[] }.member();
    assert_eq!(fresh.node, None, "it may go at once");
    let retried = JobView { failed: 1, ..job(0, 1) };
    assert!(JobPods { job: &retried, pods: &[] }.member().node.is_some());
}

#[test]
fn i1_a_job_whose_pod_the_watch_has_not_shown_yet_is_not_free_to_go() {
    let running = JobView { active: 1, ..job(0, 1) };
    assert!(JobPods { job: &running, pods: &[] }.member().node.is_some());
    let unbound = [pod(0, at(0))];
    assert_eq!(JobPods { job: &running, pods: &unbound }.member().node, None);
}

#[test]
fn a_member_is_ready_when_all_of_its_pods_are() {
    let two = job(0, 2);
    let ready = |pods: &[PodView]| JobPods { job: &two, pods }.member().ready();
    assert!(!ready(&[pods::ready(0, at(0))]));
    assert!(!ready(&[pods::ready(0, at(0)), pod(1, at(0))]));
    assert!(ready(&[pods::ready(0, at(0)), pods::ready(1, at(0))]));
}

#[test]
fn finished_jobs_beyond_the_limits_go_the_oldest_first() {
    let jobs = [
        finished(0, true, 30),
        finished(1, false, 10),
        finished(2, true, 20),
        finished(3, true, 40),
        job(4, 1),
    ];
    let gone = |completed, failed| -> Vec<u32> {
        beyond_history(&jobs, History { completed, failed }).iter().map(|j| j.slot.unwrap()).collect()
    };
    assert_eq!(gone(None, None), [0_u32; 0]);
    assert_eq!(gone(Some(1), None), [2, 0]);
    assert_eq!(gone(Some(3), Some(0)), [1]);
    assert_eq!(gone(Some(0), Some(1)), [2, 0, 3]);
}

#[test]
fn i2_the_successor_of_a_job_is_named_after_the_last_one_that_finished_in_its_slot() {
    let older = JobView { uid: "older".to_owned(), ..finished(3, true, 10) };
    let newer = JobView { uid: "newer".to_owned(), created: at(20), ..finished(3, false, 30) };
    let mut successions = Successions::default();
    successions.note(&[newer, older, job(4, 1)], &[], at(40));
    assert_eq!(successions.predecessor(3), Some("newer"));
    assert_eq!(successions.predecessor(4), None);
    assert_eq!(successions.predecessor(5), None);
}

#[test]
fn i2_a_finished_job_that_vanished_goes_on_naming_its_successor_and_then_its_slot_rests() {
    // Given one operator that sees that a finished Job is gone, and another that does not see it yet,
    let done = || JobView { created: at(20), ..finished(3, true, 30) };
    let older = || JobView { uid: "older".to_owned(), ..finished(3, true, 10) };
    let (mut early, mut late) = (Successions::default(), Successions::default());
    early.note(&[done(), older()], &[], at(40));
    early.note(&[older()], &[done()], at(50));
    late.note(&[done(), older()], &[], at(50));
    // then both give its successor the same name,
    assert_eq!(early.predecessor(3), Some("job-3"));
    assert_eq!(late.predecessor(3), early.predecessor(3));
    assert!(early.resting(at(79)).is_empty());
    // none after a while, in which the other learns of it,
    assert_eq!(early.resting(at(80)).into_iter().collect::<Vec<_>>(), [(3, at(110))]);
    // and then another name.
    early.note(&[older()], &[done()], at(110));
    assert!(early.resting(at(110)).is_empty());
    assert_eq!(early.predecessor(3), Some("older"));
    early.note(&[], &[older()], at(112));
    early.note(&[], &[], at(172));
    assert_eq!(early.predecessor(3), None);
}

#[test]
fn i2_one_that_went_unfinished_leaves_the_name_to_the_one_before_for_who_saw_it_and_who_did_not() {
    let done = || finished(3, true, 10);
    let next = || JobView { uid: "next".to_owned(), created: at(20), ..job(3, 1) };
    let (mut saw, mut missed) = (Successions::default(), Successions::default());
    saw.note(&[done()], &[], at(10));
    missed.note(&[done()], &[], at(10));
    // Given a finished Job that is gone, and its successor, which somebody deletes,
    saw.note(&[next()], &[done()], at(21));
    missed.note(&[], &[done()], at(21));
    saw.note(&[], &[done(), next()], at(22));
    // then both operators give the next one the same name, and leave the slot alone at the same time.
    assert_eq!((saw.predecessor(3), missed.predecessor(3)), (Some("job-3"), Some("job-3")));
    assert_eq!(saw.resting(at(52)), missed.resting(at(52)));
    assert_eq!(saw.resting(at(52)).len(), 1);
    // One that is there and works does not let its slot rest.
    saw.note(&[next()], &[done()], at(53));
    assert_eq!(saw.resting(at(53)).len(), 0);
}

/// A look at a pool of Jobs of which none is there.
fn empty(memory: &mut Memory, maximum: u32, now: Timestamp) -> Look {
    let spec = Spec { idle: 1, maximum, ..Spec::default() };
    let settings = Settings { keep_ended: true, ..spec.settings() };
    memory.keep_time(now);
    memory.successions.note(&[], &[], now);
    decide_and_plan(Vec::new(), &PodMemories::new(), &Says::Nothing, spec, &settings, memory, now)
}

#[test]
fn i2_a_slot_that_was_tried_is_tried_again_under_the_tried_name_while_it_rests() {
    // Given a slot that rests, as its finished Job is gone,
    let mut memory = Memory::default();
    memory.successions.note(&[finished(0, true, 10)], &[], at(10));
    memory.successions.note(&[], &[finished(0, true, 10)], at(11));
    assert_eq!(memory.successions.resting(at(41)).into_keys().collect::<Vec<_>>(), [0]);
    assert_eq!(empty(&mut memory.clone(), 1, at(41)).creates(), [0u32; 0]);
    assert_eq!(empty(&mut memory.clone(), 2, at(41)).creates(), [1], "there is another slot");
    // when a Job may be there under a name that was tried,
    memory.overlay.creation_unanswered(0, "tried", at(40));
    // then that name is tried again, before any other slot is filled.
    assert_eq!(empty(&mut memory, 2, at(41)).creates(), [0]);
    assert_eq!(memory.job_name("pool", "uid", 0), "tried");
    memory.overlay.not_made(0);
    assert_ne!(memory.job_name("pool", "uid", 0), "tried");
}

#[test]
fn a_resting_slot_that_holds_creation_back_is_told() {
    let mut memory = Memory::default();
    memory.successions.note(&[finished(0, true, 10)], &[], at(10));
    memory.successions.note(&[], &[finished(0, true, 10)], at(11));
    for (now, maximum, told) in [(40, 1, false), (41, 1, true), (70, 1, true), (71, 1, false), (41, 2, false)]
    {
        let plan = empty(&mut memory.clone(), maximum, at(now)).plan;
        assert_eq!(plan.held_back.is_some(), told, "at {now}, {maximum} slots: {:?}", plan.held_back);
        let words = format!("a finished Job is gone from its slot, which rests until {}", at(71));
        assert!(plan.held_back.is_none_or(|why| why == words));
        assert_eq!(plan.wake_at, told.then(|| at(71)));
    }
}

#[test]
fn i2_what_is_not_known_to_have_finished_names_nobody() {
    let mut successions = Successions::default();
    // One that was removed while it ran leaves its slot as it was.
    successions.note(&[job(3, 1)], &[], at(40));
    successions.note(&[], &[job(3, 1)], at(41));
    assert_eq!((successions.predecessor(3), successions.resting(at(41)).len()), (None, 0));
    // After one of which nobody told whether it had finished the slot rests.
    successions.note(&[job(4, 1)], &[], at(42));
    successions.note(&[], &[], at(43));
    assert_eq!(successions.predecessor(4), None);
    assert_eq!(successions.resting(at(43)).into_iter().collect::<Vec<_>>(), [(4, at(103))]);
    // One that came, finished and went between two looks is known by what the watch told.
    successions.note(&[], &[finished(5, true, 44)], at(45));
    assert_eq!(successions.predecessor(5), Some("job-5"));
}

#[test]
fn i1_a_jobs_pods_go_in_the_versions_seen_and_then_the_job_if_no_other_pod_is_alive() {
    let pods = [ready(0, at(0)), in_phase(ready(1, at(0)), Phase::Failed)];
    let of_pod = |version: Option<&str>| RemovalStep::Pod {
        name: pods[0].name.clone(),
        uid: pods[0].uid.clone(),
        version: version.map(str::to_owned),
    };
    let of_job = |version: Option<&str>| RemovalStep::Job { version: version.map(str::to_owned) };
    assert_eq!(removal(Some("7"), &pods), [of_pod(Some("1")), RemovalStep::NoPod, of_job(None)]);
    assert_eq!(removal(Some("7"), &pods[1..]), [RemovalStep::NoPod, of_job(Some("7"))]);
    assert_eq!(removal(None, &pods), [of_pod(None), of_job(None)]);
}

#[test]
fn jobs_are_counted_by_what_became_of_them() {
    let going = JobView { terminating: true, ..job(3, 1) };
    let (done, failed, active) = (finished(0, true, 1), finished(1, false, 1), job(2, 2));
    let pods = [ready(0, at(0)), in_phase(ready(1, at(0)), Phase::Failed)];
    let none: &[PodView] = &[];
    let jobs = [(&done, none), (&failed, none), (&active, &pods[..]), (&going, none)];
    let counts = JobCounts::of(&jobs.map(|(job, pods)| JobPods { job, pods }));
    assert_eq!(counts, JobCounts { pods: 1, jobs: 4, active: 1, completed: 1, failed: 1 });
}

/// What the back-off makes of a finished Job that was seen at first as `before`, with the pods then and now.
fn held_back(before: Option<(&JobView, &[PodView])>, after: (&JobView, &[PodView])) -> bool {
    let mut memory = Memory::default();
    let mut look = |(job, pods): (&JobView, &[PodView]), now| {
        let probe = BusyProbe::default();
        let judged: Vec<Judgement> = pods.iter().map(|p| judge(p, &probe, None)).collect();
        remember(&mut memory.pods, pods, &judged, &judged, now);
        let jobs = [JobPods { job, pods }];
        let members = [jobs[0].member()];
        remember_jobs(&mut memory.jobs, &jobs, &members, &memory.pods, now);
        memory.backoff.note(&members, &memory.jobs, true, now);
    };
    if let Some(before) = before {
        look(before, at(1));
    }
    look(after, at(3));
    memory.backoff.rounds > 0
}

#[test]
fn a_job_that_completed_has_failed_only_if_it_was_never_ready() {
    let (running, completed) = (job(0, 1), finished(0, true, 3));
    let ended = |mut pod: PodView, at_last| {
        pods::end(&mut pod, true, at(at_last));
        pod
    };
    let unready = || {
        let mut pod = pod(0, at(0));
        schedule(&mut pod, at(0));
        pod
    };
    let once = [ended(ready(0, at(0)), 2)];
    let never = [ended(unready(), 2)];
    assert!(!held_back(Some((&running, &[ready(0, at(0))])), (&completed, &once)), "however fast it was");
    assert!(held_back(Some((&running, &[unready()])), (&completed, &never)), "a command that just exits");
    assert!(!held_back(Some((&running, &[unready()])), (&completed, &once)), "Ready between two looks");
    assert!(!held_back(None, (&completed, &[])), "kept since before a restart");
    assert!(held_back(None, (&finished(0, false, 3), &[])), "one that failed is one round, as any");
}

#[test]
fn finished_jobs_that_are_kept_count_as_one_round_after_a_restart_and_hold_nothing_back() {
    let mut memory = Memory::default();
    let jobs: Vec<JobView> = (0..5).map(|slot| finished(slot, slot > 2, 10)).collect();
    let jobs: Vec<JobPods<'_>> = jobs.iter().map(|job| JobPods { job, pods: &[] }).collect();
    let members: Vec<PodView> = jobs.iter().map(JobPods::member).collect();
    for second in 100..200 {
        remember_jobs(&mut memory.jobs, &jobs, &members, &memory.pods, at(second));
        memory.backoff.note(&members, &memory.jobs, true, at(second));
        assert_eq!((memory.backoff.rounds, memory.backoff.held_back(at(second))), (1, None));
    }
}
