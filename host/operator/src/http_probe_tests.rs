//! Requests to servers of every bad habit, on loopback.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use stoker_api::{HttpHeader, HttpPort};
use stoker_core::asked::Outcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Reads a request's head.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Serves one connection after the other; each is given its number.
async fn serve<F, S>(each: S) -> u16
where
    F: Future<Output = ()> + Send,
    S: Fn(TcpStream, usize) -> F + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let each = Arc::new(each);
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let each = each.clone();
            tokio::spawn(async move { each(stream, number).await });
        }
    });
    port
}

/// Answers every request of every connection with these bytes.
async fn says(answer: impl Into<Vec<u8>>) -> u16 {
    let answer: Arc<[u8]> = answer.into().into();
    serve(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            while head(&mut stream).await.is_some() {
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

fn target(port: u16) -> Target {
    Target {
        namespace: "games".into(),
        name: "game-0".to_owned(),
        created: Timestamp::UNIX_EPOCH,
        ip: Some("127.0.0.1".parse().unwrap()),
        port: Some(port),
    }
}

fn question(probe: HttpProbe) -> HttpQuestion {
    HttpQuestion::new(probe)
}

/// No answer is too late only because this machine is slow.
fn patient() -> HttpProbe {
    HttpProbe { timeout_seconds: 60, ..HttpProbe::default() }
}

async fn ask(port: u16) -> (Finding, Option<Kept>) {
    HttpAsker::new().ask(&question(patient()), &target(port), None).await
}

#[tokio::test]
async fn the_status_is_the_answer_and_the_body_evidence() {
    for (answer, outcome, status, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbusy", Outcome::Busy, 200, "busy"),
        ("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nidle", Outcome::Idle, 503, "idle"),
        ("HTTP/1.1 204 None\r\n\r\n", Outcome::Busy, 204, ""),
        (
            "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nid\r\n2\r\nle\r\n0\r\n\r\n",
            Outcome::Idle,
            503,
            "idle",
        ),
        ("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", Outcome::Unclear, 500, ""),
    ] {
        let (finding, kept) = ask(says(answer).await).await;
        assert_eq!(finding.answer.outcome, outcome, "{answer}");
        assert_eq!(finding.evidence, Evidence::Http { status, body: body.as_bytes().into() }, "{answer}");
        assert!(kept.is_some(), "{answer}");
    }
}

#[tokio::test]
async fn success_can_mean_idle() {
    let port = says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let probe = HttpProbe { success_is_busy: false, ..patient() };
    let (finding, _) = HttpAsker::new().ask(&question(probe), &target(port), None).await;
    assert_eq!(finding.answer.outcome, Outcome::Idle);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let other = serve(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    let port = says(format!(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other}/busy\r\nContent-Length: 0\r\n\r\n"
    ))
    .await;
    let (finding, _) = ask(port).await;
    assert_eq!(finding.answer.outcome, Outcome::Unclear);
    assert_eq!(finding.answer.words, "HTTP 302, and redirects are not followed");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn no_complete_answer_in_time_is_none() {
    let hangs = serve(|mut stream, _| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let drips = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n").await.ok();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let slow_head = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.ok();
        while stream.write_all(b"X: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    for port in [hangs, drips, slow_head] {
        let asker = HttpAsker::new();
        let (finding, kept) = asker.ask(&question(HttpProbe::default()), &target(port), None).await;
        assert_eq!(finding, Finding::none("no answer within 1 s"));
        assert!(kept.is_none());
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_none() {
    let closes = serve(|mut stream, _| async move {
        head(&mut stream).await;
    })
    .await;
    let half = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.ok();
    })
    .await;
    // It has said all that it will, and listens on.
    let half_closed = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.shutdown().await.ok();
        head(&mut stream).await;
    })
    .await;
    for port in [closes, half, half_closed] {
        let (finding, kept) = ask(port).await;
        assert_eq!(finding.answer.outcome, Outcome::Unclear, "{finding:?}");
        assert!(kept.is_none());
    }
}

#[tokio::test]
async fn of_a_huge_body_the_beginning_is_read() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let port = serve(move |mut stream, _| {
        let count = count.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.ok();
            while stream.write_all(&[b'x'; 65536]).await.is_ok() {
                count.fetch_add(65536, Ordering::SeqCst);
            }
        }
    })
    .await;
    let (finding, kept) = ask(port).await;
    assert_eq!(finding.answer.outcome, Outcome::Busy);
    let Evidence::Http { body, .. } = finding.evidence else { panic!("{finding:?}") };
    assert_eq!(body.len(), EVIDENCE_BYTES);
    assert!(kept.is_none(), "the rest would still come");
    assert!(sent.load(Ordering::SeqCst) < 500_000_000, "nobody reads all that");
}

#[tokio::test]
async fn endless_headers_are_no_answer() {
    let port = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.ok();
        while stream.write_all(b"X-Filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").await.is_ok() {}
    })
    .await;
    assert_eq!(ask(port).await.0.answer.outcome, Outcome::Unclear);
}

