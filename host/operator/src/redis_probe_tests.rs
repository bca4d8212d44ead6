//! Readings of a real redis-server: killed, flushed, hanging, with a password, by TLS.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use jiff::Timestamp;
use stoker_api::{BusyProbe, BusyProbeMode};
use stoker_core::asked::Outcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use server::Redis;

#[path = "../../../tests/e2e/src/redis.rs"]
mod server;

const DEADLINE: Duration = Duration::from_secs(60);

/// An API server that knows one Secret and one ConfigMap, both of the name `redis`.
#[derive(Clone, Default)]
struct Objects(Arc<Mutex<HashMap<String, String>>>);

impl Objects {
    fn set(&self, key: &str, value: &str) {
        self.0.lock().unwrap().insert(key.to_owned(), value.to_owned());
    }

    async fn serve(&self) -> kube::Client {
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let objects = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let objects = objects.clone();
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while let Ok(byte) = stream.read_u8().await {
                        seen.push(byte);
                        if seen.ends_with(b"\r\n\r\n") {
                            let text = String::from_utf8_lossy(&std::mem::take(&mut seen)).into_owned();
                            let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                            let (status, body) = objects.get(path.split('?').next().unwrap_or_default());
                            let answer = format!(
                                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                                body.len()
                            );
                            stream.write_all(answer.as_bytes()).await.ok();
                        }
                    }
                });
            }
        });
        kube::Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap()
    }

    fn get(&self, path: &str) -> (&'static str, String) {
        let all = self.0.lock().unwrap();
        let secret = path.ends_with("/namespaces/games/secrets/redis");
        if !(secret || path.ends_with("/namespaces/games/configmaps/redis")) || all.is_empty() {
            let body =
                r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}"#;
            return ("404 Not Found", body.to_owned());
        }
        let data: HashMap<String, String> = all
            .iter()
            .map(|(key, value)| {
                let bytes = k8s_openapi::ByteString(value.clone().into_bytes());
                let encoded = serde_json::to_value(bytes).unwrap().as_str().unwrap().to_owned();
                (key.clone(), if secret { encoded } else { value.clone() })
            })
            .collect();
        let kind = if secret { "Secret" } else { "ConfigMap" };
        let body = serde_json::json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "redis"}, "data": data});
        ("200 OK", body.to_string())
    }
}

fn probe(scheme: &str, redis: &Redis) -> RedisProbe {
    serde_json::from_value(serde_json::json!({
        "url": format!("{scheme}://127.0.0.1:{}", redis.port),
        "timeoutSeconds": 30,
        "periodSeconds": 60,
    }))
    .unwrap()
}

fn with_password(mut probe: RedisProbe) -> RedisProbe {
    probe.credentials = Some(serde_json::from_value(serde_json::json!({"name": "redis"})).unwrap());
    probe
}

fn pods(count: usize) -> Vec<Target> {
    let one = |i| Target {
        namespace: "games".into(),
        name: format!("game-{i}"),
        created: Timestamp::from_second(1_000_000).unwrap(),
        ip: None,
        port: None,
    };
    (0..count).map(one).collect()
}

async fn ask(asker: &RedisAsker, probe: &RedisProbe, count: usize) -> Vec<Finding> {
    asker.ask(probe, &"games".into(), &pods(count)).await
}

async fn outcomes(asker: &RedisAsker, probe: &RedisProbe, count: usize) -> Vec<Outcome> {
    ask(asker, probe, count).await.into_iter().map(|f| f.answer.outcome).collect()
}

