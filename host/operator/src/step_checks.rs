//! What the pods of a flow's steps are asked on behalf of steps that wait for them: an HTTP GET or a connection, each in
//! its period until one of the pods says yes. A Job that has said yes is not asked again.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use stoker_api::{HttpPort, HttpProbe};
use stoker_core::flow::{Answers, Ask, Probe};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use crate::context::Context;
use crate::http_probe::{HttpAsker, HttpQuestion};
use crate::object::Key;
use crate::question::{Evidence, Target};

/// Questions of all flows at a time.
const AT_A_TIME: usize = 64;

/// No answer takes longer, in seconds.
const PATIENCE: u32 = 5;

/// Asks the pods of steps.
pub struct StepAsker {
    http: HttpAsker,
    permits: Semaphore,
}

impl Default for StepAsker {
    fn default() -> Self {
        Self { http: HttpAsker::new(), permits: Semaphore::new(AT_A_TIME) }
    }
}

impl StepAsker {
    /// Whether a pod at an address says yes.
    async fn says_yes(&self, probe: &Probe, ip: IpAddr) -> bool {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        match probe {
            Probe::Http(check) => {
                let question = HttpQuestion::new(HttpProbe {
                    port: HttpPort::Number(check.port),
                    path: check.path.clone(),
                    scheme: check.scheme,
                    timeout_seconds: check.period_seconds.clamp(1, PATIENCE),
                    ..HttpProbe::default()
                });
                let target = Target {
                    namespace: "".into(),
                    name: String::new(),
                    created: Timestamp::UNIX_EPOCH,
                    ip: Some(ip),
                    port: Some(check.port),
                };
                let (finding, _) = self.http.ask(&question, &target, None).await;
                matches!(finding.evidence, Evidence::Http { status: 200..=299, .. })
            }
            Probe::Tcp(check) => {
                let timeout = Duration::from_secs(u64::from(check.period_seconds.clamp(1, PATIENCE)));
                let connect = TcpStream::connect(SocketAddr::new(ip, check.port));
                matches!(tokio::time::timeout(timeout, connect).await, Ok(Ok(_)))
            }
        }
    }
}

/// Questions about the steps of one flow, by the Job's UID.
#[derive(Default)]
pub struct StepChecks(HashMap<(String, Probe), Asked>);

/// A question that is asked, or was answered with yes.
struct Asked {
    yes: Arc<AtomicBool>,
    pods: watch::Sender<Vec<IpAddr>>,
    task: AbortHandle,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StepChecks {
    /// Has these questions asked from now on, and no others. What was answered is known for as long as the Job is there.
    pub fn keep(&mut self, context: &Arc<Context>, flow: &Key, asks: &[Ask], there: &HashSet<&str>) {
        self.put(asks, there, |probe, pods, yes| {
            tokio::spawn(ask(context.clone(), flow.clone(), probe, pods, yes)).abort_handle()
        });
    }

    fn put(
        &mut self,
        asks: &[Ask],
        there: &HashSet<&str>,
        start: impl Fn(Probe, watch::Receiver<Vec<IpAddr>>, Arc<AtomicBool>) -> AbortHandle,
    ) {
        let mut wanted: HashSet<(String, Probe)> = HashSet::new();
        for Ask { uid, probe, addresses, .. } in asks {
            let question = (uid.clone(), probe.clone());
            wanted.insert(question.clone());
            let asked = self.0.entry(question).or_insert_with(|| {
                let (pods, seen) = watch::channel(addresses.clone());
                let yes = Arc::new(AtomicBool::new(false));
                let task = start(probe.clone(), seen, yes.clone());
                Asked { yes, pods, task }
            });
            asked.pods.send_if_modified(|before| {
                let changed = before != addresses;
                if changed {
                    before.clone_from(addresses);
                }
                changed
            });
        }
        let answered = |job: &str, asked: &Asked| there.contains(job) && asked.said_yes();
        self.0.retain(|question, asked| wanted.contains(question) || answered(&question.0, asked));
    }

    /// What was answered with yes.
    pub fn answers(&self) -> Answers {
        self.0.iter().filter(|(_, asked)| asked.said_yes()).map(|(question, _)| question.clone()).collect()
    }
}

impl Asked {
    fn said_yes(&self) -> bool {
        self.yes.load(Ordering::Acquire)
    }
}

/// Asks until one of the pods says yes; then the flow is looked at.
async fn ask(
    context: Arc<Context>,
    flow: Key,
    probe: Probe,
    mut pods: watch::Receiver<Vec<IpAddr>>,
    yes: Arc<AtomicBool>,
) {
    let seconds = match &probe {
        Probe::Http(check) => check.period_seconds,
        Probe::Tcp(check) => check.period_seconds,
    };
    let period = Duration::from_secs(u64::from(seconds.max(1)));
    loop {
        let ips = pods.borrow_and_update().clone();
        for ip in ips {
            if context.step_asker.says_yes(&probe, ip).await {
                yes.store(true, Ordering::Release);
                context.owners.touch(&flow);
                context.trigger(&flow);
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            changed = pods.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use stoker_api::{HttpCheck, HttpScheme, TcpCheck};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn http(port: u16) -> Probe {
        Probe::Http(HttpCheck { port, path: "/up".to_owned(), scheme: HttpScheme::Http, period_seconds: 1 })
    }

    #[tokio::test]
    async fn an_answer_is_known_for_as_long_as_its_job_is_there_and_other_questions_end() {
        let mut checks = StepChecks::default();
        let ask = |uid: &str| Ask {
            step: "serve".to_owned(),
            uid: uid.to_owned(),
            probe: http(80),
            addresses: Vec::new(),
        };
        let start = |_, _, _| tokio::spawn(std::future::pending::<()>()).abort_handle();
        let there = HashSet::from(["1", "2"]);
        checks.put(&[ask("1"), ask("2")], &there, start);
        assert!(checks.answers().is_empty());
        if let Some(asked) = checks.0.get(&("1".to_owned(), http(80))) {
            asked.yes.store(true, Ordering::Release);
        }
        checks.put(&[], &there, start);
        assert_eq!(checks.answers(), Answers::from([("1".to_owned(), http(80))]));
        assert_eq!(checks.0.len(), 1);
        checks.put(&[], &HashSet::from(["2"]), start);
        assert!(checks.0.is_empty());
    }

    async fn server(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| panic!("{error}"));
        let port = listener.local_addr().map_or(0, |address| address.port());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = [0; 1024];
                let read = stream.read(&mut bytes).await.unwrap_or(0);
                assert!(read > 0, "nothing was asked");
                stream.write_all(answer.as_bytes()).await.ok();
            }
        });
        port
    }

    #[tokio::test]
    async fn a_pod_says_yes_with_2xx_or_by_taking_a_connection_and_not_otherwise() {
        let asker = StepAsker::default();
        let local = IpAddr::from([127, 0, 0, 1]);
        let well = server("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        let badly = server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
        assert!(asker.says_yes(&http(well), local).await);
        assert!(!asker.says_yes(&http(badly), local).await);
        assert!(asker.says_yes(&Probe::Tcp(TcpCheck { port: badly, period_seconds: 1 }), local).await);
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| panic!("{error}"));
        let port = closed.local_addr().map_or(0, |address| address.port());
        drop(closed);
        assert!(!asker.says_yes(&Probe::Tcp(TcpCheck { port, period_seconds: 1 }), local).await);
        assert!(!asker.says_yes(&http(port), local).await);
    }
}
