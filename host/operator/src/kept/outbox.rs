//! Writing the status of objects, in the version in which they were seen: of two operators one is too late, and looks
//! again. Kinds whose next creation may need what is written wait for it; others hand it over and go on, and what is
//! newest is written soon, at most once a second for an object, and a large one less often, unless it is urgent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use kube::api::PostParams;
use kube::core::Request;
use serde_json::json;
use stoker_core::kept::NEWEST;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::{Keeper, api, key, publish, version};
use crate::again::ERRORS;
use crate::apply::timed;
use crate::context::Context;

/// A status is written at most this often.
pub(super) const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// Writing a status may take up one part in so many of the time: one of a thousand steps costs the API server half a second
/// of work.
const SHARE: u32 = 10;

/// A status is not held back for longer than this because the last one took long.
const LONGEST_PERIOD: Duration = Duration::from_secs(10);

/// So long a status waits for what follows from what it tells, such as the next step's start from a step's end: one write
/// instead of two.
const GATHERED: Duration = Duration::from_millis(250);

/// Statuses, or Events, that are written at a time: those that are on their way when a creation comes compete with it, and
/// one costs the API server several times what a creation does.
const AT_A_TIME: usize = 4;

/// What limits how many statuses, or Events, are written at a time.
pub struct Permits {
    all: Semaphore,
    patient: Semaphore,
}

impl Permits {
    /// Waits for its turn, which lasts until what is returned is dropped.
    pub async fn one(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.all.acquire().await.ok()
    }

    /// Waits for its turn among those that can wait: they go one after the other.
    async fn patient(&self) -> Option<SemaphorePermit<'_>> {
        self.patient.acquire().await.ok()
    }
}

impl Default for Permits {
    fn default() -> Self {
        Self { all: Semaphore::new(AT_A_TIME), patient: Semaphore::new(1) }
    }
}

/// What became of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// The object says it.
    Written,
    /// The object is another than it was planned for: look again.
    Outdated,
    /// There is no such object any more.
    Gone,
}

/// An object as it was read or written last, and what it is to say.
pub struct Outbox<K: Keeper> {
    inner: Mutex<Inner<K>>,
    hurry: Notify,
}

struct Inner<K: Keeper> {
    /// The object as it was read or written last, if that is newer than what the watch shows.
    latest: Option<Arc<K>>,
    next: Option<Letter<K>>,
    /// A task is at it.
    at_work: bool,
    /// When a status was written last.
    written: Option<Instant>,
    /// How long that took.
    took: Duration,
    /// Since when there is something to write.
    since: Option<Instant>,
    /// A version of the object, and when it was asked for of which the answer was that it is the newest.
    proven: Option<(u64, Instant)>,
}

/// When a status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Now,
    In(Duration),
    /// When no look creates children any more, or after so long.
    AfterCreations(Duration),
}

/// A status that is to be written.
struct Letter<K: Keeper> {
    object: Arc<K>,
    before: K::Status,
    status: K::Status,
    told: Vec<K::Told>,
    /// Somebody waits for it.
    urgent: bool,
}

impl<K: Keeper> Default for Outbox<K> {
    fn default() -> Self {
        let inner = Inner {
            latest: None,
            next: None,
            at_work: false,
            written: None,
            took: Duration::ZERO,
            since: None,
            proven: None,
        };
        Self { inner: Mutex::new(inner), hurry: Notify::new() }
    }
}