/// Asks again until there is this answer about one pod, as the prober does.
async fn until(asker: &RedisAsker, probe: &RedisProbe, wanted: Outcome) {
    let began = Instant::now();
    loop {
        let found = ask(asker, probe, 1).await.remove(0);
        if found.answer.outcome == wanted {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "still {found:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_whole_pool_is_read_in_one_round_trip_and_servers_are_shared() {
    if !server::is_installed() {
        return;
    }
    let redis = Redis::start(&[], &[], &[]);
    for (pod, value) in [
        ("game-0", r#"{"status":"busy","updated_at":1000001}"#),
        ("game-1", "idle"),
        ("game-2", r#"{"status":"idle","updated_at":999999}"#),
        ("game-4", r#"{"status":"error"}"#),
    ] {
        redis.tell(&["HSET", "mlgame-daemon-pod", pod, value]);
    }
    let asker = RedisAsker::new(Objects::default().serve().await);
    let probe = probe("redis", &redis);
    use Outcome::{Busy, Idle, Unclear};
    let found = ask(&asker, &probe, 5).await;
    let outcomes: Vec<_> = found.iter().map(|f| f.answer.outcome).collect();
    assert_eq!(outcomes, [Busy, Idle, Unclear, Unclear, Unclear], "{found:?}");
    assert_eq!(found[1].evidence, Evidence::Redis(Some(b"idle"[..].into())));
    assert_eq!(found[3].evidence, Evidence::Redis(None));
    assert_eq!(redis.calls("hmget"), 1);

    // Another pool on the same server: one connection for both.
    let other = RedisProbe { key: "another".to_owned(), ..probe.clone() };
    asker.ask(&other, &"elsewhere".into(), &pods(1000)).await;
    assert_eq!(redis.calls("hmget"), 2);
    let readers = redis.tell(&["CLIENT", "LIST"]).lines().filter(|l| l.contains("cmd=hmget")).count();
    assert_eq!(readers, 1);
    assert!(ask(&asker, &probe, 0).await.is_empty());
    assert_eq!(redis.calls("hmget"), 2, "about nobody nothing is asked");

    // A key that holds something else is no answer.
    redis.tell(&["SET", "a-word", "idle"]);
    let wrong = RedisProbe { key: "a-word".to_owned(), ..probe };
    let found = ask(&asker, &wrong, 1).await.remove(0);
    assert!(found.answer.words.contains("WRONGTYPE"), "{found:?}");
}

#[tokio::test]
async fn a_redis_that_is_killed_or_flushed_or_hangs_gives_no_answer_and_then_answers_again() {
    if !server::is_installed() {
        return;
    }
    let mut redis = Redis::start(&[], &[], &[]);
    redis.tell(&["HSET", "mlgame-daemon-pod", "game-0", "idle"]);
    let asker = RedisAsker::new(Objects::default().serve().await);
    let mut probe = probe("redis", &redis);
    until(&asker, &probe, Outcome::Idle).await;

    redis.tell(&["FLUSHALL"]);
    assert_eq!(outcomes(&asker, &probe, 1).await, [Outcome::Unclear]);
    redis.tell(&["HSET", "mlgame-daemon-pod", "game-0", "busy"]);
    assert_eq!(outcomes(&asker, &probe, 1).await, [Outcome::Busy]);

    redis.kill();
    assert_eq!(outcomes(&asker, &probe, 2).await, [Outcome::Unclear; 2]);
    assert!(redis.run(), "it does not start again on its port");
    redis.tell(&["HSET", "mlgame-daemon-pod", "game-0", "idle"]);
    until(&asker, &probe, Outcome::Idle).await;

    probe.timeout_seconds = 1;
    redis.signal("STOP");
    let found = ask(&asker, &probe, 1).await.remove(0);
    redis.signal("CONT");
    assert_eq!(found, Finding::none("Redis: no answer within 1 s"));
    until(&asker, &probe, Outcome::Idle).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_not_tried_at_every_question() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // It takes connections and closes them.
    let tried = Arc::new(Mutex::new(0));
    let count = tried.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            *count.lock().unwrap() += 1;
            drop(stream);
        }
    });
    let asker = RedisAsker::new(Objects::default().serve().await);
    let probe: RedisProbe = serde_json::from_value(
        serde_json::json!({"url": format!("redis://127.0.0.1:{port}"), "timeoutSeconds": 30}),
    )
    .unwrap();
    let began = Instant::now();
    for _ in 0..1000 {
        assert_eq!(outcomes(&asker, &probe, 1).await, [Outcome::Unclear]);
    }
    // After the first failure half a second, then one, two, …
    let most = 2 + began.elapsed().as_millis() / 500;
    let tried = *tried.lock().unwrap();
    assert!(tried >= 1 && tried <= most, "{tried} times in {:?}", began.elapsed());
}

#[tokio::test]
async fn the_password_comes_from_a_secret_and_is_read_again_when_it_changed() {
    if !server::is_installed() {
        return;
    }
    let mut redis = Redis::start(&[], &["--requirepass", "old"], &["-a", "old", "--no-auth-warning"]);
    redis.tell(&["HSET", "mlgame-daemon-pod", "game-0", "idle"]);
    let objects = Objects::default();
    let asker = RedisAsker::new(objects.serve().await);
    let probe = probe("redis", &redis);

    let found = ask(&asker, &probe, 1).await.remove(0);
    assert!(found.answer.words.contains("set redis.credentials"), "{found:?}");
    let probe = with_password(probe);
    let missing = ask(&asker, &probe, 1).await.remove(0);
    assert_eq!(missing, Finding::none("Secret games/redis does not exist"));
    objects.set("password", "old\n");
    until(&asker, &probe, Outcome::Idle).await;

    // Redis is told first, and the Secret changes later.
    redis.tell(&["CONFIG", "SET", "requirepass", "new"]);
    redis.talk[1] = "new".to_owned();
    redis.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
    let began = Instant::now();
    loop {
        let found = ask(&asker, &probe, 1).await.remove(0);
        if found.answer.words.contains("refuses what Secret redis says") {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    objects.set("password", "new");
    until(&asker, &probe, Outcome::Idle).await;

    // A user of its own.
    redis.tell(&["ACL", "SETUSER", "reader", "on", ">hush", "~*", "+hmget"]);
    objects.set("user", "reader");
    objects.set("password", "hush");
    let asker = RedisAsker::new(objects.serve().await);
    until(&asker, &probe, Outcome::Idle).await;
}

#[tokio::test]
async fn tls_is_checked_against_the_authority_that_the_spec_names() {
    if !server::is_installed() {
        return;
    }
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        (cert.pem(), rcgen::Issuer::new(params, key))
    };
    let (pem, issuer) = authority("good");
    let (other, _) = authority("other");
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let cert = cert.signed_by(&key, &issuer).unwrap();
    let folder = std::env::temp_dir().join(format!("stoker-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca, cert, key) =
        (file("ca.crt", pem.clone()), file("tls.crt", cert.pem()), file("tls.key", key.serialize_pem()));
    let options = [
        "--port",
        "0",
        "--tls-port",
        "PORT",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ];
    let redis = Redis::start(&[], &options, &["--tls", "--cacert", &ca]);
    redis.tell(&["HSET", "mlgame-daemon-pod", "game-0", "idle"]);

    let objects = Objects::default();
    objects.set("ca.crt", &pem);
    objects.set("other", &other);
    let asker = RedisAsker::new(objects.serve().await);
    let with = |source: serde_json::Value| {
        let ca = Some(serde_json::from_value(source).unwrap());
        RedisProbe { ca, ..probe("rediss", &redis) }
    };
    for source in ["secret", "configMap"] {
        let right = with(serde_json::json!({source: {"name": "redis"}}));
        let found = ask(&asker, &right, 1).await;
        assert_eq!(found[0].answer.outcome, Outcome::Idle, "{source}: {found:?}");
    }
    let wrong = with(serde_json::json!({"secret": {"name": "redis", "key": "other"}}));
    assert_eq!(outcomes(&asker, &wrong, 1).await, [Outcome::Unclear]);
    assert_eq!(
        outcomes(&asker, &probe("rediss", &redis), 1).await,
        [Outcome::Unclear],
        "an unknown authority"
    );
    assert_eq!(outcomes(&asker, &probe("redis", &redis), 1).await, [Outcome::Unclear], "no TLS");
    let missing = with(serde_json::json!({"configMap": {"name": "redis", "key": "none"}}));
    let found = ask(&asker, &missing, 1).await.remove(0);
    assert_eq!(found, Finding::none("ConfigMap games/redis has no key `none`"));
    std::fs::remove_dir_all(&folder).ok();
}

#[test]
fn a_probe_of_redis_is_one_question_about_all_pods() {
    let redis: RedisProbe = serde_json::from_value(serde_json::json!({"url": "redis://r"})).unwrap();
    let probe = BusyProbe { mode: BusyProbeMode::Redis, redis: Some(redis), ..BusyProbe::default() };
    let (question, rules) = crate::question::Question::of(&probe).unwrap();
    assert!(question.is_for_all());
    assert_eq!(rules.period, jiff::SignedDuration::from_secs(10));
}
