//! The Prometheus text format, version 0.0.4.
//!
//! The numbers live where they are counted; a scrape reads them once and writes them here. A
//! registry of live metric objects, which the usual libraries are built around, would be a second
//! set of counters beside the first.
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;

use super::histogram::Buckets;

/// The content type of [`Exposition::finish`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family of samples is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises until the process ends; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations by size.
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Labels of one sample.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// A text in the making. Samples of one family have to follow each other.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        debug_assert!(kind != Kind::Counter || name.ends_with("_total"), "{name}");
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", kind.word());
        Family { text: &mut self.text, name }
    }

    /// A gauge or counter without labels.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: u64) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// The family that is being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: u64) -> &mut Self {
        self.line("", labels, None, &value.to_string());
        self
    }

    /// One sample that may have a fraction.
    pub fn decimal(&mut self, labels: Labels<'_>, value: f64) -> &mut Self {
        self.line("", labels, None, &value.to_string());
        self
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, labels: Labels<'_>, buckets: &Buckets) -> &mut Self {
        for (bound, count) in &buckets.at_most {
            self.line("_bucket", labels, Some(&bound.to_string()), &count.to_string());
        }
        self.line("_bucket", labels, Some("+Inf"), &buckets.count.to_string());
        self.line("_sum", labels, None, &buckets.sum_seconds.to_string());
        self.line("_count", labels, None, &buckets.count.to_string());
        self
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: &str) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let all = labels.iter().copied().chain(le.map(|le| ("le", le)));
        let mut separator = '{';
        for (name, value) in all {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{separator}{name}=\"{value}\"");
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::histogram::Histogram;
    use super::*;

    #[test]
    fn writes_what_prometheus_reads() {
        let mut text = Exposition::default();
        text.single("a_total", Kind::Counter, "Help with \\ and\nline.", 3);
        text.family("b", Kind::Gauge, "B.")
            .sample(&[("x", "1"), ("y", "a\"b\\c\nd")], 1)
            .decimal(&[("x", "2"), ("y", "")], 0.5);
        let histogram = Histogram::new(&[0.1, 1.0]);
        for milliseconds in [50, 100, 500, 5000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        text.family("c_seconds", Kind::Histogram, "C.").histogram(&[], &histogram.read());
        assert_eq!(
            text.finish(),
            "# HELP a_total Help with \\\\ and\\nline.\n# TYPE a_total counter\na_total 3\n\
             # HELP b B.\n# TYPE b gauge\n\
             b{x=\"1\",y=\"a\\\"b\\\\c\\nd\"} 1\nb{x=\"2\",y=\"\"} 0.5\n\
             # HELP c_seconds C.\n# TYPE c_seconds histogram\n\
             c_seconds_bucket{le=\"0.1\"} 2\nc_seconds_bucket{le=\"1\"} 3\n\
             c_seconds_bucket{le=\"+Inf\"} 4\nc_seconds_sum 5.65\nc_seconds_count 4\n"
        );
    }
}
