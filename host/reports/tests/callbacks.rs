//! The three callbacks, as a pod makes them.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{EXECUTION, Fake, Service, job_key, kept, path, slot, tree, urls};
use stoker_reports::{BaseUrl, CapabilityKey, Keys, Limits, Store, callback_urls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const RESULT: &str = r#"{"my_metric":[{"value":1.0,"labels":{"label_a":"AAA","label_b":"BBB"}}]}"#;

fn multipart(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend_from_slice(format!("--XX\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    body
}

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

#[tokio::test]
async fn the_example_job_works_unchanged() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    let urls = urls(&slot(EXECUTION, "n1"));

    let file = service.post(&format!("{}?name=test.txt", urls.file), "hello").await;
    let event = r#"{"warning":false,"reason":"TestReason","message":"test message with %s","args":["a1"]}"#;
    let event = service.post(&urls.event, event).await;
    let result = service.post(&urls.result, RESULT).await;

    for answer in [&file, &event, &result] {
        assert_eq!((answer.code(), answer.body.len()), (200, 0), "{}", answer.text());
    }
    let want: BTreeMap<_, _> =
        [("n1-test.txt".into(), b"hello".to_vec()), ("n1.json".into(), RESULT.into())].into();
    assert_eq!(kept(root.path()), want);
    let (pod, event) = cluster.events.lock().unwrap()[0].clone();
    assert_eq!((pod.as_str(), event.message.as_str()), ("disks-job-n1-202608030910", "test message with a1"));
    let series = r#"foo_my_metric{node_batch_job="ops/disks",node="n1",executionID="202608030910",label_a="AAA",label_b="BBB"} 1.0"#;
    assert!(service.metrics().await.contains(series));
}

#[tokio::test]
async fn a_file_is_named_by_query_then_header_then_media_type() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    let url = urls(&slot(EXECUTION, "n1")).file;
    let named = ("content-disposition", "attachment; filename=\"header.log\"");
    assert_eq!(service.post_with(&format!("{url}?name=query.log"), &[named], "q").await.code(), 200);
    assert_eq!(service.post_with(&url, &[named], "h").await.code(), 200);
    assert_eq!(service.post_with(&url, &[("content-type", "text/plain")], "t").await.code(), 200);
    assert_eq!(service.post(&url, "u").await.code(), 200);
    assert_eq!(service.post(&format!("{url}?name=%E6%8A%A5%E5%91%8A.txt"), "zh").await.code(), 200);
    let kept = kept(root.path());
    assert_eq!(kept["n1-query.log"], b"q");
    assert_eq!(kept["n1-header.log"], b"h");
    assert_eq!(kept["n1-报告.txt"], b"zh");
    assert_eq!(kept.keys().filter(|name| name.ends_with(".file") || name.len() == 43).count(), 2, "{kept:?}");
}

#[tokio::test]
async fn a_multipart_body_holds_several_files() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    let large = vec![b'x'; 300_000];
    let body = multipart(&[
        ("content-disposition: form-data; name=\"note\"", b"not a file"),
        ("content-disposition: form-data; name=\"a\"; filename=\"a.txt\"", b"one"),
        ("content-disposition: form-data; name=\"b\"; filename=\"a.txt\"", b"two\r\n--X\r\n"),
        ("content-disposition: form-data; name=\"s\"; filename=\"x/a.txt\"", b"three"),
        ("content-disposition: form-data; name=\"s\"; filename=\"x_a.txt\"", b"four"),
        ("content-disposition: form-data; name=\"c\"; filename=\"big.bin\"", &large),
        ("content-disposition: form-data; name=\"d\"; filename*=UTF-8''%C3%A4.txt", b""),
    ]);
    let answer = service.post_with(&urls(&slot(EXECUTION, "n1")).file, &[FORM], body).await;
    assert_eq!((answer.code(), answer.body.len()), (200, 0), "{}", answer.text());
    let kept = kept(root.path());
    assert_eq!(kept["n1-a.txt"], b"one");
    assert_eq!(kept["n1-a-2.txt"], b"two\r\n--X\r\n", "a second one of that name does not replace the first");
    assert_eq!((&*kept["n1-x_a.txt"], &*kept["n1-x_a-2.txt"]), (&b"three"[..], &b"four"[..]));
    assert_eq!(kept["n1-big.bin"], large);
    assert_eq!(kept["n1-ä.txt"], b"");
    assert_eq!(kept.len(), 6);
}

