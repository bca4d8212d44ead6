//! `stoker`: the operator and its tools.

mod crds;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Print the custom resource definitions as YAML.
    Crds(crds::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Crds(args) => crds::print(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stoker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
