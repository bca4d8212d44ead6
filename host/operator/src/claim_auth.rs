//! Who may claim: accounts of the cluster show their bearer token, which the API server reviews, and its authoriser says
//! whether the account may claim from the pool. Both answers are kept for a short while.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest as _, Sha256};
use stoker_api::GROUP;
use tokio::sync::Semaphore;

use crate::apply::timed;
use crate::object::{Key, Kind};

/// How long an answer is believed: as long as a permission that was taken away may still be used.
const GOOD: Duration = Duration::from_secs(10);
/// How long a refusal is: as short as people wait for one that was given.
const BAD: Duration = Duration::from_secs(1);
/// Answers kept at most of each sort.
const KEPT: usize = 10_000;
/// Reviews under way at a time. What is beyond waits, and so leaves the API server to others.
const REVIEWS: usize = 16;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: Vec<(String, Vec<String>)>,
}

/// Why somebody may not claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Who it is, is not known.
    Unknown(String),
    /// It is known, and not allowed.
    Forbidden(String),
    /// It asks too often; try again then.
    TooOften(Duration),
    /// The API server does not say.
    Unanswered(String),
}

struct Answers<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Answers<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, (Instant, V)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &K) -> Option<V> {
        self.lock().get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, answer)| answer.clone())
    }

    fn put(&self, key: K, answer: V, lasts: Duration) {
        let mut answers = self.lock();
        if answers.len() >= KEPT {
            let now = Instant::now();
            answers.retain(|_, (until, _)| now < *until);
            if answers.len() >= KEPT {
                answers.clear();
            }
        }
        answers.insert(key, (Instant::now() + lasts, answer));
    }
}

/// What is asked of the authoriser.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    account: String,
    verb: &'static str,
    pool: Key,
}

/// Reviews tokens and permissions, and counts requests.
pub struct Gate {
    client: Client,
    accounts: Answers<[u8; 32], Result<Account, String>>,
    permissions: Answers<Question, Result<(), String>>,
    reviews: Semaphore,
    rate: DefaultKeyedRateLimiter<String>,
}

impl Gate {
    /// A gate that lets an account ask so often in a second, and ten times as often at once.
    pub fn new(client: Client, per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(per_second.saturating_mul(TEN));
        Self {
            client,
            accounts: Answers::new(),
            permissions: Answers::new(),
            reviews: Semaphore::new(REVIEWS),
            rate: RateLimiter::keyed(quota),
        }
    }

    /// The account that shows a token, unless it asks too often.
    pub async fn account(&self, token: &str) -> Result<Account, Denied> {
        let key: [u8; 32] = Sha256::digest(token).into();
        let account = match self.accounts.get(&key) {
            Some(known) => known,
            None => {
                let told = self.review(token).await.map_err(|e| Denied::Unanswered(e.to_string()))?;
                self.accounts.put(key, told.clone(), if told.is_ok() { GOOD } else { BAD });
                told
            }
        };
        let account = account.map_err(Denied::Unknown)?;
        if self.rate.len() > KEPT {
            self.rate.retain_recent();
        }
        self.rate
            .check_key(&account.name)
            .map_err(|until| Denied::TooOften(until.wait_time_from(DefaultClock::default().now())))?;
        Ok(account)
    }

    async fn review(&self, token: &str) -> Result<Result<Account, String>, kube::Error> {
        let _permit = self.reviews.acquire().await;
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let status = timed(api.create(&PostParams::default(), &review)).await?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let why = || status.error.unwrap_or_else(|| "it is not valid in this cluster".to_owned());
        Ok(user.ok_or_else(why).map(|user| Account {
            name: user.username.unwrap_or_default(),
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default().into_iter().collect(),
        }))
    }

    /// Whether an account may do something with the claims of a pool.
    pub async fn permits(&self, account: &Account, verb: &'static str, pool: &Key) -> Result<(), Denied> {
        let question = Question { account: account.name.clone(), verb, pool: pool.clone() };
        let told = match self.permissions.get(&question) {
            Some(known) => known,
            None => {
                let asked = self.ask(account, verb, pool).await;
                let told = asked.map_err(|e| Denied::Unanswered(e.to_string()))?;
                self.permissions.put(question, told.clone(), if told.is_ok() { GOOD } else { BAD });
                told
            }
        };
        told.map_err(Denied::Forbidden)
    }

    async fn ask(
        &self,
        account: &Account,
        verb: &'static str,
        pool: &Key,
    ) -> Result<Result<(), String>, kube::Error> {
        let _permit = self.reviews.acquire().await;
        let resource = resource(pool.kind);
        let spec = SubjectAccessReviewSpec {
            user: Some(account.name.clone()),
            uid: account.uid.clone(),
            groups: Some(account.groups.clone()),
            extra: (!account.extra.is_empty()).then(|| account.extra.iter().cloned().collect()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(GROUP.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some("claim".to_owned()),
                verb: Some(verb.to_owned()),
                namespace: Some(pool.namespace.clone()),
                name: Some(pool.name.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let status = timed(api.create(&PostParams::default(), &review)).await?.status.unwrap_or_default();
        if status.allowed {
            return Ok(Ok(()));
        }
        Ok(Err(format!(
            "{} may not {verb} {resource}/claim {} in namespace {}: bind it to a role that allows the verb {verb} on the resource {resource}/claim of the group {GROUP}",
            account.name, pool.name, pool.namespace
        )))
    }
}

const TEN: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// The resource of a kind.
fn resource(kind: Kind) -> &'static str {
    match kind {
        Kind::HotStandbyDeployment => "hotstandbydeployments",
        Kind::HotStandbyJob => "hotstandbyjobs",
        Kind::PreScaledCronJob => "prescaledcronjobs",
        Kind::JobFlow => "jobflows",
        Kind::DaemonJob => "daemonjobs",
        Kind::NodeBatchJob => "nodebatchjobs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_believed_for_its_time_and_no_longer() {
        let answers = Answers::new();
        answers.put("a", 1, Duration::from_secs(60));
        answers.put("b", 2, Duration::ZERO);
        assert_eq!((answers.get(&"a"), answers.get(&"b"), answers.get(&"c")), (Some(1), None, None));
    }

    #[test]
    fn answers_that_are_kept_are_bounded() {
        let answers = Answers::new();
        for key in 0..3 * KEPT {
            answers.put(key, (), Duration::from_secs(60));
        }
        assert!(answers.lock().len() <= KEPT);
    }
}