#[tokio::test]
async fn bad_bodies_are_400_and_leave_nothing() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    let urls = urls(&slot(EXECUTION, "n1"));
    for body in ["", "{", "{}", "[]", r#"{"bad name":[]}"#, r#"{"my_metric":"x"}"#] {
        assert_eq!(service.post(&urls.result, body).await.code(), 400, "{body}");
    }
    for body in ["", "{}", r#"{"reason":"lower","message":"m"}"#, r#"{"reason":"NoMessage"}"#] {
        assert_eq!(service.post(&urls.event, body).await.code(), 400, "{body}");
    }
    let cut = multipart(&[("content-disposition: form-data; name=\"a\"; filename=\"a.txt\"", b"one")]);
    for body in [
        &b""[..],
        b"garbage",
        &cut[..cut.len() - 12],
        &multipart(&[("content-disposition: form-data; name=\"a\"", b"x")]),
    ] {
        assert_eq!(service.post_with(&urls.file, &[FORM], body.to_vec()).await.code(), 400);
    }
    let headless = service.post_with(&urls.file, &[("content-type", "multipart/form-data")], "x").await;
    assert_eq!(headless.code(), 400);
    assert!(kept(root.path()).is_empty());
}

#[tokio::test]
async fn a_part_with_an_endless_header_is_refused_early() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    let body = [b"--XX\r\nx: ".to_vec(), vec![b'a'; 4 << 20]].concat();
    let answer = service.post_with(&urls(&slot(EXECUTION, "n1")).file, &[FORM], body).await;
    assert_eq!(answer.code(), 400);
    assert!(answer.text().contains("too long"), "{}", answer.text());
}

#[tokio::test]
async fn never_an_open_endpoint() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1", "n2"])).await;
    let (own, other) = (urls(&slot(EXECUTION, "n1")).result, urls(&slot(EXECUTION, "n2")).result);
    let stem = |url: &str| url.rsplitn(3, '/').nth(2).unwrap().to_owned();
    let proof = |url: &str| url.rsplit('/').nth(1).unwrap().to_owned();
    let guesses = [
        format!("{}/{}/result", stem(&own), "A".repeat(43)),
        format!("{}/x/result", stem(&own)),
        // Another pod's proof.
        format!("{}/{}/result", stem(&own), proof(&other)),
        own.replace("uid-1", "uid-2"),
        own.replace(EXECUTION, "202608030911"),
        callback_urls(
            &BaseUrl::parse("http://x").unwrap(),
            &CapabilityKey::new(&[7; 32]).unwrap(),
            &slot(EXECUTION, "n1"),
        )
        .result,
    ];
    for guess in guesses {
        assert_eq!(service.post(&guess, RESULT).await.code(), 403, "{guess}");
    }
    assert_eq!(service.post("/report/n1/202608030910/result", RESULT).await.code(), 404);
    assert_eq!(common::request(service.callbacks, "GET", path(&own), &[], "".into()).await.code(), 405);
    // Writing is not possible where reports are read, and reading not where they are written.
    assert_eq!(common::request(service.readers, "POST", path(&own), &[], RESULT.into()).await.code(), 404);
    assert_eq!(common::request(service.callbacks, "GET", "/reports/", &[], "".into()).await.code(), 404);
    assert!(tree(root.path()).is_empty());
}

#[tokio::test]
async fn unknown_executions_nodes_and_jobs_are_406() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    let mut stranger = slot(EXECUTION, "n1");
    stranger.pod = "another-pod".into();
    let mut again = slot(EXECUTION, "n1");
    again.uid = "uid-0".into();
    for unknown in [slot("202608030911", "n1"), slot(EXECUTION, "n2"), stranger, again] {
        let urls = urls(&unknown);
        for url in [&urls.result, &urls.file, &urls.event] {
            assert_eq!(service.post(url, RESULT).await.code(), 406, "{url}");
        }
    }
    cluster.delete(&job_key());
    assert_eq!(service.post(&urls(&slot(EXECUTION, "n1")).result, RESULT).await.code(), 406);
    assert!(tree(root.path()).is_empty());
}

#[tokio::test]
async fn never_406_while_the_cluster_is_not_known_yet() {
    let root = tempfile::tempdir().unwrap();
    let cluster = std::sync::Arc::new(Fake::default());
    let service = Service::start(root.path(), cluster.clone()).await;
    let url = urls(&slot(EXECUTION, "n1")).result;
    let answer = service.post(&url, RESULT).await;
    assert_eq!((answer.code(), answer.header("retry-after")), (503, "1"));
    assert_eq!(service.get("/readyz").await.code(), 503);
    cluster.put(common::job(&["n1"]));
    assert_eq!(service.post(&url, RESULT).await.code(), 200);
}

