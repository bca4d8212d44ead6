//! `stoker run`: the operator.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use stoker_operator::{ClaimOptions, CompileLimits, LeaseOptions, Options, ReportOptions, SignalOptions};

use crate::service::{self, Logging};

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
    /// File to which each policy's inputs and answers are written, a line of JSON for each: `stoker policy replay` asks them
    /// again. It holds what the objects' pods say of themselves. At 64 MiB it becomes FILE.1, and a new one is begun.
    #[arg(long, env = "STOKER_RECORD", value_name = "FILE")]
    record: Option<PathBuf>,
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
    /// The report service's address as pods reach it, such as http://stoker-reports.stoker-system:8090: pods of NodeBatchJobs
    /// report to it.
    #[arg(long, env = "STOKER_REPORTS_URL", value_name = "URL", requires = "reports_key_file")]
    reports_url: Option<String>,
    /// The file of the key that proves pods' addresses, at least 32 random bytes: the report service's own.
    #[arg(long, env = "STOKER_REPORTS_KEY_FILE", value_name = "FILE", requires = "reports_url")]
    reports_key_file: Option<PathBuf>,
    /// The certificates by which the report service's is trusted, a PEM file; for https.
    #[arg(long, env = "STOKER_REPORTS_CA_FILE", value_name = "FILE", requires = "reports_url")]
    reports_ca_file: Option<PathBuf>,
    /// Where what was decided of late is told to `stoker explain` and `stoker policy replay`, such as 127.0.0.1:8082; `off` =
    /// nowhere, and nothing is kept. It holds what the objects' pods say of themselves: let it listen on the loopback, which
    /// those reach who may forward ports of the operator's pod.
    #[arg(long, env = "STOKER_DECISIONS", default_value = "off", value_name = "ADDRESS")]
    decisions: String,
    /// Where signals may be fetched from: HOST, HOST:PORT, *.SUFFIX or *; may be given more than once. Omitted: from all hosts
    /// but those with loopback and link-local addresses.
    #[arg(long = "signal-hosts", env = "STOKER_SIGNAL_HOSTS", value_delimiter = ',', value_name = "HOST")]
    signal_hosts: Vec<String>,
    /// The certificates by which signals' servers are trusted where a signal names none, a PEM file.
    #[arg(long, env = "STOKER_SIGNAL_CA_FILE", value_name = "FILE")]
    signal_ca_file: Option<PathBuf>,
    /// The name of a Lease by which one of several replicas is chosen to lead; the others stand by, with warm caches. Omitted: this
    /// process is the only one.
    #[arg(long, env = "STOKER_LEASE", value_name = "NAME")]
    lease: Option<String>,
    /// The Lease's namespace. Omitted: that of the pod that this runs in, or of the kubeconfig's current context.
    #[arg(long, env = "STOKER_LEASE_NAMESPACE", value_name = "NAMESPACE", requires = "lease")]
    lease_namespace: Option<String>,
    /// For how long the Lease counts unless it is renewed, in seconds: when a leader dies, another begins after that.
    #[arg(long, env = "STOKER_LEASE_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(5..=300))]
    lease_seconds: u64,
    /// Who this is in the Lease. Omitted: the environment's POD_NAME, else the machine's name with something random.
    #[arg(long, env = "STOKER_LEASE_IDENTITY", value_name = "IDENTITY")]
    lease_identity: Option<String>,
    #[command(flatten)]
    logging: Logging,
}

/// A name that no other replica has.
fn identity() -> String {
    if let Ok(pod) = std::env::var("POD_NAME") {
        return pod;
    }
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // A fresh state hashes nothing to a number by chance.
    let chance = RandomState::new().build_hasher().finish();
    format!("{machine}-{chance:016x}")
}

pub fn run(args: Args) -> anyhow::Result<()> {
    service::run(&args.logging, async |stopped| {
        let client = stoker_operator::connect().await?;
        let options = Options {
            namespaces: args.namespaces,
            listen: Some(args.listen).filter(|l| l != "off" && !l.is_empty()),
            policy_cache: args.policy_cache,
            record: args.record,
            compile_limits: CompileLimits {
                cpu: Duration::from_secs(args.compile_seconds),
                memory_bytes: args.compile_memory << 20,
            },
            gate_image: args.gate_image,
            reports: args.reports_url.zip(args.reports_key_file).map(|(url, key_file)| ReportOptions {
                url,
                key_file,
                ca_file: args.reports_ca_file,
            }),
            lease: args.lease.map(|name| LeaseOptions {
                name,
                namespace: args.lease_namespace,
                duration: Duration::from_secs(args.lease_seconds),
                identity: args.lease_identity.unwrap_or_else(identity),
            }),
            decisions: Some(args.decisions).filter(|l| l != "off" && !l.is_empty()),
            signals: SignalOptions { hosts: args.signal_hosts, ca_file: args.signal_ca_file },
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
