//! Figures: samples by case and measure, their median and range, on the terminal and as JSON.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What was measured.
#[derive(Default)]
pub struct Figures {
    rows: Vec<Row>,
}

struct Row {
    case: String,
    measure: String,
    unit: &'static str,
    samples: Vec<f64>,
}

impl Figures {
    /// Adds a sample.
    pub fn add(&mut self, case: &str, measure: &str, unit: &'static str, sample: f64) {
        let is_it = |row: &&mut Row| row.case == case && row.measure == measure;
        match self.rows.iter_mut().find(is_it) {
            Some(row) => row.samples.push(sample),
            None => {
                let (case, measure) = (case.to_owned(), measure.to_owned());
                self.rows.push(Row { case, measure, unit, samples: vec![sample] });
            }
        }
    }

    /// Adds for each round the ratio of two measures of it: what disturbs a round disturbs both.
    pub fn ratio(&mut self, measure: &str, of: (&str, &str), to: (&str, &str)) {
        let (Some(above), Some(below)) = (self.samples(of), self.samples(to)) else { return };
        let ratios: Vec<_> = above.iter().zip(below).map(|(above, below)| above / below).collect();
        for ratio in ratios {
            self.add(of.0, measure, "x", ratio);
        }
    }

    /// Returns the median of what was measured, if it was.
    pub fn median(&self, case: &str, measure: &str) -> Option<f64> {
        self.samples((case, measure)).map(median)
    }

    /// Returns the least of what was measured, if it was.
    pub fn least(&self, case: &str, measure: &str) -> Option<f64> {
        self.samples((case, measure)).map(|samples| samples.iter().copied().fold(f64::INFINITY, f64::min))
    }

    /// Returns the least and the most of what was measured, if it was.
    pub fn range(&self, case: &str, measure: &str) -> Option<(f64, f64)> {
        self.samples((case, measure)).map(range)
    }

    /// Returns the unit of a measure; nothing for what was not measured.
    pub fn unit(&self, case: &str, measure: &str) -> &'static str {
        let row = self.rows.iter().find(|row| row.case == case && row.measure == measure);
        row.map_or("", |row| row.unit)
    }

    /// Returns what was measured, in the order of the first samples.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rows.iter().map(|row| (&*row.case, &*row.measure))
    }

    fn samples(&self, (case, measure): (&str, &str)) -> Option<&[f64]> {
        let row = self.rows.iter().find(|row| row.case == case && row.measure == measure)?;
        Some(&row.samples)
    }

    /// Returns a table for people, cases together.
    pub fn table(&self) -> String {
        let mut cases: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !cases.contains(&&*row.case) {
                cases.push(&row.case);
            }
        }
        let mut lines = vec![format!(
            "{:<34} {:<34} {:>10} {:>10} {:>10}  {:<5} {:>3}",
            "case", "measure", "median", "min", "max", "unit", "n"
        )];
        for case in cases {
            for row in self.rows.iter().filter(|row| row.case == case) {
                let (least, most) = range(&row.samples);
                let (median, least, most) = (number(median(&row.samples)), number(least), number(most));
                lines.push(format!(
                    "{case:<34} {:<34} {median:>10} {least:>10} {most:>10}  {:<5} {:>3}",
                    row.measure,
                    row.unit,
                    row.samples.len()
                ));
            }
        }
        lines.join("\n")
    }

    /// Writes everything into `bench/<name>.json` of the target directory, and returns where that is.
    pub fn write(&self, name: &str) -> PathBuf {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let path = directory().join(format!("{name}.json"));
        let text =
            serde_json::to_string_pretty(&json!({ "figures": rows })).expect("plain data can be written");
        fs::write(&path, text + "\n").expect("figures can be written");
        path
    }
}

impl Row {
    fn json(&self) -> Value {
        let (least, most) = range(&self.samples);
        json!({
            "case": self.case, "measure": self.measure, "unit": self.unit,
            "median": median(&self.samples), "min": least, "max": most, "samples": self.samples,
        })
    }
}

/// Returns where benches keep what they make, under the target directory.
pub fn directory() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_packageserver"));
    let target = program.ancestors().nth(2).expect("programs lie in a directory of the target directory");
    let directory = target.join("bench");
    fs::create_dir_all(&directory).expect("a directory can be made");
    directory
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn range(samples: &[f64]) -> (f64, f64) {
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    (least, samples.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// Three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
