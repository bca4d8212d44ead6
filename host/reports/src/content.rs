//! How a kept file is served, so that nothing that was uploaded runs in a reader's browser.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a path's segment holds as it is.
pub const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The headers of a file.
pub fn headers(name: &str) -> [(HeaderName, String); 6] {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    let (kind, shown) = match ending.as_str() {
        "txt" | "log" | "csv" | "md" | "yaml" | "yml" | "out" | "err" => {
            ("text/plain; charset=utf-8", "inline")
        }
        "json" => ("application/json", "inline"),
        _ => ("application/octet-stream", "attachment"),
    };
    let encoded = utf8_percent_encode(name, SEGMENT);
    [
        (CONTENT_TYPE, kind.to_owned()),
        (CONTENT_DISPOSITION, format!("{shown}; filename*=UTF-8''{encoded}")),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox".to_owned()),
        (REFERRER_POLICY, "no-referrer".to_owned()),
        (CACHE_CONTROL, "no-cache".to_owned()),
    ]
}
