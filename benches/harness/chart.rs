//! A chart of figures against the size of catalogs, as SVG: no more than lines, points and labels.

use std::fmt::Write;

/// Measures of some cases against their size.
pub struct Chart<'a> {
    pub title: &'a str,
    /// The unit of the measures.
    pub unit: &'a str,
    /// A name, and for each case its size and the measure.
    pub lines: Vec<(&'a str, Vec<(f64, f64)>)>,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;

/// Room around the lines for axes and labels.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 44.0;

/// Colours that are told apart also by those who see fewer of them.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#999999"];

/// Draws charts beside each other. `sizes` says what their sizes are.
pub fn svg(charts: &[Chart<'_>], sizes: &str) -> String {
    let width = WIDTH * charts.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (number, chart) in charts.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate({} 0)\">", WIDTH * number as f64);
        chart.draw(sizes, &mut out);
        out.push_str("</g>\n");
    }
    out + "</svg>\n"
}

impl Chart<'_> {
    fn draw(&self, sizes: &str, out: &mut String) {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let largest = round_up(points().map(|point| point.0).fold(0.0, f64::max));
        let most = round_up(points().map(|point| point.1).fold(0.0, f64::max));
        let x = |size: f64| LEFT + size / largest * (WIDTH - LEFT - RIGHT);
        let y = |measure: f64| HEIGHT - BOTTOM - measure / most * (HEIGHT - TOP - BOTTOM);
        let mut texts = String::new();
        let mut text = |at: (f64, f64), anchor: &str, colour: &str, text: &str| {
            let (x, y) = at;
            let _ = writeln!(
                texts,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
            );
        };
        text((LEFT, 18.0), "start", "#000000", &format!("{}, {}", self.title, self.unit));
        text((WIDTH - RIGHT, HEIGHT - 8.0), "end", "#000000", sizes);
        for step in 0..=4 {
            let part = f64::from(step) / 4.0;
            text((LEFT - 6.0, y(most * part) + 4.0), "end", "#333333", &short(most * part));
            text((x(largest * part), HEIGHT - BOTTOM + 16.0), "middle", "#333333", &short(largest * part));
        }
        for (number, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            text((LEFT + 8.0 + 130.0 * number as f64, 34.0), "start", colour, name);
            let mut sorted = points.clone();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            let path: Vec<_> =
                sorted.iter().map(|(size, of)| format!("{:.1},{:.1}", x(*size), y(*of))).collect();
            let path = path.join(" ");
            let _ = writeln!(out, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\"/>");
            for (size, of) in &sorted {
                let (x, y) = (x(*size), y(*of));
                let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
        for step in 0..=4 {
            let y = y(most * f64::from(step) / 4.0);
            let end = WIDTH - RIGHT;
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{end}\" y2=\"{y:.1}\" stroke=\"#dddddd\" stroke-width=\"0.5\"/>"
            );
        }
        out.push_str(&texts);
    }
}

/// Returns the next number that is easily cut in four.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(f64::MIN_POSITIVE).log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|round| *round >= value).unwrap_or(10.0 * power)
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
