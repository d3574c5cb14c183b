//! The table: one line per figure, shown as soon as it is known.

/// The table so far.
#[derive(Default)]
pub(crate) struct Table {
    missed: usize,
    lines: usize,
}

impl Table {
    /// A figure that has a target.
    pub(crate) fn judged(&mut self, name: &str, measured: &str, target: &str, met: bool) {
        self.missed += usize::from(!met);
        self.line(name, measured, target, if met { "ok" } else { "MISSED" });
    }

    /// A figure that is only told.
    pub(crate) fn told(&mut self, name: &str, measured: &str) {
        self.line(name, measured, "-", "");
    }

    /// Whether no target was missed.
    pub(crate) fn all_met(&self) -> bool {
        self.missed == 0
    }

    fn line(&mut self, name: &str, measured: &str, target: &str, verdict: &str) {
        if self.lines == 0 {
            println!("{:<44} {:<44} {:<12}", "figure", "measured", "target");
        }
        self.lines += 1;
        println!("{}", format!("{name:<44} {measured:<44} {target:<12} {verdict}").trim_end());
    }
}

/// The value below which `share` of the values lie; 0 of none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share).round() as usize).copied().unwrap_or(0.0)
}

/// The median; 0 of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}
