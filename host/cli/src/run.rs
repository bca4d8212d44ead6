//! `stoker run`: logging, signals, and the operator.

use std::io::IsTerminal as _;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use stoker_operator::{ClaimOptions, CompileLimits, Options};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

#[derive(ClapArgs)]
pub struct Args {
    /// Watch this namespace only; may be given more than once. All namespaces if omitted.
    #[arg(long = "namespace", short = 'n', env = "STOKER_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Where /healthz, /readyz and /metrics are served; `off` = nowhere.
    #[arg(long, env = "STOKER_LISTEN", default_value = "0.0.0.0:8080")]
    listen: String,
    /// Folder that keeps the last good policies over a restart, so that one whose ConfigMap is broken or gone
    /// by then still decides. Not kept if omitted: the formula decides then, and the target does not fall.
    #[arg(long, env = "STOKER_POLICY_CACHE", value_name = "DIR")]
    policy_cache: Option<PathBuf>,
    /// Processor time that compiling one policy may take, in seconds. A policy in Rust takes a fraction of one,
    /// an interpreter of JavaScript or Python about 20.
    #[arg(long, env = "STOKER_COMPILE_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    compile_seconds: u64,
    /// Memory that compiling one policy may take, in MiB.
    #[arg(long, env = "STOKER_COMPILE_MEMORY", value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(128..=65536))]
    compile_memory: u64,
    /// Where claims on standby pods are served, such as 0.0.0.0:8443; `off` = nowhere. On other than loopback addresses
    /// with TLS only.
    #[arg(long, env = "STOKER_CLAIMS", default_value = "off", value_name = "ADDRESS")]
    claims: String,
    /// The claim server's certificate, a PEM file; taken up again when it changes.
    #[arg(long, env = "STOKER_CLAIMS_CERT", value_name = "FILE", requires = "claims_key")]
    claims_cert: Option<PathBuf>,
    /// The key of that certificate, a PEM file.
    #[arg(long, env = "STOKER_CLAIMS_KEY", value_name = "FILE", requires = "claims_cert")]
    claims_key: Option<PathBuf>,
    /// Serve claims without TLS, behind a proxy that ends it.
    #[arg(long, env = "STOKER_CLAIMS_INSECURE", conflicts_with = "claims_cert")]
    claims_insecure: bool,
    /// Requests to the claim server that an account may send in a second, and ten times as many at once.
    #[arg(long, env = "STOKER_CLAIMS_PER_SECOND", default_value = "100")]
    claims_per_second: NonZeroU32,
    /// The image of stoker-gate, which holds the runs of PreScaledCronJobs until their instant.
    #[arg(long, env = "STOKER_GATE_IMAGE", value_name = "IMAGE", default_value = concat!("docker.io/stoker/gate:", env!("CARGO_PKG_VERSION")))]
    gate_image: String,
    /// How log lines look.
    #[arg(long, env = "STOKER_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
    /// What is logged, such as `info` or `warn,stoker_operator=debug`.
    #[arg(long, env = "STOKER_LOG", default_value = "info,kube_client=warn,kube_runtime=warn")]
    log: String,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|e| anyhow::anyhow!("--log {}: {e}; write for example info or debug", args.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_target(false).init(),
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            stop.send(true).ok();
        });
        let client = stoker_operator::connect().await?;
        let options = Options {
            namespaces: args.namespaces,
            listen: Some(args.listen).filter(|l| l != "off" && !l.is_empty()),
            policy_cache: args.policy_cache,
            compile_limits: CompileLimits {
                cpu: Duration::from_secs(args.compile_seconds),
                memory_bytes: args.compile_memory << 20,
            },
            gate_image: args.gate_image,
            claims: Some(args.claims).filter(|l| l != "off" && !l.is_empty()).map(|listen| ClaimOptions {
                listen,
                tls: args.claims_cert.zip(args.claims_key),
                insecure: args.claims_insecure,
                per_second: args.claims_per_second,
            }),
        };
        stoker_operator::run(client, options, stopped).await?;
        Ok(())
    })
}