#[tokio::test]
async fn never_406_for_a_pod_that_reports_before_the_watch_shows_it() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    let limits = Limits { patience: Duration::from_secs(30), ..Limits::default() };
    let store = Store::local(root.path()).unwrap();
    let service = Service::start_with(store, cluster.clone(), limits, None).await;
    let later = "202608030920";
    let urls = [urls(&slot(EXECUTION, "n2")).result, urls(&slot(later, "n1")).result];
    let shown = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.put(common::job(&["n1", "n2"]));
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.change(|job| {
            drop(job.executions.insert(later.parse().unwrap(), common::execution(later, &["n1"])))
        });
    };
    let (node, execution, ()) =
        tokio::join!(service.post(&urls[0], RESULT), service.post(&urls[1], RESULT), shown);
    assert_eq!((node.code(), execution.code()), (200, 200), "{}", execution.text());
}

#[tokio::test]
async fn never_406_while_a_watch_is_broken() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    let url = urls(&slot(EXECUTION, "n2")).result;
    *cluster.blind.lock().unwrap() = true;
    let answer = service.post(&url, RESULT).await;
    assert_eq!((answer.code(), answer.header("retry-after")), (503, "1"));
    *cluster.blind.lock().unwrap() = false;
    assert_eq!(service.post(&url, RESULT).await.code(), 406);
}

#[tokio::test]
async fn those_who_wait_to_be_shown_are_bounded() {
    let root = tempfile::tempdir().unwrap();
    let limits = Limits { strangers: 1, patience: Duration::from_secs(2), ..Limits::default() };
    let store = Store::local(root.path()).unwrap();
    let service = Service::start_with(store, Fake::with(&["n1"]), limits, None).await;
    let url = |node: &str| urls(&slot(EXECUTION, node)).result;
    let second = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let busy = service.post(&url("n3"), RESULT).await;
        assert_eq!((busy.code(), busy.header("retry-after")), (503, "1"));
        assert_eq!(service.post(&url("n1"), RESULT).await.code(), 200, "who is known does not wait");
    };
    let (n2, n3) = (url("n2"), second);
    let (first, ()) = tokio::join!(service.post(&n2, RESULT), n3);
    assert_eq!(first.code(), 406);
}

#[tokio::test]
async fn keys_are_changed_while_it_serves() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    let other = CapabilityKey::new(&[7; 32]).unwrap();
    let slot = slot(EXECUTION, "n1");
    let new = callback_urls(&BaseUrl::parse("http://x").unwrap(), &other, &slot).result;
    assert_eq!(service.post(&new, RESULT).await.code(), 403);
    service.reports.change_keys(Keys::new(other.clone(), Some(common::key())));
    for url in [&new, &urls(&slot).result] {
        assert_eq!(service.post(url, RESULT).await.code(), 200);
    }
    service.reports.change_keys(Keys::new(other, None));
    assert_eq!(service.post(&urls(&slot).result, RESULT).await.code(), 403);
}

#[tokio::test]
async fn an_event_for_a_pod_that_is_gone_is_404_and_503_while_the_api_is_away() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    let url = urls(&slot(EXECUTION, "n1")).event;
    let body = r#"{"warning":true,"reason":"Gone","message":"m"}"#;
    *cluster.api_down.lock().unwrap() = true;
    let answer = service.post(&url, body).await;
    assert_eq!((answer.code(), answer.header("retry-after")), (503, "1"));
    *cluster.api_down.lock().unwrap() = false;
    cluster.gone.lock().unwrap().insert(common::pod(EXECUTION, "n1"));
    assert_eq!(service.post(&url, body).await.code(), 404);
}

#[tokio::test]
async fn a_pod_that_sends_events_without_end_is_slowed_down() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1", "n2"]);
    let service = Service::start(root.path(), cluster.clone()).await;
    let body = r#"{"reason":"Again","message":"m"}"#;
    let url = urls(&slot(EXECUTION, "n1")).event;
    for _ in 0..25 {
        assert_eq!(service.post(&url, body).await.code(), 200);
    }
    let late = service.post(&url, body).await;
    assert_eq!((late.code(), late.header("retry-after")), (429, "5"));
    assert_eq!(service.post(&urls(&slot(EXECUTION, "n2")).event, body).await.code(), 200);
    assert_eq!(cluster.events.lock().unwrap().len(), 26);
}

