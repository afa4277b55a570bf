//! Ratios that were reached before, and whether they still are.

use serde::Deserialize;

use super::figures::Figures;

/// How many times what is expected a ratio may be.
const TOLERANCE: f64 = 1.15;

/// The same for CPU time with `-- --shared`, on a machine that others use too: they take away caches, from programs with
/// many threads more than from `gzip`. With others at work on both cores 1.6 times as much was seen; what is left to be found
/// there is what costs a multiple, and memory and counts, which nobody else changes.
const SHARED_TOLERANCE: f64 = 2.5;

/// What is expected, as it is kept beside the benches.
const EXPECTED: &str = include_str!("../expected.json");

/// A ratio of two measures of a case, of a build with the profile of the tests: `make bench-check` measures what `make test`
/// has built. CPU time of processes, sizes and counts do not follow what else a machine does, as
/// wall time would; and of several rounds the least counts, which is the one that was disturbed least.
#[derive(Deserialize)]
struct Expected {
    /// What was measured with: `large`, or what is made where that is not.
    catalog: String,
    case: String,
    measure: String,
    /// None for what is compared as it is: counts, and memory, which follows the catalog and the program only.
    per: Option<String>,
    ratio: f64,
}

/// Returns what is worse than expected with a catalog, as sentences. Cases that were not measured are left out.
pub fn worse(catalog: &str, figures: &Figures) -> Vec<String> {
    let expected: Vec<Expected> = serde_json::from_str(EXPECTED).expect("expectations are JSON");
    let of_catalog = expected.iter().filter(|expected| expected.catalog == catalog);
    of_catalog.filter_map(|expected| expected.worse(figures)).collect()
}

impl Expected {
    fn worse(&self, figures: &Figures) -> Option<String> {
        let Expected { case, measure, per, ratio, .. } = self;
        let mut found = figures.least(case, measure)?;
        if let Some(per) = per {
            found /= figures.least(case, per)?;
        }
        let per = per.as_ref().map(|per| format!(" / {per}")).unwrap_or_default();
        let is_shared = std::env::args().any(|argument| argument == "--shared");
        let tolerance = if is_shared && self.per.is_some() { SHARED_TOLERANCE } else { TOLERANCE };
        let most = ratio * tolerance;
        (found > most).then(|| {
            format!("{case}: {measure}{per} is {found:.3}, expected {ratio:.3}, and {most:.3} at the most")
        })
    }
}