impl<K: Keeper> Outbox<K> {
    fn inner(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newer one of the object as the watch shows it and as it was read or written last.
    pub fn newest(&self, shown: Arc<K>) -> Arc<K> {
        let mut inner = self.inner();
        if let Some(latest) = &inner.latest
            && version(&**latest) > version(&*shown)
        {
            return latest.clone();
        }
        inner.latest = None;
        shown
    }

    /// The newest that is known of an object that a plan was made for. What is remembered stays: the watch may yet show
    /// an older one, from which nothing must be planned again (I6).
    fn base(&self, planned: &Arc<K>) -> Arc<K> {
        let inner = self.inner();
        let latest = inner.latest.as_ref().filter(|latest| version(&***latest) > version(&**planned));
        latest.unwrap_or(planned).clone()
    }

    /// Notes the object as it was read or written.
    pub fn saw(&self, mut object: K) -> Arc<K> {
        object.meta_mut().managed_fields = None;
        let object = Arc::new(object);
        let mut inner = self.inner();
        if inner.latest.as_ref().is_none_or(|latest| version(&**latest) <= version(&*object)) {
            inner.latest = Some(object.clone());
        }
        object
    }

    /// Notes that an object was the newest when, or after, that was asked.
    pub fn prove(&self, object: &K, asked: Instant) {
        let (mut inner, version) = (self.inner(), version(object));
        if inner.proven.is_none_or(|(known, before)| (known, before) <= (version, asked)) {
            inner.proven = Some((version, asked));
        }
    }

    /// When an object was surely the newest, if that is not long ago.
    pub fn proven(&self, object: &K) -> Option<Instant> {
        let proven = self.inner().proven.filter(|(known, _)| *known == version(object));
        proven.map(|(_, asked)| asked).filter(|asked| asked.elapsed() <= NEWEST.unsigned_abs())
    }

    /// Puts down what the object is to say, in place of what it was to say. True = nobody is at it yet.
    fn put(&self, letter: Option<Letter<K>>) -> bool {
        let mut inner = self.inner();
        let urgent = letter.as_ref().is_some_and(|letter| letter.urgent);
        inner.next = letter;
        inner.since = inner.next.is_some().then(|| inner.since.unwrap_or_else(Instant::now));
        if urgent {
            self.hurry.notify_one();
        }
        inner.next.is_some() && !std::mem::replace(&mut inner.at_work, true)
    }

    /// What to do about what there is to write; None = there is nothing, and the task that asks ends. `creating` = looks
    /// create children.
    fn due(&self, creating: bool) -> Option<Due> {
        let mut inner = self.inner();
        let Some(next) = &inner.next else {
            inner.at_work = false;
            return None;
        };
        if next.urgent {
            return Some(Due::Now);
        }
        let period = (inner.took * SHARE).clamp(STATUS_PERIOD, LONGEST_PERIOD);
        let wait = left(inner.written, period).max(left(inner.since, GATHERED));
        let yields = left(inner.since, K::YIELDS);
        Some(match (wait.is_zero(), creating && !yields.is_zero()) {
            (false, _) => Due::In(wait),
            (true, true) => Due::AfterCreations(yields),
            (true, false) => Due::Now,
        })
    }

    /// How long what there is to write can wait for others.
    fn patience(&self) -> Duration {
        let inner = self.inner();
        let urgent = inner.next.as_ref().is_none_or(|next| next.urgent);
        if urgent { Duration::ZERO } else { left(inner.since, K::YIELDS) }
    }

    fn take(&self) -> Option<Letter<K>> {
        let mut inner = self.inner();
        let next = inner.next.take();
        inner.since = None;
        if next.is_some() {
            inner.written = Some(Instant::now());
        }
        next
    }
}

/// What is left of a span of time that began then.
fn left(since: Option<Instant>, span: Duration) -> Duration {
    since.map_or(Duration::ZERO, |since| span.saturating_sub(since.elapsed()))
}

/// Has a status written soon in the place of `before`; once it is, the object is looked at again.
pub fn hand_over<K: Keeper>(
    context: &Arc<Context>,
    outbox: &Arc<Outbox<K>>,
    object: &Arc<K>,
    (before, status): (K::Status, K::Status),
    told: Vec<K::Told>,
) {
    let urgent = K::urgent(&before, &status);
    // What changed may have changed back meanwhile.
    let letter = (before != status).then(|| Letter { object: object.clone(), before, status, told, urgent });
    if outbox.put(letter) {
        tokio::spawn(deliver(context.clone(), outbox.clone()));
    }
}

/// Writes what there is to tell of an object until there is nothing any more.
async fn deliver<K: Keeper>(context: Arc<Context>, outbox: Arc<Outbox<K>>) {
    let mut failures = 0;
    while let Some(due) = outbox.due(context.creations.any()) {
        match due {
            Due::Now => {}
            Due::In(wait) => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = outbox.hurry.notified() => {}
                }
                continue;
            }
            Due::AfterCreations(longest) => {
                tokio::select! {
                    () = tokio::time::sleep(longest) => {}
                    () = outbox.hurry.notified() => {}
                    () = context.creations.none() => {}
                }
                // Those that waited go on in their turn: by then, others may create again.
                continue;
            }
        }
        let in_turn = tokio::select! {
            turn = tokio::time::timeout(outbox.patience(), context.status_permits.patient()) => turn.ok(),
            () = outbox.hurry.notified() => None,
        };
        let permit = context.status_permits.one().await;
        // Meanwhile it may have changed back, or others have begun to create.
        match outbox.due(context.creations.any()) {
            Some(Due::Now) => {}
            Some(_) => continue,
            None => return,
        }
        let Some(letter) = outbox.take() else { continue };
        let asked = Instant::now();
        let outcome = write(&context, &outbox, &letter.object, &letter.before, &letter.status).await;
        outbox.inner().took = asked.elapsed();
        drop((permit, in_turn));
        let key = key(&*letter.object);
        match outcome {
            Ok(Wrote::Written) => {
                failures = 0;
                context.trigger(&key);
                let news = letter.object.written(&context, &letter.before, &letter.status, &letter.told);
                publish(&context, &*letter.object, &news).await;
            }
            Ok(Wrote::Outdated) => context.trigger(&key),
            Ok(Wrote::Gone) => {}
            Err(error) => {
                failures += 1;
                context.metrics.status_written("error");
                tracing::warn!(object = %key, %error, "the status cannot be written, trying again");
                tokio::time::sleep(ERRORS.after(failures)).await;
                // The look says what there is to tell by then.
                context.trigger(&key);
            }
        }
    }
}

