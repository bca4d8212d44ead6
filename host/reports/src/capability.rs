//! The capability in a callback URL: a keyed hash over whom it was made for. Whoever cannot read the pod's environment
//! cannot make one, and it serves that pod alone.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

use crate::slot::PodSlot;

/// Where callbacks live on the service; the slot, the proof and what is reported follow.
pub const PREFIX: &str = "/callback/v1";
/// Shortest key, in bytes: as long as what the hash gives.
const SHORTEST: usize = 32;
/// Keeps these hashes apart from others that are made with the same key.
const PURPOSE: &[u8] = b"stoker-reports/v1";
/// What stands in a path as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// The key that proves URLs. It is never shown.
#[derive(Clone)]
pub struct CapabilityKey(Hmac<Sha256>);

/// Why a key's file gives none.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    #[error("the key for callback URLs in {file} cannot be read: {error}")]
    Unread { file: String, error: std::io::Error },
    #[error("{file}: {weak}")]
    Weak { file: String, weak: WeakKey },
}

/// A key that is too short to keep anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key for callback URLs has {0} bytes; put at least {SHORTEST} random ones into its Secret")]
pub struct WeakKey(usize);

impl CapabilityKey {
    /// A key from at least 32 random bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, WeakKey> {
        let weak = WeakKey(bytes.len());
        if bytes.len() < SHORTEST {
            return Err(weak);
        }
        Hmac::new_from_slice(bytes).map(Self).map_err(|_| weak)
    }

    /// The key in a file: all of it, without the white space around it.
    pub fn read(file: &Path) -> Result<Self, BadKey> {
        let name = || file.display().to_string();
        let bytes = std::fs::read(file).map_err(|error| BadKey::Unread { file: name(), error })?;
        Self::new(bytes.trim_ascii()).map_err(|weak| BadKey::Weak { file: name(), weak })
    }

    fn over(&self, slot: &PodSlot) -> Hmac<Sha256> {
        let mut hash = self.0.clone();
        hash.update(PURPOSE);
        for part in parts(slot) {
            // The length keeps ("ab", "c") apart from ("a", "bc").
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash
    }

    fn proof(&self, slot: &PodSlot) -> String {
        URL_SAFE_NO_PAD.encode(self.over(slot).finalize().into_bytes())
    }
}

impl fmt::Debug for CapabilityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CapabilityKey")
    }
}

/// In the order in which they stand in the URL.
fn parts(slot: &PodSlot) -> [&str; 6] {
    let job = &slot.job;
    [&job.namespace, &job.name, &slot.uid, slot.execution.as_str(), &slot.node, &slot.pod]
}

/// The keys that are good: the one in use and, while it is being changed, the one before.
#[derive(Clone, Debug)]
pub struct Keys(Vec<CapabilityKey>);

impl Keys {
    pub fn new(current: CapabilityKey, previous: Option<CapabilityKey>) -> Self {
        Self(std::iter::once(current).chain(previous).collect())
    }

    /// Whether the proof was made for this slot, compared in constant time.
    pub fn verify(&self, slot: &PodSlot, proof: &str) -> bool {
        let Ok(proof) = URL_SAFE_NO_PAD.decode(proof) else { return false };
        self.0.iter().any(|key| key.over(slot).verify_slice(&proof).is_ok())
    }
}

/// Where pods reach the service, such as `http://stoker-reports.stoker:8090`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

/// An address that no callback URL can be built on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot begin callback URLs: give http:// or https://, a host, a port and at most a path")]
pub struct BadBase(String);

impl BaseUrl {
    /// An absolute http or https URL without query and fragment; a client appends `?name=` to what is built on it.
    pub fn parse(text: &str) -> Result<Self, BadBase> {
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let legal = host.is_some_and(|host| {
            !host.is_empty()
                && !host.starts_with('/')
                && host.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"'\\<>`".contains(&b))
        });
        if legal {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err(BadBase(text.chars().take(256).collect()))
        }
    }
}

impl BaseUrl {
    /// The host, for `CALLBACK_SERVICE_NAME`.
    pub fn host(&self) -> &str {
        self.authority().1
    }

    /// The port, for `CALLBACK_SERVICE_PORT`.
    pub fn port(&self) -> u16 {
        self.authority().2
    }

    fn authority(&self) -> (&str, &str, u16) {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("http", &self.0));
        let authority = rest.split('/').next().unwrap_or(rest);
        let usual = if scheme == "https" { 443 } else { 80 };
        match authority.rsplit_once(':') {
            // The colons of an IPv6 address stand in brackets.
            Some((host, port)) if !port.contains(']') => (scheme, host, port.parse().unwrap_or(usual)),
            _ => (scheme, authority, usual),
        }
    }
}

/// The three URLs of one pod, for its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackUrls {
    /// `CALLBACK_SERVICE_RESULT_URL`
    pub result: String,
    /// `CALLBACK_SERVICE_FILE_URL`; `?name=` may be appended.
    pub file: String,
    /// `CALLBACK_SERVICE_EVENT_URL`
    pub event: String,
}

