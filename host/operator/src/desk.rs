//! Where claims wait for standby: a queue for each pool, in the order of arrival. Looks tell which pods stand by; each
//! is offered to the first claim that can use it, and to one only. Nothing here writes: whoever is offered a pod tries
//! to get it by the version in which it was seen, and comes back for another if it has changed since.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stoker_core::PodView;
use tokio::sync::oneshot;

/// How long a pool's standby is kept at hand after its last claim.
const KEPT: Duration = Duration::from_secs(600);

/// How long a pod that could not be had is not offered again although it looks the same.
const REFUSED: Duration = Duration::from_secs(5);

/// What a pod must have.
pub type Labels = BTreeMap<String, String>;

/// What the claims of a pool ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Claims that wait for a pod now.
    pub waiting: u32,
    /// Claims that found none when they came, since the last time that this was asked.
    pub misses: u32,
    /// How long the oldest has waited.
    pub oldest_wait: Duration,
}

/// The queues of all pools, by the pools' UIDs.
#[derive(Default)]
pub struct Desk {
    pools: Mutex<HashMap<String, Queue>>,
}

#[derive(Default)]
struct Queue {
    /// Pods that may be offered, the first one first.
    standby: Vec<Arc<PodView>>,
    /// Standby has been told since the queue began.
    told: bool,
    /// Pods that were offered, by UID: not offered again in the version in which they were seen.
    offered: HashMap<String, Offered>,
    waiting: BTreeMap<u64, Waiting>,
    misses: u32,
    last: Option<Instant>,
}

struct Offered {
    version: String,
    /// Since when it is known that it could not be had in this version; None = it is being tried.
    refused: Option<Instant>,
}

impl Offered {
    /// Whether it stays so, given the version in which the pod is seen now.
    fn stands(&self, seen: Option<&&str>) -> bool {
        seen == Some(&self.version.as_str()) && self.refused.is_none_or(|at| at.elapsed() < REFUSED)
    }
}

struct Waiting {
    since: Instant,
    selector: Labels,
    /// Gone once a pod is offered.
    offer: oneshot::Sender<Arc<PodView>>,
    /// It waits for a pod; else only to learn whether one stands by.
    patient: bool,
    missed: bool,
}

impl Queue {
    /// Offers what stands by to those who wait.
    fn serve(&mut self) {
        self.waiting.retain(|_, claim| !claim.offer.is_closed());
        let numbers: Vec<u64> = self.waiting.keys().copied().collect();
        for number in numbers {
            if self.standby.is_empty() {
                break;
            }
            let fits = |pod: &Arc<PodView>| {
                let wanted = self.waiting.get(&number).map(|claim| &claim.selector);
                wanted.is_some_and(|wanted| wanted.iter().all(|(k, v)| pod.labels.get(k) == Some(v)))
            };
            let Some(place) = self.standby.iter().position(fits) else { continue };
            let pod = self.standby.remove(place);
            let Some(claim) = self.waiting.remove(&number) else { continue };
            let version = pod.resource_version.clone();
            if claim.offer.send(pod.clone()).is_ok() {
                self.offered.insert(pod.uid.clone(), Offered { version, refused: None });
            } else {
                self.standby.insert(place, pod);
            }
        }
        if self.told {
            for claim in self.waiting.values_mut().filter(|claim| !claim.missed) {
                claim.missed = true;
                self.misses = self.misses.saturating_add(1);
            }
            self.waiting.retain(|_, claim| claim.patient);
        }
    }
}

/// A claim's place in its pool's queue; kept when a pod that was offered could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64, Instant);

