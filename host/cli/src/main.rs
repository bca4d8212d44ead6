//! `stoker`: the operator and its tools.
#![cfg_attr(not(test), warn(clippy::print_stdout))]

#[macro_use]
mod out;

mod claim;
mod crds;
mod decisions;
mod doctor;
mod explain;
mod flow;
mod migrate;
mod objects;
mod policy;
mod reports;
mod run;
mod run_now;
mod service;
mod simulate;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// The system's allocator keeps what was needed once: beside it, 10,000 probed pods take a third less memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Keeps capacity hot: standby pods that are ready before they are asked for.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator, in the cluster or with a kubeconfig.
    Run(run::Args),
    /// Run the report service: take what pods of NodeBatchJobs report, keep it and serve it.
    Reports(reports::Args),
    /// Print the custom resource definitions as YAML.
    Crds(crds::Args),
    /// Claim a standby pod, and run a command with it or print it.
    Claim(claim::ClaimArgs),
    /// Release a claim.
    Release(claim::ReleaseArgs),
    /// Draw a JobFlow: its steps, what they wait for, and how far they are.
    Flow(flow::Args),
    /// Tell why an object is as it is now.
    Explain(explain::Args),
    /// Tell whether a cluster has what Stoker needs, and what is not well.
    Doctor(doctor::Args),
    /// Print what makes a shell complete this program's commands: `stoker completions bash > FILE`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write, look into, try and bring policies into a cluster.
    Policy(policy::Args),
    /// Try policies on a load in a simulated cluster: hours pass in seconds.
    Simulate(simulate::Args),
    /// Turn manifests of the systems that Stoker replaces into Stoker's.
    Migrate(migrate::Args),
    /// Begin an execution of a NodeBatchJob now.
    RunNow(run_now::Args),
    /// Compile the component on standard input; the operator runs this for itself, as a child with limits.
    #[command(hide = true)]
    Compile { memory_bytes: u64, cpu_seconds: u64 },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run::run(args).map(|()| ExitCode::SUCCESS),
        Command::Reports(args) => reports::reports(args).map(|()| ExitCode::SUCCESS),
        Command::Crds(args) => crds::print(&args).map(|()| ExitCode::SUCCESS),
        Command::Claim(args) => claim::claim(args),
        Command::Release(args) => claim::release(args),
        Command::Flow(args) => flow::flow(args),
        Command::Explain(args) => explain::explain(args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "stoker", &mut text);
            out::print(format_args!("{}", String::from_utf8_lossy(&text)));
            Ok(ExitCode::SUCCESS)
        }
        Command::Policy(args) => policy::policy(args),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Migrate(args) => migrate::migrate(args),
        Command::RunNow(args) => run_now::run_now(args),
        Command::Compile { memory_bytes, cpu_seconds } => {
            return stoker_operator::compile_program(memory_bytes, cpu_seconds);
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stoker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