/// The URLs that the pod reports to. They hold all that the service needs to know of it; the same slot and key always
/// give the same ones.
pub fn callback_urls(base: &BaseUrl, key: &CapabilityKey, slot: &PodSlot) -> CallbackUrls {
    let mut stem = format!("{}{PREFIX}", base.0);
    for part in parts(slot) {
        stem.push('/');
        stem.extend(utf8_percent_encode(part, ESCAPED));
    }
    stem = format!("{stem}/{}", key.proof(slot));
    CallbackUrls {
        result: format!("{stem}/result"),
        file: format!("{stem}/file"),
        event: format!("{stem}/event"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::JobKey;

    fn slot() -> PodSlot {
        PodSlot {
            job: JobKey { namespace: "ops".into(), name: "disks".into() },
            uid: "6f1c".into(),
            execution: "202608030910".parse().unwrap(),
            node: "node-1.example.org".into(),
            pod: "disks-job-node-1-202608030910".into(),
        }
    }

    fn key(byte: u8) -> CapabilityKey {
        CapabilityKey::new(&[byte; 32]).unwrap()
    }

    fn keys(byte: u8) -> Keys {
        Keys::new(key(byte), None)
    }

    #[test]
    fn urls_are_stable_and_take_a_query() {
        let base = BaseUrl::parse("http://reports:8090/").unwrap();
        let urls = callback_urls(&base, &key(1), &slot());
        assert_eq!(urls, callback_urls(&base, &key(1), &slot()));
        let start = "http://reports:8090/callback/v1/ops/disks/6f1c/202608030910/node-1.example.org/";
        assert!(urls.file.starts_with(start), "{}", urls.file);
        assert!(urls.file.ends_with("/file") && !urls.file.contains('?'));
    }

    #[test]
    fn a_proof_serves_its_slot_and_key_alone() {
        let proof = key(1).proof(&slot());
        assert!(keys(1).verify(&slot(), &proof));
        assert!(Keys::new(key(2), Some(key(1))).verify(&slot(), &proof));
        assert!(!keys(2).verify(&slot(), &proof));
        let changes: [fn(&mut PodSlot); 6] = [
            |s| s.job.namespace.push('x'),
            |s| s.job.name.push('x'),
            |s| s.uid.push('x'),
            |s| s.execution = "202608030911".parse().unwrap(),
            |s| s.node.push('x'),
            |s| s.pod.push('x'),
        ];
        for change in changes {
            let mut other = slot();
            change(&mut other);
            assert!(!keys(1).verify(&other, &proof));
        }
    }

    #[test]
    fn a_part_cannot_lend_letters_to_its_neighbour() {
        let (mut one, mut other) = (slot(), slot());
        (one.node, one.pod) = ("ab".into(), "c".into());
        (other.node, other.pod) = ("a".into(), "bc".into());
        assert_ne!(key(1).proof(&one), key(1).proof(&other));
    }

    #[test]
    fn broken_proofs_and_short_keys_are_refused() {
        let proof = key(1).proof(&slot());
        for bad in ["", "x", "%%", &proof[1..], &format!("{proof}A"), &"A".repeat(43)] {
            assert!(!keys(1).verify(&slot(), bad), "{bad}");
        }
        assert_eq!(CapabilityKey::new(&[0; 31]).unwrap_err(), WeakKey(31));
    }

    #[test]
    fn a_key_is_all_of_its_file_but_the_white_space_around_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{}\n", "k".repeat(32))).unwrap();
        let proof = CapabilityKey::new(&[b'k'; 32]).unwrap().proof(&slot());
        assert_eq!(CapabilityKey::read(file.path()).unwrap().proof(&slot()), proof);
        std::fs::write(file.path(), format!("{}   \n", "k".repeat(30))).unwrap();
        let weak = CapabilityKey::read(file.path()).unwrap_err().to_string();
        assert!(weak.contains("has 30 bytes; put at least 32"), "{weak}");
        let missing = CapabilityKey::read(Path::new("/none/key")).unwrap_err().to_string();
        assert!(missing.contains("/none/key cannot be read"), "{missing}");
    }

    #[test]
    fn bases_that_would_break_urls_are_refused() {
        for bad in
            ["", "reports:8090", "ftp://x", "http://", "http:///x", "http://x?y", "http://x#y", "http://x y"]
        {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_and_port_are_told_as_the_older_clients_know_them() {
        let parts = |text: &str| {
            let base = BaseUrl::parse(text).unwrap();
            (base.host().to_owned(), base.port())
        };
        assert_eq!(parts("http://reports.stoker:8090/x"), ("reports.stoker".into(), 8090));
        assert_eq!(parts("https://reports"), ("reports".into(), 443));
        assert_eq!(parts("http://[::1]:8090"), ("[::1]".into(), 8090));
        assert_eq!(parts("http://[::1]"), ("[::1]".into(), 80));
    }

    #[test]
    fn a_key_is_never_shown() {
        assert_eq!(format!("{:?}", key(7)), "CapabilityKey");
    }
}
