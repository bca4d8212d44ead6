//! JobFlows: steps in order, whatever happens to their Jobs, their operator and their templates.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use stoker_api::{FlowState, JobFlow, JobFlowStatus, JobTemplate, StepState, keys};
use stoker_e2e::World;
use stoker_e2e::audit::operators_requests;
use stoker_e2e::objects::span;
use stoker_e2e::operator::Operator;

/// A JobSpec whose simulated pod ends so long after its start, well or badly; None = when it is told to.
fn job(ends: Option<&str>, code: u32) -> Value {
    let mut annotations = BTreeMap::new();
    if let Some(ends) = ends {
        annotations.insert("sim.stoker.dev/complete-after", ends.to_owned());
        annotations.insert("sim.stoker.dev/exit-code", code.to_string());
    }
    json!({"template": {
        "metadata": {"annotations": annotations},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "work",
                "image": "docker.io/local/busybox:1",
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"],
            }],
        },
    }})
}

fn step(name: &str, after: &[&str]) -> Value {
    json!({"name": name, "dependencies": after, "jobTemplate": job(Some("1s"), 0)})
}

/// A step that ends when it is told to.
fn waiting(name: &str, after: &[&str]) -> Value {
    json!({"name": name, "dependencies": after, "jobTemplate": job(None, 0)})
}

fn status(flow: &JobFlow) -> JobFlowStatus {
    flow.status.clone().unwrap_or_default()
}

fn state(flow: &JobFlow) -> Option<FlowState> {
    flow.status.as_ref().and_then(|status| status.state)
}

/// What a step does, by the status.
fn step_state(flow: &JobFlow, step: &str) -> Option<StepState> {
    status(flow).job_status_list.values().find(|entry| entry.step == step).map(|entry| entry.state)
}

fn is(flow: &JobFlow, step: &str, state: StepState) -> bool {
    step_state(flow, step) == Some(state)
}

fn condition(flow: &JobFlow, type_: &str) -> (String, String) {
    let found = status(flow).conditions.into_iter().find(|c| c.type_ == type_);
    found.map(|c| (c.status, c.message)).unwrap_or_default()
}

/// Ready, Reconciling, Stalled and Complete.
fn stands(flow: &JobFlow) -> [String; 4] {
    ["Ready", "Reconciling", "Stalled", "Complete"].map(|type_| condition(flow, type_).0)
}

async fn ended(world: &World, name: &str, state: FlowState) -> Result<JobFlow> {
    let done = |flow: &JobFlow| {
        let status = status(flow);
        status.state == Some(state) && status.completion_time.is_some()
    };
    world.object(name, &format!("{state:?}"), done).await
}

/// Has the pods of a step end, well or badly.
async fn end(world: &World, flow: &str, step: &str, phase: &str) -> Result<()> {
    let what = format!("at {step}");
    let jobs = world.until_jobs_of::<JobFlow>(flow, &what, |jobs| {
        jobs.iter().any(|job| of(job, step) && job.status.as_ref().is_some_and(|s| s.active == Some(1)))
    });
    let jobs = jobs.await?;
    let uids: Vec<String> = jobs.iter().filter(|job| of(job, step)).filter_map(|job| job.uid()).collect();
    world
        .until(flow, "running", || async {
            let pods = world.pods().list(&Default::default()).await?.items;
            let theirs =
                pods.into_iter().filter(|pod| pod.owner_references().iter().any(|o| uids.contains(&o.uid)));
            let theirs: Vec<_> = theirs.collect();
            world.annotate(&theirs, "sim.stoker.dev/phase", Some(phase)).await?;
            Ok(!theirs.is_empty())
        })
        .await
}

fn of(job: &Job, step: &str) -> bool {
    job.annotations().get(keys::STEP).is_some_and(|of| of == step)
}

/// How often Jobs of each name were asked for with success, by the API server's log.
fn creations(world: &World) -> Result<BTreeMap<String, usize>> {
    let mut all = BTreeMap::new();
    for request in operators_requests(&world.namespace)? {
        if request.verb == "create" && request.resource == "jobs" {
            *all.entry(request.name).or_default() += 1;
        }
    }
    Ok(all)
}

