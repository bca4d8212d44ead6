//! What was answered with 2xx is in the store (I9): whoever is killed, and however full the disk is.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{EXECUTION, Fake, Service, kept, path, request, slot, tree, try_request, urls};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use stoker_reports::{Limits, Store};

const NODES: [&str; 8] = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"];
const ROOT: &str = "STOKER_REPORTS_TEST_ROOT";

/// Not a test: the server that the tests beside it start as a process of its own, to kill it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests"]
async fn a_server_of_its_own() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let many: Vec<String> = (0..200).map(|n| format!("u{n}")).collect();
    let nodes: Vec<&str> = NODES.into_iter().chain(many.iter().map(String::as_str)).collect();
    let service = Service::start(Path::new(&root), Fake::with(&nodes)).await;
    println!("\nserving {} {}", service.callbacks, service.readers);
    std::future::pending::<()>().await;
}

/// A server in a process of its own. It is killed when it is dropped.
struct Apart {
    child: Child,
    callbacks: SocketAddr,
    readers: SocketAddr,
}

impl Apart {
    fn start(root: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_server_of_its_own", "--ignored", "--nocapture"]).env(ROOT, root);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix("serving ").map(str::to_owned)).unwrap();
        let (callbacks, readers) = line.split_once(' ').unwrap();
        Self { child, callbacks: callbacks.parse().unwrap(), readers: readers.parse().unwrap() }
    }

