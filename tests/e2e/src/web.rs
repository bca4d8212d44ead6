//! A small HTTP server on the loopback device that answers what a test wants; it ends with the test.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// An answer: its status and its body.
pub type Answer = (u16, String);

#[derive(Default)]
struct Says {
    answers: Mutex<HashMap<String, Answer>>,
    heads: Mutex<Vec<String>>,
    ended: AtomicBool,
}

/// A running server.
pub struct Web {
    pub port: u16,
    says: Arc<Says>,
}

impl Web {
    /// Starts one.
    ///
    /// # Panics
    /// When there is no port for it.
    pub fn start() -> Self {
        let listener =
            TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("no free port: {error}"));
        let port = listener.local_addr().unwrap_or_else(|error| panic!("{error}")).port();
        let says = Arc::new(Says::default());
        let served = says.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if served.ended.load(Ordering::Relaxed) {
                    return;
                }
                let served = served.clone();
                std::thread::spawn(move || serve(stream, &served));
            }
        });
        Self { port, says }
    }

    /// What it answers for a path from now on; 404 for others.
    pub fn set(&self, path: &str, status: u16, body: &str) {
        let mut answers = self.says.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(path.to_owned(), (status, body.to_owned()));
    }

    /// The heads of the requests so far, in lower case.
    pub fn heads(&self) -> Vec<String> {
        self.says.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.says.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that waits.
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

/// Answers one request. Whoever asks may be gone, which is its own affair.
fn serve(mut stream: TcpStream, says: &Says) {
    let Ok(copy) = stream.try_clone() else { return };
    let mut head = String::new();
    for line in BufReader::new(copy).lines() {
        let Ok(line) = line else { return };
        if line.is_empty() {
            break;
        }
        head += &line.to_lowercase();
        head.push('\n');
    }
    let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
    says.heads.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    let answers = says.answers.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = answers.get(&path).cloned().unwrap_or((404, String::new()));
    drop(answers);
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").ok();
}
