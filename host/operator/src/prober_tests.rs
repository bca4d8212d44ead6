//! The prober with servers on loopback: when it asks, whom it tells, and what it leaves out.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt as _;
use prometheus_client::registry::Registry;
use stoker_api::{BusyProbe, BusyProbeMode, HttpProbe};
use stoker_core::asked::Outcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

/// A server for all pods; `busy` and `hangs` change what it says.
#[derive(Default)]
struct Server {
    busy: AtomicBool,
    hangs: AtomicBool,
    requests: AtomicUsize,
    connections: AtomicUsize,
    port: u16,
}

impl Server {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self { port: listener.local_addr().unwrap().port(), ..Self::default() });
        let all = server.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let server = all.clone();
                server.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while let Ok(byte) = stream.read_u8().await {
                        seen.push(byte);
                        if !seen.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        seen.clear();
                        server.requests.fetch_add(1, Ordering::SeqCst);
                        while server.hangs.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        let status = if server.busy.load(Ordering::SeqCst) { "200 OK" } else { "503 No" };
                        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                        stream.write_all(answer.as_bytes()).await.ok();
                    }
                });
            }
        });
        server
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn question(&self) -> (Question, Rules) {
        let http = HttpProbe {
            port: stoker_api::HttpPort::Number(self.port),
            period_seconds: 1,
            // No answer is too late only because this machine is slow.
            timeout_seconds: 60,
            ..HttpProbe::default()
        };
        let probe = BusyProbe { mode: BusyProbeMode::Http, http: Some(http), ..BusyProbe::default() };
        Question::of(&probe).unwrap()
    }

    fn pods(&self, count: usize, able: bool) -> Vec<Candidate> {
        let one = |i| Candidate {
            uid: format!("uid-{i}"),
            able,
            target: Target {
                namespace: "games".into(),
                name: format!("game-{i}"),
                created: Timestamp::UNIX_EPOCH,
                ip: Some("127.0.0.1".parse().unwrap()),
                port: Some(self.port),
            },
        };
        (0..count).map(one).collect()
    }

    fn keep(&self, prober: &Prober, count: usize) -> Known {
        let (question, rules) = self.question();
        prober.keep("pool", question, rules, false, self.pods(count, true))
    }
}

/// A prober that runs; it stops when the sender goes.
fn start() -> (Arc<Prober>, watch::Sender<bool>) {
    start_with(REQUESTS, usize::MAX)
}

fn start_with(requests: usize, kept: usize) -> (Arc<Prober>, watch::Sender<bool>) {
    rustls::crypto::ring::default_provider().install_default().ok();
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let metrics = Arc::new(ProbeMetrics::new(&mut Registry::default()));
    let mut prober = Prober::new(kube::Client::try_from(config).unwrap(), metrics, kept);
    Arc::get_mut(&mut prober).unwrap().requests = Arc::new(Semaphore::new(requests));
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(prober.clone().run(stopped));
    (prober, stop)
}

