//! What the subcommands share that run until they are told to stop: logging, TLS, the runtime and signals.

use std::io::IsTerminal as _;

use anyhow::anyhow;
use clap::{Args as ClapArgs, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

/// How it is logged.
#[derive(ClapArgs)]
pub struct Logging {
    /// How log lines look.
    #[arg(long, env = "STOKER_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
    /// What is logged, such as `info` or `warn,stoker_operator=debug`.
    #[arg(long, env = "STOKER_LOG", default_value = "info,kube_client=warn,kube_runtime=warn")]
    log: String,
}

impl Logging {
    fn start(&self) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(&self.log)
            .map_err(|e| anyhow!("--log {}: {e}; write for example info or debug", self.log))?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        match self.log_format {
            LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
            LogFormat::Text => log.with_target(false).init(),
        }
        Ok(())
    }
}

/// Runs a service to its end. What it is given becomes true when it is to stop.
pub fn run(
    logging: &Logging,
    service: impl AsyncFnOnce(watch::Receiver<bool>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    logging.start()?;
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
        service(stopped).await
    })
}
