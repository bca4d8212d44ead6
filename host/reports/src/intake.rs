//! From a body to kept files: a raw body is one, a multipart one holds several.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use multer::Multipart;
use uuid::Uuid;

use crate::disposition;
use crate::execution::Execution;
use crate::names;
use crate::refusal::Refusal;
use crate::store::{self, Store};
use crate::upload::{Incoming, Unparsed, pieces};

/// Most files in one multipart body.
const MAX_FILES: usize = 1000;

/// Where files of one pod go.
pub struct Target<'a> {
    pub store: &'a Store,
    pub execution: &'a Arc<Execution>,
    pub node: &'a str,
    /// The execution's, in bytes.
    pub limit: u64,
}

/// Keeps what a body holds, each file whole and durable before the next one is begun. Returns the bytes kept.
pub async fn keep(
    target: &Target<'_>,
    headers: &HeaderMap,
    name: Option<&str>,
    incoming: &mut Incoming,
) -> Result<u64, Refusal> {
    let text = |which| headers.get(which).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let content_type = text(header::CONTENT_TYPE);
    let multipart =
        content_type.is_some_and(|t| t.trim_start().to_ascii_lowercase().starts_with("multipart/"));
    if multipart {
        let boundary = multer::parse_boundary(content_type.unwrap_or_default())
            .map_err(|error| Refusal::Multipart(error.to_string()))?;
        return keep_parts(target, boundary, incoming).await;
    }
    let disposition = headers.get(header::CONTENT_DISPOSITION);
    let given = name.map(str::to_owned).filter(|name| !name.trim().is_empty());
    let given = given.or_else(|| disposition.and_then(|value| disposition::file_name(value.as_bytes())));
    let name = given.unwrap_or_else(|| unnamed(content_type));
    keep_one(target, &name, Pieces::Raw(incoming)).await
}

/// A name for what came without one.
fn unnamed(content_type: Option<&str>) -> String {
    format!("{}{}", Uuid::new_v4(), names::ending(content_type))
}

async fn keep_parts(target: &Target<'_>, boundary: String, incoming: &mut Incoming) -> Result<u64, Refusal> {
    let unparsed = Unparsed::default();
    let mut parts = Multipart::new(pieces(incoming, &unparsed), boundary);
    let (mut bytes, mut used) = (0, HashSet::new());
    while let Some(mut part) = parts.next_field().await.map_err(unread)? {
        unparsed.part();
        let disposition = part.headers().get(header::CONTENT_DISPOSITION);
        let given = disposition.and_then(|value| disposition::file_name(value.as_bytes()));
        if given.is_none() && part.file_name().is_none() {
            // A field of a form, not a file.
            while let Some(piece) = part.chunk().await.map_err(unread)? {
                unparsed.data(piece.len());
            }
            continue;
        }
        if used.len() == MAX_FILES {
            return Err(Refusal::Multipart(format!("it has more than {MAX_FILES} files")));
        }
        let content_type = part.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let given = given.unwrap_or_else(|| unnamed(content_type));
        let name = another(names::clean(&given, names::MAX_FILE), &mut used);
        bytes += keep_one(target, &name, Pieces::Part(&mut part, &unparsed)).await?;
    }
    if used.is_empty() { Err(Refusal::NoFile) } else { Ok(bytes) }
}

/// The name, or with a number if another file of the body has it.
fn another(name: String, used: &mut HashSet<String>) -> String {
    let (stem, ending) = match name.rfind('.') {
        Some(at) if at > 0 => name.split_at(at),
        _ => (name.as_str(), ""),
    };
    let numbered = (2..).map(|n| format!("{stem}-{n}{ending}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|name| !used.contains(name));
    let free = free.unwrap_or(name);
    used.insert(free.clone());
    free
}

enum Pieces<'a, 'b> {
    Raw(&'a mut Incoming),
    Part(&'a mut multer::Field<'b>, &'a Unparsed),
}

impl Pieces<'_, '_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        match self {
            Self::Raw(incoming) => incoming.next().await,
            Self::Part(part, unparsed) => {
                let piece = part.chunk().await.map_err(unread)?;
                unparsed.data(piece.as_ref().map_or(0, Bytes::len));
                Ok(piece)
            }
        }
    }
}

/// What went wrong beneath a multipart reader, or in it.
fn unread(error: multer::Error) -> Refusal {
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast::<Refusal>() {
            Ok(refusal) => *refusal,
            Err(cause) => Refusal::Broken(cause.to_string()),
        },
        error => Refusal::Multipart(error.to_string()),
    }
}

/// Does it to its end even if the sender hangs up: what is kept is counted.
pub async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => Err(Refusal::Broken(error.to_string())),
    }
}

