//! JobTemplate objects: who names them is looked at when one comes, changes or goes, and their status says which Jobs have
//! been made from them, as the watch of Jobs tells.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::core::request::Request;
use kube::runtime::controller::{self, Action as Next, Config};
use kube::runtime::{Controller, WatchStreamExt as _, predicates, reflector, watcher};
use kube::{Resource as _, ResourceExt as _};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use stoker_api::{JobTemplate, JobTemplateStatus, keys};
use stoker_core::conditions::Conditions;
use tokio::sync::watch;

use crate::again::{WatchBackOff, watches};
use crate::apply::timed;
use crate::context::{Context, Scope};
use crate::looks;
use crate::object::Key;

/// A status is written at most this often.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// A template: namespace and name.
type Named = (String, String);

/// What is known of templates.
#[derive(Default)]
pub struct JobTemplates(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The objects that name a template.
    users: HashMap<Named, BTreeSet<Key>>,
    /// The templates that an object names.
    used: HashMap<Key, BTreeSet<String>>,
    /// The Jobs that were made from a template: their UIDs by name.
    jobs: HashMap<Named, BTreeMap<String, String>>,
    /// The spec that was seen last: UID and generation.
    seen: HashMap<Named, (Option<String>, Option<i64>)>,
    /// When a status was written last.
    written: HashMap<Named, Instant>,
}

impl JobTemplates {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which templates an object names, of its own namespace.
    pub fn uses(&self, object: &Key, names: BTreeSet<String>) {
        let mut known = self.known();
        let known = &mut *known;
        if known.used.get(object).map_or(names.is_empty(), |before| *before == names) {
            return;
        }
        let named = |name: &String| (object.namespace.clone(), name.clone());
        for gone in known.used.remove(object).iter().flatten().filter(|name| !names.contains(*name)) {
            if let Some(users) = known.users.get_mut(&named(gone)) {
                users.remove(object);
                if users.is_empty() {
                    known.users.remove(&named(gone));
                }
            }
        }
        for name in &names {
            known.users.entry(named(name)).or_default().insert(object.clone());
        }
        if !names.is_empty() {
            known.used.insert(object.clone(), names);
        }
    }

    fn users(&self, template: &Named) -> Vec<Key> {
        self.known().users.get(template).into_iter().flatten().cloned().collect()
    }

    /// Notes a Job, or that it went. Returns the template that it was made from, if that has another list now.
    pub fn note_job(
        &self,
        namespace: &str,
        job: &str,
        uid: &str,
        made_from: Option<&str>,
        gone: bool,
    ) -> Option<String> {
        // A namespace has no dots.
        let (of, template) = made_from?.split_once('.')?;
        if of != namespace {
            return None;
        }
        let mut known = self.known();
        let named = (namespace.to_owned(), template.to_owned());
        let news = if gone {
            let jobs = known.jobs.get_mut(&named)?;
            let news = jobs.get(job).is_some_and(|known| known == uid) && jobs.remove(job).is_some();
            if jobs.is_empty() {
                known.jobs.remove(&named);
            }
            news
        } else {
            let jobs = known.jobs.entry(named).or_default();
            jobs.insert(job.to_owned(), uid.to_owned()).as_deref() != Some(uid)
        };
        news.then(|| template.to_owned())
    }

    /// Forgets Jobs that are not there any more, of namespaces of a scope. Returns the templates with another list now.
    pub fn retain_jobs(
        &self,
        in_scope: impl Fn(&str) -> bool,
        there: impl Fn(&str) -> bool,
    ) -> Vec<(String, String)> {
        let mut changed = Vec::new();
        self.known().jobs.retain(|named, jobs| {
            let before = jobs.len();
            if in_scope(&named.0) {
                jobs.retain(|_, uid| there(uid));
            }
            if jobs.len() < before {
                changed.push(named.clone());
            }
            !jobs.is_empty()
        });
        changed
    }

    /// How many Jobs were made from a template, and the first of their names.
    fn made_from(&self, template: &Named) -> (usize, Vec<String>) {
        let known = self.known();
        let jobs = known.jobs.get(template);
        let names = jobs.into_iter().flat_map(BTreeMap::keys).take(JobTemplateStatus::LISTED).cloned();
        (jobs.map_or(0, BTreeMap::len), names.collect())
    }

    /// Whether a template is another than before.
    fn is_news(&self, template: &JobTemplate) -> bool {
        let now = (template.uid(), template.metadata.generation);
        self.known().seen.insert(named(template), now.clone()).as_ref() != Some(&now)
    }