#[tokio::test]
async fn bodies_without_a_limit_are_never_accepted() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    cluster.change(|job| {
        job.limits.bytes_per_upload = 100_000;
        job.limits.bytes_per_execution = 128 << 10;
    });
    let service = Service::start(root.path(), cluster).await;
    let urls = urls(&slot(EXECUTION, "n1"));
    for url in [&urls.result, &urls.file, &urls.event] {
        assert_eq!(service.post(url, vec![b'x'; 100_001]).await.code(), 413, "{url}");
    }
    let body = multipart(&[("content-disposition: form-data; name=\"a\"; filename=\"a\"", &[0; 100_000])]);
    assert_eq!(service.post_with(&urls.file, &[FORM], body).await.code(), 413);
    assert!(kept(root.path()).is_empty());
    // The execution has room for one such file, and for the same one again.
    for _ in 0..2 {
        assert_eq!(service.post(&format!("{}?name=a", urls.file), vec![1; 60_000]).await.code(), 200);
    }
    assert_eq!(service.post(&format!("{}?name=b", urls.file), vec![1; 90_000]).await.code(), 413);
    assert_eq!(kept(root.path()).len(), 1);
}

#[tokio::test]
async fn a_chunked_body_without_a_length_is_bounded_too() {
    let root = tempfile::tempdir().unwrap();
    let cluster = Fake::with(&["n1"]);
    cluster.change(|job| job.limits.bytes_per_upload = 100_000);
    let service = Service::start(root.path(), cluster).await;
    let url = urls(&slot(EXECUTION, "n1")).file;
    let mut stream = tokio::net::TcpStream::connect(service.callbacks).await.unwrap();
    let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", path(&url));
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..4 {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    assert!(kept(root.path()).is_empty());
}

#[tokio::test]
async fn a_result_in_many_small_chunks_is_taken() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    let url = urls(&slot(EXECUTION, "n1")).result;
    let mut stream = tokio::net::TcpStream::connect(service.callbacks).await.unwrap();
    let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", path(&url));
    let body = format!("{RESULT}{}", " ".repeat(20_000));
    let chunks: String = body.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    stream.write_all(format!("{head}{chunks}0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    assert_eq!(kept(root.path())["n1.json"], body.as_bytes());
}

#[tokio::test]
async fn never_half_written_files_when_a_sender_stops() {
    let root = tempfile::tempdir().unwrap();
    let limits = Limits { idle: Duration::from_millis(300), ..Limits::default() };
    let store = Store::local(root.path()).unwrap();
    let service = Service::start_with(store, Fake::with(&["n1"]), limits, None).await;
    let url = urls(&slot(EXECUTION, "n1")).file;
    let open = async || {
        let mut stream = tokio::net::TcpStream::connect(service.callbacks).await.unwrap();
        let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\n", path(&url));
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[b'x'; 200_000]).await.unwrap();
        stream
    };
    // One hangs up, one falls silent.
    drop(open().await);
    let mut silent = open().await;
    let mut answer = vec![0; 12];
    silent.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(kept(root.path()).is_empty(), "{:?}", kept(root.path()).keys());
}

#[tokio::test]
async fn too_many_at_once_are_told_to_come_again() {
    let root = tempfile::tempdir().unwrap();
    let limits = Limits { uploads: 3, per_pod: 2, ..Limits::default() };
    let store = Store::local(root.path()).unwrap();
    let service = Service::start_with(store, Fake::with(&["n1", "n2"]), limits, None).await;
    let open = async |node: &str| {
        let mut stream = tokio::net::TcpStream::connect(service.callbacks).await.unwrap();
        let url = urls(&slot(EXECUTION, node)).file;
        let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n", path(&url));
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream
    };
    let post = async |node: &str| service.post(&urls(&slot(EXECUTION, node)).file, "x").await;
    let mut first = open("n1").await;
    let _second = open("n1").await;
    let busy = post("n1").await;
    assert_eq!((busy.code(), busy.header("retry-after")), (429, "1"));
    let _third = open("n2").await;
    let busy = post("n2").await;
    assert_eq!((busy.code(), busy.header("retry-after")), (503, "1"));
    first.write_all(b"done!").await.unwrap();
    let mut answer = vec![0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(post("n2").await.code(), 200);
}

#[tokio::test]
async fn a_stop_lets_what_is_under_way_finish() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    let url = urls(&slot(EXECUTION, "n1")).file;
    let mut stream = tokio::net::TcpStream::connect(service.callbacks).await.unwrap();
    let head = format!("POST {}?name=a HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nha", path(&url));
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    service.stop.send(true).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(b"lf").await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), service.served).await.unwrap().unwrap().unwrap();
    assert_eq!(kept(root.path())["n1-a"], b"half");
}

