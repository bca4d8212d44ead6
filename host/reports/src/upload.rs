//! A body on its way in: bounded in bytes and time, and read as slowly as it is written to disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{HeaderMap, header};
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use crate::gate::Limits;
use crate::refusal::Refusal;

/// Bytes that a multipart body may hold without a byte of a file: headers and what is before the first part.
const UNPARSED: usize = 128 << 10;
/// What is still read of a body that is refused, in bytes and time, so that the sender hears the answer instead of a broken
/// connection.
const DRAINED: u64 = 4 << 20;
const DRAIN: Duration = Duration::from_secs(2);

/// A body.
pub struct Incoming {
    stream: BodyDataStream,
    /// Whether the sender waits to be told to go on.
    waits: bool,
    declared: Option<u64>,
    limit: u64,
    seen: u64,
    idle: Duration,
    end: Instant,
}

impl Incoming {
    /// A body of at most `limit` bytes.
    pub fn new(body: Body, headers: &HeaderMap, limit: u64, limits: &Limits) -> Self {
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        Self {
            stream: body.into_data_stream(),
            waits: headers.contains_key(header::EXPECT),
            declared,
            limit,
            seen: 0,
            idle: limits.idle,
            end: Instant::now() + limits.whole,
        }
    }

    /// Allows at most so many bytes.
    pub fn limit(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    /// Refuses a body that says itself that it is too long.
    pub fn check_declared(&self) -> Result<(), Refusal> {
        match self.declared {
            Some(length) if length > self.limit => Err(Refusal::TooLarge(self.limit)),
            _ => Ok(()),
        }
    }

    /// How long it says to be, in bytes.
    pub fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let until = self.end.min(Instant::now() + self.idle);
        let piece = timeout_at(until, self.stream.next()).await.map_err(|_| Refusal::Slow)?;
        let Some(piece) = piece else { return Ok(None) };
        let piece = piece.map_err(|error| Refusal::Broken(error.to_string()))?;
        self.seen += piece.len() as u64;
        if self.seen > self.limit {
            return Err(Refusal::TooLarge(self.limit));
        }
        Ok(Some(piece))
    }

    /// Reads a little more of a body that is refused, and throws it away.
    pub async fn drain(&mut self) {
        if self.waits && self.seen == 0 {
            return;
        }
        let end = Instant::now() + DRAIN;
        let mut left = DRAINED;
        while let Ok(Some(Ok(piece))) = timeout_at(end, self.stream.next()).await {
            left = left.saturating_sub(piece.len() as u64);
            if left == 0 {
                return;
            }
        }
    }
}

/// Counts what a multipart reader holds without having made anything of it.
#[derive(Clone, Default)]
pub struct Unparsed(Arc<AtomicUsize>);

impl Unparsed {
    /// A part's headers were read.
    pub fn part(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Bytes of a part were read.
    pub fn data(&self, bytes: usize) {
        let less = |held: usize| Some(held.saturating_sub(bytes));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn add(&self, bytes: usize) -> Result<(), Refusal> {
        match self.0.fetch_add(bytes, Ordering::Relaxed) + bytes {
            held if held > UNPARSED => Err(Refusal::Multipart("the header of a part is too long".into())),
            _ => Ok(()),
        }
    }
}

/// The body as a multipart reader takes it. The reader takes all that is ready before it looks at any of it; hence there is
/// never more than one piece ready.
pub fn pieces<'a>(
    incoming: &'a mut Incoming,
    unparsed: &Unparsed,
) -> impl Stream<Item = Result<Bytes, Refusal>> + Send + use<'a> {
    let state = (incoming, unparsed.clone());
    futures::stream::try_unfold(state, |(incoming, unparsed)| async move {
        tokio::task::yield_now().await;
        let Some(piece) = incoming.next().await? else { return Ok(None) };
        unparsed.add(piece.len())?;
        Ok(Some((piece, (incoming, unparsed))))
    })
}