/// Writes a status in the place of `before`.
///
/// # Errors
/// When the API server does not answer or refuses; it may have been written all the same.
pub async fn write<K: Keeper>(
    context: &Context,
    outbox: &Outbox<K>,
    object: &Arc<K>,
    before: &K::Status,
    status: &K::Status,
) -> Result<Wrote, kube::Error> {
    let base = outbox.base(object);
    if base.status().cloned().unwrap_or_default() != *before {
        // Somebody else wrote it meanwhile: looked at again with that.
        return Ok(Wrote::Outdated);
    }
    let (key, asked) = (key(&**object), Instant::now());
    // Without the spec, which a write of the status does not change, and which would be read and compared all the same.
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "uid": base.uid(),
            "resourceVersion": base.resource_version(),
        },
        "status": status,
    });
    let bytes = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
    let mut request = Request::new(K::url_path(&(), Some(&key.namespace)))
        .replace_subresource("status", &key.name, &PostParams::default(), bytes)
        .map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert("write_status");
    match timed(context.client.request::<K>(request)).await {
        Ok(written) => {
            context.metrics.status_written("ok");
            outbox.prove(&outbox.saw(written), asked);
            Ok(Wrote::Written)
        }
        Err(kube::Error::Api(s)) if s.code == 404 => Ok(Wrote::Gone),
        Err(kube::Error::Api(s)) if s.code == 409 => {
            if let Some(latest) = timed(api(context, &**object).get_opt(&key.name)).await? {
                outbox.saw(latest);
            }
            Ok(Wrote::Outdated)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use stoker_api::{FlowState, JobFlow, JobFlowStatus, PreScaledCronJob, PreScaledCronJobStatus};

    use super::super::fake::serve;
    use super::*;
    use crate::context::Options;

    fn object(version: u32) -> PreScaledCronJob {
        let job = json!({"template": {"spec": {"containers": []}}});
        serde_json::from_value(json!({
            "apiVersion": "stoker.dev/v1alpha1",
            "kind": "PreScaledCronJob",
            "metadata": {"name": "a", "namespace": "b", "resourceVersion": version.to_string()},
            "spec": {"warmUp": "5m", "cronJob": {"spec": {"schedule": "0 * * * *", "jobTemplate": {"spec": job}}}},
        }))
        .unwrap_or_else(|error| panic!("{error}"))
    }

    fn letter(urgent: bool) -> Option<Letter<PreScaledCronJob>> {
        let status = PreScaledCronJobStatus::default();
        let object = Arc::new(object(1));
        Some(Letter { object, before: status.clone(), status, told: Vec::new(), urgent })
    }

    #[test]
    fn the_newer_one_of_what_the_watch_shows_and_what_was_written_counts() {
        let outbox = Outbox::default();
        outbox.saw(object(7));
        outbox.saw(object(5));
        assert_eq!(version(&*outbox.newest(Arc::new(object(6)))), 7);
        assert_eq!(version(&*outbox.newest(Arc::new(object(8)))), 8);
        assert!(outbox.inner().latest.is_none(), "what the watch has caught up with is not kept twice");
    }

    #[test]
    fn i6_writing_what_was_planned_from_the_newest_does_not_bring_an_older_one_back() {
        let outbox = Outbox::default();
        let latest = outbox.saw(object(7));
        assert_eq!(version(&*outbox.base(&latest)), 7);
        assert_eq!(version(&*outbox.newest(Arc::new(object(6)))), 7, "the watch is late");
        assert_eq!(version(&*outbox.base(&Arc::new(object(6)))), 7);
        assert_eq!(version(&*outbox.base(&Arc::new(object(8)))), 8);
    }

    #[test]
    fn i6_an_object_counts_as_the_newest_for_a_moment_after_the_api_server_said_so() {
        let outbox = Outbox::default();
        let now = Instant::now();
        assert_eq!(outbox.proven(&object(7)), None);
        outbox.prove(&object(7), now);
        assert_eq!(outbox.proven(&object(7)), Some(now));
        assert_eq!(outbox.proven(&object(6)), None, "another version");
        outbox.prove(&object(6), now);
        assert_eq!(outbox.proven(&object(7)), Some(now), "an answer that was late");
        let long_ago = now.checked_sub(NEWEST.unsigned_abs() + Duration::from_millis(1)).unwrap();
        outbox.prove(&object(8), long_ago);
        assert_eq!(outbox.proven(&object(8)), None);
        outbox.prove(&object(8), now);
        assert_eq!(outbox.proven(&object(8)), Some(now));
    }

    #[test]
    fn a_status_is_written_soon_and_the_next_a_second_later_unless_it_is_urgent() {
        let outbox = Outbox::default();
        assert!(outbox.put(letter(false)));
        assert!(matches!(outbox.due(true), Some(Due::In(wait)) if wait <= GATHERED));
        outbox.inner().since = Instant::now().checked_sub(GATHERED);
        assert!(!outbox.put(letter(false)), "what is newer waits no longer");
        assert_eq!(outbox.due(false), Some(Due::Now));
        assert!(outbox.take().is_some());
        assert!(!outbox.put(letter(false)), "a task is at it");
        let wait = outbox.due(false);
        assert!(matches!(wait, Some(Due::In(wait)) if wait > STATUS_PERIOD / 2 && wait <= STATUS_PERIOD));
        outbox.put(letter(true));
        assert_eq!(outbox.due(true), Some(Due::Now));
    }

    #[test]
    fn a_status_waits_for_others_as_long_as_it_gives_way_unless_it_is_urgent() {
        let outbox = Outbox::default();
        outbox.put(letter(false));
        let yields = PreScaledCronJob::YIELDS;
        assert!(outbox.patience() > yields / 2 && outbox.patience() <= yields);
        outbox.inner().since = Instant::now().checked_sub(yields);
        assert_eq!(outbox.patience(), Duration::ZERO);
        outbox.inner().since = Some(Instant::now());
        outbox.put(letter(true));
        assert_eq!(outbox.patience(), Duration::ZERO);
    }

    #[test]
    fn a_status_that_takes_long_to_write_is_written_less_often() {
        let outbox = Outbox::default();
        outbox.put(letter(false));
        outbox.inner().since = Instant::now().checked_sub(GATHERED);
        let due = |took, ago| {
            let mut inner = outbox.inner();
            (inner.took, inner.written) = (took, Instant::now().checked_sub(ago));
            drop(inner);
            outbox.due(false)
        };
        let (quick, slow, stuck) = (STATUS_PERIOD / 100, STATUS_PERIOD / 2, LONGEST_PERIOD);
        assert_eq!(due(quick, STATUS_PERIOD), Some(Due::Now));
        assert!(
            matches!(due(slow, STATUS_PERIOD), Some(Due::In(wait)) if wait <= slow * SHARE - STATUS_PERIOD)
        );
        assert_eq!(due(slow, slow * SHARE), Some(Due::Now));
        assert_eq!(due(stuck, LONGEST_PERIOD), Some(Due::Now));
    }

    #[test]
    fn what_changed_back_is_not_written_and_the_task_ends() {
        let outbox = Outbox::default();
        assert!(outbox.put(letter(false)));
        assert!(!outbox.put(None));
        assert_eq!(outbox.due(false), None);
        assert!(outbox.put(letter(false)), "the next one needs a task again");
    }

    #[test]
    fn a_status_gives_way_to_creations_for_a_while_and_not_for_ever() {
        let outbox = Outbox::default();
        outbox.put(letter(false));
        let waited = |span| outbox.inner().since = Instant::now().checked_sub(span);
        waited(GATHERED);
        let yields = PreScaledCronJob::YIELDS;
        let due = outbox.due(true);
        assert!(matches!(due, Some(Due::AfterCreations(left)) if left > yields / 2 && left < yields));
        assert_eq!(outbox.due(false), Some(Due::Now), "nobody creates");
        outbox.put(letter(false));
        waited(yields);
        assert_eq!(outbox.due(true), Some(Due::Now), "it has waited long enough");
    }

    #[tokio::test]
    async fn what_was_handed_over_is_written_once_no_look_creates_children() {
        let written = object(2);
        let server = serve(move |_| (200, serde_json::to_value(&written).unwrap()));
        let options = Options { namespaces: vec!["b".to_owned()], ..Options::default() };
        let context = Context::new(server.client.clone(), options).unwrap();
        let outbox = Arc::new(Outbox::default());
        let creating = context.creations.begin();
        let status = PreScaledCronJobStatus { observed_generation: Some(1), ..Default::default() };
        hand_over(&context, &outbox, &Arc::new(object(1)), (Default::default(), status), vec![]);
        // Longer than it would wait otherwise.
        tokio::time::sleep(GATHERED * 2).await;
        assert!(server.calls().is_empty(), "{:?}", server.calls());
        drop(creating);
        let path = "PUT /apis/stoker.dev/v1alpha1/namespaces/b/prescaledcronjobs/a/status";
        let began = Instant::now();
        while server.calls() != [path] {
            assert!(began.elapsed() < Duration::from_secs(30), "{:?}", server.calls());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let put = &server.asked()[0].body;
        assert_eq!(put["metadata"]["resourceVersion"], "1");
        assert_eq!((&put["status"]["observedGeneration"], &put["spec"]), (&json!(1), &json!(null)));
    }

    #[tokio::test]
    async fn those_that_can_wait_are_written_one_after_the_other_and_urgent_ones_beside_them() {
        let flow: JobFlow = serde_json::from_value(json!({
            "apiVersion": "stoker.dev/v1alpha1",
            "kind": "JobFlow",
            "metadata": {"name": "a", "namespace": "b", "resourceVersion": "1"},
            "spec": {"flows": []},
        }))
        .unwrap();
        let flow = Arc::new(flow);
        let written = flow.clone();
        let server = serve(move |_| (200, serde_json::to_value(&*written).unwrap()));
        let options = Options { namespaces: vec!["b".to_owned()], ..Options::default() };
        let context = Context::new(server.client.clone(), options).unwrap();
        let another_is_written = context.status_permits.patient().await;
        let outbox = Arc::new(Outbox::default());
        let hand = |status| hand_over(&context, &outbox, &flow, (JobFlowStatus::default(), status), vec![]);
        let progress = JobFlowStatus { progress: Some("1/2".to_owned()), ..JobFlowStatus::default() };
        hand(progress.clone());
        // Longer than it would wait otherwise.
        tokio::time::sleep(GATHERED * 2).await;
        assert!(server.calls().is_empty(), "{:?}", server.calls());
        hand(JobFlowStatus { state: Some(FlowState::Running), ..progress });
        let began = Instant::now();
        while server.calls().is_empty() {
            assert!(began.elapsed() < JobFlow::YIELDS / 2, "it waits although its state is new");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(another_is_written);
    }
}
