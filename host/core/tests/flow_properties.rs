//! What holds for any flow: random graphs, with failures, retries, Jobs that are deleted, and looks at any time.
#![allow(clippy::unwrap_used)]

mod flow_world;

use std::collections::{BTreeMap, BTreeSet};

use flow_world::{World, flow_with, step_with};
use proptest::prelude::*;
use serde_json::{Value, json};
use stoker_api::{FlowState, StepCondition, StepState};
use stoker_core::flow::{Flow, Part, Until};

/// A step's waits: for how many steps before it, and how, as bits.
type Edges = Vec<(usize, u8)>;

fn name(index: usize) -> String {
    format!("s{index}")
}

fn wait(on: usize, kind: u8) -> Value {
    match kind % 8 {
        0 => json!({"name": name(on), "condition": "Failed"}),
        1 => json!({"name": name(on), "condition": "Finished"}),
        2 => json!({"name": name(on), "condition": "Ready"}),
        3 => json!({"name": name(on), "tcp": {"port": 80}}),
        _ => json!({"name": name(on), "condition": "Succeeded"}),
    }
}

/// A flow without cycles: each step waits for some before it, in a shuffled spec.
fn graph() -> impl Strategy<Value = Vec<Value>> {
    let edges = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    prop::collection::vec((edges, 0u32..3), 1..40).prop_map(|steps| {
        let build = |(index, (edges, limit)): (usize, (Vec<(prop::sample::Index, u8)>, u32))| {
            let mut waits: BTreeMap<usize, u8> = BTreeMap::new();
            if index > 0 {
                waits.extend(edges.into_iter().map(|(on, kind)| (on.index(index), kind)));
            }
            let waits: Edges = waits.into_iter().collect();
            let waits: Vec<Value> = waits.into_iter().map(|(on, kind)| wait(on, kind)).collect();
            let retry = json!({"limit": limit, "backoffSeconds": 1, "maxBackoffSeconds": 4});
            step_with(&name(index), json!({"waitFor": waits, "retry": retry}))
        };
        steps.into_iter().enumerate().map(build).collect()
    })
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    End(prop::sample::Index, bool),
    Ready(prop::sample::Index),
    Answer(prop::sample::Index),
    Delete(prop::sample::Index),
    Pass(i64),
    Unwritten,
}

fn event() -> impl Strategy<Value = Event> {
    let any_job = any::<prop::sample::Index>;
    prop_oneof![
        6 => (any_job(), prop::bool::weighted(0.8)).prop_map(|(at, well)| Event::End(at, well)),
        2 => any_job().prop_map(Event::Ready),
        2 => any_job().prop_map(Event::Answer),
        2 => any_job().prop_map(Event::Delete),
        3 => (1i64..40).prop_map(Event::Pass),
        1 => Just(Event::Unwritten),
    ]
}

/// What a step may have been started on: the truth of the world, not of the status.
fn held(
    world: &World,
    succeeded: &BTreeSet<String>,
    ended: &BTreeSet<String>,
    flow: &Flow,
    part: &Part,
) -> bool {
    part.waits.iter().all(|wait| {
        let on = &flow.parts[wait.on].name;
        let failed =
            || world.state(on).is_none_or(|state| state != StepState::Succeeded) && !succeeded.contains(on);
        match &wait.until {
            Until::Condition(StepCondition::Succeeded) => succeeded.contains(on),
            Until::Condition(StepCondition::Failed) => ended.contains(on) && failed(),
            // One that was left out has ended, too.
            Until::Condition(StepCondition::Finished) => true,
            Until::Condition(StepCondition::Ready) | Until::Probe(_) => {
                world.created.iter().any(|new| new.step == *on)
            }
        }
    })
}

struct Truth {
    succeeded: BTreeSet<String>,
    ended: BTreeSet<String>,
    /// Created so far that were checked.
    checked: usize,
}

/// Looks, and checks what was started.
fn look(world: &mut World, truth: &mut Truth) -> Result<(), TestCaseError> {
    let flow = world.flow();
    world.look();
    for new in &world.created[truth.checked..] {
        let twice = world.created[..truth.checked]
            .iter()
            .any(|old| old.step == new.step && old.attempt >= new.attempt);
        prop_assert!(!twice, "{} attempt {} is created again", new.step, new.attempt);
        prop_assert!(!truth.succeeded.contains(&new.step), "{} succeeded and runs again", new.step);
        if let Some(step) = flow.step(new.part) {
            let limit = step.retry.as_ref().map_or(0, |retry| retry.limit);
            prop_assert!(new.attempt <= limit + 1, "{} has too many attempts", new.step);
            let part = &flow.parts[new.part];
            prop_assert!(
                held(world, &truth.succeeded, &truth.ended, &flow, part),
                "{} started early",
                new.step
            );
        }
    }
    truth.checked = world.created.len();
    let at_work = world.jobs.iter().filter(|(job, _)| job.finished.is_none() && !job.terminating).count();
    prop_assert!(at_work <= world.spec.max_parallel.map_or(usize::MAX, |most| most as usize));
    Ok(())
}

fn running(world: &World) -> Vec<String> {
    let of = world.jobs.iter().filter(|(job, _)| job.finished.is_none() && !job.terminating);
    of.map(|(job, _)| job.annotations["stoker.dev/step"].clone()).collect()
}

