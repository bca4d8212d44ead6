//! What is answered instead of 200, with the code that the older clients know and a line that says what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::cluster::{EventRefused, Unknown};
use crate::event::BadEvent;
use crate::result::BadResult;
use crate::store::StoreError;

/// Why a callback was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("this URL was not made by Stoker, or with another key: use CALLBACK_SERVICE_…_URL as it is")]
    Forged,
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error(transparent)]
    Result(#[from] BadResult),
    #[error(transparent)]
    Event(#[from] BadEvent),
    #[error(transparent)]
    NotRecorded(#[from] EventRefused),
    #[error("the multipart body cannot be read: {0}")]
    Multipart(String),
    #[error("the multipart body has no file: give each a `filename`")]
    NoFile,
    #[error("the body ended early: {0}")]
    Broken(String),
    #[error("the body is longer than {0} bytes")]
    TooLarge(u64),
    #[error("the execution's reports would pass {0} bytes: send less, or raise reports.maxBytesPerExecution")]
    ExecutionFull(u64),
    #[error("the body came too slowly")]
    Slow,
    #[error("this pod sends too much at once: send one file after the other")]
    PodBusy,
    #[error("this pod sends Events too often: try again in {0} s, or report a file")]
    EventsTooOften(u64),
    #[error("too much is being reported at once, try again")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Forged => StatusCode::FORBIDDEN,
            Self::Unknown(Unknown::NotReady(_)) | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotRecorded(EventRefused::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown(_) => StatusCode::NOT_ACCEPTABLE,
            Self::Result(_) | Self::Event(_) | Self::Multipart(_) | Self::NoFile | Self::Broken(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::NotRecorded(EventRefused::PodGone) => StatusCode::NOT_FOUND,
            Self::TooLarge(_) | Self::ExecutionFull(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::PodBusy | Self::EventsTooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Store(StoreError::Full) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Seconds after which it is worth trying again.
    fn retry_after(&self) -> Option<u64> {
        match self.status() {
            _ if let Self::EventsTooOften(seconds) = self => Some(*seconds),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(1),
            StatusCode::INSUFFICIENT_STORAGE => Some(60),
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status(), format!("{self}\n")).into_response();
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
