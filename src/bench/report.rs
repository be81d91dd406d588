//! What a measurement found, as a table for people and as one JSON object for programs. Both come from
//! the same figures.

use std::fmt;

use serde_json::{Map, Value, json};

use super::ledger::Faults;

/// Whose figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The server under test.
    Fanfare,
    /// What it is compared with.
    Baseline,
}

/// What a command found.
#[derive(Debug)]
pub struct Report {
    command: &'static str,
    /// What holds if nothing went wrong.
    claim: &'static str,
    sections: Vec<Section>,
    faults: Faults,
    failed: u64,
    first_failure: Option<String>,
    unrecovered: u64,
    warnings: Vec<String>,
}

/// Figures that belong together.
#[derive(Debug)]
pub struct Section {
    title: String,
    baseline: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    key: &'static str,
    label: &'static str,
    /// One value for each round; the median is shown.
    fanfare: Vec<f64>,
    baseline: Vec<f64>,
}

impl Section {
    /// Without figures yet; `baseline` heads the column of what is compared with.
    pub fn new(title: impl Into<String>, baseline: &'static str) -> Self {
        Self {
            title: title.into(),
            baseline,
            rows: Vec::new(),
        }
    }

    /// Adds one round's figure. Rows stand in the order of their first figure.
    pub fn note(&mut self, of: Of, key: &'static str, label: &'static str, value: Option<f64>) {
        let index = match self.rows.iter().position(|row| row.key == key) {
            Some(index) => index,
            None => {
                self.rows.push(Row {
                    key,
                    label,
                    fanfare: Vec::new(),
                    baseline: Vec::new(),
                });
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[index];
        let values = match of {
            Of::Fanfare => &mut row.fanfare,
            Of::Baseline => &mut row.baseline,
        };
        values.extend(value.filter(|value| value.is_finite()));
    }

    fn json(&self) -> Value {
        let figures = self.rows.iter().map(|row| {
            let figure = json!({
                "fanfare": median(&row.fanfare),
                "baseline": median(&row.baseline),
                "ratio": row.ratio(),
                "fanfare_rounds": row.fanfare,
                "baseline_rounds": row.baseline,
            });
            (row.key.to_owned(), figure)
        });
        json!({
            "title": self.title,
            "baseline": self.baseline,
            "figures": figures.collect::<Map<_, _>>(),
        })
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        let baseline = median(&self.baseline).filter(|baseline| *baseline != 0.0)?;
        Some(median(&self.fanfare)? / baseline)
    }
}

impl Report {
    /// Without findings yet; `claim` says what holds if nothing goes wrong.
    pub fn new(command: &'static str, claim: &'static str) -> Self {
        Self {
            command,
            claim,
            sections: Vec::new(),
            faults: Faults::default(),
            failed: 0,
            first_failure: None,
            unrecovered: 0,
            warnings: Vec::new(),
        }
    }

    /// Adds figures.
    pub fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// Adds events that did not arrive as they should have.
    pub fn add_faults(&mut self, faults: Faults) {
        self.faults = self.faults.and(faults);
    }

    /// Adds sockets that failed, and why the first did.
    pub fn add_failed(&mut self, failed: u64, why: Option<&str>) {
        self.failed += failed;
        if self.first_failure.is_none() {
            self.first_failure = why.map(str::to_owned);
        }
    }

    /// Adds subscriptions that could not be recovered.
    pub fn add_unrecovered(&mut self, unrecovered: u64) {
        self.unrecovered += unrecovered;
    }

    /// Adds what has to be said beside the figures.
    pub fn add_warnings(&mut self, warnings: Vec<String>) {
        self.warnings.extend(warnings);
    }

    /// Whether every socket opened and every event arrived exactly once and in order.
    pub fn is_sound(&self) -> bool {
        !self.faults.any() && self.failed == 0 && self.unrecovered == 0
    }

    /// All of it, for programs.
    pub fn json(&self) -> Value {
        json!({
            "command": self.command,
            "version": env!("CARGO_PKG_VERSION"),
            "debug_build": cfg!(debug_assertions),
            "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "sections": self.sections.iter().map(Section::json).collect::<Vec<_>>(),
            "faults": self.faults,
            "failed_connections": self.failed,
            "first_failure": self.first_failure,
            "unrecovered": self.unrecovered,
            "sound": self.is_sound(),
            "warnings": self.warnings,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            writeln!(f, "{}", section.title)?;
            table(f, section)?;
            writeln!(f)?;
        }
        let Faults {
            lost,
            repeated,
            out_of_order,
        } = self.faults;
        if self.is_sound() {
            writeln!(f, "{}", self.claim)?;
        } else {
            writeln!(
                f,
                "NOT SOUND: {lost} lost, {repeated} repeated, {out_of_order} out of order, \
                 {} connections failed, {} not recovered",
                self.failed, self.unrecovered
            )?;
        }
        if let Some(why) = &self.first_failure {
            writeln!(f, "the first failure: {why}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

fn table(f: &mut fmt::Formatter<'_>, section: &Section) -> fmt::Result {
    let labels = section.rows.iter().map(|row| row.label.chars().count());
    let width = labels.max().unwrap_or(0) + 2;
    let column = section.baseline.len().max(12) + 2;
    let (fanfare, ratio) = ("fanfare", "ratio");
    let baseline = section.baseline;
    writeln!(
        f,
        "  {:width$}{fanfare:>12}{baseline:>column$}{ratio:>9}",
        ""
    )?;
    for row in &section.rows {
        let cell = |value: Option<f64>| value.map_or("-".to_owned(), figure);
        let (fanfare, baseline) = (cell(median(&row.fanfare)), cell(median(&row.baseline)));
        let ratio = cell(row.ratio());
        let label = row.label;
        writeln!(
            f,
            "  {label:width$}{fanfare:>12}{baseline:>column$}{ratio:>9}"
        )?;
    }
    Ok(())
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Three digits that say something, with thousands set apart: `0.27`, `14.3`, `4,400,000`.
fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 100.0 {
        let before_point = value.abs().log10().floor().max(-4.0) as i32;
        return format!("{value:.*}", (2 - before_point).max(0) as usize);
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_show_three_digits_that_matter() {
        let shown = [
            0.0,
            0.0271,
            0.27,
            3.8,
            14.25,
            99.99,
            257_049.3,
            4_400_000.0,
            -1_234.0,
        ]
        .map(figure);
        assert_eq!(
            shown,
            [
                "0",
                "0.0271",
                "0.270",
                "3.80",
                "14.2",
                "100.0",
                "257,049",
                "4,400,000",
                "-1,234"
            ]
        );
    }

    #[test]
    fn the_median_round_is_compared_with_the_median_baseline() {
        let mut section = Section::new("a title", "raw writes");
        for (ours, raw) in [(1.0, 4.0), (9.0, 8.0), (2.0, 2.0)] {
            section.note(Of::Baseline, "cpu", "CPU", Some(raw));
            section.note(Of::Fanfare, "cpu", "CPU", Some(ours));
        }
        section.note(Of::Fanfare, "rss", "memory", None);
        let json = section.json();
        assert_eq!(json["figures"]["cpu"]["fanfare"], 2.0);
        assert_eq!(json["figures"]["cpu"]["ratio"], 0.5);
        assert_eq!(json["figures"]["rss"]["fanfare"], Value::Null);

        let mut report = Report::new("fanout", "all is well");
        report.add(section);
        assert!(report.is_sound());
        assert!(report.to_string().contains("all is well"));
        let text = report.to_string();
        assert!(
            text.contains("raw writes") && text.contains("0.500"),
            "{text}"
        );
        report.add_faults(Faults {
            lost: 7,
            ..Faults::default()
        });
        assert!(!report.is_sound());
        assert!(report.to_string().contains("NOT SOUND: 7 lost"));
        assert_eq!(report.json()["faults"]["lost"], 7);
    }
}
