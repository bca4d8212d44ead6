//! `stoker policy`: policies are written, looked at, tried and brought into a cluster.

mod bench;
mod build;
mod call;
mod cases;
mod component;
mod fields;
mod inspect;
mod near;
mod new;
mod push;
mod replay;
mod shape;
mod test;

use std::process::ExitCode;

pub use component::Component;

use clap::{Args as ClapArgs, Subcommand};

#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new policy: a crate that builds at once, with tests.
    New(new::Args),
    /// Build a policy's crate into a component.
    Build(build::Args),
    /// Tell what a component is: its name, what it decides, what it needs, its digest.
    Inspect(inspect::Args),
    /// Ask a component the cases of a file, and compare its answers with what is expected.
    Test(test::Args),
    /// Measure what a decision costs: time, instructions, memory.
    Bench(bench::Args),
    /// Put a component into a ConfigMap of the cluster.
    Push(push::Args),
    /// Ask recorded decisions again, of the same component or of another.
    Replay(replay::Args),
}

pub fn policy(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::New(args) => new::new(&args).map(|()| ExitCode::SUCCESS),
        Command::Build(args) => build::build(&args).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::inspect(&args).map(|()| ExitCode::SUCCESS),
        Command::Test(args) => test::test(&args),
        Command::Bench(args) => bench::bench(&args).map(|()| ExitCode::SUCCESS),
        Command::Push(args) => push::push(args).map(|()| ExitCode::SUCCESS),
        Command::Replay(args) => replay::replay(&args),
    }
}
