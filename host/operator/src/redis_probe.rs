//! One hash in Redis, read for a whole pool in one round trip. Pools that name the same server with the same
//! credentials share a connection. A server that is away is tried again with back-off, by whoever asks next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, IntoConnectionInfo, RedisError, TlsCertificates};
use stoker_api::{CaSource, CredentialsSecret, RedisProbe};
use stoker_core::asked::{Answer, is_older};
use tokio::sync::Mutex as AsyncMutex;

use crate::question::{Evidence, Finding, Target, first_bytes, too_late};
use crate::trust;

/// First and longest wait after a connection failed.
const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_LONGEST: Duration = Duration::from_secs(10);

/// A connection that nobody used for so long is closed.
const UNUSED: Duration = Duration::from_secs(2 * 3600);

/// What makes two pools share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Server {
    url: String,
    /// Whose Secrets and ConfigMaps are meant; none where none are.
    namespace: Option<Arc<str>>,
    credentials: Option<CredentialsSecret>,
    ca: Option<CaSource>,
}

/// What Secrets and ConfigMaps say. Read once, and again when the server does not take it.
#[derive(Clone, Default)]
struct Trust {
    user: Option<String>,
    password: Option<String>,
    ca: Option<Vec<u8>>,
}

#[derive(Default)]
struct Link {
    open: Option<MultiplexedConnection>,
    /// Which connection `open` is, so that a failure is held against the right one.
    number: u64,
    trust: Option<Trust>,
    failures: u32,
    /// No connection is tried before then, and why the last one failed.
    quiet: Option<(Instant, String)>,
}

struct Shared {
    used: Mutex<Instant>,
    link: AsyncMutex<Link>,
}

/// Asks Redis.
pub struct RedisAsker {
    client: kube::Client,
    servers: Mutex<HashMap<Server, Arc<Shared>>>,
}

impl RedisAsker {
    pub fn new(client: kube::Client) -> Self {
        Self { client, servers: Mutex::default() }
    }

    /// Asks about pods of one namespace; one finding for each.
    pub async fn ask(&self, probe: &RedisProbe, namespace: &Arc<str>, pods: &[Target]) -> Vec<Finding> {
        if pods.is_empty() {
            return Vec::new();
        }
        let timeout = Duration::from_secs(u64::from(probe.timeout_seconds));
        let shared = self.shared(probe, namespace);
        let asked = async {
            let (mut connection, number) = self.connection(&shared, probe, namespace).await?;
            let mut command = redis::cmd("HMGET");
            command.arg(&probe.key);
            for pod in pods {
                command.arg(&pod.name);
            }
            let values: Result<Vec<Option<Vec<u8>>>, RedisError> = command.query_async(&mut connection).await;
            match values {
                Ok(values) if values.len() == pods.len() => Ok(values),
                Ok(values) => Err(format!("Redis gave {} values for {} pods", values.len(), pods.len())),
                Err(error) => {
                    shared.link.lock().await.failed(number, &error);
                    Err(in_words(&error, probe))
                }
            }
        };
        let values = match tokio::time::timeout(timeout, asked).await {
            Ok(values) => values,
            Err(_) => {
                // What comes late would otherwise queue up in the connection. Whoever holds the lock is at it.
                if let Ok(mut link) = shared.link.try_lock() {
                    link.open = None;
                }
                Err(format!("Redis: {}", too_late(timeout)))
            }
        };
        match values {
            Ok(values) => pods.iter().zip(values).map(|(pod, value)| finding(value, probe, pod)).collect(),
            Err(words) => pods.iter().map(|_| Finding::none(words.clone())).collect(),
        }
    }