async fn finish(world: World) -> Result<()> {
    world.delete_all::<JobFlow>().await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn steps_start_in_the_order_of_their_dependencies_and_independent_ones_at_once() -> Result<()> {
    let world = World::start("flow-order").await?;
    let flows =
        json!([step("a", &[]), step("b", &["a"]), step("c", &["a"]), step("d", &["b", "c"]), step("e", &[])]);
    world.apply::<JobFlow>("order", json!({"flows": flows})).await?;
    let flow = ended(&world, "order", FlowState::Succeed).await?;
    assert_eq!(status(&flow).progress.as_deref(), Some("5/5"));
    let key = format!("order-a/{}", world.namespace);
    assert!(status(&flow).job_status_list.contains_key(&key), "{:?}", status(&flow).job_status_list.keys());
    let jobs: BTreeMap<String, Job> =
        world.jobs_of::<JobFlow>("order").await?.into_iter().map(|job| (job.name_any(), job)).collect();
    assert_eq!(jobs.keys().collect::<Vec<_>>(), ["order-a", "order-b", "order-c", "order-d", "order-e"]);
    for (earlier, later) in [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")] {
        let ended = span(&jobs[&format!("order-{earlier}")]).1.unwrap();
        let began = span(&jobs[&format!("order-{later}")]).0.unwrap();
        assert!(began >= ended, "{later} began at {began}, {earlier} ended at {ended}");
    }
    let independent = span(&jobs["order-e"]).0.unwrap();
    assert!(independent < span(&jobs["order-a"]).1.unwrap(), "e waits for nothing");
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_failed_step_keeps_its_dependants_from_starting_and_nothing_else() -> Result<()> {
    let world = World::start("flow-fails").await?;
    let bad = json!({"name": "bad", "jobTemplate": job(Some("1s"), 3)});
    let flows = json!([bad, step("after", &["bad"]), waiting("slow", &[]), step("later", &["slow"])]);
    world.apply::<JobFlow>("fails", json!({"flows": flows})).await?;
    let skipped =
        |flow: &JobFlow| state(flow) == Some(FlowState::Failed) && is(flow, "after", StepState::Skipped);
    let flow = world.object::<JobFlow>("fails", "Failed", skipped).await?;
    assert!(is(&flow, "slow", StepState::Running), "a sibling goes on: {:?}", status(&flow));
    assert!(status(&flow).completion_time.is_none());
    end(&world, "fails", "slow", "Succeeded").await?;
    let flow = ended(&world, "fails", FlowState::Failed).await?;
    assert!(is(&flow, "later", StepState::Succeeded), "the status is not frozen: {:?}", status(&flow));
    assert!(!creations(&world)?.contains_key("fails-after"));
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i6_a_step_whose_job_is_gone_is_not_run_again_and_its_dependants_start() -> Result<()> {
    let mut world = World::start_process("flow-ttl").await?;
    let mut first = step("first", &[]);
    first["jobTemplate"]["ttlSecondsAfterFinished"] = json!(0);
    let flows = json!([first, waiting("second", &["first"]), step("third", &["second", "first"])]);
    world.apply::<JobFlow>("ttl", json!({"flows": flows})).await?;
    world.object::<JobFlow>("ttl", "at the second", |flow| is(flow, "second", StepState::Running)).await?;
    let gone = |jobs: &[Job]| !jobs.iter().any(|job| job.name_any() == "ttl-first");
    world.until_jobs_of::<JobFlow>("ttl", "rid of the first Job", gone).await?;
    world.operator.as_mut().unwrap().restart()?;
    end(&world, "ttl", "second", "Succeeded").await?;
    ended(&world, "ttl", FlowState::Succeed).await?;
    let expected = ["ttl-first", "ttl-second", "ttl-third"].map(|name| (name.to_owned(), 1));
    assert_eq!(creations(&world)?, BTreeMap::from(expected));
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i6_each_step_runs_once_whoever_is_killed_and_however_many_are_at_it() -> Result<()> {
    let mut world = World::start_process("flow-kills").await?;
    let second = Operator::start(&world.namespace, &[]).await?;
    let names: Vec<String> = (0..24).map(|n| format!("s{n}")).collect();
    let flows: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let after: Vec<&str> = if n < 4 { vec![] } else { vec![&names[n - 4], &names[n - 3]] };
            step(name, &after)
        })
        .collect();
    world.apply::<JobFlow>("kills", json!({"flows": flows})).await?;
    for done in [2_usize, 6, 10, 14, 18] {
        let so_far = move |flow: &JobFlow| {
            let all = status(flow).job_status_list;
            all.values().filter(|entry| entry.state == StepState::Succeeded).count() >= done
        };
        world.object::<JobFlow>("kills", &format!("{done} steps far"), so_far).await?;
        world.operator.as_mut().unwrap().restart()?;
    }
    ended(&world, "kills", FlowState::Succeed).await?;
    drop(second);
    let jobs = world.jobs_of::<JobFlow>("kills").await?;
    let attempts: Vec<_> = jobs.iter().filter_map(|j| j.annotations().get(keys::ATTEMPT)).collect();
    assert!(attempts.iter().all(|attempt| *attempt == "1"), "{attempts:?}");
    let pods = world.pods().list(&Default::default()).await?.items;
    assert_eq!(pods.len(), 24, "each step had one pod");
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i11_what_cannot_be_meant_is_refused_or_named_with_its_path_and_can_be_repaired() -> Result<()> {
    let world = World::start("flow-words").await?;
    let refused_spec = async |spec: Value| -> String {
        match world.apply::<JobFlow>("words", spec).await {
            Err(kube::Error::Api(status)) => status.message.clone(),
            other => panic!("it was not refused: {other:?}"),
        }
    };
    let refused = async |flows: Value| refused_spec(json!({"flows": flows})).await;
    let twice = refused(json!([step("a", &[]), step("a", &[])])).await;
    assert!(twice.contains("Duplicate") || twice.contains("duplicate"), "{twice}");
    let own = refused(json!([step("a", &["a"])])).await;
    assert!(own.contains("cannot depend on itself"), "{own}");
    let none = refused(json!([{"name": "a"}])).await;
    assert!(none.contains("needs jobTemplate"), "{none}");
    let template = json!({"spec": {"containers": [{"name": "work", "image": "none"}]}});
    for (job, words) in [
        (json!({"containers": []}), "jobTemplate.template is missing"),
        (json!({"template": template, "suspend": true}), "jobTemplate.suspend must not be true"),
        (
            json!({"template": template, "manualSelector": true}),
            "jobTemplate.manualSelector must not be true",
        ),
    ] {
        let said = refused(json!([{"name": "a", "jobTemplate": job}])).await;
        assert!(said.contains("spec.flows[0].jobTemplate") && said.contains(words), "{said}");
        let handler = json!({"flows": [step("a", &[])], "onFailure": {"jobTemplate": job}});
        let said = refused_spec(handler).await;
        assert!(said.contains("spec.onFailure.jobTemplate") && said.contains(words), "{said}");
    }

    let circle = json!([step("a", &["c"]), step("b", &["a"]), step("c", &["b"]), step("d", &[])]);
    world.apply::<JobFlow>("words", json!({"flows": circle})).await?;
    let told = |flow: &JobFlow| condition(flow, "GraphValid").0 == "False";
    let flow = world.object::<JobFlow>("words", "told", told).await?;
    let words = condition(&flow, "GraphValid").1;
    assert!(["a -> ", "b -> ", "c -> "].iter().all(|part| words.contains(part)), "{words}");
    assert_eq!(state(&flow), Some(FlowState::Failed));
    assert!(world.jobs_of::<JobFlow>("words").await?.is_empty(), "nothing of it starts");

    let unknown = json!([step("a", &["nobody"])]);
    world.apply::<JobFlow>("words", json!({"flows": unknown})).await?;
    let told = |flow: &JobFlow| condition(flow, "GraphValid").1.contains("nobody");
    world.object::<JobFlow>("words", "told of the unknown name", told).await?;

    world.apply::<JobFlow>("words", json!({"flows": [step("a", &[]), step("b", &["a"])]})).await?;
    ended(&world, "words", FlowState::Succeed).await?;
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_step_belongs_as_a_whole_to_who_applied_it_and_others_add_their_own() -> Result<()> {
    let world = World::start("flow-owners").await?;
    let spec = json!({"suspend": true, "flows": [step("a", &[]), step("b", &["a"])]});
    world.apply::<JobFlow>("owners", spec).await?;
    let mut changed = step("b", &["a"]);
    changed["timeoutSeconds"] = json!(9);
    let apply = async |step: Value| {
        let object = json!({"apiVersion": "stoker.dev/v1alpha1", "kind": "JobFlow",
            "metadata": {"name": "owners"}, "spec": {"flows": [step]}});
        let params = PatchParams::apply("another");
        world.api::<JobFlow>().patch("owners", &params, &Patch::Apply(&object)).await
    };
    match apply(changed).await {
        Err(kube::Error::Api(status)) => {
            assert!(status.message.contains(r#".spec.flows[name="b"]"#), "{}", status.message);
        }
        other => panic!("another's step was changed: {other:?}"),
    }
    let flow = apply(step("c", &["b"])).await?;
    let names: Vec<_> = flow.spec.flows.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_template_that_comes_late_is_noticed_and_lists_its_jobs() -> Result<()> {
    let world = World::start("flow-template").await?;
    let from = json!({"name": "from", "dependencies": ["first"], "jobTemplateRef": "late"});
    world.apply::<JobFlow>("late-flow", json!({"flows": [step("first", &[]), from]})).await?;
    let told = |flow: &JobFlow| {
        let (status, words) = condition(flow, "TemplateValid");
        status == "False" && words.contains("late") && is(flow, "first", StepState::Succeeded)
    };
    world.object::<JobFlow>("late-flow", "waiting for its template", told).await?;
    world.apply::<JobTemplate>("late", job(Some("1s"), 0)).await?;
    ended(&world, "late-flow", FlowState::Succeed).await?;
    let listed = |template: &JobTemplate| {
        template.status.as_ref().is_some_and(|s| s.dependency_list == ["late-flow-from"] && s.jobs == 1)
    };
    world.object::<JobTemplate>("late", "listing its Job", listed).await?;
    let jobs = world.jobs_of::<JobFlow>("late-flow").await?;
    let made = jobs.iter().find(|job| job.name_any() == "late-flow-from").unwrap();
    let by = made.annotations().get("createByJobTemplate");
    assert_eq!(by, Some(&format!("{}.late", world.namespace)));
    world.delete::<JobFlow>("late-flow").await?;
    let emptied = |template: &JobTemplate| {
        template.status.as_ref().is_some_and(|s| s.dependency_list.is_empty() && s.jobs == 0)
    };
    world.object::<JobTemplate>("late", "empty again", emptied).await?;
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn failed_steps_are_tried_again_by_choice_and_by_hand() -> Result<()> {
    let world = World::start("flow-again").await?;
    let retry = json!({"limit": 1, "backoffSeconds": 1});
    let mut bad = waiting("bad", &["good"]);
    bad["retry"] = retry;
    let flows = json!([step("good", &[]), bad, step("last", &["bad"])]);
    world.apply::<JobFlow>("again", json!({"flows": flows})).await?;
    end(&world, "again", "bad", "Failed").await?;
    let second = |jobs: &[Job]| jobs.iter().filter(|job| of(job, "bad")).count() == 2;
    world.until_jobs_of::<JobFlow>("again", "at the second attempt", second).await?;
    end(&world, "again", "bad", "Failed").await?;
    let flow = ended(&world, "again", FlowState::Failed).await?;
    assert!(is(&flow, "last", StepState::Skipped));
    assert_eq!(stands(&flow), ["False", "False", "True", "False"]);

    let again = json!({"metadata": {"annotations": {"stoker.dev/rerun-failed": "now"}}});
    world.merge::<JobFlow>("again", again).await?;
    let third = |jobs: &[Job]| jobs.iter().filter(|job| of(job, "bad")).count() == 3;
    world.until_jobs_of::<JobFlow>("again", "at the third attempt", third).await?;
    end(&world, "again", "bad", "Succeeded").await?;
    let flow = ended(&world, "again", FlowState::Succeed).await?;
    assert_eq!(status(&flow).run, 1);
    assert_eq!(stands(&flow), ["True", "False", "False", "True"]);
    assert_eq!(creations(&world)?.get("again-good"), Some(&1), "what succeeded is not run again");

    let anew = json!({"metadata": {"annotations": {"stoker.dev/rerun": "all"}}});
    world.merge::<JobFlow>("again", anew).await?;
    world.object::<JobFlow>("again", "in its second run", |flow| status(flow).run == 2).await?;
    end(&world, "again", "bad", "Succeeded").await?;
    let whole = |flow: &JobFlow| {
        let status = status(flow);
        status.run == 2 && status.state == Some(FlowState::Succeed) && status.completion_time.is_some()
    };
    world.object::<JobFlow>("again", "through with its second run", whole).await?;
    let of_first = world.jobs_of::<JobFlow>("again").await?.into_iter().filter(|job| of(job, "good")).count();
    assert_eq!(of_first, 2, "a whole new run runs everything");
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_handler_that_failed_is_started_again_by_hand_and_no_step_with_it() -> Result<()> {
    let world = World::start("flow-handler").await?;
    let spec = json!({"flows": [step("one", &[])], "onExit": {"jobTemplate": job(None, 0)}});
    world.apply::<JobFlow>("handler", spec).await?;
    end(&world, "handler", "onExit", "Failed").await?;
    ended(&world, "handler", FlowState::Failed).await?;
    let again = json!({"metadata": {"annotations": {"stoker.dev/rerun-failed": "now"}}});
    world.merge::<JobFlow>("handler", again).await?;
    let second = |jobs: &[Job]| jobs.iter().filter(|job| of(job, "onExit")).count() == 2;
    world.until_jobs_of::<JobFlow>("handler", "at the second attempt", second).await?;
    end(&world, "handler", "onExit", "Succeeded").await?;
    ended(&world, "handler", FlowState::Succeed).await?;
    assert_eq!(creations(&world)?.get("handler-one"), Some(&1));
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn what_is_suspended_starts_nothing_and_a_changed_step_that_has_not_started_takes_the_change()
-> Result<()> {
    let world = World::start("flow-edit").await?;
    let flows = json!([waiting("one", &[]), waiting("two", &["one"])]);
    world.apply::<JobFlow>("edit", json!({"flows": flows})).await?;
    world.object::<JobFlow>("edit", "at one", |flow| is(flow, "one", StepState::Running)).await?;
    world.merge::<JobFlow>("edit", json!({"spec": {"suspend": true}})).await?;
    end(&world, "edit", "one", "Succeeded").await?;
    world.object::<JobFlow>("edit", "through with one", |flow| is(flow, "one", StepState::Succeeded)).await?;
    assert_eq!(world.jobs_of::<JobFlow>("edit").await?.len(), 1, "suspended");
    let mut two = waiting("two", &["one"]);
    two["jobTemplate"]["template"]["metadata"]["labels"] = json!({"edited": "yes"});
    let flows = json!([step("one", &[]), two]);
    world.apply::<JobFlow>("edit", json!({"flows": flows, "suspend": false})).await?;
    let jobs = world.until_jobs_of::<JobFlow>("edit", "at two", |jobs| jobs.len() == 2).await?;
    let template = &jobs.iter().find(|job| of(job, "two")).unwrap().spec.as_ref().unwrap().template;
    assert_eq!(template.metadata.as_ref().unwrap().labels.as_ref().unwrap()["edited"], "yes");
    let told = |flow: &JobFlow| {
        let (status, words) = condition(flow, "Outdated");
        status == "True" && words.contains("one")
    };
    world.object::<JobFlow>("edit", "told that one ran from an older spec", told).await?;
    end(&world, "edit", "two", "Succeeded").await?;
    ended(&world, "edit", FlowState::Succeed).await?;
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i7_a_job_of_somebody_elses_with_a_steps_name_is_left_alone() -> Result<()> {
    let world = World::start("flow-taken").await?;
    let mut theirs = job(None, 0);
    theirs["template"]["spec"]["restartPolicy"] = json!("Never");
    let theirs: Job = serde_json::from_value(json!({"metadata": {"name": "taken-a"}, "spec": theirs}))?;
    let theirs = world.api::<Job>().create(&PostParams::default(), &theirs).await?;
    world.apply::<JobFlow>("taken", json!({"flows": [step("a", &[]), step("b", &[])]})).await?;
    let told = |flow: &JobFlow| {
        let (status, words) = condition(flow, "Conflict");
        status == "True" && words.contains("taken-a") && is(flow, "b", StepState::Succeeded)
    };
    world.object::<JobFlow>("taken", "told", told).await?;
    let still = world.api::<Job>().get("taken-a").await?;
    assert_eq!((still.uid(), still.metadata.generation), (theirs.uid(), theirs.metadata.generation));
    world.api::<Job>().delete("taken-a", &DeleteParams::background()).await?;
    ended(&world, "taken", FlowState::Succeed).await?;
    finish(world).await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_flow_that_takes_too_long_is_ended_and_its_handlers_run() -> Result<()> {
    let world = World::start("flow-timeout").await?;
    let handler = json!({"jobTemplate": job(Some("1s"), 0)});
    let spec = json!({
        "flows": [waiting("endless", &[]), step("after", &["endless"])],
        "timeoutSeconds": 3,
        "onFailure": handler,
        "onExit": handler,
    });
    world.apply::<JobFlow>("timeout", spec).await?;
    let flow = ended(&world, "timeout", FlowState::Failed).await?;
    assert!(is(&flow, "onFailure", StepState::Succeeded) && is(&flow, "onExit", StepState::Succeeded));
    assert!(is(&flow, "after", StepState::Skipped));
    world.merge::<JobFlow>("timeout", json!({"spec": {"ttlSecondsAfterFinished": 1}})).await?;
    world
        .until("timeout", "gone by its ttl", || async {
            Ok(world.api::<JobFlow>().get_opt("timeout").await?.is_none())
        })
        .await?;
    finish(world).await
}
