//! When and how much is ingested: the arguments of every command that follows CatalogSources.

use std::time::Duration;

use clap::Args;

use super::parse_duration;

const HEADING: &str = "Ingests";

/// When and how much is ingested.
#[derive(Args, Debug)]
pub struct IngestArgs {
    /// Ingests that run at the same time. Each takes a thread to unpack, and parses on all cores.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = parse_count, help_heading = HEADING)]
    pub concurrent_ingests: usize,

    /// How long an ingest may take. One that takes longer is given up, and tried again later.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = parse_duration, help_heading = HEADING)]
    pub ingest_timeout: Duration,

    /// The shortest spec.pollingInterval that a CatalogSource may have.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration, help_heading = HEADING)]
    pub min_polling_interval: Duration,
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=1024).contains(&count) => Ok(count),
        _ => Err("not a number from 1 to 1024".to_owned()),
    }
}