#[tokio::test]
async fn who_speaks_no_http_or_is_not_there_is_told_so() {
    let (finding, _) = ask(says("SSH-2.0-OpenSSH\r\n").await).await;
    assert_eq!(finding, Finding::none("its answer is not HTTP; if the port speaks TLS, set scheme: HTTPS"));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    assert_eq!(ask(closed).await.0, Finding::none("connection refused"));

    let mut nowhere = target(closed);
    nowhere.ip = None;
    let asker = HttpAsker::new();
    let (finding, _) = asker.ask(&question(patient()), &nowhere, None).await;
    assert_eq!(finding, Finding::none("it has no address yet"));
    let named = HttpProbe { port: HttpPort::Name("web".to_owned()), ..patient() };
    let unnamed = Target { port: None, ..target(closed) };
    let (finding, _) = asker.ask(&question(named), &unnamed, None).await;
    assert_eq!(finding, Finding::none("none of its containers has a port named web"));
}

#[tokio::test]
async fn the_request_is_as_the_spec_says() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let port = serve(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            while let Some(request) = head(&mut stream).await {
                tell.send(request).ok();
                stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await.ok();
            }
        }
    })
    .await;
    let header = |name: &str, value: &str| HttpHeader { name: name.to_owned(), value: value.to_owned() };
    let probe = HttpProbe {
        path: "/state?full=1".to_owned(),
        headers: vec![header("X-Token", "abc"), header("Host", "game.example")],
        ..patient()
    };
    let asker = HttpAsker::new();
    let (_, kept) = asker.ask(&question(probe), &target(port), None).await;
    let request = told.recv().await.unwrap().to_lowercase();
    assert!(request.starts_with("get /state?full=1 http/1.1\r\n"), "{request}");
    for line in ["x-token: abc\r\n", "host: game.example\r\n", "user-agent: stoker/"] {
        assert_eq!(request.matches(line).count(), 1, "{line} in {request}");
    }
    asker.ask(&question(patient()), &target(port), kept).await;
    let request = told.recv().await.unwrap().to_lowercase();
    assert!(request.starts_with("get /busy http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{request}");
}

#[tokio::test]
async fn a_connection_serves_again_and_a_broken_one_is_made_anew() {
    // Each connection answers two requests, then closes without a word.
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let port = serve(move |mut stream, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            for _ in 0..2 {
                head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno").await.ok();
            }
        }
    })
    .await;
    let asker = HttpAsker::new();
    let mut kept = None;
    for round in 1..=6 {
        let (finding, again) = asker.ask(&question(patient()), &target(port), kept).await;
        assert_eq!(finding.answer.outcome, Outcome::Idle, "{finding:?}");
        assert!(again.is_some(), "in round {round}");
        kept = again;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);

    // A kept connection is for its own address only.
    let other = says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let (finding, _) = asker.ask(&question(patient()), &target(other), kept).await;
    assert_eq!(finding.answer.outcome, Outcome::Busy);
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_not_kept() {
    for answer in [
        "HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.0 503 No\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (finding, kept) = ask(says(answer).await).await;
        assert_eq!(finding.answer.outcome, Outcome::Idle, "{answer}");
        assert!(kept.is_none(), "{answer}");
    }
}

#[tokio::test]
async fn https_takes_any_certificate_and_the_wrong_scheme_is_told() {
    let certified = rcgen::generate_simple_self_signed(["somebody.else".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let port = serve(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            while head(&mut stream).await.is_some() {
                stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await.ok();
            }
        }
    })
    .await;
    let secure = || question(HttpProbe { scheme: HttpScheme::Https, ..patient() });
    let asker = HttpAsker::new();
    let (finding, kept) = asker.ask(&secure(), &target(port), None).await;
    assert_eq!(finding.answer.outcome, Outcome::Idle, "{finding:?}");
    let (finding, _) = asker.ask(&secure(), &target(port), kept).await;
    assert_eq!(finding.answer.outcome, Outcome::Idle, "{finding:?}");

    let (finding, _) = ask(port).await;
    assert_eq!(finding.answer.outcome, Outcome::Unclear, "plain HTTP to TLS: {finding:?}");
    let plain = says("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
    // The server waits for the end of a request that it does not understand.
    let brief = HttpProbe { scheme: HttpScheme::Https, ..HttpProbe::default() };
    let (finding, _) = asker.ask(&question(brief), &target(plain), None).await;
    assert_eq!(finding.answer.outcome, Outcome::Unclear, "TLS to plain HTTP: {finding:?}");
}