async fn keep_one(target: &Target<'_>, name: &str, mut pieces: Pieces<'_, '_>) -> Result<u64, Refusal> {
    let name = names::uploaded_file(target.node, name, &target.execution.nodes());
    let path = store::file(&target.execution.folder, &name)
        .ok_or_else(|| Refusal::Broken("its name cannot be kept".into()))?;
    let mut room = target.execution.room(target.limit);
    let mut size = 0;
    room.cover(size)?;
    let mut writing = target.store.begin(&path).await?;
    loop {
        let step = async {
            let Some(piece) = pieces.next().await? else { return Ok(false) };
            size += piece.len() as u64;
            room.cover(size)?;
            writing.write(&piece).await?;
            Ok::<_, Refusal>(true)
        };
        match step.await {
            Ok(true) => {}
            Ok(false) => break,
            Err(refusal) => {
                writing.abort().await;
                return Err(refusal);
            }
        }
    }
    whole(async move {
        writing.finish().await?;
        room.keep(&name, size);
        Ok(size)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use crate::fuzzing::{Files, Upload, upload};

    fn kept(content_type: &str, body: &[u8], pieces: &[usize]) -> Option<(Result<u64, String>, Files)> {
        upload(Upload { content_type: content_type.as_bytes(), body, pieces, ..Upload::default() })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn any_multipart_body_is_answered(
            body in proptest::collection::vec(
                prop_oneof![
                    Just(b"--B\r\n".to_vec()), Just(b"\r\n".to_vec()), Just(b"--B--".to_vec()), Just(b"\r\n\r\n".to_vec()),
                    Just(b"content-disposition: form-data; filename=\"a\"".to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..20),
                ],
                0..20,
            ),
            pieces in proptest::collection::vec(1usize..40, 1..4),
        ) {
            let (done, files) = kept("multipart/form-data; boundary=B", &body.concat(), &pieces).unwrap();
            prop_assert!(files.keys().all(|name| name.starts_with("n-")));
            prop_assert!(done.is_err() || !files.is_empty());
        }

        #[test]
        fn any_content_type_is_answered(kind in "(multipart/[a-z-]{0,9}|[ -~]{0,20})(; ?boundary=[ -~]{0,80})?") {
            let _ = kept(&kind, b"body", &[3]);
        }

        #[test]
        fn files_come_out_of_a_multipart_body_as_they_went_in(
            files in proptest::collection::btree_map("[a-z]{1,8}", proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'B')], 0..300), 1..5),
            pieces in proptest::collection::vec(1usize..60, 1..4),
        ) {
            prop_assume!(files.values().all(|content| !content.windows(6).any(|w| w == b"\n--BB9")));
            let mut body = Vec::new();
            for (name, content) in &files {
                body.extend(format!("--BB9\r\ncontent-disposition: form-data; name=\"f\"; filename=\"{name}\"\r\n\r\n").bytes());
                body.extend(content);
                body.extend(b"\r\n");
            }
            body.extend(b"--BB9--\r\n");
            let (done, found) = kept("multipart/form-data; boundary=BB9", &body, &pieces).unwrap();
            prop_assert!(done.is_ok(), "{done:?}");
            let want: BTreeMap<_, _> = files.into_iter().map(|(name, content)| (format!("n-{name}"), content)).collect();
            prop_assert_eq!(found, want);
        }
    }
}