impl Desk {
    fn pools(&self) -> MutexGuard<'_, HashMap<String, Queue>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place at the end of the queue.
    pub fn place(&self) -> Place {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        Place(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed), Instant::now())
    }

    /// Waits at a place for a pod with these labels; whoever drops the receiver waits no longer. Who has no patience is
    /// told by the drop of the sender that none stands by. True = it waits, so that the pool must be
    /// looked at; None = so many wait already.
    pub fn wait(
        &self,
        pool: &str,
        place: Place,
        selector: &Labels,
        patient: bool,
        most: usize,
    ) -> Option<(oneshot::Receiver<Arc<PodView>>, bool)> {
        let mut pools = self.pools();
        let queue = pools.entry(pool.to_owned()).or_default();
        queue.last = Some(Instant::now());
        queue.waiting.retain(|_, claim| !claim.offer.is_closed());
        if queue.waiting.len() >= most {
            return None;
        }
        let (offer, offered) = oneshot::channel();
        let claim = Waiting { since: place.1, selector: selector.clone(), offer, patient, missed: false };
        queue.waiting.insert(place.0, claim);
        queue.serve();
        let waits = queue.waiting.contains_key(&place.0);
        Some((offered, waits))
    }

    /// A pod that was offered could not be had.
    pub fn refused(&self, pool: &str, pod: &PodView) {
        let mut pools = self.pools();
        let offered = pools.get_mut(pool).and_then(|queue| queue.offered.get_mut(&pod.uid));
        if let Some(offered) = offered.filter(|offered| offered.version == pod.resource_version) {
            offered.refused = Some(Instant::now());
        }
    }

    /// Pods of a pool that are being tried, by UID, with the version in which they were seen. What they do is not known
    /// before that has ended.
    pub fn on_offer(&self, pool: &str) -> HashMap<String, String> {
        let pools = self.pools();
        let tried = pools.get(pool).into_iter().flat_map(|queue| &queue.offered);
        let tried = tried.filter(|(_, offered)| offered.refused.is_none());
        tried.map(|(uid, offered)| (uid.clone(), offered.version.clone())).collect()
    }

    /// Whether somebody claims from a pool, so that its standby is worth telling.
    pub fn wants(&self, pool: &str) -> bool {
        let mut pools = self.pools();
        let Some(queue) = pools.get(pool) else { return false };
        let wanted = !queue.waiting.is_empty() || queue.last.is_some_and(|at| at.elapsed() < KEPT);
        if !wanted {
            pools.remove(pool);
        }
        wanted
    }

    /// Tells what stands by in a pool, the first one first, and in which versions its pods are seen.
    pub fn tell<'a>(
        &self,
        pool: &str,
        standby: Vec<Arc<PodView>>,
        seen: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let mut pools = self.pools();
        let Some(queue) = pools.get_mut(pool) else { return };
        if !queue.offered.is_empty() {
            let versions: HashMap<&str, &str> = seen.collect();
            queue.offered.retain(|uid, offered| offered.stands(versions.get(uid.as_str())));
        }
        let offered = &queue.offered;
        queue.standby = standby.into_iter().filter(|pod| !offered.contains_key(&pod.uid)).collect();
        queue.told = true;
        queue.serve();
    }

    /// What the claims of a pool ask for; its misses are told once.
    pub fn demand(&self, pool: &str) -> Demand {
        let mut pools = self.pools();
        let Some(queue) = pools.get_mut(pool) else { return Demand::default() };
        queue.waiting.retain(|_, claim| !claim.offer.is_closed());
        Demand {
            waiting: u32::try_from(queue.waiting.len()).unwrap_or(u32::MAX),
            misses: std::mem::take(&mut queue.misses),
            oldest_wait: queue.waiting.values().map(|claim| claim.since.elapsed()).max().unwrap_or_default(),
        }
    }

    /// Claims of a pool that wait.
    pub fn waiting_in(&self, pool: &str) -> u32 {
        let pools = self.pools();
        let open = |queue: &Queue| queue.waiting.values().filter(|claim| !claim.offer.is_closed()).count();
        u32::try_from(pools.get(pool).map_or(0, open)).unwrap_or(u32::MAX)
    }

    /// Forgets a pool that is gone; who waits is told by the drop.
    pub fn forget(&self, pool: &str) {
        let gone = self.pools().remove(pool);
        drop(gone);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::Timestamp;
    use stoker_core::Phase;

    use super::*;

    const MANY: usize = 100;

    fn pod(name: &str, version: &str, labels: &[(&str, &str)]) -> Arc<PodView> {
        Arc::new(PodView {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            resource_version: version.to_owned(),
            slot: None,
            created: Timestamp::UNIX_EPOCH,
            phase: Phase::Running,
            terminating: false,
            deleted_at: None,
            grace: 0,
            finalizers: Vec::new(),
            ended: None,
            node: None,
            ip: None,
            ports: Vec::new(),
            displaced: false,
            restarts: 0,
            waiting: None,
            message: None,
            containers_started: None,
            gate_started: None,
            conditions: Vec::new(),
            template_hash: None,
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            annotations: BTreeMap::new(),
        })
    }

    fn tell(desk: &Desk, pods: &[Arc<PodView>]) {
        let seen: Vec<_> = pods.iter().map(|p| (p.uid.as_str(), p.resource_version.as_str())).collect();
        desk.tell("pool", pods.to_vec(), seen.into_iter());
    }

    fn wait(desk: &Desk, place: Place) -> oneshot::Receiver<Arc<PodView>> {
        desk.wait("pool", place, &Labels::new(), true, MANY).unwrap().0
    }

    fn offered(receiver: &mut oneshot::Receiver<Arc<PodView>>) -> Option<String> {
        receiver.try_recv().ok().map(|pod| pod.name.clone())
    }

    #[test]
    fn each_pod_is_offered_once_in_the_order_of_arrival() {
        let desk = Desk::default();
        let mut claims: Vec<_> = (0..3).map(|_| wait(&desk, desk.place())).collect();
        assert_eq!(desk.demand("pool").waiting, 3);
        tell(&desk, &[pod("a", "1", &[]), pod("b", "1", &[])]);
        let got: Vec<_> = claims.iter_mut().map(offered).collect();
        assert_eq!(got, [Some("a".to_owned()), Some("b".to_owned()), None]);
        // Seen in the same version they are still the others'.
        tell(&desk, &[pod("a", "1", &[]), pod("b", "1", &[])]);
        assert_eq!(offered(&mut claims[2]), None);
        tell(&desk, &[pod("a", "2", &[]), pod("b", "1", &[])]);
        assert_eq!(offered(&mut claims[2]), Some("a".to_owned()));
        assert_eq!(desk.demand("pool"), Demand { misses: 1, ..Demand::default() });
    }

    #[test]
    fn who_could_not_get_a_pod_keeps_its_place() {
        let desk = Desk::default();
        let (first, second) = (desk.place(), desk.place());
        let mut early = wait(&desk, first);
        tell(&desk, &[pod("a", "1", &[])]);
        assert_eq!(offered(&mut early), Some("a".to_owned()));
        let mut late = wait(&desk, second);
        // The pod had changed: the first comes back for another.
        let mut early = wait(&desk, first);
        tell(&desk, &[pod("a", "2", &[])]);
        assert_eq!((offered(&mut early), offered(&mut late)), (Some("a".to_owned()), None));
    }

    #[test]
    fn a_pod_that_is_being_tried_is_on_offer_until_it_changes_or_cannot_be_had() {
        let desk = Desk::default();
        let mut claims: Vec<_> = (0..2).map(|_| wait(&desk, desk.place())).collect();
        tell(&desk, &[pod("a", "1", &[]), pod("b", "1", &[])]);
        assert_eq!(desk.on_offer("pool").len(), 2);
        desk.refused("pool", &claims[0].try_recv().unwrap());
        assert_eq!(desk.on_offer("pool"), HashMap::from([("uid-b".to_owned(), "1".to_owned())]));
        tell(&desk, &[pod("a", "1", &[]), pod("b", "2", &[])]);
        assert!(desk.on_offer("pool").is_empty());
        // What could not be had is not offered again as it is.
        let mut third = wait(&desk, desk.place());
        assert_eq!(offered(&mut third), Some("b".to_owned()));
        assert_eq!(offered(&mut wait(&desk, desk.place())), None);
    }

    #[test]
    fn a_pod_is_for_whom_it_fits() {
        let desk = Desk::default();
        let large = Labels::from([("size".to_owned(), "large".to_owned())]);
        let (mut first, waits) = desk.wait("pool", desk.place(), &large, true, MANY).unwrap();
        assert!(waits);
        let mut second = wait(&desk, desk.place());
        tell(&desk, &[pod("a", "1", &[("size", "small")])]);
        assert_eq!((offered(&mut first), offered(&mut second)), (None, Some("a".to_owned())));
        tell(&desk, &[pod("b", "1", &[("size", "large")])]);
        assert_eq!(offered(&mut first), Some("b".to_owned()));
    }

    #[test]
    fn who_waits_no_longer_gets_nothing_and_is_no_demand() {
        let desk = Desk::default();
        drop(wait(&desk, desk.place()));
        let mut other = wait(&desk, desk.place());
        assert_eq!(desk.demand("pool").waiting, 1);
        tell(&desk, &[pod("a", "1", &[])]);
        assert_eq!(offered(&mut other), Some("a".to_owned()));
    }

    #[test]
    fn who_has_no_patience_learns_that_none_stands_by_and_is_a_miss() {
        let desk = Desk::default();
        let impatient = || desk.wait("pool", desk.place(), &Labels::new(), false, MANY).unwrap();
        let (mut first, waits) = impatient();
        assert!(waits && first.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Empty));
        tell(&desk, &[]);
        assert!(first.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed));
        let (mut second, waits) = impatient();
        assert!(!waits && second.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed));
        assert_eq!(desk.demand("pool"), Demand { misses: 2, ..Demand::default() });
    }

    #[test]
    fn a_queue_has_an_end() {
        let desk = Desk::default();
        let _kept: Vec<_> =
            (0..2).map(|_| desk.wait("pool", desk.place(), &Labels::new(), true, 2)).collect();
        assert!(desk.wait("pool", desk.place(), &Labels::new(), true, 2).is_none());
    }

    #[test]
    fn standby_at_hand_is_offered_at_once_and_is_no_miss() {
        let desk = Desk::default();
        drop(wait(&desk, desk.place()));
        tell(&desk, &[pod("a", "1", &[])]);
        let (mut claim, waits) = desk.wait("pool", desk.place(), &Labels::new(), true, MANY).unwrap();
        assert!(!waits);
        assert_eq!(offered(&mut claim), Some("a".to_owned()));
        assert_eq!(desk.demand("pool"), Demand::default());
    }
}