fn happen(world: &mut World, truth: &mut Truth, event: &Event) {
    let names = running(world);
    let pick = |at: &prop::sample::Index| (!names.is_empty()).then(|| names[at.index(names.len())].clone());
    match event {
        Event::End(at, well) => {
            if let Some(step) = pick(at) {
                world.end(&step, *well);
                if *well {
                    truth.succeeded.insert(step.clone());
                }
                truth.ended.insert(step);
            }
        }
        Event::Ready(at) => {
            if let Some(step) = pick(at) {
                world.run(&step, true);
            }
        }
        Event::Answer(at) => {
            let asked = world.plan().ask;
            if !asked.is_empty() {
                let ask = &asked[at.index(asked.len())];
                world.answers.insert((ask.uid.clone(), ask.probe.clone()));
            }
        }
        Event::Delete(at) => {
            if !world.jobs.is_empty() {
                let (job, _) = &world.jobs[at.index(world.jobs.len())];
                let step = job.annotations["stoker.dev/step"].clone();
                world.delete(&step);
                truth.ended.insert(step);
            }
        }
        Event::Pass(seconds) => {
            world.pass(*seconds);
        }
        Event::Unwritten => world.writes = false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn i6_each_step_runs_once_an_attempt_after_what_it_waits_for_and_every_flow_ends(
        steps in graph(),
        events in prop::collection::vec(event(), 0..120),
        most in prop::option::of(1u32..6),
        handlers in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let script = json!({"script": {"image": "i", "command": ["true"]}});
        let more = if handlers { json!({"onFailure": script, "onExit": script}) } else { json!({}) };
        let mut world = flow_with(steps, more);
        // Who waits for the readiness of a step needs room beside it.
        world.spec.max_parallel = most;
        let mut truth = Truth { succeeded: BTreeSet::new(), ended: BTreeSet::new(), checked: 0 };
        look(&mut world, &mut truth)?;
        for event in &events {
            happen(&mut world, &mut truth, event);
            look(&mut world, &mut truth)?;
            world.writes = true;
        }
        // From here on everything ends, one after the other.
        let mut seed = seed;
        for _ in 0..400 {
            look(&mut world, &mut truth)?;
            if world.status.completion_time.is_some() {
                break;
            }
            if let Some(step) = running(&world).first() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let well = seed >> 62 != 0;
                world.end(step, well);
                if well {
                    truth.succeeded.insert(step.clone());
                }
                truth.ended.insert(step.clone());
            }
            world.pass(5);
        }
        prop_assert!(world.status.completion_time.is_some(), "it never ends: {:?}", world.status);
        let steps = world.spec.flows.len();
        let all = world.status.job_status_list.values().filter(|entry| !entry.step.starts_with("on")).count();
        prop_assert_eq!(all, steps);
        let failed = world.status.job_status_list.values().any(|entry| entry.failed_for_good());
        prop_assert_eq!(world.is(), if failed { FlowState::Failed } else { FlowState::Succeed });
        for step in &truth.succeeded {
            if !step.starts_with("on") {
                prop_assert_eq!(world.state(step), Some(StepState::Succeeded));
            }
        }
        // It rests, whatever becomes of its Jobs, and lets all of them go.
        look(&mut world, &mut truth)?;
        world.pass(100);
        look(&mut world, &mut truth)?;
        prop_assert!(world.jobs.iter().all(|(job, _)| job.finalizers.is_empty()));
        world.jobs.clear();
        let before = world.status.clone();
        let plan = world.look();
        prop_assert!(plan.create.is_empty() && plan.upkeep.is_empty() && plan.wake_at.is_none());
        prop_assert_eq!(before, world.status);
    }

    #[test]
    fn cycles_are_always_named_and_the_path_is_a_real_one(
        edges in prop::collection::btree_set((0usize..20, 0usize..20), 0..40),
        size in 1usize..20,
    ) {
        let waits = |of: usize| -> Vec<String> {
            edges.iter().filter(|(from, to)| *from == of && *to < size).map(|(_, to)| name(*to)).collect()
        };
        let steps = (0..size).map(|at| step_with(&name(at), json!({"dependencies": waits(at)}))).collect();
        let world = flow_with(steps, json!({}));
        let flow = world.flow();
        // A step that only steps of cycles, or behind them, are in front of never comes.
        let mut left: BTreeSet<usize> = (0..size).collect();
        while let Some(free) = left.iter().copied().find(|at| waits(*at).iter().all(|on| !left.iter().any(|l| name(*l) == *on))) {
            left.remove(&free);
        }
        match &flow.order {
            Ok(order) => {
                prop_assert!(left.is_empty());
                prop_assert_eq!(order.iter().copied().collect::<BTreeSet<_>>().len(), size);
                for (position, at) in order.iter().enumerate() {
                    for wait in &flow.parts[*at].waits {
                        prop_assert!(order[..position].contains(&wait.on));
                    }
                }
            }
            Err(words) => {
                prop_assert!(!left.is_empty(), "{}", words);
                let path = words.split(": ").nth(1).unwrap().split(" (").next().unwrap();
                let path: Vec<&str> = path.split(" -> ").collect();
                prop_assert!(path.len() >= 2 && path.first() == path.last(), "{}", words);
                for pair in path.windows(2) {
                    let at: usize = pair[0][1..].parse().unwrap();
                    prop_assert!(waits(at).iter().any(|on| on == pair[1]), "{}", words);
                }
                prop_assert!(world.plan().create.is_empty());
                prop_assert_eq!(world.plan().status.state, Some(FlowState::Failed));
            }
        }
    }
}