    /// Forgets a template that is gone. True = it was there.
    fn forget(&self, template: &Named) -> bool {
        let mut known = self.known();
        known.written.remove(template);
        known.seen.remove(template).is_some()
    }

    /// How long until a status may be written; it is written then.
    fn wait(&self, template: &Named) -> Duration {
        let mut known = self.known();
        let since = known.written.get(template).map(Instant::elapsed);
        let wait = since.map_or(Duration::ZERO, |since| STATUS_PERIOD.saturating_sub(since));
        if wait.is_zero() {
            known.written.insert(template.clone(), Instant::now());
        }
        wait
    }
}

fn named(template: &JobTemplate) -> Named {
    (template.namespace().unwrap_or_default(), template.name_any())
}

/// Looks after the templates within a scope.
pub async fn control(context: Arc<Context>, scope: Arc<Scope>, mut stop: watch::Receiver<bool>) {
    let api: Api<JobTemplate> = scope.api(context.client.clone());
    let triggers = scope.templates.take_triggers();
    let (objects, writer) = reflector::store();
    scope.templates.keep(objects.clone());
    let (noted, told, store) = (scope.clone(), context.clone(), objects.clone());
    let changes = watcher(api, watches())
        .backoff(WatchBackOff::default())
        .modify(|object| object.metadata.managed_fields = None)
        .reflect(writer)
        .inspect(move |event| {
            match event {
                Ok(watcher::Event::Apply(object)) => tell(&told, object),
                Ok(watcher::Event::InitDone) => store.state().iter().for_each(|object| tell(&told, object)),
                _ => {}
            }
            noted.templates.hear(event);
        })
        .touched_objects()
        .predicate_filter(predicates::generation, Default::default());
    Controller::for_stream(changes, objects)
        .with_config(Config::default().concurrency(8))
        .reconcile_on(triggers)
        .graceful_shutdown_on(async move {
            stop.wait_for(|s| *s).await.ok();
        })
        .run(|object, context| looks::numbered(reconcile(object, context)), on_error, context.clone())
        .for_each(|result| {
            match result {
                Err(controller::Error::ObjectNotFound(gone)) => {
                    let template = (gone.namespace.unwrap_or_default(), gone.name);
                    if context.templates.forget(&template) {
                        trigger_users(&context, &template);
                    }
                }
                Err(error) => tracing::debug!(%error, "a JobTemplate"),
                Ok(_) => {}
            }
            std::future::ready(())
        })
        .await;
}

/// Has those looked at that name a template, if it is another than before.
fn tell(context: &Arc<Context>, template: &JobTemplate) {
    if context.templates.is_news(template) {
        trigger_users(context, &named(template));
    }
}

fn trigger_users(context: &Arc<Context>, template: &Named) {
    for key in context.templates.users(template) {
        context.trigger(&key);
    }
}

fn on_error(object: Arc<JobTemplate>, error: &kube::Error, context: Arc<Context>) -> Next {
    let (namespace, name) = named(&object);
    tracing::warn!(namespace, name, %error, "the status of a JobTemplate cannot be written, trying again");
    context.metrics.status_written("error");
    Next::requeue(AGAIN)
}

/// Writes the status, if it is to say something else.
async fn reconcile(object: Arc<JobTemplate>, context: Arc<Context>) -> Result<Next, kube::Error> {
    if !context.leads() {
        return Ok(Next::await_change());
    }
    // Before that, what is missing cannot be known.
    context.children_listed().await;
    let named = named(&object);
    let before = object.status.clone().unwrap_or_default();
    let status = status(&object, context.templates.made_from(&named), Timestamp::now());
    if before == status || object.metadata.deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let wait = context.templates.wait(&named);
    if !wait.is_zero() {
        return Ok(Next::requeue(wait));
    }
    match write(&context, &object, &status).await {
        Ok(()) => context.metrics.status_written("ok"),
        // It is gone, or another by now.
        Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => context.metrics.status_written("gone"),
        Err(error) => return Err(error),
    }
    Ok(Next::await_change())
}

fn status(object: &JobTemplate, (count, names): (usize, Vec<String>), now: Timestamp) -> JobTemplateStatus {
    let before = object.status.as_ref().map_or(&[] as &[_], |status| &status.conditions);
    let mut c = Conditions::new(before, object.metadata.generation, now);
    c.set("Ready", true, "Accepted", "JobFlows and DaemonJobs of this namespace can refer to it");
    JobTemplateStatus {
        observed_generation: object.metadata.generation,
        jobs: u32::try_from(count).unwrap_or(u32::MAX),
        dependency_list: names,
        conditions: c.finish(),
    }
}

