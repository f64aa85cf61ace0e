//! Prometheus' text format, version 0.0.4. It knows no metric.

use std::fmt::{Display, Write as _};

/// The sorts of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Grows only.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in parts.
    Histogram,
}

/// A page of metrics.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    /// Begins a metric; the samples that follow are its own.
    pub(crate) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.name = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Adds a value of the metric, under its name and a suffix.
    pub(crate) fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let before = if n == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(text));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }

    pub(crate) fn text(self) -> String {
        self.text
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{Exposition, Kind};

    #[test]
    fn a_page_is_as_the_format_has_it() {
        let mut page = Exposition::default();
        page.family("runs_total", Kind::Counter, "Runs.");
        page.sample("", &[("script", "a\"b\\c\nd"), ("reason", "")], 3);
        page.family("up", Kind::Gauge, "Up.");
        page.sample("", &[], 0.5);
        let expected = "# HELP runs_total Runs.\n# TYPE runs_total counter\n\
             runs_total{script=\"a\\\"b\\\\c\\nd\",reason=\"\"} 3\n\
             # HELP up Up.\n# TYPE up gauge\nup 0.5\n";
        assert_eq!(page.text(), expected);
    }
}