    fn shared(&self, probe: &RedisProbe, namespace: &Arc<str>) -> Arc<Shared> {
        let private = probe.credentials.is_some() || probe.ca.is_some();
        let server = Server {
            url: probe.url.clone(),
            namespace: private.then(|| namespace.clone()),
            credentials: probe.credentials.clone(),
            ca: probe.ca.clone(),
        };
        let now = Instant::now();
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let used = |s: &Shared| *s.used.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|_, shared| now.duration_since(used(shared)) < UNUSED);
        let fresh = || Arc::new(Shared { used: Mutex::new(now), link: AsyncMutex::default() });
        let shared = servers.entry(server).or_insert_with(fresh).clone();
        *shared.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
        shared
    }

    /// The connection, made if there is none; and its number.
    async fn connection(
        &self,
        shared: &Shared,
        probe: &RedisProbe,
        namespace: &str,
    ) -> Result<(MultiplexedConnection, u64), String> {
        let mut link = shared.link.lock().await;
        if let Some(open) = &link.open {
            return Ok((open.clone(), link.number));
        }
        if let Some((until, words)) = &link.quiet
            && Instant::now() < *until
        {
            return Err(words.clone());
        }
        // Should this take too long, it counts as a failure.
        link.quiet_for(format!("Redis at {} does not answer", probe.url));
        let trust = match &link.trust {
            Some(trust) => trust.clone(),
            None => {
                let read = self.trust(probe, namespace).await.inspect_err(|words| link.explain(words))?;
                link.trust.insert(read).clone()
            }
        };
        match connect(probe, &trust).await {
            Ok(open) => {
                link.failures = 0;
                link.quiet = None;
                link.number += 1;
                link.open = Some(open.clone());
                Ok((open, link.number))
            }
            Err(error) => {
                let words = in_words(&error, probe);
                link.explain(&words);
                if is_refusal(&error) {
                    link.trust = None;
                }
                Err(words)
            }
        }
    }

    async fn trust(&self, probe: &RedisProbe, namespace: &str) -> Result<Trust, String> {
        let mut trust = Trust::default();
        if let Some(wanted) = &probe.credentials {
            let secret = trust::secret(&self.client, namespace, &wanted.name).await?;
            let text = |key: &str| {
                let bytes = secret.data.as_ref()?.get(key)?;
                Some(String::from_utf8_lossy(&bytes.0).trim_end_matches(['\r', '\n']).to_owned())
            };
            trust.user = text(&wanted.user_key).filter(|user| !user.is_empty());
            let password = text(&wanted.password_key);
            trust.password = Some(password.ok_or_else(|| {
                format!("Secret {namespace}/{} has no key `{}`", wanted.name, wanted.password_key)
            })?);
        }
        if let Some(ca) = &probe.ca {
            trust.ca = Some(trust::certificate(&self.client, namespace, ca).await?);
        }
        Ok(trust)
    }
}

impl Link {
    /// Lets nobody try for a while that grows with each failure.
    fn quiet_for(&mut self, words: String) {
        let wait = AGAIN_FIRST.saturating_mul(1 << self.failures.min(10)).min(AGAIN_LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.quiet = Some((Instant::now() + wait, words));
    }

    /// Says better why nobody tries.
    fn explain(&mut self, words: &str) {
        if let Some((_, why)) = &mut self.quiet {
            words.clone_into(why);
        }
    }

    /// A command failed on the connection of that number.
    fn failed(&mut self, number: u64, error: &RedisError) {
        if self.number == number && (error.is_unrecoverable_error() || is_refusal(error)) {
            self.open = None;
        }
        if is_refusal(error) {
            self.trust = None;
        }
    }
}

async fn connect(probe: &RedisProbe, trust: &Trust) -> Result<MultiplexedConnection, RedisError> {
    let info = probe.url.as_str().into_connection_info()?;
    let mut settings = info.redis_settings().clone();
    if let Some(user) = &trust.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &trust.password {
        settings = settings.set_password(password);
    }
    let info = info.set_redis_settings(settings);
    let client = match &trust.ca {
        None => redis::Client::open(info)?,
        Some(ca) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) };
            redis::Client::build_with_tls(info, certificates)?
        }
    };
    // Whoever asks has a time limit of its own.
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// The server does not know the user or the password any more, or not yet.
fn is_refusal(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"))
}

fn in_words(error: &RedisError, probe: &RedisProbe) -> String {
    let words: String = error.to_string().chars().take(300).collect();
    if is_refusal(error) {
        return match &probe.credentials {
            None => format!("Redis wants a user or a password ({words}): set redis.credentials"),
            Some(secret) => format!("Redis refuses what Secret {} says ({words})", secret.name),
        };
    }
    format!("Redis at {}: {words}", probe.url)
}

fn finding(value: Option<Vec<u8>>, probe: &RedisProbe, pod: &Target) -> Finding {
    let answer = Answer::redis(value.as_deref(), &probe.values, pod.created);
    let value = value.filter(|value| !is_older(value, pod.created));
    Finding { answer, evidence: Evidence::Redis(value.map(|v| first_bytes(&v))) }
}

#[cfg(test)]
#[path = "redis_probe_tests.rs"]
mod tests;