/// Writes a status, whatever it said before: it says what there is.
async fn write(
    context: &Context,
    object: &JobTemplate,
    status: &JobTemplateStatus,
) -> Result<(), kube::Error> {
    let (namespace, name) = named(object);
    let body: Value = json!({
        "apiVersion": JobTemplate::api_version(&()),
        "kind": JobTemplate::kind(&()),
        // The UID makes the write fail for a namesake.
        "metadata": {"name": name, "uid": object.uid()},
        "status": status,
    });
    let params = PatchParams::apply("stoker").force();
    let mut request = Request::new(JobTemplate::url_path(&(), Some(&namespace)))
        .patch_subresource("status", &name, &params, &Patch::Apply(&body))
        .map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert("write_status");
    timed(context.client.request::<IgnoredAny>(request)).await.map(|_| ())
}

/// What a Job says that it was made from.
pub fn made_from(annotations: &BTreeMap<String, String>) -> Option<&str> {
    annotations.get(keys::BY_TEMPLATE).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    fn flow(name: &str) -> Key {
        Key { kind: Kind::JobFlow, namespace: "a".into(), name: name.into() }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn of(name: &str) -> Named {
        ("a".to_owned(), name.to_owned())
    }

    #[test]
    fn those_who_name_a_template_are_known_as_long_as_they_do() {
        let templates = JobTemplates::default();
        templates.uses(&flow("one"), names(&["build", "test"]));
        templates.uses(&flow("two"), names(&["build"]));
        assert_eq!(templates.users(&of("build")), [flow("one"), flow("two")]);
        templates.uses(&flow("one"), names(&["test"]));
        assert_eq!(templates.users(&of("build")), [flow("two")]);
        assert_eq!(templates.users(&of("test")), [flow("one")]);
        templates.uses(&flow("one"), names(&[]));
        templates.uses(&flow("two"), names(&[]));
        let known = templates.known();
        assert!(known.users.is_empty() && known.used.is_empty(), "nothing is left");
    }

    #[test]
    fn the_list_fills_and_empties_and_a_namesake_that_went_earlier_takes_none_away() {
        let templates = JobTemplates::default();
        let note =
            |job: &str, uid: &str, from: &str, gone| templates.note_job("a", job, uid, Some(from), gone);
        assert_eq!(note("j1", "1", "a.build.v1", false).as_deref(), Some("build.v1"));
        assert_eq!(note("j1", "1", "a.build.v1", false), None, "known already");
        assert_eq!(note("j2", "2", "b.build.v1", false), None, "of another namespace");
        assert_eq!(note("j1", "3", "a.build.v1", false).as_deref(), Some("build.v1"));
        assert_eq!(note("j1", "1", "a.build.v1", true), None);
        assert_eq!(templates.made_from(&of("build.v1")), (1, vec!["j1".to_owned()]));
        assert_eq!(note("j1", "3", "a.build.v1", true).as_deref(), Some("build.v1"));
        assert_eq!(templates.made_from(&of("build.v1")), (0, vec![]));
    }

    #[test]
    fn jobs_that_went_while_the_watch_was_broken_are_forgotten() {
        let templates = JobTemplates::default();
        templates.note_job("a", "j1", "1", Some("a.build"), false);
        templates.note_job("a", "j2", "2", Some("a.build"), false);
        assert!(templates.retain_jobs(|namespace| namespace == "b", |_| false).is_empty());
        assert_eq!(templates.retain_jobs(|namespace| namespace == "a", |uid| uid == "2"), [of("build")]);
        assert_eq!(templates.made_from(&of("build")), (1, vec!["j2".to_owned()]));
    }

    #[test]
    fn a_status_is_written_once_a_second_and_an_unchanged_template_is_no_news() {
        let templates = JobTemplates::default();
        assert!(templates.wait(&of("build")).is_zero());
        assert!(!templates.wait(&of("build")).is_zero());
        let mut template = JobTemplate::new("build", Default::default());
        template.metadata.namespace = Some("a".to_owned());
        template.metadata.generation = Some(1);
        assert!(templates.is_news(&template) && !templates.is_news(&template));
        template.metadata.generation = Some(2);
        assert!(templates.is_news(&template));
        assert!(templates.forget(&of("build")) && !templates.forget(&of("build")));
        assert!(templates.is_news(&template) && templates.wait(&of("build")).is_zero());
    }
}
