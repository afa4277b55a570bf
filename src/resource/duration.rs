//! Durations as Go writes them: `45m`, `1h30m`, `1.5h`.

use std::time::Duration;

/// A text that is not a duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a duration such as `45m` or `1h30m`")]
pub struct InvalidDuration(pub String);

/// Units, longest spelling first so that `ms` is not read as `m`.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// Reads a duration in Go's notation: numbers, each with a unit, added up. A plain `0` needs no unit.
///
/// # Errors
///
/// [`InvalidDuration`] for anything else; negative durations too, because nothing here can take one.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(invalid)?;
        seconds += number * factor;
        rest = &rest[unit.len()..];
        if rest.is_empty() {
            return Duration::try_from_secs_f64(seconds).map_err(|_| invalid());
        }
    }
}

/// Writes a duration in Go's notation, in the largest unit that it is a multiple of.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (duration.subsec_millis(), seconds) {
        (0, 0) => "0s".to_owned(),
        (0, _) if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        (0, _) if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        (0, _) => format!("{seconds}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "250ms", "1500ms", "90s", "1m", "45m", "90m", "2h"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, seconds) in
            [("45m", 2700.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("90s", 90.0), ("250ms", 0.25)]
        {
            assert_eq!(parse_duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for text in
            ["", "45", "m", "-5m", "5 m", "1d", "1h-5m", ".m", "1..5s", "1e9h", "99999999999999999999h"]
        {
            assert_eq!(parse_duration(text), Err(InvalidDuration(text.to_owned())), "{text}");
        }
    }
}
