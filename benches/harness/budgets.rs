//! What serving may take, and tables in Markdown that docs/PERFORMANCE.md holds.

use super::figures::{Figures, number};

const OURS: &str = "packageserver";
const PEER: &str = "kube-apiserver";

/// What a median may be.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// In the unit of the measure.
    AtMost(f64),
    /// In terms of what the peer takes in the same run.
    OfPeer(f64),
}

impl Budget {
    /// Returns what is measured, in terms of the budget; none where it was not.
    fn found(self, figures: &Figures, case: &str, measure: &str) -> Option<f64> {
        let of = |server: &str| figures.median(case, &format!("{server}, {measure}"));
        match self {
            Budget::AtMost(_) => of(OURS),
            Budget::OfPeer(_) => Some(of(OURS)? / of(PEER)?),
        }
    }

    fn limit(self) -> f64 {
        match self {
            Budget::AtMost(limit) | Budget::OfPeer(limit) => limit,
        }
    }
}

/// Returns whether something that was measured is over its budget.
pub fn missed(figures: &Figures, budgets: &[(&str, &str, Budget)]) -> bool {
    budgets.iter().any(|(case, measure, budget)| {
        budget.found(figures, case, measure).is_some_and(|found| found > budget.limit())
    })
}

/// Returns a table of budgets and what was reached.
pub fn verdicts(figures: &Figures, budgets: &[(&str, &str, Budget)]) -> String {
    let mut lines = vec!["| what | budget | reached |".to_owned(), "|---|---|---|".to_owned()];
    for (case, measure, budget) in budgets {
        let Some(found) = budget.found(figures, case, measure) else { continue };
        let (verdict, limit) = (if found > budget.limit() { "no" } else { "yes" }, number(budget.limit()));
        let unit = match budget {
            Budget::AtMost(_) => figures.unit(case, &format!("{OURS}, {measure}")).to_owned(),
            Budget::OfPeer(_) => format!("× {PEER}"),
        };
        lines.push(format!("| {case}: {measure} | {limit} {unit} | {verdict}: {} {unit} |", number(found)));
    }
    lines.join("\n")
}

/// Returns a table of everything that was measured, what the peer took beside it: medians, with least and most.
pub fn table(figures: &Figures) -> String {
    let mut lines = vec![
        format!("| case | measure | {OURS} | least – most | {PEER} | least – most | ratio |"),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    let prefix = format!("{OURS}, ");
    for (case, measure) in figures.names() {
        let Some(what) = measure.strip_prefix(&prefix) else { continue };
        let theirs = format!("{PEER}, {what}");
        let unit = figures.unit(case, measure);
        let cells = |measure: &str| {
            let (Some(median), Some((least, most))) =
                (figures.median(case, measure), figures.range(case, measure))
            else {
                return " | ".to_owned();
            };
            format!("{} {unit} | {} – {}", number(median), number(least), number(most))
        };
        let ratio = figures.median(case, measure).zip(figures.median(case, &theirs));
        let ratio = ratio.map(|(ours, theirs)| format!("{:.3}", ours / theirs)).unwrap_or_default();
        lines.push(format!("| {case} | {what} | {} | {} | {ratio} |", cells(measure), cells(&theirs)));
    }
    lines.join("\n")
}