async fn until(what: &str, mut ok: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ok() {
        assert!(began.elapsed() < DEADLINE, "not {what} after {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn outcomes(known: &Known) -> Vec<Option<Outcome>> {
    known.answers.values().map(|a| a.last().map(|(answer, _)| answer.outcome)).collect()
}

#[tokio::test]
async fn pods_are_asked_at_once_and_then_once_a_period_each_by_its_own_connection() {
    let server = Server::start().await;
    let (prober, _stop) = start();
    server.keep(&prober, 3);
    until("asked", || server.requests() >= 3).await;
    until("asked again", || server.requests() >= 15).await;
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
    until("known", || outcomes(&server.keep(&prober, 3)) == [Some(Outcome::Idle); 3]).await;
}

#[tokio::test]
async fn a_change_is_told_once_and_what_stays_the_same_is_not() {
    let server = Server::start().await;
    let (prober, _stop) = start_with(0, 0);
    let mut changes = prober.take_changes();
    let (question, mut rules) = server.question();
    rules.period = jiff::SignedDuration::from_hours(1);
    prober.keep("pool", question.clone(), rules, false, server.pods(1, true));
    let mut note = |outcome| {
        let answer = stoker_core::asked::Answer { outcome, words: String::new() };
        let finding = Finding { answer, evidence: Evidence::Error(String::new()) };
        prober.note("pool", &question, Timestamp::now(), vec![("uid-0".into(), finding)], None, false);
        changes.try_recv().is_ok()
    };
    use Outcome::{Busy, Idle, Unclear};
    for (outcome, news) in [
        (Unclear, false),
        (Idle, true),
        (Idle, false),
        (Unclear, false),
        (Unclear, false),
        (Idle, false),
        (Busy, true),
        (Busy, false),
        (Unclear, false),
        (Unclear, false),
        (Unclear, true),
        (Unclear, false),
        (Busy, true),
    ] {
        assert_eq!(note(outcome), news, "{outcome:?}");
    }
}

#[tokio::test]
async fn who_shows_policies_what_was_found_tells_each_change_of_it() {
    let server = Server::start().await;
    let (prober, _stop) = start_with(0, 0);
    let mut changes = prober.take_changes();
    let (question, rules) = server.question();
    let keep = |evidence| prober.keep("pool", question.clone(), rules, evidence, server.pods(1, true));
    let mut note = |body: &str| {
        let evidence = Evidence::Http { status: 200, body: body.as_bytes().into() };
        let finding = Finding { answer: stoker_core::asked::Answer::http(200, true), evidence };
        prober.note("pool", &question, Timestamp::now(), vec![("uid-0".into(), finding)], None, false);
        changes.try_recv().is_ok()
    };
    keep(true);
    assert_eq!([note("a"), note("a"), note("b"), note("b")], [true, false, true, false]);
    assert_eq!(keep(true).evidence.len(), 1);
    keep(false);
    assert_eq!([note("c"), note("d")], [false, false]);
    assert!(keep(false).evidence.is_empty());
}

#[tokio::test]
async fn a_pod_that_hangs_is_lost_after_three_periods() {
    let server = Server::start().await;
    let (prober, _stop) = start();
    let mut changes = prober.take_changes();
    server.keep(&prober, 1);
    assert_eq!(changes.next().await.as_deref(), Some("pool"), "the first answer");
    server.hangs.store(true, Ordering::SeqCst);
    let (_, rules) = server.question();
    let lost =
        || prober.answers("pool", "uid-0").unwrap().standing(rules, Timestamp::now()) == Standing::Lost;
    until("lost", lost).await;
    assert_eq!(changes.next().await.as_deref(), Some("pool"), "lost");
}

#[tokio::test]
async fn a_pod_is_asked_only_once_it_was_ready() {
    let server = Server::start().await;
    let (prober, _stop) = start();
    let (question, rules) = server.question();
    let known = prober.keep("pool", question.clone(), rules, false, server.pods(2, false));
    assert!(known.answers.is_empty());
    let mut pods = server.pods(2, false);
    pods[1].able = true;
    prober.keep("pool", question, rules, false, pods);
    until("asked", || server.requests() >= 2).await;
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "only one of them");
}

#[tokio::test]
async fn pods_and_pools_that_are_gone_are_asked_no_more_and_keep_no_connection() {
    let server = Server::start().await;
    let (prober, _stop) = start();
    server.keep(&prober, 4);
    until("kept", || prober.state().kept == 4).await;
    server.keep(&prober, 1);
    until("one kept", || prober.state().kept == 1).await;
    prober.forget("pool");
    until("none kept", || prober.state().kept == 0).await;
    until("nothing due", || prober.state().due.is_empty()).await;
}

#[tokio::test]
async fn another_question_makes_earlier_answers_void() {
    let server = Server::start().await;
    let (prober, _stop) = start();
    server.keep(&prober, 1);
    until("known", || outcomes(&server.keep(&prober, 1)) == [Some(Outcome::Idle)]).await;
    let http = HttpProbe {
        port: stoker_api::HttpPort::Number(server.port),
        success_is_busy: false,
        ..HttpProbe::default()
    };
    let probe = BusyProbe { mode: BusyProbeMode::Http, http: Some(http), ..BusyProbe::default() };
    let (question, rules) = Question::of(&probe).unwrap();
    let known = prober.keep("pool", question.clone(), rules, false, server.pods(1, true));
    assert_eq!(outcomes(&known), [None]);
    let known = || prober.keep("pool", question.clone(), rules, false, server.pods(1, true));
    until("known anew", || outcomes(&known()) == [Some(Outcome::Busy)]).await;
}

#[tokio::test]
async fn the_last_question_is_asked_at_once_and_noted() {
    let server = Server::start().await;
    let (prober, _stop) = start();
    server.keep(&prober, 1);
    until("known", || outcomes(&server.keep(&prober, 1)) == [Some(Outcome::Idle)]).await;
    server.busy.store(true, Ordering::SeqCst);
    let (question, _) = server.question();
    let target = server.pods(1, true).remove(0).target;
    let finding = prober.ask_now("pool", "uid-0", &question, &target).await;
    assert_eq!(finding.answer.outcome, Outcome::Busy);
    assert_eq!(prober.answers("pool", "uid-0").unwrap().last().unwrap().0.outcome, Outcome::Busy);
}

#[tokio::test]
async fn when_there_is_no_room_questions_are_left_out_and_never_pile_up() {
    let server = Server::start().await;
    server.hangs.store(true, Ordering::SeqCst);
    let (prober, _stop) = start_with(2, usize::MAX);
    let mut changes = prober.take_changes();
    server.keep(&prober, 20);
    let left_out = || {
        let metrics = &prober.metrics;
        metrics.left_out_so_far("http", "no-room")
    };
    until("left out", || left_out() >= 20).await;
    // One entry for each pod, and as many requests under way as there is room for.
    assert!(prober.state().due.len() <= 20, "{} questions are due", prober.state().due.len());
    assert_eq!(prober.requests.available_permits(), 0);
    // Those that wait for long enough are told to be lost, if they ever were known.
    server.hangs.store(false, Ordering::SeqCst);
    let known = || outcomes(&server.keep(&prober, 20)).iter().all(|o| *o == Some(Outcome::Idle));
    until("known at last", known).await;
    assert!(changes.next().await.is_some());
}

#[tokio::test]
async fn what_is_known_grows_old_while_nobody_is_asked() {
    let server = Server::start().await;
    let (prober, _stop) = start_with(1, usize::MAX);
    let mut changes = prober.take_changes();
    server.keep(&prober, 1);
    assert_eq!(changes.next().await.as_deref(), Some("pool"), "the first answer");
    // Somebody else takes all the room.
    let room = prober.requests.clone().acquire_owned().await.unwrap();
    assert_eq!(changes.next().await.as_deref(), Some("pool"), "too old by now");
    let (_, rules) = server.question();
    let answers = prober.answers("pool", "uid-0").unwrap();
    assert_eq!(answers.standing(rules, Timestamp::now()), Standing::Lost);
    drop(room);
    assert_eq!(changes.next().await.as_deref(), Some("pool"), "known again");
}

#[tokio::test]
async fn no_more_connections_are_kept_than_may_be() {
    let server = Server::start().await;
    let (prober, _stop) = start_with(REQUESTS, 2);
    server.keep(&prober, 5);
    until("asked again", || server.requests() >= 20).await;
    assert!(prober.state().kept <= 2);
    assert!(server.connections.load(Ordering::SeqCst) > 5, "the others are made anew");
}

#[test]
fn each_pod_has_its_own_moments_a_period_apart() {
    let period = Duration::from_secs(10);
    let now = Instant::now() + Duration::from_secs(100);
    let due = |name: &str, now| {
        let due = Due { at: now, since: now, serial: 1, owner: "pool".into(), pod: Some(name.into()) };
        next(due, period, now).at
    };
    let mut phases = std::collections::BTreeSet::new();
    for i in 0..1000 {
        let name = format!("uid-{i}");
        let first = due(&name, now);
        assert!(first > now && first <= now + period);
        assert_eq!(due(&name, first), first + period);
        phases.insert((first - now).as_millis() / 1000);
    }
    assert_eq!(phases.len(), 10, "spread over the whole period");
}
