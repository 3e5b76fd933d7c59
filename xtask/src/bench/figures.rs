//! Samples by system and figure, and how they are told.

use anyhow::Result;
use serde::Serialize;

#[derive(Default)]
pub struct Figures {
    /// In the order in which they were first measured.
    series: Vec<Series>,
}

struct Series {
    system: &'static str,
    figure: &'static str,
    unit: &'static str,
    samples: Vec<f64>,
}

/// One line of `--json`.
#[derive(Debug, PartialEq, Serialize)]
struct Line {
    system: &'static str,
    figure: &'static str,
    unit: &'static str,
    min: f64,
    median: f64,
    max: f64,
}

pub const DIRECT: &str = "direct";
pub const KEDGE: &str = "kedge";

impl Figures {
    pub fn add(
        &mut self,
        system: &'static str,
        figure: &'static str,
        unit: &'static str,
        sample: f64,
    ) {
        let known = self
            .series
            .iter_mut()
            .find(|s| s.system == system && s.figure == figure);
        match known {
            Some(series) => series.samples.push(sample),
            None => self.series.push(Series {
                system,
                figure,
                unit,
                samples: vec![sample],
            }),
        }
    }

    /// A ratio and both of its sides.
    pub fn add_pair(&mut self, pair: Pair, direct: f64, kedge: f64) {
        self.add(DIRECT, pair.figure, pair.unit, direct);
        self.add(KEDGE, pair.figure, pair.unit, kedge);
        self.add(KEDGE, pair.ratio, "ratio to direct", kedge / direct);
    }

    pub fn print_json(&self) -> Result<()> {
        for series in &self.series {
            println!("{}", serde_json::to_string(&series.line())?);
        }
        Ok(())
    }

    pub fn print_table(&self) -> Result<()> {
        println!(
            "{:7} {:24} {:>12} {:>12} {:>12}  unit",
            "system", "figure", "min", "median", "max"
        );
        for line in self.series.iter().map(Series::line) {
            println!(
                "{:7} {:24} {:>12.3} {:>12.3} {:>12.3}  {}",
                line.system, line.figure, line.min, line.median, line.max, line.unit
            );
        }
        Ok(())
    }
}

/// Names of what is measured on both sides.
#[derive(Clone, Copy)]
pub struct Pair {
    pub figure: &'static str,
    pub unit: &'static str,
    pub ratio: &'static str,
}

impl Series {
    fn line(&self) -> Line {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        Line {
            system: self.system,
            figure: self.figure,
            unit: self.unit,
            min: sorted[0],
            median: median(&sorted),
            max: sorted[sorted.len() - 1],
        }
    }
}

/// Of a sorted sample that is not empty.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_told_by_its_extremes_and_its_middle() {
        let mut figures = Figures::default();
        for sample in [3.0, 1.0, 2.0] {
            figures.add(KEDGE, "idle_mib", "MiB", sample);
        }
        let line = figures.series[0].line();
        assert_eq!((line.min, line.median, line.max), (1.0, 2.0, 3.0));
        figures.add(KEDGE, "idle_mib", "MiB", 4.0);
        assert_eq!(figures.series[0].line().median, 2.5);
    }
}
