//! A command that runs as long as a claim is held.

use std::io::{ErrorKind, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use stoker_api::GrantedClaim;
use tokio::process::Command;

use super::server::Server;
use super::signals::{self, Signals};

/// How long it is tried to release a claim: long enough for an operator that starts anew.
const RELEASE: Duration = Duration::from_secs(60);

/// A command with what is known of the claim filled in.
#[derive(Debug, PartialEq, Eq)]
pub struct Filled(Vec<String>);

impl Filled {
    pub fn new(words: &[String], claim: &GrantedClaim) -> anyhow::Result<Self> {
        words.iter().map(|word| fill(word, claim)).collect::<anyhow::Result<_>>().map(Self)
    }
}

/// Fills in a word. What is in braces and no name of ours stays as it is.
fn fill(word: &str, claim: &GrantedClaim) -> anyhow::Result<String> {
    let pod = &claim.pod;
    let known = |text: &Option<String>, what: &str| {
        text.clone().with_context(|| format!("`{word}`: pod {} has no {what}", pod.name))
    };
    let (mut filled, mut rest) = (String::new(), word);
    while let Some(start) = rest.find('{') {
        filled += &rest[..start];
        rest = &rest[start..];
        let name = rest.find('}').map(|end| &rest[1..end]);
        let value = match name {
            Some("ip") => Some(known(&pod.ip, "address")?),
            Some("node") => Some(known(&pod.node, "node")?),
            Some("pod") => Some(pod.name.clone()),
            Some("id") => Some(claim.id.clone()),
            Some(name) => match name.strip_prefix("port:") {
                Some(port) => Some(match pod.ports.get(port) {
                    Some(number) => number.to_string(),
                    None => bail!("`{word}`: no container of pod {} has a port named {port}", pod.name),
                }),
                None => None,
            },
            None => None,
        };
        match (name, value) {
            (Some(name), Some(value)) => {
                filled += &value;
                rest = &rest[name.len() + 2..];
            }
            _ => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    Ok(filled + rest)
}

/// How a claim is kept.
#[derive(Clone, Copy)]
pub struct Renewal {
    /// For how long each time, in seconds.
    pub ttl: u32,
    /// The first one is not put off.
    pub at_once: bool,
}

/// Runs a command to its end, and tells its exit code; signals are passed to it.
pub async fn run(
    server: &Server,
    id: &str,
    Filled(words): Filled,
    renewal: Option<Renewal>,
    signals: &mut Signals,
) -> ExitCode {
    let Some((program, words)) = words.split_first() else { return ExitCode::FAILURE };
    let mut child = match Command::new(program).args(words).spawn() {
        Ok(child) => child,
        Err(error) => {
            tell(&format!("cannot run {program}: {error}"));
            // As shells tell it.
            return ExitCode::from(if error.kind() == ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    let mut kept = std::pin::pin!(keep(server, id, renewal));
    loop {
        let child_id = child.id();
        tokio::select! {
            ended = child.wait() => return match ended {
                Ok(status) => code(status),
                Err(error) => {
                    tell(&format!("cannot wait for {program}: {error}"));
                    ExitCode::FAILURE
                }
            },
            signal = signals.next() => signals::pass(signal, child_id),
            () = &mut kept => {}
        }
    }
}

/// Renews a claim at half of its time for as long as this is asked.
async fn keep(server: &Server, id: &str, renewal: Option<Renewal>) {
    let Some(Renewal { ttl, at_once }) = renewal else { return std::future::pending().await };
    let half = Duration::from_secs(u64::from(ttl)) / 2;
    let (mut next, mut told) = (if at_once { Duration::ZERO } else { half }, false);
    loop {
        tokio::time::sleep(next).await;
        match server.renew(id, ttl).await {
            Ok(_) => (next, told) = (half, false),
            Err(failed) if failed.over() => {
                tell(&format!("the claim {id} is over, and the command runs on: {failed}"));
                return std::future::pending().await;
            }
            Err(failed) => {
                if !told {
                    tell(&format!("the claim {id} is not renewed, trying again: {failed}"));
                }
                told = true;
                next = failed.again().unwrap_or(Duration::from_secs(1)).min(half);
            }
        }
    }
}

/// Releases a claim, with patience unless a signal comes; says so if it cannot.
pub async fn release(server: &Server, id: &str, signals: Option<&mut Signals>) {
    let began = Instant::now();
    let released = async {
        loop {
            match server.release(id).await {
                Ok(_) => return Ok(()),
                // It has ended with the pod's work.
                Err(failed) if failed.over() => return Ok(()),
                Err(failed) => match failed.again() {
                    Some(after) if began.elapsed() < RELEASE => tokio::time::sleep(after).await,
                    _ => return Err(failed.to_string()),
                },
            }
        }
    };
    let given_up = async {
        match signals {
            Some(signals) => signals.next().await,
            None => std::future::pending().await,
        }
    };
    let released = tokio::select! {
        released = released => released,
        signal = given_up => Err(format!("signal {} came", signal.as_raw())),
    };
    if let Err(why) = released {
        let command = server.release_command(id);
        tell(&format!("the claim is not released: {why}; release it with `{command}`"));
    }
}

/// Says something beside the command's output. That nobody reads it is no reason to end.
fn tell(words: &str) {
    writeln!(std::io::stderr(), "stoker: {words}").ok();
}

/// The exit code as a shell tells it.
fn code(status: ExitStatus) -> ExitCode {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(number.and_then(|number| u8::try_from(number).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> GrantedClaim {
        serde_json::from_value(serde_json::json!({
            "id": "game-1.ab", "claimedBy": "me", "claimedAt": "2026-01-01T00:00:00Z",
            "pod": {"name": "game-1", "uid": "u", "ip": "10.0.0.7", "ports": {"http": 8080}},
        }))
        .unwrap()
    }

    #[test]
    fn what_is_known_is_filled_in_and_other_braces_stay() {
        let filled = |word: &str| fill(word, &claim()).unwrap();
        assert_eq!(filled("http://{ip}:{port:http}/{pod}"), "http://10.0.0.7:8080/game-1");
        assert_eq!(filled("{id}{id}"), "game-1.abgame-1.ab");
        for word in ["{print $1}", "{", "}", "{}", "a{b", "{{}", "{\"a\": 1}", "ä{ö}ü", ""] {
            assert_eq!(filled(word), word);
        }
        assert_eq!(filled("{{ip}}"), "{10.0.0.7}");
    }

    #[test]
    fn i11_what_is_not_known_is_told() {
        let error = |word: &str| fill(word, &claim()).unwrap_err().to_string();
        assert_eq!(error("{port:ws}"), "`{port:ws}`: no container of pod game-1 has a port named ws");
        assert_eq!(error("{node}"), "`{node}`: pod game-1 has no node");
    }

    #[test]
    fn exit_codes_and_signals_are_told_as_shells_do() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), ExitCode::from(7));
        assert_eq!(code(ExitStatus::from_raw(9)), ExitCode::from(137));
    }
}