    /// Megabytes of memory that the process takes.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // SIGKILL: nothing is tidied up.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A body that differs from every other.
fn body(number: u64) -> Vec<u8> {
    let line = format!("report {number}\n");
    line.repeat(1 + usize::try_from(number % 977).unwrap() * 20).into_bytes()
}

/// Sends files until the server is gone, and notes each that was answered with 200.
async fn send(at: SocketAddr, node: &str, count: &AtomicU64, kept: &Mutex<BTreeMap<String, Vec<u8>>>) {
    let url = urls(&slot(EXECUTION, node)).file;
    loop {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}?name={number}.txt", path(&url));
        match try_request(at, "POST", &name, &[], body(number).into()).await {
            Some(answer) if answer.code() == 200 => {
                kept.lock().unwrap().insert(format!("{node}-{number}.txt"), body(number));
            }
            Some(answer) => panic!("{}: {}", answer.status, answer.text()),
            None => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn never_loses_what_it_answered_with_200_however_often_it_is_killed() {
    let root = tempfile::tempdir().unwrap();
    let (count, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(BTreeMap::new())));
    for round in 0..6u64 {
        let server = Apart::start(root.path());
        let senders: Vec<_> = NODES
            .iter()
            .map(|node| {
                let (count, answered, at) = (count.clone(), answered.clone(), server.callbacks);
                tokio::spawn(async move { send(at, node, &count, &answered).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(60 + round * 37)).await;
        drop(server);
        for sender in senders {
            sender.await.unwrap();
        }
    }
    let answered = answered.lock().unwrap();
    assert!(answered.len() > 10, "only {} files", answered.len());
    // The next start takes away what was half-written, and nothing else.
    drop(Apart::start(root.path()));
    let kept = kept(root.path());
    for (name, body) in &*answered {
        assert_eq!(kept.get(name), Some(body), "{name}");
    }
    for (name, content) in &kept {
        let number = name.split(['-', '.']).nth(1).unwrap().parse().unwrap();
        assert_eq!(*content, body(number), "{name} is whole, though nobody was told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_and_their_metrics_are_there_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let result = r#"{"plain":[{"value":7}]}"#;
    let server = Apart::start(root.path());
    let url = urls(&slot(EXECUTION, "n3")).result;
    assert_eq!(request(server.callbacks, "POST", path(&url), &[], result.into()).await.code(), 200);
    drop(server);
    let server = Apart::start(root.path());
    while request(server.readers, "GET", "/readyz", &[], "".into()).await.code() != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metrics = request(server.readers, "GET", "/metrics", &[], "".into()).await.text();
    assert!(
        metrics.contains(r#"foo_plain{node_batch_job="ops/disks",node="n3",executionID="202608030910"} 7.0"#)
    );
    // A pod that was running goes on reporting.
    assert_eq!(request(server.callbacks, "POST", path(&url), &[], result.into()).await.code(), 200);
}

/// A file system of that many bytes; `None` where that may not be made.
struct Small(tempfile::TempDir);

impl Small {
    fn of(bytes: usize) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        mount("tmpfs", at.path(), "tmpfs", MountFlags::empty(), Some(options.as_c_str())).ok()?;
        Some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_507_and_nothing_is_half_written() {
    let Some(disk) = Small::of(1 << 20) else {
        println!("skipped: mounting a small file system needs more rights");
        return;
    };
    let root = disk.0.path();
    let store = Store::local(root).unwrap();
    let service = Service::start_with(store, Fake::with(&["n1"]), Limits::default(), None).await;
    let urls = urls(&slot(EXECUTION, "n1"));
    assert_eq!(service.post(&format!("{}?name=first", urls.file), vec![1; 600_000]).await.code(), 200);
    let full = service.post(&format!("{}?name=second", urls.file), vec![2; 600_000]).await;
    assert_eq!((full.code(), full.header("retry-after")), (507, "60"), "{}", full.text());
    let multipart = [
        &b"--XX\r\ncontent-disposition: form-data; name=\"a\"; filename=\"third\"\r\n\r\n"[..],
        &[3; 600_000],
        b"\r\n--XX--\r\n",
    ];
    let form = ("content-type", "multipart/form-data; boundary=XX");
    assert_eq!(service.post_with(&urls.file, &[form], multipart.concat()).await.code(), 507);
    // The same name: what was there stays.
    assert_eq!(service.post(&format!("{}?name=first", urls.file), vec![4; 600_000]).await.code(), 507);
    let files = kept(root);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["n1-first"], "{:?}", tree(root).keys());
    assert_eq!(files["n1-first"], vec![1; 600_000]);
    // There is room again once something is gone.
    std::fs::remove_file(root.join(format!("ops/disks/{EXECUTION}/n1-first"))).unwrap();
    assert_eq!(service.post(&format!("{}?name=second", urls.file), vec![2; 600_000]).await.code(), 200);
    assert_eq!(service.post(&urls.result, r#"{"plain":[{"value":1}]}"#).await.code(), 200);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes 2 GB"]
async fn two_hundred_uploads_of_10_mib_at_once_take_at_most_100_mb() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let root = tempfile::tempdir_in(".").unwrap();
    let server = Apart::start(root.path());
    let idle = server.memory();
    let at = server.callbacks;
    let multipart = std::env::var_os("STOKER_REPORTS_TEST_MULTIPART").is_some();
    let start = std::time::Instant::now();
    let all_open = Arc::new(tokio::sync::Barrier::new(200));
    let uploads: Vec<_> = (0..200)
        .map(|n| {
            let (url, all_open) = (urls(&slot(EXECUTION, &format!("u{n}"))).file, all_open.clone());
            tokio::spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
                let (begin, end) = match multipart {
                    true => (
                        format!("--XX\r\ncontent-disposition: form-data; name=\"a\"; filename=\"{n}\"\r\n\r\n"),
                        "\r\n--XX--\r\n",
                    ),
                    false => (String::new(), ""),
                };
                let length = (10 << 20) + begin.len() + end.len();
                let kind = if multipart { "multipart/form-data; boundary=XX" } else { "text/plain" };
                let head = format!(
                    "POST {}?name={n} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{begin}",
                    path(&url)
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                let piece = vec![b'x'; 1 << 18];
                stream.write_all(&piece).await.unwrap();
                all_open.wait().await;
                for _ in 1..40 {
                    stream.write_all(&piece).await.unwrap();
                }
                stream.write_all(end.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            })
        })
        .collect();
    let mut most: f64 = 0.0;
    while !uploads.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(server.memory());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for upload in uploads {
        upload.await.unwrap();
    }
    println!("200 × 10 MiB in {:?}: {idle:.1} MB idle, at most {most:.1} MB", start.elapsed());
    assert_eq!(kept(root.path()).values().filter(|file| file.len() == 10 << 20).count(), 200);
    assert!(most <= 100.0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn durable_results_per_second() {
    let root = tempfile::tempdir_in(".").unwrap();
    let server = Apart::start(root.path());
    let at = server.callbacks;
    let (senders, each) = (100, 200);
    let start = std::time::Instant::now();
    let all: Vec<_> = (0..senders)
        .map(|n| {
            let url = urls(&slot(EXECUTION, &format!("u{n}"))).result;
            tokio::spawn(async move {
                let mut took = Vec::new();
                for _ in 0..each {
                    let start = std::time::Instant::now();
                    let answer =
                        request(at, "POST", path(&url), &[], r#"{"plain":[{"value":1}]}"#.into()).await;
                    if answer.code() == 200 {
                        took.push(start.elapsed());
                    }
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for one in all {
        took.extend(one.await.unwrap());
    }
    took.sort();
    let rate = took.len() as f64 / start.elapsed().as_secs_f64();
    let p = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "{} results, {rate:.0}/s, p50 {:?}, p99 {:?}, {:.1} MB",
        took.len(),
        p(0.5),
        p(0.99),
        server.memory()
    );
}
