//! Prometheus's text format, version 0.0.4: families in the order written, each with its help.

use std::fmt::{Display, Write as _};

use super::latency::LatencyTotals;

/// As Prometheus wants the page announced.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Default)]
pub(super) struct Exposition(String);

/// Writing to a string cannot fail.
macro_rules! put {
    ($out:expr, $($arguments:tt)*) => {
        let _infallible = writeln!($out, $($arguments)*);
    };
}

impl Exposition {
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        put!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A family of one series.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        put!(self.0, "{name} {value}");
    }

    /// Labels in alphabetical order, as etcd's own page has them.
    pub(super) fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = Labels(labels);
        put!(self.0, "{name}{{{labels}}} {value}");
    }

    /// `counts[i]` are observations in the bucket up to `bounds[i]` alone; the last one has no bound.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        let comma = if labels.is_empty() { "" } else { "," };
        let shown = Labels(labels);
        let mut total = 0;
        for (bound, count) in bounds.iter().zip(counts) {
            total += count;
            put!(self.0, "{name}_bucket{{{shown}{comma}le=\"{bound}\"}} {total}");
        }
        total += counts.get(bounds.len()).copied().unwrap_or_default();
        put!(self.0, "{name}_bucket{{{shown}{comma}le=\"+Inf\"}} {total}");
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        put!(self.0, "{name}_sum{open}{shown}{close} {sum}");
        put!(self.0, "{name}_count{open}{shown}{close} {total}");
    }

    /// `bounds` in nanoseconds, and among those that are recorded.
    pub(super) fn latency(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bounds: &[u64],
        latency: &LatencyTotals,
    ) {
        let seconds: Vec<f64> = bounds.iter().map(|bound| *bound as f64 / 1e9).collect();
        self.histogram(name, labels, &seconds, &latency.within(bounds), latency.seconds());
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{name}=\"")?;
            for character in value.chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    other => f.write_char(other)?,
                }
            }
            f.write_char('"')?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_adds_up_and_labels_are_escaped() {
        let mut page = Exposition::default();
        page.family("h", Kind::Histogram, "Help.");
        page.histogram("h", &[("a", "x\"y\\\n")], &[0.5, 1.0], &[1, 2, 3], 7.5);
        page.histogram("bare", &[], &[1.0], &[1, 0], 0.25);
        assert_eq!(
            page.finish(),
            "# HELP h Help.\n# TYPE h histogram\n\
             h_bucket{a=\"x\\\"y\\\\\\n\",le=\"0.5\"} 1\n\
             h_bucket{a=\"x\\\"y\\\\\\n\",le=\"1\"} 3\n\
             h_bucket{a=\"x\\\"y\\\\\\n\",le=\"+Inf\"} 6\n\
             h_sum{a=\"x\\\"y\\\\\\n\"} 7.5\n\
             h_count{a=\"x\\\"y\\\\\\n\"} 6\n\
             bare_bucket{le=\"1\"} 1\nbare_bucket{le=\"+Inf\"} 1\nbare_sum 0.25\nbare_count 1\n"
        );
    }
}
