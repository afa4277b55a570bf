//! The `packageserver` program; see [`packageserver`].

use std::process::ExitCode;

use clap::Parser;
use packageserver::args::Cli;

fn main() -> ExitCode {
    packageserver::runtime::run(Cli::parse())
}
