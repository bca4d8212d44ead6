//! `stoker claim` and `stoker release`: what a matchmaker does over HTTP, for shells and scripts.

mod command;
mod server;
mod signals;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::{Args as ClapArgs, ValueEnum};
use jiff::SignedDuration;
use stoker_api::claim_request::{MAX_TTL_SECONDS, MAX_WAIT_SECONDS};
use stoker_api::{ClaimRequest, GrantedClaim};

use command::Filled;
use server::{Reach, Server};
use signals::Signals;

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// The server's answer.
    Json,
    /// The pod's name.
    Name,
    /// The pod's address.
    Ip,
}

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  stoker claim game --wait 30s                                 prints POD IP ID; the claim stays
  stoker claim game --ttl 10m -- curl http://{ip}:{port:http}/ claims, runs, releases

In a command {ip}, {pod}, {node}, {id} and {port:NAME} are filled in. Its exit code is passed on, signals are passed to \
it, and the claim is released when it has ended. With --ttl the claim is renewed meanwhile; without it, and without \
claimTimeoutSeconds in the pool, a claim whose claimant is killed stays until somebody releases it.")]
pub struct ClaimArgs {
    /// The pool to claim from.
    pool: String,
    #[command(flatten)]
    reach: Reach,
    /// How long to wait for a pod if none stands by, such as 30s; up to 1h.
    #[arg(long, value_name = "DURATION", value_parser = wait, default_value = "0s")]
    wait: u32,
    /// After how long the claim ends unless it is renewed, such as 10m; up to 8760h. Omitted: it does not end by itself.
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<u32>,
    /// The same token gets the same pod as long as its claim lasts. One token for one piece of work.
    #[arg(long)]
    token: Option<String>,
    /// Labels that the pod must have.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = pair)]
    selector: Vec<(String, String)>,
    /// What the workload is to know, in the pod's annotation `stoker.dev/claim`; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// What is printed, instead of one line with the pod, its address and the claim's ID.
    #[arg(long, short = 'o', value_enum, conflicts_with = "command")]
    output: Option<Output>,
    /// Run this as long as the claim is held.
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(ClapArgs)]
pub struct ReleaseArgs {
    /// The pool that was claimed from.
    pool: String,
    /// The claim's ID.
    id: String,
    #[command(flatten)]
    reach: Reach,
}

pub fn claim(args: ClaimArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let server = args.reach.connect(&args.pool).await?;
        let request = ClaimRequest {
            token: args.token,
            ttl_seconds: args.ttl,
            selector: args.selector.into_iter().collect(),
            wait_seconds: args.wait,
            metadata: args.metadata.into_iter().collect::<BTreeMap<_, _>>(),
        };
        if args.command.is_empty() {
            let granted = grant(&server, &request).await?;
            return match print(&granted, args.output) {
                Ok(()) => Ok(ExitCode::SUCCESS),
                Err(error) => {
                    // Nobody has learnt which claim this is.
                    command::release(&server, &granted.id, None).await;
                    Err(error)
                }
            };
        }
        let mut signals = Signals::catch()?;
        let granted = tokio::select! {
            granted = grant(&server, &request) => granted?,
            signal = signals.next() => return Ok(signals::code(signal)),
        };
        let code = match Filled::new(&args.command, &granted) {
            Ok(filled) => {
                // The claim of a token may be an old one, whose end is near.
                let at_once = request.token.is_some();
                let renewal = request.ttl_seconds.map(|ttl| command::Renewal { ttl, at_once });
                Ok(command::run(&server, &granted.id, filled, renewal, &mut signals).await)
            }
            Err(error) => Err(error),
        };
        command::release(&server, &granted.id, Some(&mut signals)).await;
        code
    })
}

pub fn release(args: ReleaseArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let server = args.reach.connect(&args.pool).await?;
        let released = server.release(&args.id).await;
        let released = released.with_context(|| format!("not released in {}: {}", server.pool(), args.id))?;
        writeln!(std::io::stdout(), "released {}", released.pod.name).ok();
        Ok(ExitCode::SUCCESS)
    })
}

pub fn block_on<T>(what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // An error means that there is one already.
    rustls::crypto::ring::default_provider().install_default().ok();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(what)
}

async fn grant(server: &Server, request: &ClaimRequest) -> anyhow::Result<GrantedClaim> {
    server.claim(request).await.with_context(|| format!("no claim from {}", server.pool()))
}

fn print(granted: &GrantedClaim, output: Option<Output>) -> anyhow::Result<()> {
    let GrantedClaim { id, pod, .. } = granted;
    let text = match output {
        None => format!("{} {} {id}", pod.name, pod.ip.as_deref().unwrap_or("-")),
        Some(Output::Json) => serde_json::to_string_pretty(granted)?,
        Some(Output::Name) => pod.name.clone(),
        Some(Output::Ip) => {
            pod.ip.clone().with_context(|| format!("pod {} has no address; released again", pod.name))?
        }
    };
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot print the claim; released again")
}

fn wait(text: &str) -> anyhow::Result<u32> {
    seconds(text, 0, MAX_WAIT_SECONDS)
}

fn ttl(text: &str) -> anyhow::Result<u32> {
    seconds(text, 1, MAX_TTL_SECONDS)
}

fn seconds(text: &str, least: u32, most: u32) -> anyhow::Result<u32> {
    let duration: SignedDuration =
        text.parse().map_err(|_| anyhow!("`{text}` is no duration: write for example 30s, 10m or 1h30m"))?;
    if duration.subsec_nanos() != 0 {
        return Err(anyhow!("`{text}` is no whole number of seconds"));
    }
    let seconds = u32::try_from(duration.as_secs()).ok().filter(|s| (least..=most).contains(s));
    seconds.with_context(|| format!("`{text}` is not within {least} s and {most} s"))
}

fn pair(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(anyhow!("`{text}` is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units_and_within_bounds() {
        assert_eq!(wait("0s").unwrap(), 0);
        assert_eq!(wait("1h").unwrap(), 3600);
        assert_eq!(ttl("1h30m").unwrap(), 5400);
        for (refused, words) in [
            (wait("30"), "`30` is no duration: write for example 30s, 10m or 1h30m"),
            (wait("soon"), "`soon` is no duration"),
            (wait("1500ms"), "`1500ms` is no whole number of seconds"),
            (wait("61m"), "`61m` is not within 0 s and 3600 s"),
            (ttl("0s"), "`0s` is not within 1 s and 31536000 s"),
            (ttl("-5s"), "`-5s` is not within"),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[test]
    fn pairs_are_cut_at_the_first_sign() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(pair("a=").unwrap(), ("a".to_owned(), String::new()));
        assert_eq!(pair("=b").unwrap_err().to_string(), "`=b` is not KEY=VALUE");
    }
}
