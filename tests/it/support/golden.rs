//! Text made comparable: what differs from run to run is replaced, after a look whether it is what it should be.

use jiff::Timestamp;

/// Replaces ages, versions, uids and times, and makes the space between columns the same everywhere.
pub fn golden(text: &str) -> String {
    text.lines().map(|line| columns(&field(line)) + "\n").collect()
}

/// Replaces the value of a field that is never the same.
fn field(line: &str) -> String {
    let Some((name, value)) = line.split_once(':') else { return line.to_owned() };
    let field = name.trim().trim_start_matches("- ").trim_matches('"').to_ascii_lowercase().replace(' ', "");
    let bare = value.trim().trim_end_matches(',').trim_matches('"');
    let (is_right, shown) = match &*field {
        "uid" => (uuid::Uuid::parse_str(bare).is_ok(), "<uid>"),
        "resourceversion" => (bare.parse::<u64>().is_ok_and(|version| version > 1000), "<version>"),
        "creationtimestamp" | "latestimagepoll" | "lasttransitiontime" | "startedat" | "completedat" => {
            (bare.parse::<Timestamp>().is_ok(), "<time>")
        }
        "bytesread" => (bare.parse::<u64>().is_ok(), "<bytes>"),
        _ => return line.to_owned(),
    };
    assert!(is_right, "{shown} is {bare:?} in {line:?}");
    line.replacen(bare, shown, 1)
}

/// Replaces ages, and runs of spaces between words; the indentation stays.
fn columns(line: &str) -> String {
    let indentation = line.len() - line.trim_start().len();
    let (indentation, rest) = line.split_at(indentation);
    let mut words = Vec::new();
    for word in rest.split("  ").map(str::trim).filter(|word| !word.is_empty()) {
        words.push(if is_age(word) { "<age>" } else { word });
    }
    format!("{indentation}{}", words.join("  "))
}

/// Returns whether a word is an age as kubectl prints it, of something that was made by this test: seconds or minutes.
fn is_age(word: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match word.split_once('m') {
        Some((minutes, "")) => number(minutes),
        Some((minutes, seconds)) => number(minutes) && seconds.strip_suffix('s').is_some_and(number),
        None => word.strip_suffix('s').is_some_and(number),
    }
}