#[tokio::test]
async fn messages_wait_for_memory_outside() {
    let root = tempfile::tempdir().unwrap();
    let limits = Limits { message_memory: 8 << 10, ..Limits::default() };
    let store = Store::local(root.path()).unwrap();
    let service = Service::start_with(store, Fake::with(&["n1"]), limits, None).await;
    let url = urls(&slot(EXECUTION, "n1")).result;
    let large = format!("{RESULT}{}", " ".repeat(9 << 10));
    let busy = service.post(&url, large).await;
    assert_eq!((busy.code(), busy.header("retry-after")), (503, "1"));
    assert_eq!(service.post(&url, RESULT).await.code(), 200);
}

#[tokio::test]
async fn never_a_file_outside_the_store() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("a/b/store");
    let service = Service::start(&root, Fake::with(&["n1"])).await;
    let url = urls(&slot(EXECUTION, "n1")).file;
    let names = [
        "../../x",
        "..%2F..%2Fx",
        "/etc/x",
        "..",
        ".",
        "%2e%2e%2f%2e%2e%2fx",
        "..%5C..%5Cx",
        "a%00b",
        "x%0Ay",
        "%E2%80%AEx",
        "x%231",
        "%F0%9F%9A%82",
        "....//x",
        "~",
        "CON",
        "%FF%FE",
    ];
    for name in names {
        let answer = service.post(&format!("{url}?name={name}"), name).await;
        assert_eq!(answer.code(), 200, "{name}: {}", answer.text());
    }
    let long = "ü".repeat(2000);
    let header = format!("attachment; filename=\"../{long}.txt\"");
    let answer =
        service.post_with(&url, &[("content-disposition", "attachment; filename=\"../../../h\"")], "h").await;
    assert_eq!(answer.code(), 200);
    let body = multipart(&[(&format!("content-disposition: {header}"), b"long")]);
    assert_eq!(service.post_with(&url, &[FORM], body).await.code(), 200);
    let all = tree(outer.path());
    let inside = format!("a/b/store/ops/disks/{EXECUTION}/");
    for name in all.keys() {
        let rest = name.strip_prefix(&inside).unwrap_or_else(|| panic!("{name} is outside"));
        assert!(rest == ".execution.json" || rest.starts_with("n1-"), "{name}");
    }
    assert!(all.len() >= names.len(), "{:?}", all.keys());
}

#[tokio::test]
async fn never_mixes_nodes_that_share_a_first_dns_label() {
    let root = tempfile::tempdir().unwrap();
    let nodes = ["n1", "n1.eu", "n1.us", "n1-b"];
    let service = Service::start(root.path(), Fake::with(&nodes)).await;
    for node in nodes {
        let urls = urls(&slot(EXECUTION, node));
        let result = format!(r#"{{"plain":[{{"value":{}}}]}}"#, node.len());
        assert_eq!(service.post(&urls.result, result).await.code(), 200);
        assert_eq!(service.post(&format!("{}?name=x.txt", urls.file), node).await.code(), 200);
    }
    let urls = urls(&slot(EXECUTION, "n1"));
    assert_eq!(service.post(&format!("{}?name=b-x.txt", urls.file), "mine").await.code(), 200);
    assert_eq!(service.post(&format!("{}?name=b.json", urls.file), "mine").await.code(), 200);
    let kept = kept(root.path());
    assert_eq!(kept.len(), 2 * nodes.len() + 2, "{:?}", kept.keys());
    assert_eq!(kept["n1-b-x.txt"], b"n1-b");
    assert_eq!(kept["n1-_b-x.txt"], b"mine");
    assert_eq!(kept["n1-b.json"], br#"{"plain":[{"value":4}]}"#);
    let page: serde_json::Value =
        serde_json::from_slice(&service.get("/reports/ops/disks/latest/").await.body).unwrap();
    let files: Vec<_> =
        page["nodes"].as_array().unwrap().iter().map(|n| n["files"].as_array().unwrap().len()).collect();
    assert_eq!(files, [3, 1, 1, 1]);
}

#[tokio::test]
async fn a_late_result_of_an_earlier_pod_is_kept_aside() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::start(root.path(), Fake::with(&["n1"])).await;
    let mut early = slot(EXECUTION, "n1");
    early.pod = format!("{}-early", early.pod);
    assert_eq!(service.post(&urls(&slot(EXECUTION, "n1")).result, RESULT).await.code(), 200);
    assert_eq!(service.post(&urls(&early).result, r#"{"plain":[{"value":9}]}"#).await.code(), 200);
    let kept = kept(root.path());
    assert_eq!(kept["n1.json"], RESULT.as_bytes());
    assert_eq!(kept.len(), 2);
    assert!(!service.metrics().await.contains("foo_plain"));
}
