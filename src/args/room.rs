//! How much is served at a time: the arguments of every command that serves.

use clap::Args;

const HEADING: &str = "Room";

/// The most that any of these may be.
const MOST: usize = 1_000_000;

/// How much is served at a time.
#[derive(Args, Clone, Copy, Debug)]
pub struct RoomArgs {
    /// Connections at a time. One more takes the place of one that is not in use, and is closed if there is none. By
    /// default 25000, or as many as the file descriptors of the process allow.
    #[arg(long, value_name = "COUNT", value_parser = parse_count, help_heading = HEADING)]
    pub max_connections: Option<usize>,

    /// Reads that are answered at a time. One more is answered with 429, as with all of these.
    #[arg(long, value_name = "COUNT", default_value_t = 400, value_parser = parse_count, help_heading = HEADING)]
    pub max_requests_inflight: usize,

    /// Writes that are answered at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = parse_count, help_heading = HEADING)]
    pub max_mutating_requests_inflight: usize,

    /// Watches at a time. Administrators (system:masters) are counted by none of these.
    #[arg(long, value_name = "COUNT", default_value_t = 20_000, value_parser = parse_count, help_heading = HEADING)]
    pub max_watches: usize,

    /// Watches of one user at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = parse_count, help_heading = HEADING)]
    pub max_watches_per_user: usize,
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=MOST).contains(&count) => Ok(count),
        _ => Err(format!("not a number from 1 to {MOST}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_limits_too() {
        for (text, expected) in [
            ("0", None),
            ("1", Some(1)),
            ("1000000", Some(1_000_000)),
            ("1000001", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(parse_count(text).ok(), expected, "{text}");
        }
    }
}
